//! Lotus' JSON-RPC over HTTP and WebSocket, of one node or of several.

mod agreement;
mod api_info;
mod cache;
mod check;
mod client;
mod duplex;
mod endpoint;
mod envelope;
mod error;
mod feed;
mod health;
mod http;
mod identity;
mod method;
mod metrics;
mod node;
mod options;
mod service;
mod socket;
mod tls;
mod transport;
mod ws;

pub use client::RpcClient;
pub(crate) use client::{HeadFeed, is_missing_block, is_timeout, is_unknown_method};
pub(crate) use duplex::Duplex;
pub use endpoint::{Endpoint, EndpointError, Transport};
pub use error::{RpcCode, RpcError};
pub(crate) use feed::{Feed, FeedError};
pub use health::{EndpointHealth, HealthState};
pub use metrics::{EndpointMetrics, MethodMetrics, RpcMetrics};
pub use options::{Agreement, RpcOptions, Timeouts};
pub use service::Wire;
pub(crate) use service::{Service, ServiceName};
