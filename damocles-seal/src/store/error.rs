//! Why a store could not be used.

use damocles_core::{Error, Kind, Recovery};
use serde::{Deserialize, Serialize};
use std::{fmt, io, path::Path};

/// An error of a store.
pub type StoreError = Error<StoreErrorKind>;

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// The directory is not there.
    Missing,
    /// The directory is there but no store.
    NotAStore,
    /// Another process uses it.
    InUse,
    /// It is a store already.
    Exists,
    /// A newer version made it.
    Newer,
    /// Its identity file cannot be read.
    Identity,
    /// Another store is where it was.
    Replaced,
    /// It was here, and now the path is a directory without identity.
    NotMounted,
    /// Nothing can be written to it.
    ReadOnly,
    /// Its disk or server did not answer in time.
    Silent,
    /// A file in it is not what it should be.
    Damaged,
    /// No space is left.
    DiskFull,
    /// The file system failed.
    Io,
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the directory is not there",
            Self::NotAStore => "the directory is no store",
            Self::InUse => "another process uses the store",
            Self::Exists => "it is a store already",
            Self::Newer => "a newer version made the store",
            Self::Identity => "the identity file cannot be read",
            Self::Replaced => "another store is in its place",
            Self::NotMounted => "not mounted",
            Self::ReadOnly => "it can only be read",
            Self::Silent => "its disk does not answer",
            Self::Damaged => "a file is missing or damaged",
            Self::DiskFull => "no space is left",
            Self::Io => "the file system failed",
        })
    }
}

impl Kind for StoreErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::DiskFull | Self::Io | Self::Silent => Recovery::RETRY,
            _ => Recovery::Park,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("mount the disk, or make the store with `damocles-worker store ...-init -l DIR`"),
            Self::NotAStore => {
                Some("is the disk mounted? `damocles-worker store sealing-init -l DIR` makes a sealing store")
            }
            Self::InUse => Some("stop the other damocles-worker, or give this one another location"),
            Self::Newer => Some("use the version of damocles-worker that made the store"),
            Self::NotMounted => Some("mount the disk of this store at the path; it is attached by itself then"),
            Self::Silent => Some("see whether its disk or server is well; it is used again by itself when it answers"),
            Self::ReadOnly => Some("mount it writable, or attach it with `readonly = true` if that is meant"),
            Self::Replaced => Some("mount the disk of this store at the path, then resume"),
            _ => None,
        }
    }
}

pub(super) fn io_error(op: &'static str, path: &Path, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreErrorKind::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => StoreErrorKind::ReadOnly,
        _ => StoreErrorKind::Io,
    };
    Error::new(kind, op).with("path", path.display()).because(error)
}
