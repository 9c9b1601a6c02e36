//! Handing out sectors.

use crate::{ActorId, Error, Fence, Kind, Recovery, RequestId, SealProofType, SectorId, StoreId, Timestamp};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// What a worker wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateRequest {
    /// Chosen by the worker and recorded in the sealing store before the first call, so that a lost reply returns the
    /// same sector.
    pub request: RequestId,
    /// The sealing store that will hold the layers: the owner of the lease.
    pub store: StoreId,
    /// Who asks, for people.
    pub worker: String,
    /// Only sectors of these miners; empty means any.
    pub miners: Vec<ActorId>,
    /// Only sectors of these proof types; empty means any.
    pub proof_types: Vec<SealProofType>,
    /// How long the holder may stay silent before it is shown as such.
    pub ttl: Duration,
}

/// The right of one sealing store to work on one sector.
///
/// A lease does not end by itself: past `heard_until` the sector is shown as silent, and the same store may take it
/// up again on any machine, under a higher fence. Only an operator's release opens it to another store, which has to
/// bring what was sealed with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorLease {
    /// The sector.
    pub sector: SectorId,
    /// How it is sealed.
    pub proof_type: SealProofType,
    /// The store that holds it.
    pub store: StoreId,
    /// The fencing number.
    pub fence: Fence,
    /// Until when the holder counts as heard from.
    pub heard_until: Timestamp,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The sector is proven on chain.
    Sealed,
    /// Another store may take the sector up.
    Handed,
    /// The number is burnt.
    Abandoned,
}

/// Hands out sectors.
///
/// # Contract
///
/// - A sector number is never handed out twice for new sectors, whatever crashes.
/// - `allocate` with a request id that was seen before returns the same sector and fence, as long as its lease
///   was neither taken up again nor released; it never returns a second sector.
/// - `allocate` returns `None` when there is no work: that is not an error.
/// - `take_up` by the store that holds the lease returns it under a higher fence; by any other store it fails with
///   [`AllocErrorKind::HeldElsewhere`].
/// - `renew` and `release` with an older fence fail with [`AllocErrorKind::Fenced`] and change nothing.
/// - `release` with the same outcome may be repeated.
#[async_trait]
pub trait SectorAllocator: fmt::Debug + Send + Sync + 'static {
    /// Leases a new sector.
    async fn allocate(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError>;

    /// Takes a sector up again for the store that holds it, after a restart or on another machine.
    async fn take_up(&self, store: &StoreId, sector: SectorId, ttl: Duration) -> Result<SectorLease, AllocError>;

    /// The leases of one store, whether heard from or silent.
    async fn held_by(&self, store: &StoreId) -> Result<Vec<SectorLease>, AllocError>;

    /// Says that the holder is alive.
    async fn renew(&self, lease: &SectorLease, ttl: Duration) -> Result<SectorLease, AllocError>;

    /// Ends a lease.
    async fn release(&self, lease: &SectorLease, outcome: Outcome) -> Result<(), AllocError>;
}

/// An error of a [`SectorAllocator`].
pub type AllocError = Error<AllocErrorKind>;

/// What went wrong while allocating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocErrorKind {
    /// Someone else holds a newer lease.
    Fenced,
    /// The sector is leased to another store.
    HeldElsewhere,
    /// No such lease.
    Unknown,
    /// The store behind the allocator did not answer.
    Unavailable,
    /// The request cannot be met and never will be, as it stands.
    Refused,
}

impl fmt::Display for AllocErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced => "the lease was taken over",
            Self::HeldElsewhere => "the sector is leased to another store",
            Self::Unknown => "no such lease",
            Self::Unavailable => "the allocator is unavailable",
            Self::Refused => "the allocator refused the request",
        })
    }
}

impl Kind for AllocErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Fenced | Self::HeldElsewhere | Self::Unknown | Self::Refused => Recovery::Park,
            Self::Unavailable => Recovery::RETRY,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::HeldElsewhere => Some(
                "`damocles-manager sectors release SECTOR` ends that lease; without a stored replica it gives the sector up",
            ),
            Self::Fenced => Some("another process works on this store; stop one of them"),
            _ => None,
        }
    }
}
