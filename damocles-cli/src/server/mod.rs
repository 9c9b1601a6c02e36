//! The one server of both programs: JSON-RPC over HTTP and WebSocket, and files, on loopback or on a Unix socket.
//!
//! It carries texts and knows none of the methods: handlers are given as [`RpcHandler`] and [`WsHandler`].

mod error;
mod files;
mod handler;
mod http;
mod rpc;
mod unix;
mod ws;

#[cfg(test)]
mod tests;

pub use error::{LOOPBACK_HINT, ServerError};
pub use handler::{FileLookup, RequestHeaders, RpcHandler, TextSource, WsHandler, WsIncoming, WsOutgoing};
pub use http::{BODY_LIMIT, Routes, Server};
pub use unix::{CONTROL_PATH, UnixClient, UnixServer, default_run_dir, socket_path};
