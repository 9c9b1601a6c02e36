//! Copying files between stores.

use damocles_core::pool::{Task, TaskKind};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Copies files. Each is copied to a temporary name beside its target, hashed while it is copied, synced, renamed,
/// and its directory synced; sources are left as they are. May be repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The files in order.
    pub files: Vec<CopyFile>,
}

/// One file to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFile {
    /// From here.
    pub from: PathBuf,
    /// To here; its directory is made, but none above it, and none that is called `sealed` or `cache`: those are there
    /// for as long as the disk of a store is.
    pub to: PathBuf,
}

impl Task for Transfer {
    const KIND: TaskKind = TaskKind::new("transfer");
    type Output = Transferred;
}

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// The copies in order.
    pub files: Vec<CopiedFile>,
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub len: u64,
    /// SHA-256 of its contents, in hex.
    pub sha256: String,
}
