//! Requests over HTTP.

use super::{
    Endpoint, Feed, FeedError, RpcError,
    envelope::{self, start_of},
    tls,
};
use crate::lotus_json::{Lotus, LotusJson};
use damocles_core::chain::{ChainError, ChainErrorKind};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The largest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
const CONNECT: Duration = Duration::from_secs(10);
const QUICK: Duration = Duration::from_secs(30);
/// For what makes a node run messages or walk the chain.
const SLOW: Duration = Duration::from_secs(120);

/// A node's JSON-RPC. Each call has a timeout and a limit on its answer.
pub struct RpcClient {
    endpoint: Endpoint,
    http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
    next_id: AtomicU64,
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RpcClient").field(&self.endpoint).finish()
    }
}

impl RpcClient {
    /// A client of a node. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The token cannot be a header, or TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, ChainError> {
        let failed = || ChainError::new(ChainErrorKind::Rejected, "set up client").with("endpoint", &endpoint);
        let tls = tls::config().map_err(|e| failed().because(e))?;
        let mut headers = HeaderMap::new();
        if let Some(token) = endpoint.authorization() {
            let mut value = HeaderValue::from_str(&token).map_err(|e| failed().because(e))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            .default_headers(headers)
            .connect_timeout(CONNECT)
            // A redirect would carry the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| failed().because(e))?;
        Ok(Self { endpoint, http, tls, next_id: AtomicU64::new(1) })
    }

    /// The node.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Calls `Filecoin.<method>` and reads the answer.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, answers an error ([`RpcError::of`]), or answers what is not of type `T`.
    pub async fn call<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T, ChainError> {
        let result = self.raw(&format!("Filecoin.{method}"), params).await.map_err(|e| e.with("method", method))?;
        let start = || start_of(result.to_string().as_bytes());
        T::deserialize(&result).map_err(|e| {
            self.error(ChainErrorKind::Malformed, "read answer")
                .with("method", method)
                .with("answer", start())
                .because(e)
        })
    }

    /// [`RpcClient::call`] for a type with a form of its own.
    ///
    /// # Errors
    ///
    /// As [`RpcClient::call`].
    pub async fn call_form<T: LotusJson>(&self, method: &'static str, params: Value) -> Result<T, ChainError> {
        self.call::<Lotus<T>>(method, params).await.map(|value| value.0)
    }

    /// Calls a method by its full name and gives its result as it is.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, answers an error or no JSON-RPC.
    pub async fn raw(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let sent = self.http.post(self.endpoint.http().clone()).timeout(timeout_of(method)).json(&request).send().await;
        let response = sent.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        let body = self.body_of(response).await?;
        match envelope::read(&body) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(error.into_chain_error("ask node").with("endpoint", &self.endpoint)),
            Err(_) if matches!(status.as_u16(), 401 | 403) => Err(self
                .error(ChainErrorKind::Unavailable, "ask node")
                .with("status", status.as_u16())
                .hint_with("check the token of the endpoint: the node refuses it or wants one")),
            Err(e) => Err(self.error(ChainErrorKind::Malformed, "ask node").with("status", status.as_u16()).because(e)),
        }
    }

    async fn body_of(&self, mut response: reqwest::Response) -> Result<Vec<u8>, ChainError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.unreachable(e))? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(self.error(ChainErrorKind::Malformed, "ask node").with("answer", "more than 64 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Opens `ChainNotify`.
    pub(crate) async fn head_feed(&self) -> Result<Feed, FeedError> {
        tokio::time::timeout(QUICK, Feed::open(&self.endpoint, Arc::clone(&self.tls)))
            .await
            .unwrap_or_else(|e| Err(FeedError::Lost(self.error(ChainErrorKind::Unavailable, "subscribe").because(e))))
    }

    fn unreachable(&self, error: reqwest::Error) -> ChainError {
        self.error(ChainErrorKind::Unavailable, "ask node").because(error.without_url())
    }

    fn error(&self, kind: ChainErrorKind, op: &'static str) -> ChainError {
        ChainError::new(kind, op).with("endpoint", &self.endpoint)
    }
}

fn timeout_of(method: &str) -> Duration {
    const SLOW_METHODS: [&str; 6] = [
        "StateSearchMsg",
        "StateReplay",
        "StateCall",
        "GasEstimateMessageGas",
        "StateMinerSectors",
        "StateMinerActiveSectors",
    ];
    let name = method.rsplit('.').next().unwrap_or(method);
    if SLOW_METHODS.contains(&name) { SLOW } else { QUICK }
}

/// Whether an error says that the node lacks a part of the chain.
pub(crate) fn is_missing_block(error: &ChainError) -> bool {
    RpcError::of(error).is_some_and(RpcError::is_missing_block)
}

/// Whether an error says that the node does not know the method.
pub(crate) fn is_unknown_method(error: &ChainError) -> bool {
    RpcError::of(error).is_some_and(RpcError::is_unknown_method)
}
