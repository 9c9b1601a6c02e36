//! sophon-gateway: through it a cluster reaches those who hold sectors and keys.
//!
//! Calls go the wrong way round: whoever serves connects to the gateway, subscribes, and is sent requests over the
//! subscription's channel. Answers go back over the same connection, because a gateway knows its requests in memory
//! only and there may be several of them behind one address.

mod config;
mod event;
mod link;
mod proof;
mod wallet;

pub use config::GatewayConfig;
#[cfg(feature = "testing")]
pub(super) use event::{ConnectedCompleted, INIT_CONNECT, RequestEvent, ResponseEvent};
pub use link::GatewayLink;
pub use proof::{WinningProver, WinningRequest, WinningSector};
pub use wallet::WalletLink;
