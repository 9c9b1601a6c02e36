//! The manager's side: allocator, sealing service, and both of them over JSON-RPC.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a helper that fails ends its test, which is what a test is for"
)]

mod allocator;
mod manager;
mod pieces;
mod rpc;
mod support;
mod workers;
