//! Copying files between stores.

use damocles_core::pool::{Task, TaskKind};
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU64, path::PathBuf};

/// Copies files. Each is copied to a temporary name beside its target, hashed while it is copied, synced, renamed,
/// and its directory synced; sources are left as they are. May be repeated: what an ended run left of a copy of the same
/// source is compared with it and continued.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The files in order.
    pub files: Vec<CopyFile>,
    /// The bytes a second that this one task may copy; no limit without. Tasks that run side by side, in as many children
    /// as are configured, have it each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
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
