//! One endpoint: the way to it, how it is, and what it was asked.

use super::{
    Endpoint, EndpointHealth, EndpointMetrics, HealthState, RpcError,
    health::Health,
    metrics::{Counters, TimedOut},
    options::RpcOptions,
    transport::{Answer, Link},
};
use damocles_core::chain::{ChainError, ChainErrorKind};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tracing::{debug, info, warn};

#[derive(Debug)]
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    link: Link,
    counters: Counters,
    health: Mutex<Health>,
}

impl Node {
    pub(super) fn new(
        endpoint: Endpoint,
        tls: &Arc<rustls::ClientConfig>,
        options: &RpcOptions,
    ) -> Result<Self, ChainError> {
        let link = Link::new(&endpoint, tls, options)?;
        Ok(Self { endpoint, link, counters: Counters::default(), health: Mutex::new(Health::new()) })
    }

    pub(super) async fn call(&self, method: &str, params: &Value, limit: Duration) -> Result<Answer, ChainError> {
        let start = Instant::now();
        let answer = self.link.call(&self.endpoint, method, params, limit).await;
        let (bytes, error) = match &answer {
            Ok(answer) => (answer.bytes, None),
            Err(error) => (0, Some(error)),
        };
        self.counters.count(method, start.elapsed(), bytes, error);
        if let Some(error) = error {
            self.health.lock().last_error = Some(format!("{method}: {}", error.chain()));
        }
        answer
    }

    /// [`Node::call`] with an answer of a known type.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &Value,
        limit: Duration,
    ) -> Result<T, ChainError> {
        let answer = self.call(method, params, limit).await.map_err(|e| e.with("method", method))?;
        T::deserialize(answer.result).map_err(|e| {
            ChainError::new(ChainErrorKind::Malformed, "read answer")
                .with("endpoint", &self.endpoint)
                .with("method", method)
                .because(e)
        })
    }

    pub(super) fn state(&self) -> HealthState {
        self.health.lock().state
    }

    pub(super) fn becomes(&self, state: HealthState, reason: Option<String>) {
        let shown = reason.clone().unwrap_or_default();
        let before = {
            let mut health = self.health.lock();
            let before = health.state;
            if !health.becomes(state, reason) {
                return;
            }
            before
        };
        match (before, state) {
            // A command that asks its node for the first time has nothing to tell by that.
            (HealthState::Unchecked, HealthState::Ok) => debug!(endpoint = %self.endpoint, "an endpoint is relied on"),
            (_, HealthState::Ok) => info!(endpoint = %self.endpoint, "an endpoint is relied on"),
            _ => warn!(endpoint = %self.endpoint, %state, reason = shown, "an endpoint is not relied on"),
        }
    }

    pub(super) fn head_is(&self, head: damocles_core::chain::TipsetRef) {
        self.health.lock().head = Some(head);
    }

    pub(super) fn health(&self, preferred: bool) -> EndpointHealth {
        let health = self.health.lock();
        EndpointHealth {
            endpoint: self.endpoint.to_string(),
            state: health.state,
            preferred,
            for_secs: health.since.elapsed().as_secs(),
            head: health.head.clone(),
            reason: health.reason.clone(),
            last_error: health.last_error.clone(),
        }
    }

    pub(super) fn metrics(&self) -> EndpointMetrics {
        EndpointMetrics { endpoint: self.endpoint.to_string(), methods: self.counters.read() }
    }
}

/// Whether nobody answered, so that the endpoint is away. One that is slow once is not.
pub(super) fn is_away(error: &ChainError) -> bool {
    error.kind() == ChainErrorKind::Unavailable && RpcError::of(error).is_none() && !TimedOut::is_source_of(error)
}

/// Whether another endpoint may know what this one does not: it did not answer, or not as a node does, it lacks a part
/// of the chain, or it does not offer the method to us. What a node refuses besides, every node refuses.
pub(super) fn is_worth_elsewhere(error: &ChainError) -> bool {
    match RpcError::of(error) {
        Some(said) => {
            error.kind() == ChainErrorKind::Unavailable
                || said.is_missing_block()
                || said.is_missing_tipset()
                || said.is_unknown_method()
                || said.is_missing_permission()
        }
        None => matches!(error.kind(), ChainErrorKind::Unavailable | ChainErrorKind::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_elsewhere() {
        let said = |code, message: &str| RpcError { code, message: message.to_owned() }.into_chain_error("x");
        for (error, elsewhere, away) in [
            (ChainError::new(ChainErrorKind::Unavailable, "x"), true, true),
            (ChainError::new(ChainErrorKind::Unavailable, "x").because(TimedOut(Duration::ZERO)), true, false),
            (ChainError::new(ChainErrorKind::Malformed, "x"), true, false),
            (said(1, "failed to load tipset: ipld: could not find bafy"), true, false),
            (said(1, "loading tipset bafy: not found"), true, false),
            (said(1, "node is syncing"), true, false),
            (said(11, "actor not found"), false, false),
            (said(1, "sector not found"), false, false),
            (said(1, "not enough funds"), false, false),
            (said(1, "Key for header not found"), true, false),
            (said(-32601, "method not found"), true, false),
            (said(1, "missing permission to invoke 'MpoolPush' (need 'write')"), true, false),
        ] {
            assert_eq!(is_worth_elsewhere(&error), elsewhere, "{}", error.chain());
            assert_eq!(is_away(&error), away, "{}", error.chain());
        }
    }
}
