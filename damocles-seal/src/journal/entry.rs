//! One entry of a journal.

use crate::service::Report;
use damocles_core::{
    Fence, Recovery, SectorId, Timestamp, allocator::Outcome, allocator::SectorLease, pipeline::StageId,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::str::FromStr;

/// One thing that happened to a sector, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number within the sector, from 1 without gaps.
    pub seq: u64,
    /// What happened.
    pub kind: EntryKind,
    /// The stage that it happened to, if it concerns one.
    pub stage: Option<StageId>,
    /// The version of the output's form.
    pub version: u32,
    /// The fence under which it was written.
    pub fence: Fence,
    /// When it was written, for people.
    pub at: Timestamp,
    /// The JSON text, as written: the checksum is over these bytes.
    pub output: String,
    /// Over everything above and the sector.
    pub checksum: Vec<u8>,
}

/// What an entry says. Written by name, never by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EntryKind {
    /// A process took the sector on under this lease.
    Opened,
    /// A stage starts.
    Started,
    /// A stage ended with this output.
    Done,
    /// The outputs of these stages count no more.
    Rewound,
    /// The sector waits for an operator.
    Parked,
    /// An operator let it go on.
    Resumed,
    /// The work is over and the manager is about to be told.
    Ending,
    /// The manager knows.
    Ended,
}

impl EntryKind {
    const ALL: [Self; 8] = [
        Self::Opened,
        Self::Started,
        Self::Done,
        Self::Rewound,
        Self::Parked,
        Self::Resumed,
        Self::Ending,
        Self::Ended,
    ];

    /// Its name in the journal.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Started => "started",
            Self::Done => "done",
            Self::Rewound => "rewound",
            Self::Parked => "parked",
            Self::Resumed => "resumed",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

impl FromStr for EntryKind {
    type Err = EntryFault;

    fn from_str(text: &str) -> Result<Self, EntryFault> {
        let unknown = || EntryFault::Kind(text.chars().take(40).collect());
        Self::ALL.into_iter().find(|k| k.as_str() == text).ok_or_else(unknown)
    }
}

/// Why an entry is not what was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryFault {
    /// Its bytes changed.
    #[error("the checksum does not match")]
    Checksum,
    /// An entry before it is missing.
    #[error("entry {expected} is missing")]
    Gap {
        /// The number that should have come.
        expected: u64,
    },
    /// This build does not know what it says.
    #[error("`{0}` is no kind of entry that this version knows")]
    Kind(String),
    /// Its output cannot be read.
    #[error("the output cannot be read")]
    Output(#[source] serde_json::Error),
    /// A number in it is out of range.
    #[error("{what} is out of range")]
    Range {
        /// Which.
        what: &'static str,
    },
}

impl Entry {
    /// Makes the entry that will be written.
    pub(crate) fn seal(sector: SectorId, seq: u64, fence: Fence, at: Timestamp, new: NewEntry) -> Self {
        let output = new.output.to_string();
        let mut entry = Self {
            seq,
            kind: new.kind,
            stage: new.stage,
            version: new.version,
            fence,
            at,
            output,
            checksum: Vec::new(),
        };
        entry.checksum = entry.digest(sector);
        entry
    }

    fn digest(&self, sector: SectorId) -> Vec<u8> {
        let mut hash = Sha256::new();
        let stage = self.stage.as_ref().map_or("", StageId::as_str);
        for part in [sector.to_string().as_str(), self.kind.as_str(), stage, self.output.as_str()] {
            hash.update(part.len().to_string());
            hash.update(":");
            hash.update(part);
        }
        hash.update(self.seq.to_be_bytes());
        hash.update(self.version.to_be_bytes());
        hash.update(self.fence.0.to_be_bytes());
        hash.update(self.at.0.to_be_bytes());
        hash.finalize().to_vec()
    }

    /// Its output, if it is what was written.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn verified(&self, sector: SectorId) -> Result<Value, EntryFault> {
        if self.digest(sector) != self.checksum {
            return Err(EntryFault::Checksum);
        }
        serde_json::from_str(&self.output).map_err(EntryFault::Output)
    }
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    /// What happened.
    pub kind: EntryKind,
    /// The stage that it happened to, if it concerns one.
    pub stage: Option<StageId>,
    /// The version of the output's form.
    pub version: u32,
    /// What is recorded with it.
    pub output: Value,
    /// What the manager is to be told about it, recorded in the same transaction.
    pub report: Option<Report>,
}

/// The version of the entries that are not a stage's own.
pub(crate) const ENTRY_VERSION: u32 = 1;

impl NewEntry {
    fn new(kind: EntryKind, stage: Option<StageId>, output: Value) -> Self {
        Self { kind, stage, version: ENTRY_VERSION, output, report: None }
    }

    /// A process takes the sector on.
    pub fn opened(lease: &SectorLease) -> Self {
        let SectorLease { sector, proof_type, store, fence, heard_until } = lease;
        let lease = json!({
            "sector": sector, "proof_type": proof_type, "store": store, "fence": fence, "heard_until": heard_until,
        });
        Self::new(EntryKind::Opened, None, lease)
    }

    /// A stage starts.
    pub fn started(stage: StageId) -> Self {
        Self::new(EntryKind::Started, Some(stage), Value::Null)
    }

    /// A stage ended with this output.
    pub fn done(stage: StageId, version: u32, output: Value) -> Self {
        Self { kind: EntryKind::Done, stage: Some(stage), version, output, report: None }
    }

    /// What `dropped` brought about counts no more; `to` comes next.
    pub fn rewound(to: StageId, dropped: &[StageId], reason: &str) -> Self {
        Self::new(EntryKind::Rewound, Some(to), json!({ "dropped": dropped, "reason": reason }))
    }

    /// The sector waits for an operator.
    pub fn parked(stage: Option<StageId>, error: &str, hint: Option<&str>) -> Self {
        Self::new(EntryKind::Parked, stage, json!({ "error": error, "hint": hint, "recovery": Recovery::Park }))
    }

    /// Has the manager told this about it: after a crash too, and once it is there.
    #[must_use]
    pub fn telling(mut self, report: Report) -> Self {
        self.report = Some(report);
        self
    }

    /// Says of [`NewEntry::parked`] that the error may pass by itself.
    #[must_use]
    pub fn may_pass(mut self) -> Self {
        if let Some(output) = self.output.as_object_mut() {
            output.insert("may_pass".to_owned(), Value::Bool(true));
        }
        self
    }

    /// An operator let it go on.
    pub fn resumed() -> Self {
        Self::new(EntryKind::Resumed, None, Value::Null)
    }

    /// The work is over with this outcome, and the manager is about to be told.
    pub fn ending(outcome: Outcome, reason: Option<&str>) -> Self {
        Self::new(EntryKind::Ending, None, json!({ "outcome": outcome, "reason": reason }))
    }

    /// The manager knows.
    pub fn ended(outcome: Outcome) -> Self {
        Self::new(EntryKind::Ended, None, json!({ "outcome": outcome }))
    }
}
