//! The scheduler and its loop over a chain in memory.

mod conformance;
mod crash;
mod fulfil;
mod harness;
mod period;
mod recover;
