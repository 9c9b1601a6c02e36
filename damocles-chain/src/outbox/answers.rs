//! What the texts of a node's refusals say.

use super::{Push, Search};
use crate::rpc::RpcError;
use damocles_core::chain::ChainError;

/// Whether a failed estimate says that the actor would refuse the message as things are, rather than that the sender
/// cannot pay or the node cannot tell.
pub(super) fn would_be_refused(error: &ChainError) -> bool {
    let Some(answer) = RpcError::of(error) else { return false };
    let text = answer.message.to_lowercase();
    // Money may come and nonces move: exit codes 1, 2 and 6 of the VM, in the spellings of the nodes.
    let passing = [
        "insufficient",
        "not enough funds",
        "exit=[1]",
        "exit=[2]",
        "exit=[6]",
        "syserrsenderinvalid",
        "syserrsenderstate",
    ];
    text.contains("execution failed") && !passing.iter().any(|p| text.contains(p))
}

/// What a search that ended in an error says all the same. Lotus loads a message before it looks for it, so that one
/// that never reached it is an error, and so is one whose nonce another message has. Any other text is no answer: a
/// node that was restored from a snapshot finds a message that landed and then misses its receipt.
pub(super) fn said_by_error(error: &ChainError) -> Option<Search> {
    let text = RpcError::of(error)?.message.to_lowercase();
    if text.contains("not a valid replacement message") {
        Some(Search::Taken)
    } else if text.contains("failed to load message") {
        Some(Search::Unknown)
    } else {
        None
    }
}

/// How a node took a message, by the text of its refusal; none if it did not. Both Lotus and Forest are read.
pub(super) fn taken(text: &str) -> Option<Push> {
    let text = text.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // The pool has another message with this nonce: Lotus begins that like what it says of a known one.
    if has(&["replace by fee", "increase gaspremium"]) {
        None
    } else if has(&["already in mpool", "already in mempool", "already exists", "existing nonce"]) {
        Some(Push::Known)
    } else if has(&["minimum expected nonce", "nonce too low", "sequence too low"]) {
        Some(Push::NonceUsed)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::chain::ChainErrorKind;

    #[test]
    fn errors_of_a_search_that_are_answers() {
        let said = |message: &str| {
            let source = RpcError { code: 1, message: message.to_owned() };
            said_by_error(&ChainError::new(ChainErrorKind::Rejected, "x").because(source))
        };
        assert_eq!(said("failed to load message: ipld: could not find bafy2bza"), Some(Search::Unknown));
        // A snapshot has the messages and not their receipts.
        assert_eq!(said("failed to get receipt: amt load: ipld: could not find bafy2bza"), None);
        assert_eq!(
            said(
                "searching: found message with equal nonce as the one we are looking for that is NOT a valid \
                  replacement message (F:bafya n 3, TS: bafyb n3)"
            ),
            Some(Search::Taken)
        );
        assert_eq!(said("node is syncing"), None);
        assert_eq!(said_by_error(&ChainError::new(ChainErrorKind::Unavailable, "x")), None);
    }

    #[test]
    fn refusals_of_a_push_that_say_where_the_message_is() {
        for (text, push) in [
            (
                "message from t1wcuzrs736zqzbbjjdgl2wvyyufuk4pefbymzf2i with nonce 3 already in mpool: validation \
                 failure",
                Some(Push::Known),
            ),
            ("Message with sequence already in mempool", Some(Push::Known)),
            ("minimum expected nonce is 7: message nonce too low", Some(Push::NonceUsed)),
            ("Message sequence too low", Some(Push::NonceUsed)),
            (
                "message from t1wcuzrs736zqzbbjjdgl2wvyyufuk4pefbymzf2i with nonce 3 already in mpool, increase \
                 GasPremium to 125001 from 100000 to trigger replace by fee: replace by fee has too low GasPremium",
                None,
            ),
            ("mpool push: not enough funds: not enough funds to execute transaction", None),
        ] {
            assert_eq!(taken(text), push, "{text}");
        }
    }

    #[test]
    fn only_a_refusing_actor_is_a_reason_to_send_all_the_same() {
        let refused = |message: &str| {
            let source = RpcError { code: 3, message: message.to_owned() };
            would_be_refused(&ChainError::new(ChainErrorKind::Rejected, "x").because(source))
        };
        assert!(refused("message execution failed (exit=[16], vm error=[invalid proof (1)])"));
        assert!(refused("estimating gas used: message execution failed: exit ErrIllegalArgument(16), reason: no"));
        assert!(!refused("message execution failed: exit SysErrInsufficientFunds(6), reason: none"));
        assert!(!refused("message execution failed (exit=[6], vm error=[])"));
        assert!(!refused("message execution failed: exit SysErrSenderInvalid(1), reason: none"));
        assert!(!refused("boom"));
        assert!(!would_be_refused(&ChainError::new(ChainErrorKind::Unavailable, "x")));
    }
}
