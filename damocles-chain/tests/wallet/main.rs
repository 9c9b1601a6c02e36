//! The wallet: its file, what it signs, and signing for other machines.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails ends its test, which is what a test is for"
)]

mod at_rest;
mod limits;
mod node;
mod remote;
mod server;
mod setup;
mod unlocking;
mod vectors;
