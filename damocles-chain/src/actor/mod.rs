//! Domain calls as actor messages, and what actors answer.
//!
//! The parameters are those of builtin-actors v18, the actors of network version 28.

mod commit;
mod decode;
mod encode;
mod limits;
mod miner;
mod post;
mod read;
mod sectors;
mod version;

pub(crate) use decode::created_miner;
pub use decode::{ReturnError, decode_return};
pub use encode::{ActorCall, EncodeError, encode};
pub use limits::LimitError;
pub use read::{decode_call, decode_message};
pub use version::{ActorsVersion, UnknownNetworkVersion};
