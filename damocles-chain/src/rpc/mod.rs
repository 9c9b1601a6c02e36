//! Lotus' JSON-RPC over HTTP, and its channels over WebSocket.

mod client;
mod duplex;
mod endpoint;
mod envelope;
mod error;
mod feed;
mod service;
mod tls;

pub use client::RpcClient;
pub(crate) use client::{is_missing_block, is_unknown_method};
pub(crate) use duplex::Duplex;
pub use endpoint::{Endpoint, EndpointError};
pub use error::RpcError;
pub(crate) use feed::{Feed, FeedError};
pub use service::Wire;
pub(crate) use service::{Service, ServiceName};
