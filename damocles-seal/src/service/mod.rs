//! What stages ask of a manager.

pub(crate) mod comm_d;
mod contract;
mod manager;
mod terms;
mod types;

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
mod memory;

pub use comm_d::{CommDError, comm_d_of};
pub use contract::{SealingService, ServiceError, ServiceErrorKind};
pub use manager::{KnownWorker, ManagerConfig, ManagerParts, ManagerService, PieceDirs, QueuedPiece, ReplicaStores};
#[cfg(feature = "testing")]
pub use memory::{InMemoryService, ServiceCall};
pub use terms::PieceTerms;
pub use types::{
    CommitState, DealPiece, Hello, KeyTable, PreCommitRequest, Report, ReportAnswer, Seed, SeedAnswer, StoreChoice,
    SubmitAnswer, Ticket,
};
