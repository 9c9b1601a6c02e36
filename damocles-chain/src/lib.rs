#![doc = include_str!("../README.md")]

mod actor;
#[cfg(feature = "devnet")]
pub mod devnet;
mod heads;
pub mod lotus_json;
pub mod rpc;
pub mod signer;
