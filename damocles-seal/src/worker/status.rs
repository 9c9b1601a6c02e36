//! What a sealing thread does at this moment, for people.

use crate::stage::id;
use damocles_core::{Epoch, Kind, SectorId, Timestamp, pipeline::StageId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a sealing thread does at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStatus {
    /// Its sealing store.
    pub location: PathBuf,
    /// The sector that it has.
    pub sector: Option<SectorId>,
    /// The stage that comes next or runs.
    pub stage: Option<StageId>,
    /// What it does.
    pub state: ThreadState,
    /// Since when.
    pub since: Timestamp,
    /// The last error since the sector moved on.
    pub last_error: Option<ThreadError>,
    /// How often the stage failed since the sector moved on.
    pub failures: u32,
    /// Whether the work on the sector is over and the manager is told.
    #[serde(default)]
    pub ending: bool,
    /// When a waiting sector is looked at again, or a parked one goes on by itself, if the manager does not speak up
    /// and no operator acts before.
    #[serde(default)]
    pub wakes_at: Option<Timestamp>,
    /// What the sector waits for, if that is an epoch of the chain.
    #[serde(default)]
    pub epoch: Option<Epoch>,
}

impl ThreadStatus {
    /// Whether its sector is not sealed until there are pieces for it.
    pub fn waits_for_pieces(&self) -> bool {
        let at_pieces = self.stage == Some(id::PIECES) && self.state == ThreadState::Waiting;
        at_pieces && self.last_error.is_none() && self.epoch.is_none()
    }

    /// Whether a drain has nothing to wait for: no sector, or one that nothing was done for and that may wait for ever.
    pub(super) fn has_nothing_to_end(&self) -> bool {
        self.sector.is_none() || self.waits_for_pieces()
    }
}

/// What a sealing thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThreadState {
    /// It has not started.
    New,
    /// There is no work for it, or it pauses between two sectors.
    Idle,
    /// It runs a step.
    Running,
    /// It waits for the chain, for the manager, or before it repeats a step.
    Waiting,
    /// An operator paused it.
    Paused,
    /// It waits for an operator because of the last error.
    Parked,
    /// It takes nothing more on until an operator resumes it.
    Drained,
    /// It has ended.
    Stopped,
}

/// An error as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadError {
    /// The error with its causes.
    pub error: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl<K: Kind> From<&damocles_core::Error<K>> for ThreadError {
    fn from(error: &damocles_core::Error<K>) -> Self {
        Self { error: error.chain(), hint: error.hint().map(ToOwned::to_owned) }
    }
}
