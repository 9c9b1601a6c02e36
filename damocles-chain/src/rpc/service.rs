//! The services around a Venus node: go-jsonrpc with a namespace of its own in each method and in a header.

use super::{
    Endpoint,
    duplex::{Duplex, Lost},
    envelope::{self, start_of},
    metrics::TimedOut,
    tls,
};
use damocles_core::chain::{ChainError, ChainErrorKind};
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
};
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
use tokio::sync::mpsc;

/// The header by which a gateway knows which service a request is for.
const NAMESPACE: HeaderName = HeaderName::from_static("x-venus-api-namespace");
/// The path of a node's API, which endpoints have that name none.
const NODE_PATH: &str = "/rpc/v1";
const CONNECT: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 8 << 20;

/// What tells one service from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServiceName {
    /// What every method begins with.
    pub(crate) prefix: &'static str,
    /// The value of the namespace header.
    pub(crate) namespace: &'static str,
    /// The path, for endpoints that name none.
    pub(crate) path: &'static str,
    /// What to do if it does not answer.
    pub(crate) hint: &'static str,
}

/// How calls travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wire {
    /// One request over HTTP for each call.
    #[default]
    Http,
    /// One WebSocket for all calls, made anew when it was lost.
    WebSocket,
}

/// A client of one service.
pub(crate) struct Service {
    endpoint: Endpoint,
    name: ServiceName,
    http_url: Url,
    ws_url: Url,
    http: reqwest::Client,
    headers: HeaderMap,
    tls: Arc<rustls::ClientConfig>,
    next_id: AtomicU64,
    transport: Wire,
    open: tokio::sync::Mutex<Option<Arc<Duplex>>>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.name.namespace).field(&self.endpoint).finish()
    }
}

fn placed(url: &Url, path: &str) -> Url {
    let mut url = url.clone();
    if url.path() == NODE_PATH {
        url.set_path(path);
    }
    url
}

impl Service {
    /// A client. Nothing is sent.
    pub(crate) fn new(endpoint: Endpoint, name: ServiceName, transport: Wire) -> Result<Self, ChainError> {
        let failed = || ChainError::new(ChainErrorKind::Rejected, "set up client").with("endpoint", &endpoint);
        let tls = tls::config().map_err(|e| failed().because(e))?;
        let mut headers = HeaderMap::new();
        headers.insert(NAMESPACE, HeaderValue::from_static(name.namespace));
        if let Some(token) = endpoint.authorization() {
            let mut value = HeaderValue::from_str(&token).map_err(|e| failed().because(e))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.as_ref().clone())
            .default_headers(headers.clone())
            .connect_timeout(CONNECT)
            // A redirect would carry the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| failed().because(e))?;
        let (http_url, ws_url) = (placed(endpoint.http(), name.path), placed(endpoint.ws(), name.path));
        let (next_id, open) = (AtomicU64::new(1), tokio::sync::Mutex::default());
        Ok(Self { endpoint, name, http_url, ws_url, http, headers, tls, next_id, transport, open })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Calls a method, without its prefix, and reads the answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        most: Duration,
    ) -> Result<T, ChainError> {
        let result = match self.transport {
            Wire::Http => self.post(method, &params, most).await,
            Wire::WebSocket => match self.connection().await {
                Ok(open) => self.call_on(&open, method, &params, most).await,
                Err(e) => Err(e),
            },
        };
        let result = result.map_err(|e| self.told(e).with("method", method))?;
        self.read(method, &result)
    }

    /// The answer to a method as what it should be.
    pub(crate) fn read<T: DeserializeOwned>(&self, method: &'static str, result: &Value) -> Result<T, ChainError> {
        T::deserialize(result).map_err(|e| {
            ChainError::new(ChainErrorKind::Malformed, "read answer")
                .with("endpoint", &self.endpoint)
                .with("method", method)
                .with("answer", start_of(result.to_string().as_bytes()))
                .hint_with(self.name.hint)
                .because(e)
        })
    }

    /// Opens a connection and subscribes by its first call.
    pub(crate) async fn listen(
        &self,
        method: &'static str,
        params: Value,
        most: Duration,
    ) -> Result<(Duplex, mpsc::Receiver<Value>), ChainError> {
        let told = |e| self.told(e).with("method", method);
        let (open, events) = Duplex::open(&self.ws_url, &self.headers, Arc::clone(&self.tls)).await.map_err(told)?;
        self.call_on(&open, method, &params, most).await.map_err(told)?;
        Ok((open, events))
    }

    /// Calls a method on an open connection.
    pub(crate) async fn call_on(
        &self,
        open: &Duplex,
        method: &'static str,
        params: &Value,
        most: Duration,
    ) -> Result<Value, ChainError> {
        let answer = open.call(&self.full(method), params, most).await;
        answer.map_err(|lost: Lost| lost.into_error("ask service"))
    }

    fn full(&self, method: &str) -> String {
        format!("{}.{method}", self.name.prefix)
    }

    async fn connection(&self) -> Result<Arc<Duplex>, ChainError> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.as_ref().filter(|open| !open.is_closed()) {
            return Ok(Arc::clone(open));
        }
        // Nothing is subscribed to, so that no events come.
        let (made, _) = Duplex::open(&self.ws_url, &self.headers, Arc::clone(&self.tls)).await?;
        let made = Arc::new(made);
        *open = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn post(&self, method: &str, params: &Value, most: Duration) -> Result<Value, ChainError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = json!({"jsonrpc": "2.0", "id": id, "method": self.full(method), "params": params});
        let sent = self.http.post(self.http_url.clone()).timeout(most).json(&request).send().await;
        let unreachable = |error| unreachable(error, most);
        let mut response = sent.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(ChainError::new(ChainErrorKind::Malformed, "ask service").with("answer", "more than 8 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        match envelope::read(&body) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(error.into_chain_error("ask service")),
            Err(_) if matches!(status.as_u16(), 401 | 403) => {
                Err(ChainError::new(ChainErrorKind::Unavailable, "ask service")
                    .with("status", status.as_u16())
                    .hint_with("check the token of the endpoint: the service refuses it or wants one"))
            }
            Err(e) => Err(ChainError::new(ChainErrorKind::Malformed, "ask service")
                .with("status", status.as_u16())
                .because(e)),
        }
    }

    /// An error with the endpoint, and a hint if it has none.
    fn told(&self, error: ChainError) -> ChainError {
        let error = error.with("endpoint", &self.endpoint);
        if error.hint().is_some() { error } else { error.hint_with(self.name.hint) }
    }
}

fn unreachable(error: reqwest::Error, most: Duration) -> ChainError {
    let failed = ChainError::new(ChainErrorKind::Unavailable, "ask service");
    if error.is_timeout() && !error.is_connect() {
        return failed.because(TimedOut(most));
    }
    failed.because(error.without_url())
}
