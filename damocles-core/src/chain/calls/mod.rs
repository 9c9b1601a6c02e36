//! What each call says, by what it is about.

mod commit;
mod miner;
mod money;
mod post;
mod sectors;

pub use commit::{
    NiSector, PieceActivation, PreCommit, PreCommitBatch, ProveCommit, ProveCommitAggregate, ProveCommitNi,
    ProveReplicaUpdates, SectorPieces, SectorProof, SectorUpdate,
};
pub use miner::{
    ChangeBeneficiary, ChangeMultiaddrs, ChangeOwner, ChangePeerId, ChangeWorker, ConfirmChangeWorker, CreateMiner,
    Multiaddr, ParsePeerError, PeerId,
};
pub use money::{RepayDebt, Transfer, WithdrawBalance};
pub use post::{DeclareFaults, DeclareFaultsRecovered, PartitionSectors, PoStPartition, SubmitWindowedPoSt};
pub use sectors::{
    Allocation, AllocationId, CompactPartitions, CompactSectorNumbers, ExtendSectors, Notification, SectorClaims,
    SectorExtension, SectorRange, TerminateSectors,
};
