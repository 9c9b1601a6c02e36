//! The client against nodes on loopback: scripted ones that answer rubbish, and the devnet.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails ends its test, which is what a test is for"
)]

#[cfg(feature = "devnet")]
mod devnet;
mod methods;
mod node;
mod rubbish;
mod server;
mod setup;
mod several;
mod socket;
