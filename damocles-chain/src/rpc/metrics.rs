//! What was asked, how long it took and what went wrong.

use super::RpcError;
use damocles_core::chain::{ChainError, ChainErrorKind};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// Methods that are counted by name; a caller may ask for names of any kind.
const MAX_METHODS: usize = 256;
const OTHERS: &str = "(others)";

/// What a client asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcMetrics {
    /// Each endpoint, in the order in which they were given.
    pub endpoints: Vec<EndpointMetrics>,
    /// Answers that were given from memory, by method.
    pub cached: BTreeMap<String, u64>,
}

/// What one endpoint was asked so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointMetrics {
    /// The endpoint, without its token.
    pub endpoint: String,
    /// Each method by its full name.
    pub methods: BTreeMap<String, MethodMetrics>,
}

/// What became of the calls of one method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodMetrics {
    /// Calls that ended, well or not.
    pub calls: u64,
    /// Those that failed, by kind: `timeout`, `unavailable`, `malformed`, `not found`, `rejected`.
    pub errors: BTreeMap<String, u64>,
    /// Microseconds that all calls took together.
    pub total_micros: u64,
    /// Microseconds that the longest took.
    pub longest_micros: u64,
    /// Bytes of the answers.
    pub bytes: u64,
}

/// No answer came in time: the source of a [`ChainError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {0:?}")]
pub(super) struct TimedOut(pub(super) Duration);

impl TimedOut {
    pub(super) fn is_source_of(error: &ChainError) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<Self>())
    }
}

fn kind_of(error: &ChainError) -> &'static str {
    match error.kind() {
        _ if TimedOut::is_source_of(error) => "timeout",
        ChainErrorKind::Unavailable => "unavailable",
        ChainErrorKind::Malformed => "malformed",
        ChainErrorKind::NotFound => "not found",
        _ if RpcError::of(error).is_some_and(RpcError::is_unknown_method) => "unknown method",
        _ => "rejected",
    }
}

/// The counters of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Counters(Mutex<BTreeMap<String, MethodMetrics>>);

impl Counters {
    pub(super) fn count(&self, method: &str, took: Duration, bytes: usize, error: Option<&ChainError>) {
        let mut methods = self.0.lock();
        let name = if methods.contains_key(method) || methods.len() < MAX_METHODS { method } else { OTHERS };
        let one = methods.entry(name.to_owned()).or_default();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        one.calls = one.calls.saturating_add(1);
        one.total_micros = one.total_micros.saturating_add(micros);
        one.longest_micros = one.longest_micros.max(micros);
        one.bytes = one.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if let Some(error) = error {
            let count = one.errors.entry(kind_of(error).to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn read(&self) -> BTreeMap<String, MethodMetrics> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_add_up() {
        let counters = Counters::default();
        let late = ChainError::new(ChainErrorKind::Unavailable, "x").because(TimedOut(Duration::from_secs(1)));
        counters.count("a", Duration::from_micros(5), 10, None);
        counters.count("a", Duration::from_micros(9), 0, Some(&late));
        counters.count("a", Duration::from_micros(1), 0, Some(&ChainError::new(ChainErrorKind::Malformed, "x")));
        let a = counters.read().remove("a").unwrap();
        assert_eq!((a.calls, a.total_micros, a.longest_micros, a.bytes), (3, 15, 9, 10));
        let errors: Vec<(&str, u64)> = a.errors.iter().map(|(k, v)| (k.as_str(), *v)).collect();
        assert_eq!(errors, [("malformed", 1), ("timeout", 1)]);
    }

    #[test]
    fn names_are_bounded() {
        let counters = Counters::default();
        for i in 0..1000 {
            counters.count(&format!("m{i}"), Duration::ZERO, 0, None);
        }
        let methods = counters.read();
        assert_eq!(methods.len(), MAX_METHODS + 1);
        assert_eq!(methods.values().map(|m| m.calls).sum::<u64>(), 1000);
    }
}
