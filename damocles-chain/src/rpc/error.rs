//! What a node answers when it does not answer.

use damocles_core::{
    Recovery,
    chain::{ChainError, ChainErrorKind},
};
use serde_json::Value;

const OUT_OF_GAS: i64 = 2;
const EXECUTION_REVERTED: i64 = 3;
const F3: std::ops::RangeInclusive<i64> = 4..=10;
const ACTOR_NOT_FOUND: i64 = 11;
const NULL_ROUND: i64 = 12;
const CHANNELS_DISABLED: i64 = 13;
const EXPENSIVE_FORK: i64 = -32002;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const MAX_MESSAGE: usize = 2000;

/// What the code of a node's error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RpcCode {
    /// A trial run ran out of gas.
    OutOfGas,
    /// A contract reverted a trial run.
    ExecutionReverted,
    /// One of fast finality's.
    F3,
    /// There is no such actor in that state.
    ActorNotFound,
    /// There is no tipset at that epoch.
    NullRound,
    /// The node was built without payment channels.
    PaymentChannelsDisabled,
    /// The state at that epoch would have to be migrated to answer.
    ExpensiveFork,
    /// The request is none, the method is not known, or the parameters are not its own.
    BadRequest,
    /// Whatever else: only the text tells.
    Other,
}

/// A JSON-RPC error; the source of a [`ChainError`] that a node answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// The code: 1 for most of Lotus' errors.
    pub code: i64,
    /// What the node said.
    pub message: String,
}

impl RpcError {
    pub(super) fn from_value(value: &Value) -> Self {
        let text = value.get("message").unwrap_or(value);
        let message = text.as_str().map_or_else(|| text.to_string(), ToOwned::to_owned);
        let code = value.get("code").and_then(Value::as_i64).unwrap_or_default();
        Self { code, message: message.chars().take(MAX_MESSAGE).collect() }
    }

    /// What the code means.
    pub fn meaning(&self) -> RpcCode {
        match self.code {
            OUT_OF_GAS => RpcCode::OutOfGas,
            EXECUTION_REVERTED => RpcCode::ExecutionReverted,
            code if F3.contains(&code) => RpcCode::F3,
            ACTOR_NOT_FOUND => RpcCode::ActorNotFound,
            NULL_ROUND => RpcCode::NullRound,
            CHANNELS_DISABLED => RpcCode::PaymentChannelsDisabled,
            EXPENSIVE_FORK => RpcCode::ExpensiveFork,
            INVALID_REQUEST | METHOD_NOT_FOUND | INVALID_PARAMS => RpcCode::BadRequest,
            _ => RpcCode::Other,
        }
    }

    /// Whether the node does not know the method.
    pub(crate) fn is_unknown_method(&self) -> bool {
        self.code == METHOD_NOT_FOUND
    }

    /// Whether the node lacks a part of the chain that it was asked about, as one does that was restored from a
    /// snapshot: it cannot say what is there, which is not the same as that nothing is there.
    pub(crate) fn is_missing_block(&self) -> bool {
        let text = self.message.to_lowercase();
        ["ipld: could not find", "block not found"].iter().any(|part| text.contains(part))
    }

    /// Whether the node does not know the tipset that it was asked about: it may be behind, or on another fork.
    pub(super) fn is_missing_tipset(&self) -> bool {
        let text = self.message.to_lowercase();
        let words = [
            "load tipset",
            "loading tipset",
            "load ts",
            "tipset not found",
            "unknown tipset",
            "tipset with key",
            "key for header not found",
        ];
        let at_epoch = text.contains("tipset at epoch") && text.contains("not found");
        at_epoch || words.iter().any(|part| text.contains(part))
    }

    /// Whether the token that this node was given does not allow the method.
    pub(super) fn is_missing_permission(&self) -> bool {
        self.message.to_lowercase().contains("missing permission")
    }

    /// Lotus gives nearly every error code 1, so that only its text tells them apart. The kind decides whether a
    /// caller gives up: where the text leaves room for doubt, the error is retried.
    pub(super) fn into_chain_error(self, op: &'static str) -> ChainError {
        let text = self.message.to_lowercase();
        let has = |parts: &[&str]| parts.iter().any(|p| text.contains(p));
        let error = match self.meaning() {
            RpcCode::ActorNotFound | RpcCode::NullRound => ChainError::new(ChainErrorKind::NotFound, op),
            RpcCode::BadRequest | RpcCode::PaymentChannelsDisabled => ChainError::new(ChainErrorKind::Rejected, op),
            // A trial run fails as things are: the next state may let it pass.
            RpcCode::OutOfGas | RpcCode::ExecutionReverted | RpcCode::F3 => {
                ChainError::new(ChainErrorKind::Rejected, op).recover_by(Recovery::RETRY)
            }
            RpcCode::ExpensiveFork => ChainError::new(ChainErrorKind::Rejected, op)
                .recover_by(Recovery::RETRY)
                .hint_with("the network is upgraded at that epoch: ask about a tipset before or after it"),
            _ if self.is_missing_block() || has(&["not found", "no such", "does not exist"]) => {
                ChainError::new(ChainErrorKind::NotFound, op)
            }
            _ if has(&["syncing", "not synced", "shutting down", "starting"]) => {
                ChainError::new(ChainErrorKind::Unavailable, op)
            }
            _ => ChainError::new(ChainErrorKind::Rejected, op).recover_by(Recovery::RETRY),
        };
        error.because(self)
    }

    /// The node's error inside a [`ChainError`].
    pub fn of(error: &ChainError) -> Option<&Self> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let kind = |code, message: &str| RpcError { code, message: message.into() }.into_chain_error("x").kind();
        assert_eq!(kind(11, ""), ChainErrorKind::NotFound);
        assert_eq!(kind(1, "ipld: could not find: block Not Found"), ChainErrorKind::NotFound);
        assert_eq!(kind(1, "failed to load tipset: ipld: could not find bafy2bza"), ChainErrorKind::NotFound);
        assert_eq!(kind(1, "sector not found"), ChainErrorKind::NotFound);
        assert_eq!(kind(-32601, "method 'x' not found"), ChainErrorKind::Rejected);
        assert_eq!(kind(1, "cannot draw randomness from the future"), ChainErrorKind::Rejected);
        assert_eq!(kind(1, "node is syncing"), ChainErrorKind::Unavailable);
    }

    #[test]
    fn codes_say_whether_to_ask_again() {
        const RETRY: Recovery = Recovery::RETRY;
        for (code, meaning, kind, recovery) in [
            (1, RpcCode::Other, ChainErrorKind::Rejected, RETRY),
            (2, RpcCode::OutOfGas, ChainErrorKind::Rejected, RETRY),
            (3, RpcCode::ExecutionReverted, ChainErrorKind::Rejected, RETRY),
            (4, RpcCode::F3, ChainErrorKind::Rejected, RETRY),
            (10, RpcCode::F3, ChainErrorKind::Rejected, RETRY),
            (11, RpcCode::ActorNotFound, ChainErrorKind::NotFound, RETRY),
            (12, RpcCode::NullRound, ChainErrorKind::NotFound, RETRY),
            (13, RpcCode::PaymentChannelsDisabled, ChainErrorKind::Rejected, Recovery::Park),
            (-32002, RpcCode::ExpensiveFork, ChainErrorKind::Rejected, RETRY),
            (-32600, RpcCode::BadRequest, ChainErrorKind::Rejected, Recovery::Park),
            (-32601, RpcCode::BadRequest, ChainErrorKind::Rejected, Recovery::Park),
            (-32602, RpcCode::BadRequest, ChainErrorKind::Rejected, Recovery::Park),
            (-32603, RpcCode::Other, ChainErrorKind::Rejected, RETRY),
        ] {
            let answer = RpcError { code, message: "x".to_owned() };
            assert_eq!(answer.meaning(), meaning, "{code}");
            let error = answer.into_chain_error("x");
            assert_eq!((error.kind(), error.recovery()), (kind, recovery), "{code}");
        }
    }

    #[test]
    fn a_missing_block_is_told_from_a_missing_thing() {
        let missing = |message: &str| RpcError { code: 1, message: message.into() }.is_missing_block();
        assert!(missing("load state tree: ipld: could not find bafy2bza"));
        assert!(missing("blockstore: Block not found"));
        assert!(!missing("actor not found"));
        assert!(!missing("could not find sector 5"));
    }

    #[test]
    fn a_missing_tipset_is_told_from_a_missing_thing() {
        let missing = |message: &str| RpcError { code: 1, message: message.into() }.is_missing_tipset();
        assert!(missing("failed to load tipset: ipld: could not find bafy2bza"));
        assert!(missing("Key for header not found"));
        assert!(missing("tipset at epoch 4711 not found"));
        assert!(!missing("Actor not found: f0100"));
        assert!(!missing("sector not found"));
    }
}
