//! The Venus client, its messager and its gateway on loopback.

#![cfg(all(feature = "devnet", feature = "testing"))]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails ends its test, which is what a test is for"
)]

mod client;
mod crash;
mod gateway;
mod messager;
mod setup;
mod trouble;
