//! What stages ask of a manager.

mod contract;
mod types;

pub use contract::{SealingService, ServiceError, ServiceErrorKind};
pub use types::{
    CommitState, DealPiece, Hello, PreCommitRequest, Report, ReportAnswer, Seed, SeedAnswer, StoreChoice, SubmitAnswer,
    Ticket,
};
