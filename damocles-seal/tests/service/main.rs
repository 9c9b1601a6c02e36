//! The manager's side: allocator, sealing service, and both of them over JSON-RPC.

mod allocator;
mod manager;
mod rpc;
mod support;
