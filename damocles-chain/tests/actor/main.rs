//! Calls as actors take them: recorded bytes, an encoding written by hand, bounds, and what comes back.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails ends its test, which is what a test is for"
)]

mod bounds;
mod by_hand;
mod known;
mod returns;
mod round_trip;
mod samples;
mod vectors;
