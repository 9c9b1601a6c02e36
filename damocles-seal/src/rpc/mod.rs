//! The wire between workers and managers: JSON-RPC 2.0, the incumbent's `Venus.*` and our `Damocles.*`.
//!
//! The dispatch is a handler that whoever listens mounts; the client speaks HTTP.

mod caller;
mod client;
mod code;
pub mod damocles;
mod dispatch;
mod envelope;
mod method;
mod service;
mod transport;
pub mod venus;
mod venus_dispatch;

pub use caller::{Caller, CallerError, FENCE_HEADER, IDEMPOTENCY_HEADER};
pub use client::{CallObserver, CallResult, RpcClient, RpcOptions};
pub use dispatch::manager_handler;
pub use method::Method;
pub use service::{RpcService, WorkerIdentity};

pub(crate) use client::CallError;
