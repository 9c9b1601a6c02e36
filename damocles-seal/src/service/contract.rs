//! The trait between stages and managers.

use super::{
    CommitState, DealPiece, Hello, PieceTerms, PreCommitRequest, Report, ReportAnswer, SeedAnswer, StoreChoice,
    SubmitAnswer, Ticket,
};
use async_trait::async_trait;
use damocles_core::{Error, Kind, Recovery, allocator::SectorLease};
use std::{fmt, time::Duration};

/// What stages ask of a manager. Stages never hold a chain client.
///
/// # Contract
///
/// - Every call names the lease: an implementation that leases refuses an older fence with
///   [`ServiceErrorKind::Fenced`] and changes nothing.
/// - `ticket` returns the ticket of the pre-commit once one is recorded, unless that one failed, was refused or was
///   dropped: a replica that is made again comes out the same.
/// - An abort is refused with [`ServiceErrorKind::Refused`] while a proof may be on chain. After an abort nothing but
///   reports is taken: the holder is told to give the sector up with [`Recovery::Abandon`].
/// - Everything but `ticket` may be repeated and gives the same answer until the chain moves.
/// - `pieces` gives what waited longest, within the terms. What it gave to a sector it returns for ever, whatever the
///   terms of later questions. None means committed capacity for ever if the terms say that they settle the sector;
///   otherwise it may be given some later. A piece is given to one sector, until that is given up. A pre-commit to a
///   replica without data settles the sector too.
/// - `submit_pre_commit` and `submit_proof` return after the submission is recorded durably; a repeat of the same
///   content is accepted and sends nothing new, a different content is [`SubmitAnswer::Mismatched`] unless the earlier
///   one failed, was refused or was dropped. What was refused is [`SubmitAnswer::Rejected`] if it is submitted again.
/// - `submit_proof` is refused until `persisted` said that the replica is in a store that the PoSt side can read.
/// - A landed state is only given with the confidence that the manager is configured for.
/// - `changed` returns when something about the sector may have changed, after `at_most`, or earlier; it is a wait, never a promise.
#[async_trait]
pub trait SealingService: fmt::Debug + Send + Sync + 'static {
    /// Who the manager is.
    async fn hello(&self) -> Result<Hello, ServiceError>;

    /// The pieces that the sector must hold, the largest first.
    async fn pieces(&self, lease: &SectorLease, terms: PieceTerms) -> Result<Vec<DealPiece>, ServiceError>;

    /// A ticket for the sector. Each call may draw a newer one until one is committed to.
    async fn ticket(&self, lease: &SectorLease) -> Result<Ticket, ServiceError>;

    /// Submits the pre-commit.
    async fn submit_pre_commit(
        &self,
        lease: &SectorLease,
        request: &PreCommitRequest,
    ) -> Result<SubmitAnswer, ServiceError>;

    /// Where the pre-commit stands.
    async fn pre_commit_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError>;

    /// Chooses a persist store with room for `bytes` among `candidates`; none when there is none at present. The same
    /// sector gets the same store again while that store has room for it or holds it.
    async fn reserve(
        &self,
        lease: &SectorLease,
        bytes: u64,
        candidates: &[String],
    ) -> Result<Option<StoreChoice>, ServiceError>;

    /// Says that the replica is in this store; false if the manager does not find all its files there.
    async fn persisted(&self, lease: &SectorLease, store: &str) -> Result<bool, ServiceError>;

    /// The seed for the proof.
    async fn seed(&self, lease: &SectorLease) -> Result<SeedAnswer, ServiceError>;

    /// Submits the seal proof. The manager verifies it before it records it.
    async fn submit_proof(&self, lease: &SectorLease, proof: &[u8]) -> Result<SubmitAnswer, ServiceError>;

    /// Where the proof stands.
    async fn proof_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError>;

    /// Tells how the sector is.
    async fn report(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError>;

    /// Waits until something about the sector may have changed.
    async fn changed(&self, lease: &SectorLease, at_most: Duration) -> Result<(), ServiceError>;
}

/// An error of a [`SealingService`].
pub type ServiceError = Error<ServiceErrorKind>;

/// What went wrong between a worker and a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServiceErrorKind {
    /// The manager cannot be reached, or what it needs cannot.
    Unavailable,
    /// The manager's answer could not be understood.
    Malformed,
    /// The manager does not know the sector.
    UnknownSector,
    /// The sector is leased under a newer fence.
    Fenced,
    /// The manager refused, and will refuse again.
    Refused,
}

impl fmt::Display for ServiceErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "the manager is unavailable",
            Self::Malformed => "the manager's answer could not be understood",
            Self::UnknownSector => "the manager does not know the sector",
            Self::Fenced => "the sector is leased under a newer fence",
            Self::Refused => "the manager refused",
        })
    }
}

impl Kind for ServiceErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Unavailable | Self::Malformed => Recovery::RETRY,
            Self::UnknownSector | Self::Fenced | Self::Refused => Recovery::Park,
        }
    }
}
