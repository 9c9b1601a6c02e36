//! What can go wrong with proof parameters.

use std::io;
use std::path::{Path, PathBuf};

use super::circuit::CircuitId;
use super::generate::GenerateError;

/// Why a set of parameters is not there.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// There are no such sectors.
    #[error("no parameters exist for the circuit {circuit}: unknown sector size of {} bytes", circuit.sector_size)]
    UnknownSectorSize {
        /// What was asked for.
        circuit: CircuitId,
    },
    /// A set of the trusted set-up is needed and is not there, or not whole.
    #[error("the parameters of {circuit} are not complete at {}", path.display())]
    TrustedSetUpMissing {
        /// What was asked for.
        circuit: CircuitId,
        /// The missing or broken file.
        path: PathBuf,
    },
    /// The generator was asked for a circuit whose trapdoor must be secret.
    #[error("the parameters of {circuit} come from the trusted set-up only")]
    TrustedSetUpOnly {
        /// What was asked for.
        circuit: CircuitId,
    },
    /// The cache holds a part of a set that we did not make, and making ours would replace it.
    #[error("a part of another set of parameters for {circuit} is in the way at {}", path.display())]
    PartOfAnotherSet {
        /// What was asked for.
        circuit: CircuitId,
        /// The file of the other set.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The generator failed.
    #[error("cannot make the parameters of {circuit}")]
    Generate {
        /// What was being made.
        circuit: CircuitId,
        /// Why it failed.
        source: GenerateError,
    },
    /// The proofs library refused the circuit's configuration.
    #[error("the proofs library has no circuit {circuit}")]
    Library {
        /// What was asked for.
        circuit: CircuitId,
        /// What the library said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no SRS, which aggregated proofs are made and verified with.
    #[error("there is no aggregation key (SRS) at {}", path.display())]
    SrsMissing {
        /// Where it would be.
        path: PathBuf,
    },
    /// The file is there and is no whole SRS.
    #[error("the aggregation key (SRS) at {} is damaged", path.display())]
    SrsDamaged {
        /// The file.
        path: PathBuf,
    },
    /// An SRS from a published trapdoor was to be made beside, or used for, sectors of public networks.
    #[error("the aggregation key (SRS) at {} must be the one of Filecoin's ceremony{}", path.display(), large_file(large.as_ref()))]
    SrsOfCeremonyOnly {
        /// The SRS, there or not.
        path: PathBuf,
        /// The file in the same cache that is for 32 or 64 GiB sectors, if that is the reason.
        large: Option<PathBuf>,
    },
    /// The caller cancelled.
    #[error("the preparation of proof parameters was cancelled")]
    Cancelled,
}

/// Why an SRS must be the ceremony's, if a file in the cache is the reason.
fn large_file(large: Option<&PathBuf>) -> String {
    large.map(|file| format!(": the cache holds {}", file.display())).unwrap_or_default()
}

impl ParamsError {
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { action, path: path.to_owned(), source }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::TrustedSetUpMissing { .. } | Self::TrustedSetUpOnly { .. } => Some(
                "fetch the files of Filecoin's trusted set-up for this sector size (for example with `lotus fetch-params` or \
                 `curio fetch-params`) into this directory, or name the directory that has them in FIL_PROOFS_PARAMETER_CACHE",
            ),
            Self::PartOfAnotherSet { .. } => Some(
                "complete that set, or move its files away, or name another directory in FIL_PROOFS_PARAMETER_CACHE; a set is \
                 never mixed with one of another origin",
            ),
            Self::UnknownSectorSize { .. } => Some("sector sizes are 2 KiB, 8 MiB, 512 MiB, 32 GiB and 64 GiB"),
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => Some(
                    "free some space: a set for 2 KiB sectors takes up to 1.2 GB, one for sector updates of 512 MiB tens of GB; what was written is removed again",
                ),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("make the directory writable for this user, or name another one in FIL_PROOFS_PARAMETER_CACHE")
                }
                _ => None,
            },
            Self::SrsMissing { .. } => Some(
                "on a development network start the devnet once with this parameter cache, or call ParameterCache::ensure_srs; \
                 for 32 and 64 GiB sectors fetch the ceremony's file (for example with `lotus fetch-params`)",
            ),
            Self::SrsDamaged { .. } => Some(
                "remove the file, then fetch it again (for example with `lotus fetch-params`) or let the devnet make its own",
            ),
            Self::SrsOfCeremonyOnly { .. } => Some(
                "fetch the ceremony's file (for example with `lotus fetch-params`), or give the devnet a parameter cache of its \
                 own in FIL_PROOFS_PARAMETER_CACHE: its aggregation key is never mixed with files for 32 or 64 GiB sectors",
            ),
            Self::Generate { .. } | Self::Library { .. } | Self::Cancelled => None,
        }
    }
}
