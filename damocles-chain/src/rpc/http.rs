//! Requests over HTTP: a POST for each.

use super::{Endpoint, RpcError, envelope, socket::TOKEN_HINT, transport::Answer};
use damocles_core::{
    Recovery,
    chain::{ChainError, ChainErrorKind},
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;
use std::time::Duration;

/// The longest that a node may ask to be left alone.
const LONGEST_PAUSE: u64 = 300;

#[derive(Debug)]
pub(super) struct Http {
    client: reqwest::Client,
    max_answer: usize,
}

impl Http {
    pub(super) fn new(
        endpoint: &Endpoint,
        tls: &rustls::ClientConfig,
        connect: Duration,
        max_answer: usize,
    ) -> Result<Self, ChainError> {
        let failed = || ChainError::new(ChainErrorKind::Rejected, "set up client").with("endpoint", endpoint);
        let mut headers = HeaderMap::new();
        if let Some(token) = endpoint.authorization() {
            let mut value = HeaderValue::from_str(&token).map_err(|e| failed().because(e))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .default_headers(headers)
            .connect_timeout(connect)
            // A redirect would carry the token to another host.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|e| failed().because(e))?;
        Ok(Self { client, max_answer })
    }

    pub(super) async fn call(&self, endpoint: &Endpoint, request: &Value) -> Result<Answer, ChainError> {
        let error = |kind| ChainError::new(kind, "ask node").with("endpoint", endpoint);
        let unreachable = |e: reqwest::Error| error(ChainErrorKind::Unavailable).because(e.without_url());
        let mut response = self.client.post(endpoint.http().clone()).json(request).send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let pause = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len().saturating_add(chunk.len()) > self.max_answer {
                return Err(error(ChainErrorKind::Malformed)
                    .with("answer", format_args!("more than {} bytes", self.max_answer)));
            }
            body.extend_from_slice(&chunk);
        }
        let bytes = body.len();
        match envelope::read(&body) {
            Ok(Ok(result)) => Ok(Answer { result, bytes }),
            Ok(Err(refusal)) => Err(refused(refusal).with("endpoint", endpoint)),
            Err(_) if matches!(status, 401 | 403) => {
                Err(error(ChainErrorKind::Unavailable).with("status", status).hint_with(TOKEN_HINT))
            }
            Err(_) if matches!(status, 429 | 503) => Err(error(ChainErrorKind::Unavailable)
                .with("status", status)
                .recover_by(Recovery::Retry { after: pause.map(|s| Duration::from_secs(s.min(LONGEST_PAUSE))) })),
            Err(e) => Err(error(ChainErrorKind::Malformed).with("status", status).because(e)),
        }
    }
}

/// What a node answered instead of a result.
pub(super) fn refused(error: RpcError) -> ChainError {
    error.into_chain_error("ask node")
}
