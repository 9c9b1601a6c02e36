//! Moving sectors through their stages.

use crate::{Context, Epoch, Error, Kind, Recovery, SectorId, allocator::SectorLease};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, future::Future, time::Duration};

/// The name of a stage, e.g. `pc1`.
///
/// A journal may name stages that this build does not have, so this is not an enum.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageId(Cow<'static, str>);

impl StageId {
    /// Names a stage.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// Names a stage that was read from somewhere.
    pub fn read(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The result of one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// The stage ended and its result is on disk.
    Advanced {
        /// The stage that ended.
        stage: StageId,
    },
    /// Nothing to do before then.
    Waiting {
        /// The stage that waits.
        stage: StageId,
        /// When to step again.
        until: Wake,
    },
    /// The sector has reached the end of its plan.
    Finished,
}

/// When a waiting sector should be stepped again. A caller may always step earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Wake {
    /// At this epoch.
    Epoch(Epoch),
    /// After this long, or when the other side says that something changed.
    After(Duration),
}

/// Where a sector stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SectorProgress {
    /// The lease under which it is open.
    pub lease: SectorLease,
    /// The stages that have ended, in order.
    pub done: Vec<StageId>,
    /// The stage that comes next; none at the end of the plan.
    pub next: Option<StageId>,
}

/// Moves sectors through their stages, one durable step at a time.
///
/// # Contract
///
/// - A step either commits whole or leaves no trace: it may be repeated after a crash.
/// - At most one step per sector runs at a time; a second call waits.
/// - `step` never retries by itself; it returns the error and the caller asks [`Error::recovery`].
/// - A step that waits holds no processor slot.
/// - After a failed or cancelled step the sector is as it was before it.
/// - `close` of a sector that is not open fails; a failed `close` leaves it open.
/// - `open` under an older fence than the recorded one fails with [`SealErrorKind::Fenced`].
#[async_trait]
pub trait SealingPipeline: fmt::Debug + Send + Sync + 'static {
    /// Takes a sector on, or takes it up again after a restart.
    async fn open(&self, lease: SectorLease) -> Result<SectorId, SealError>;

    /// Does the next thing for a sector.
    async fn step(&self, id: SectorId, cx: &Context) -> Result<Step, SealError>;

    /// Forgets everything from `stage` on, so that the next step repeats it. History is kept.
    async fn rewind(&self, id: SectorId, stage: &StageId) -> Result<(), SealError>;

    /// Ends the work on a sector in this process and gives the lease back.
    async fn close(&self, id: SectorId) -> Result<SectorLease, SealError>;

    /// The sectors that are open.
    async fn progress(&self) -> Result<Vec<SectorProgress>, SealError>;
}

/// Conveniences for callers of [`SealingPipeline`].
pub trait SealingPipelineExt: SealingPipeline {
    /// Steps until the sector has to wait or is finished.
    fn step_until_idle(&self, id: SectorId, cx: &Context) -> impl Future<Output = Result<Step, SealError>> + Send {
        async move {
            loop {
                match self.step(id, cx).await? {
                    Step::Advanced { .. } if !cx.cancel.is_cancelled() => {}
                    other => return Ok(other),
                }
            }
        }
    }
}

impl<P: SealingPipeline + ?Sized> SealingPipelineExt for P {}

/// An error of a [`SealingPipeline`].
pub type SealError = Error<SealErrorKind>;

/// What went wrong while sealing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealErrorKind {
    /// The pipeline does not know the sector.
    UnknownSector,
    /// A stage failed.
    Stage,
    /// What a stage needs from an earlier one is missing or damaged.
    Damaged,
    /// The journal could not be read or written.
    Journal,
    /// A journal entry is not what was written.
    CorruptJournal,
    /// Another process works on this sector under a newer fence.
    Fenced,
    /// No space is left in the store.
    DiskFull,
    /// The sealing service did not answer.
    Service,
    /// The sealing service refused, and will refuse again.
    Refused,
    /// The chain says that this can never succeed, e.g. the ticket expired.
    Expired,
    /// The step was cancelled.
    Cancelled,
}

impl fmt::Display for SealErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownSector => "unknown sector",
            Self::Stage => "a stage failed",
            Self::Damaged => "the result of an earlier stage is missing or damaged",
            Self::Journal => "the journal could not be used",
            Self::CorruptJournal => "a journal entry is not what was written",
            Self::Fenced => "another process works on this sector under a newer fence",
            Self::DiskFull => "no space is left",
            Self::Service => "the sealing service did not answer",
            Self::Refused => "the sealing service refused",
            Self::Expired => "too late for the chain to accept this",
            Self::Cancelled => "cancelled",
        })
    }
}

impl Kind for SealErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Stage | Self::Journal | Self::DiskFull | Self::Service | Self::Cancelled => Recovery::RETRY,
            Self::UnknownSector | Self::Damaged | Self::CorruptJournal | Self::Fenced | Self::Refused => Recovery::Park,
            Self::Expired => Recovery::Abandon,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::DiskFull => Some("free space in the store; the sector goes on by itself"),
            Self::CorruptJournal => Some("the store may be failing; check its disk before anything else"),
            _ => None,
        }
    }
}
