//! How requests travel.

use super::{Caller, FENCE_HEADER, IDEMPOTENCY_HEADER};
use crate::service::{ServiceError, ServiceErrorKind};
use async_trait::async_trait;
use damocles_core::{Error, Fence};
use reqwest::{
    Client, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::{fmt, sync::Arc, time::Duration};

/// A request on its way.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) body: String,
    pub(super) caller: Caller,
    pub(super) timeout: Duration,
}

/// Carries requests to a manager and answers back.
#[async_trait]
pub(super) trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The other side, for people; it holds no secret.
    fn endpoint(&self) -> &str;

    /// One request, one answer, whatever the HTTP status.
    async fn exchange(&self, request: Outgoing) -> Result<Vec<u8>, TransportError>;
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("no answer came")]
    Http(#[source] reqwest::Error),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// HTTP, with TLS of our own: no process-wide provider is installed.
pub(super) struct HttpTransport {
    client: Client,
    url: Url,
    shown: String,
    authorization: Option<HeaderValue>,
    longest: usize,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("url", &self.shown).finish_non_exhaustive()
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl HttpTransport {
    pub(super) fn new(url: &str, token: Option<&str>, longest: usize) -> Result<Self, ServiceError> {
        const OP: &str = "connect to manager";
        let refused = || Error::new(ServiceErrorKind::Refused, OP);
        let mut shown = Url::parse(url).map_err(|e| refused().with("url", shorten(url)).because(e))?;
        let mut parsed = shown.clone();
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(refused()
                .with("scheme", parsed.scheme())
                .hint_with("a manager's URL begins with http:// or https://"));
        }
        // Neither the password nor the query of a URL is for people's eyes.
        let _ = shown.set_password(None);
        let _ = shown.set_username("");
        shown.set_query(None);
        let authorization = token.map(bearer).transpose()?;
        if authorization.is_some() {
            // The client would turn a user in the URL into a second header of the same name.
            let _ = parsed.set_password(None);
            let _ = parsed.set_username("");
        }
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| refused().because(e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT_TIMEOUT)
            // A token must not follow a redirect, and the environment's proxies are for browsers.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| refused().because(e))?;
        Ok(Self { client, url: parsed, shown: shown.to_string(), authorization, longest })
    }
}

fn bearer(token: &str) -> Result<HeaderValue, ServiceError> {
    // The cause would hold nothing but the fact, and the token must not be shown.
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
        Error::new(ServiceErrorKind::Refused, "connect to manager").with("reason", "the token is no header value")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn shorten(url: &str) -> String {
    // What cannot be parsed may hold a password anywhere before an `@`.
    url.rsplit('@').next().unwrap_or_default().chars().take(100).collect()
}

#[async_trait]
impl Transport for HttpTransport {
    fn endpoint(&self) -> &str {
        &self.shown
    }

    async fn exchange(&self, request: Outgoing) -> Result<Vec<u8>, TransportError> {
        let no_url = |e: reqwest::Error| TransportError::Http(e.without_url());
        let mut post = self
            .client
            .post(self.url.clone())
            .timeout(request.timeout)
            .header(CONTENT_TYPE, "application/json")
            .body(request.body);
        if let Some(Fence(fence)) = request.caller.fence {
            post = post.header(FENCE_HEADER, fence);
        }
        if let Some(key) = &request.caller.idempotency_key {
            post = post.header(IDEMPOTENCY_HEADER, key);
        }
        if let Some(authorization) = &self.authorization {
            post = post.header(AUTHORIZATION, authorization.clone());
        }
        let mut response = post.send().await.map_err(no_url)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(no_url)? {
            if body.len().saturating_add(chunk.len()) > self.longest {
                return Err(TransportError::TooLong(self.longest));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// A manager in the same process: its dispatch without a socket.
#[cfg(feature = "testing")]
pub(super) struct InProcess(pub(super) Arc<jsonrpc_core::MetaIoHandler<Caller>>);

#[cfg(feature = "testing")]
impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}

#[cfg(feature = "testing")]
#[async_trait]
impl Transport for InProcess {
    fn endpoint(&self) -> &str {
        "in-process"
    }

    async fn exchange(&self, request: Outgoing) -> Result<Vec<u8>, TransportError> {
        let answer = self.0.handle_request(&request.body, request.caller).await;
        Ok(answer.unwrap_or_default().into_bytes())
    }
}
