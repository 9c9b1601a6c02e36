//! Errors of signers.

use damocles_core::{Error, Kind, Recovery};
use std::fmt;

/// An error of a signer.
pub type SignerError = Error<SignerErrorKind>;

/// What went wrong with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignerErrorKind {
    /// The key is not there.
    NoKey,
    /// Others can read the key.
    Exposed,
    /// The file is no key, or the key of another address.
    Malformed,
    /// The key is not kept well enough for the network.
    Unsuitable,
    /// The key is there already.
    Exists,
    /// A file could not be read or written.
    Io,
    /// The wallet is locked.
    Locked,
    /// The key may not sign this, or whoever holds it does not want to.
    Refused,
    /// Whoever holds the key wants a token, or another one.
    Denied,
    /// Whoever holds the key cannot be reached.
    Unreachable,
    /// Whoever holds the key answered what is no answer.
    Answer,
}

impl fmt::Display for SignerErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "there is no such key",
            Self::Exposed => "the key can be read by others",
            Self::Malformed => "the key could not be understood",
            Self::Unsuitable => "keys in plain text are for development networks",
            Self::Exists => "the key is there already",
            Self::Io => "the key could not be read or written",
            Self::Locked => "the wallet is locked",
            Self::Refused => "the signature was refused",
            Self::Denied => "the wallet does not let the caller in",
            Self::Unreachable => "the wallet cannot be reached",
            Self::Answer => "the wallet's answer could not be understood",
        })
    }
}

impl Kind for SignerErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Io | Self::Locked | Self::Unreachable | Self::Answer => Recovery::RETRY,
            Self::NoKey
            | Self::Exposed
            | Self::Malformed
            | Self::Unsuitable
            | Self::Exists
            | Self::Refused
            | Self::Denied => Recovery::Park,
        }
    }
}
