//! Domain calls as actor messages.
//!
//! The parameters are those of builtin-actors v18, the actors of network version 28.

mod decode;
mod encode;
mod read;

pub(crate) use decode::created_miner;
pub(crate) use encode::{ActorCall, encode};
pub use read::decode_call;
