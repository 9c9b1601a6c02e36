//! What the workspace asks of a chain, and what it sends.

mod call;
mod client;
mod types;

pub use call::{
    Call, CallKind, CreateMiner, DeclareFaults, DeclareFaultsRecovered, PartitionSectors, PieceActivation,
    PoStPartition, PreCommit, PreCommitBatch, ProveCommit, SectorProof, SubmitWindowedPoSt,
};
pub use client::{BoxStream, ChainClient, ChainClientExt, ChainError, ChainErrorKind};
pub use types::{
    DeadlineInfo, DeadlineState, HeadChange, MessageId, MessageState, MinerInfo, NetworkInfo, OnChain, PartitionState,
    RandomnessKind, Receipt, SectorInfo, SubmitKey, TipsetKey, TipsetRef,
};
