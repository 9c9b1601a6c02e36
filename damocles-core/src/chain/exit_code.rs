//! What an exit code means.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a message, or a part of a batch, ended. JSON form: the number.
///
/// Codes up to 15 are the VM's, 16 to 31 are common to all actors, 1000 and up are the miner actor's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExitCode(pub i64);

struct Known {
    code: i64,
    name: &'static str,
    meaning: &'static str,
    may_pass: bool,
}

const fn passes(code: i64, name: &'static str, meaning: &'static str) -> Known {
    Known { code, name, meaning, may_pass: true }
}

const fn stays(code: i64, name: &'static str, meaning: &'static str) -> Known {
    Known { code, name, meaning, may_pass: false }
}

/// The names of `fvm_shared::error::ExitCode` and of builtin-actors' miner.
const KNOWN: [Known; 26] = [
    stays(0, "OK", "it was done"),
    passes(1, "SYS_SENDER_INVALID", "the sender is no account that is on chain"),
    passes(2, "SYS_SENDER_STATE_INVALID", "the sender's nonce is another, or it cannot pay for the gas"),
    stays(4, "SYS_ILLEGAL_INSTRUCTION", "the actor's code failed"),
    stays(5, "SYS_INVALID_RECEIVER", "there is no such receiver, and it cannot be made"),
    passes(6, "SYS_INSUFFICIENT_FUNDS", "the sender has less than the value of the message"),
    passes(7, "SYS_OUT_OF_GAS", "it took more gas than its limit"),
    stays(9, "SYS_ILLEGAL_EXIT_CODE", "the actor ended with a code that is reserved for the VM"),
    stays(10, "SYS_ASSERTION_FAILED", "an assertion of the VM failed"),
    stays(11, "SYS_MISSING_RETURN", "the actor returned something that it never made"),
    stays(16, "USR_ILLEGAL_ARGUMENT", "the actor refuses the parameters, or a proof in them"),
    stays(17, "USR_NOT_FOUND", "something that the parameters name is not there"),
    passes(18, "USR_FORBIDDEN", "the sender may not, or not now"),
    passes(19, "USR_INSUFFICIENT_FUNDS", "the actor has less than it has to lock or pay"),
    stays(20, "USR_ILLEGAL_STATE", "the actor's state does not allow it"),
    stays(21, "USR_SERIALIZATION", "the parameters, or something in the actor's state, cannot be read"),
    stays(22, "USR_UNHANDLED_MESSAGE", "the actor has no such method"),
    stays(23, "USR_UNSPECIFIED", "the actor does not say why"),
    stays(24, "USR_ASSERTION_FAILED", "an assertion of the actor failed"),
    stays(25, "USR_READ_ONLY", "it would have changed something where nothing may change"),
    stays(26, "USR_NOT_PAYABLE", "the method takes no money"),
    stays(1000, "ERR_BALANCE_INVARIANTS_BROKEN", "the miner's balances would no longer add up"),
    passes(1001, "ERR_NOTIFICATION_SEND_FAILED", "an actor that was to be told of a piece could not be reached"),
    passes(1002, "ERR_NOTIFICATION_RECEIVER_ABORTED", "an actor that was told of a piece failed"),
    stays(1003, "ERR_NOTIFICATION_RESPONSE_INVALID", "the answer of an actor that was told of a piece cannot be read"),
    stays(1004, "ERR_NOTIFICATION_REJECTED", "an actor that was told of a piece refused it"),
];

impl ExitCode {
    /// Success.
    pub const OK: Self = Self(0);

    /// Whether it is success.
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    fn known(self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| known.code == self.0)
    }

    /// Its name, if it is one that we know.
    pub fn name(self) -> Option<&'static str> {
        self.known().map(|known| known.name)
    }

    /// What it means, in a line.
    pub fn meaning(self) -> &'static str {
        self.known().map_or("a code of the actor's own", |known| known.meaning)
    }

    /// Whether the same call may be accepted later, with more gas, more money or at another time. A code that we do
    /// not know says nothing, so it does not promise that.
    pub fn may_pass(self) -> bool {
        self.known().is_some_and(|known| known.may_pass)
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_once_and_in_order() {
        assert!(KNOWN.is_sorted_by(|a, b| a.code < b.code));
        assert_eq!(ExitCode(16).to_string(), "16 (USR_ILLEGAL_ARGUMENT)");
        assert_eq!(ExitCode(77).to_string(), "77");
        assert_eq!((ExitCode(-1).name(), ExitCode(-1).may_pass()), (None, false));
        assert!(ExitCode(7).may_pass() && !ExitCode(16).may_pass() && ExitCode::OK.is_success());
    }
}
