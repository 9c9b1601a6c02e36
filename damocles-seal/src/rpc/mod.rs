//! The wire between workers and managers.
