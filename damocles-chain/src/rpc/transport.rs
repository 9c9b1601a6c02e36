//! The two ways to a node.

use super::{Endpoint, Transport, http::Http, metrics::TimedOut, options::RpcOptions, ws::Ws};
use damocles_core::chain::{ChainError, ChainErrorKind};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A result and how long its text was.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) result: Value,
    pub(super) bytes: usize,
}

#[derive(Debug)]
enum Way {
    Http(Http),
    Ws(Ws),
}

/// A way to one node.
#[derive(Debug)]
pub(super) struct Link {
    way: Way,
    next_id: AtomicU64,
}

impl Link {
    pub(super) fn new(
        endpoint: &Endpoint,
        tls: &Arc<rustls::ClientConfig>,
        options: &RpcOptions,
    ) -> Result<Self, ChainError> {
        let (connect, max_answer) = (options.timeouts.connect, options.max_answer);
        let way = match endpoint.transport() {
            Transport::Http => Way::Http(Http::new(endpoint, tls, connect, max_answer)?),
            Transport::WebSocket => Way::Ws(Ws::new(Arc::clone(tls), connect, max_answer)),
        };
        Ok(Self { way, next_id: AtomicU64::new(1) })
    }

    pub(super) async fn call(
        &self,
        endpoint: &Endpoint,
        method: &str,
        params: &Value,
        limit: Duration,
    ) -> Result<Answer, ChainError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let work = async {
            match &self.way {
                Way::Http(http) => http.call(endpoint, &request).await,
                Way::Ws(ws) => ws.call(endpoint, id, &request).await,
            }
        };
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
            Err(ChainError::new(ChainErrorKind::Unavailable, "ask node")
                .with("endpoint", endpoint)
                .because(TimedOut(limit)))
        })
    }
}
