//! What can go wrong with a devnet itself.

use damocles_core::{Error, Kind, Recovery};
use std::fmt;

/// An error of a [`super::Devnet`].
pub type DevnetError = Error<DevnetErrorKind>;

/// Why a devnet could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DevnetErrorKind {
    /// Its file could not be read or written.
    Store,
    /// Its file is not the file of a devnet, or is damaged.
    Corrupt,
    /// Its file belongs to a running devnet.
    Locked,
    /// Its file was written by a newer version.
    Version,
    /// It was made with another configuration.
    Mismatch,
    /// Its configuration makes no sense.
    Config,
    /// What was asked for cannot be done.
    Refused,
    /// Its state could not be understood.
    State,
}

impl fmt::Display for DevnetErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store => "the devnet's file could not be used",
            Self::Corrupt => "the devnet's file is damaged",
            Self::Locked => "the devnet's file is in use by another process",
            Self::Version => "the devnet's file has another version",
            Self::Config => "the devnet's configuration makes no sense",
            Self::Refused => "the devnet cannot do that",
            Self::Mismatch => "the devnet was made with another configuration",
            Self::State => "the devnet's state could not be understood",
        })
    }
}

impl Kind for DevnetErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Store | Self::Locked => Recovery::RETRY,
            Self::Corrupt | Self::Version | Self::Mismatch | Self::Config | Self::Refused | Self::State => {
                Recovery::Park
            }
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Locked => Some("another devnet runs in this directory; stop it, or name another with --home"),
            Self::Version => Some("run the version that wrote it, or name another directory with --home"),
            Self::Config => Some("correct the devnet's configuration file"),
            _ => None,
        }
    }
}
