//! What the workspace asks of a chain, and what it sends.

mod call;
mod calls;
mod client;
mod exit_code;
mod returned;
mod types;

pub use call::{Call, CallKind, SenderRole};
pub use calls::{
    Allocation, AllocationId, ChangeBeneficiary, ChangeMultiaddrs, ChangeOwner, ChangePeerId, ChangeWorker,
    CompactPartitions, CompactSectorNumbers, ConfirmChangeWorker, CreateMiner, DeclareFaults, DeclareFaultsRecovered,
    ExtendSectors, Multiaddr, NiSector, Notification, ParsePeerError, PartitionSectors, PeerId, PieceActivation,
    PoStPartition, PreCommit, PreCommitBatch, ProveCommit, ProveCommitAggregate, ProveCommitNi, ProveReplicaUpdates,
    RepayDebt, SectorClaims, SectorExtension, SectorPieces, SectorProof, SectorRange, SectorUpdate, SubmitWindowedPoSt,
    TerminateSectors, Transfer, WithdrawBalance,
};
pub use client::{BoxStream, ChainClient, ChainClientExt, ChainError, ChainErrorKind};
pub use exit_code::ExitCode;
pub use returned::{Returned, SectorOutcome};
pub use types::{
    DeadlineInfo, DeadlineState, HeadChange, MessageId, MessageState, MinerInfo, NetworkInfo, OnChain, PartitionState,
    RandomnessKind, Receipt, SectorInfo, SubmitKey, TipsetKey, TipsetRef,
};
