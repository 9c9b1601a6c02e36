//! Looking at a persist store.

use crate::store::{Attach, KnownStore, PersistStore, StoreErrorKind};
use damocles_core::{
    SectorId, SectorSize,
    pool::{Task, TaskKind},
};
use serde::{Deserialize, Serialize};

/// Opens a persist store, and tells what it is and whether it can be written to. Done by a child, because a disk or server
/// that does not answer keeps whoever asks it, and only a child can be left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The directory.
    pub attach: Attach,
    /// The stores that were attached before.
    pub known: Vec<KnownStore>,
    /// A sector whose copies are looked for.
    pub sector: Option<(SectorId, SectorSize)>,
    /// Whether what is left of unfinished copies of that sector is removed.
    pub sweep: bool,
}

impl Task for Probe {
    const KIND: TaskKind = TaskKind::new("probe");
    type Output = Probed;
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probed {
    /// It is there.
    Found(FoundStore),
    /// It cannot be used.
    Unusable(Unusable),
}

/// A store that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundStore {
    /// The store.
    pub store: PersistStore,
    /// The number of its device.
    pub device: u64,
    /// The bytes that may still be written.
    pub free: u64,
    /// Its size in bytes.
    pub total: u64,
    /// Whether its file system is mounted read-only.
    pub mounted_read_only: bool,
    /// The bytes that copies of the sector take there, done or not.
    pub present: u64,
}

/// Why a store cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unusable {
    /// What is wrong.
    pub kind: StoreErrorKind,
    /// The error and its causes.
    pub reason: String,
    /// What an operator can do about it.
    pub hint: Option<String>,
}
