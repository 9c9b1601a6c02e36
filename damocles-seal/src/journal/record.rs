//! Where a sector stands, derived from its entries.

use super::{
    Entry, EntryKind, Phase,
    entry::{ENTRY_VERSION, EntryFault},
};
use damocles_core::{
    Error, SectorId,
    allocator::{Outcome, SectorLease},
    pipeline::{SealError, SealErrorKind, StageId},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// What a stage brought about. Opaque to the pipeline; later stages look it up by stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The stage that ended.
    pub stage: StageId,
    /// The version of the output's form.
    pub version: u32,
    /// Its output.
    pub output: Value,
}

/// Everything known about one sector.
#[derive(Clone, Debug)]
pub struct SectorRecord {
    lease: SectorLease,
    facts: Vec<Fact>,
    dropped: Vec<Fact>,
    /// The stages that were named by a rewind, each with how many facts were dropped by then.
    named: Vec<(StageId, usize)>,
    rewinds: Vec<StageId>,
}

#[derive(Deserialize)]
struct Rewound {
    dropped: Vec<StageId>,
}

impl SectorRecord {
    /// A sector of which nothing is known but its lease.
    pub fn new(lease: SectorLease) -> Self {
        Self { lease, facts: Vec::new(), dropped: Vec::new(), named: Vec::new(), rewinds: Vec::new() }
    }

    /// Follows the entries of a sector.
    ///
    /// # Errors
    ///
    /// The sector was never opened, or an entry is not what was written.
    pub fn replay(sector: SectorId, entries: &[Entry]) -> Result<Self, SealError> {
        let mut record: Option<Self> = None;
        for entry in entries {
            let corrupt = |fault: EntryFault| corrupt(sector, entry.seq, fault);
            let output = entry.verified(sector).map_err(corrupt)?;
            if entry.kind != EntryKind::Done && entry.version > ENTRY_VERSION {
                return Err(newer(sector, entry.seq));
            }
            if entry.kind == EntryKind::Opened {
                let lease: SectorLease = serde_json::from_value(output).map_err(|e| corrupt(EntryFault::Output(e)))?;
                let record = record.get_or_insert_with(|| Self::new(lease.clone()));
                record.lease = lease;
                record.rewinds.clear();
                continue;
            }
            let Some(record) = record.as_mut() else {
                return Err(corrupt(EntryFault::Gap { expected: 0 }));
            };
            record.follow(entry, output).map_err(corrupt)?;
        }
        record.ok_or_else(|| Error::new(SealErrorKind::UnknownSector, "read journal").with("sector", sector))
    }

    fn follow(&mut self, entry: &Entry, output: Value) -> Result<(), EntryFault> {
        let Some(stage) = entry.stage.clone() else {
            return Ok(());
        };
        match entry.kind {
            EntryKind::Done => {
                self.facts.retain(|f| f.stage != stage);
                self.facts.push(Fact { stage, version: entry.version, output });
            }
            EntryKind::Rewound => {
                let rewound: Rewound = serde_json::from_value(output).map_err(EntryFault::Output)?;
                let (gone, kept) =
                    std::mem::take(&mut self.facts).into_iter().partition(|f| rewound.dropped.contains(&f.stage));
                self.facts = kept;
                self.dropped.extend::<Vec<Fact>>(gone);
                self.named.push((stage.clone(), self.dropped.len()));
                self.rewinds.push(stage);
            }
            _ => {}
        }
        Ok(())
    }

    /// The sector.
    pub fn sector(&self) -> SectorId {
        self.lease.sector
    }

    /// The lease under which it is open.
    pub fn lease(&self) -> &SectorLease {
        &self.lease
    }

    pub(crate) fn set_lease(&mut self, lease: SectorLease) {
        self.lease = lease;
    }

    /// The facts that count, in the order in which they came about.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// What a stage brought about, if it has ended.
    pub fn fact(&self, stage: &StageId) -> Option<&Fact> {
        self.facts.iter().find(|f| f.stage == *stage)
    }

    /// The output of a stage that must have ended.
    ///
    /// # Errors
    ///
    /// It has not, or its output is not of this form.
    pub fn output<T: DeserializeOwned>(&self, stage: &StageId) -> Result<T, SealError> {
        let fact = self.fact(stage).ok_or_else(|| {
            Error::new(SealErrorKind::Damaged, "read the output of a stage")
                .with("sector", self.sector())
                .with("stage", stage)
                .hint_with("the plan lacks this stage, or has it too late")
        })?;
        T::deserialize(&fact.output).map_err(|e| {
            Error::new(SealErrorKind::CorruptJournal, "read the output of a stage")
                .with("sector", self.sector())
                .with("stage", stage)
                .because(e)
        })
    }

    /// What a stage brought about before it was rewound, oldest first.
    pub fn dropped<'a>(&'a self, stage: &'a StageId) -> impl Iterator<Item = &'a Fact> {
        self.dropped.iter().filter(move |f| f.stage == *stage)
    }

    /// What a stage brought about last, if it was dropped only because an earlier stage has to be repeated. None if a
    /// rewind named the stage itself since: then its output was of no use.
    pub fn carried(&self, stage: &StageId) -> Option<&Fact> {
        let at = self.dropped.iter().rposition(|f| f.stage == *stage)?;
        let named = self.named.iter().any(|(to, dropped)| to == stage && *dropped > at);
        self.dropped.get(at).filter(|_| !named)
    }

    /// How often the sector went back to this stage since it was opened last.
    pub fn rewinds(&self, to: &StageId) -> usize {
        self.rewinds.iter().filter(|s| *s == to).count()
    }
}

pub(crate) fn corrupt(sector: SectorId, seq: u64, fault: EntryFault) -> SealError {
    Error::new(SealErrorKind::CorruptJournal, "read journal").with("sector", sector).with("entry", seq).because(fault)
}

fn newer(sector: SectorId, seq: u64) -> SealError {
    Error::new(SealErrorKind::CorruptJournal, "read journal")
        .with("sector", sector)
        .with("entry", seq)
        .hint_with("the entry was written by a newer version of damocles-worker; use that one")
}

#[derive(Deserialize)]
struct Parked {
    error: String,
    hint: Option<String>,
    /// Entries of earlier versions do not say so.
    #[serde(default)]
    may_pass: bool,
}

#[derive(Deserialize)]
struct Ending {
    outcome: Outcome,
    reason: Option<String>,
}

/// The phase that the last entry of the kinds parked, resumed and ending tells.
pub(crate) fn phase_of(sector: SectorId, last: Option<&Entry>) -> Phase {
    let Some(entry) = last else {
        return Phase::Active;
    };
    let told = || {
        let output = entry.verified(sector)?;
        Ok(match entry.kind {
            EntryKind::Parked => {
                let Parked { error, hint, may_pass } = serde_json::from_value(output).map_err(EntryFault::Output)?;
                Phase::Parked { stage: entry.stage.clone(), error, hint, may_pass }
            }
            EntryKind::Ending => {
                let Ending { outcome, reason } = serde_json::from_value(output).map_err(EntryFault::Output)?;
                Phase::Ending { outcome, reason }
            }
            _ => Phase::Active,
        })
    };
    told().unwrap_or_else(|fault| parked(&corrupt(sector, entry.seq, fault)))
}

/// A sector that waits for an operator because of what the journal holds of it.
pub(crate) fn parked(error: &SealError) -> Phase {
    Phase::Parked { stage: None, error: error.chain(), hint: error.hint().map(ToOwned::to_owned), may_pass: false }
}
