//! The devnet, driven through messages.
#![cfg(feature = "devnet")]

mod harness;
mod life;
mod money;
mod pool;
mod restart;
mod rpc;
