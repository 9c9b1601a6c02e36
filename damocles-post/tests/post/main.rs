//! The scheduler and its loop over a chain in memory.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

mod conformance;
mod crash;
mod fulfil;
mod harness;
mod period;
mod recover;
