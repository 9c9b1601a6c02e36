//! The trait of a journal.

use super::{Entry, NewEntry, SectorRecord};
use crate::service::Report;
use async_trait::async_trait;
use damocles_core::{
    Fence, RequestId, SectorId,
    allocator::{Outcome, SectorLease},
    pipeline::{SealError, StageId},
};
use std::fmt;

/// Records what happens to the sectors of one sealing store.
///
/// # Contract
///
/// - What `open`, `append` and `set_pending_request` wrote is synced before they return; a failed one wrote nothing.
/// - Entries are never changed and never removed.
/// - `open` and `append` under an older fence than the recorded one fail with
///   [`SealErrorKind::Fenced`](damocles_core::pipeline::SealErrorKind::Fenced).
/// - `open` answers the pending request: both happen in one transaction.
/// - What the manager is to be told waits in the order in which it was recorded, until it is told or its sector has ended.
/// - An entry that is not what was written makes `history` and `load` of its sector fail with
///   [`SealErrorKind::CorruptJournal`](damocles_core::pipeline::SealErrorKind::CorruptJournal), and of no other sector.
#[async_trait]
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// Takes a sector on under this lease.
    async fn open(&self, lease: &SectorLease) -> Result<(), SealError>;

    /// Adds an entry and returns its number within the sector.
    async fn append(&self, sector: SectorId, fence: Fence, entry: NewEntry) -> Result<u64, SealError>;

    /// Every entry of a sector, in order and verified. Empty for a sector that was never opened.
    async fn history(&self, sector: SectorId) -> Result<Vec<Entry>, SealError>;

    /// The sectors that were opened and have not ended.
    async fn active(&self) -> Result<Vec<JournalSector>, SealError>;

    /// The request that was recorded and not answered yet.
    async fn pending_request(&self) -> Result<Option<RequestId>, SealError>;

    /// Records a request before it is made, or forgets one that is void.
    async fn set_pending_request(&self, request: Option<&RequestId>) -> Result<(), SealError>;

    /// Records what the manager is to be told beside any entry. A failure that is the last one to be told already is
    /// recorded once; beyond [`MOST_UNTOLD`] the oldest is forgotten.
    async fn tell(&self, sector: SectorId, fence: Fence, report: &Report) -> Result<(), SealError>;

    /// What the manager has not heard of a sector yet, oldest first. What this build cannot read is passed over.
    async fn untold(&self, sector: SectorId) -> Result<Vec<Untold>, SealError>;

    /// The manager has heard everything of a sector up to this number.
    async fn told(&self, sector: SectorId, number: u64) -> Result<(), SealError>;

    /// Where a sector stands.
    async fn load(&self, sector: SectorId) -> Result<SectorRecord, SealError> {
        SectorRecord::replay(sector, &self.history(sector).await?)
    }
}

/// So many reports of a sector wait for a manager that is away. A plan has fewer stages.
pub const MOST_UNTOLD: u32 = 64;

/// What a manager has not heard yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// Its number: later ones have higher ones.
    pub number: u64,
    /// What it is to hear.
    pub report: Report,
}

/// A sector that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSector {
    /// The lease under which it was opened last.
    pub lease: SectorLease,
    /// How it is.
    pub phase: Phase,
}

/// How a sector that has not ended is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// It moves through its plan.
    Active,
    /// It waits for an operator.
    Parked {
        /// The stage that failed, if it was one.
        stage: Option<StageId>,
        /// The error with its causes.
        error: String,
        /// What an operator can do.
        hint: Option<String>,
        /// Whether the error may pass although nobody does anything.
        may_pass: bool,
    },
    /// The work is over; the manager may or may not know.
    Ending {
        /// How it ended.
        outcome: Outcome,
        /// Why, if it was abandoned.
        reason: Option<String>,
    },
}
