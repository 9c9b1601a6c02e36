//! The stages of a plan.
