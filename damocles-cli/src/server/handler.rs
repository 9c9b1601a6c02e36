//! What a server is given to serve.

use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use damocles_core::CancellationToken;
use damocles_seal::rpc::{Caller, CallerError};
use futures::{Sink, Stream};
use std::{fmt, path::PathBuf, pin::Pin, sync::Arc};

/// The headers that mean something to a handler.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RequestHeaders {
    /// `X-Damocles-Fence`: the fence of the caller's lease.
    pub fence: Option<u64>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// `X-Damocles-Store`: the store that the caller works for.
    pub store: Option<String>,
}

impl RequestHeaders {
    /// Takes what is there. A fence or a key that cannot be read is refused: acting without it would not be fenced, or
    /// would be done again.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, CallerError> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        // Neither may be empty, so that what is no text is refused with them.
        let caller = Caller::from_headers(|name| headers.get(name).map(|v| v.to_str().unwrap_or_default()))?;
        let bearer = text(header::AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Bearer ").map(str::to_owned));
        let fence = caller.fence.map(|fence| fence.0);
        Ok(Self { fence, idempotency_key: caller.idempotency_key, bearer, store: text("x-damocles-store") })
    }
}

impl fmt::Debug for RequestHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHeaders")
            .field("fence", &self.fence)
            .field("idempotency_key", &self.idempotency_key)
            .field("bearer", &self.bearer.as_ref().map(|_| ".."))
            .field("store", &self.store)
            .finish()
    }
}

/// Answers JSON-RPC requests.
#[async_trait]
pub trait RpcHandler: Send + Sync + 'static {
    /// Answers one body, a request or a batch; `None` when there were only notifications.
    async fn handle(&self, headers: &RequestHeaders, body: String) -> Option<String>;
}

/// The texts that a WebSocket peer sends. It ends when the peer is gone or the server ends.
pub type WsIncoming = Pin<Box<dyn Stream<Item = String> + Send>>;

/// Takes texts for a WebSocket peer.
pub type WsOutgoing = Pin<Box<dyn Sink<String, Error = axum::Error> + Send>>;

/// Serves WebSocket connections.
#[async_trait]
pub trait WsHandler: Send + Sync + 'static {
    /// Serves one connection until it ends. `cancel` fires when the server ends.
    async fn serve(
        &self,
        headers: RequestHeaders,
        incoming: WsIncoming,
        outgoing: WsOutgoing,
        cancel: CancellationToken,
    );
}

/// Makes a text.
pub type TextSource = Arc<dyn Fn() -> futures::future::BoxFuture<'static, String> + Send + Sync>;

/// Finds the file behind a name; the name is whatever a caller wrote, so it must not be joined to a path unchecked.
pub type FileLookup = Arc<dyn Fn(&str) -> Option<PathBuf> + Send + Sync>;
