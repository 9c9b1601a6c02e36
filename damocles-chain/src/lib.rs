#![doc = include_str!("../README.md")]

mod actor;
mod client;
#[cfg(feature = "devnet")]
pub mod devnet;
mod heads;
pub mod lotus_json;
mod outbox;
pub mod rpc;
pub mod signer;

pub use client::{LotusClient, LotusConfig};
pub use outbox::{Limits, OutboxEntry, OutboxState, Senders};

pub use actor::decode_call;
