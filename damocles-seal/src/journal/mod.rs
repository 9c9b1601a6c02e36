//! What happened to a sector, durably.
