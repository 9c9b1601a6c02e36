#![doc = include_str!("../README.md")]

pub mod allocator;
mod amount;
pub mod chain;
mod clock;
mod commitment;
mod context;
mod error;
mod event;
mod ids;
mod network;
mod piece;
pub mod pipeline;
pub mod pool;
pub mod post;
mod proof_type;
mod resource;
mod sector_set;
pub mod verify;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use amount::{ParseTokenAmountError, TokenAmount};
pub use clock::{Clock, Timestamp};
pub use commitment::{CommD, CommP, CommR, ParseCommitmentError, zero_comm_d};
pub use context::Context;
pub use error::{BoxError, Error, Kind, Recovery};
pub use event::{Event, EventSink, FundsEvent, JobEvent, MessageEvent, NullSink, StageEvent};
pub use ids::{
    ActorId, Address, DeadlineIndex, Epoch, Fence, JobId, ParseIdError, PartitionIndex, RequestId, SectorId,
    SectorNumber, StoreId,
};
pub use network::{EpochTimes, Network, UnknownNetwork};
pub use piece::{PaddedPieceSize, PieceInfo, PieceSizeError, UnpaddedPieceSize};
pub use proof_type::{
    AggregationType, PoRepKind, PoStProofType, SealProofType, SectorSize, UnknownProofType, UnknownSectorSize,
};
pub use resource::{ByteSize, CpuSet, GpuId, NodeSet, ParseByteSizeError, ParseSetError};
pub use sector_set::SectorSet;

// Part of our API (`Context::cancel`), so callers need exactly this version.
pub use tokio_util::sync::CancellationToken;
// Part of our API (`CommR::cid`, `MessageId`), for the same reason.
pub use cid::Cid;
