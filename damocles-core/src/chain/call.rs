//! On-chain calls as domain values. damocles-chain alone turns them into actor parameters, CBOR, gas and signatures.

use crate::{
    ActorId, Address, CommD, CommR, DeadlineIndex, Epoch, PartitionIndex, PieceInfo, PoStProofType, SealProofType,
    SectorNumber, SectorSet, SectorSize, verify::Randomness,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Something that can be asked of an actor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Call {
    /// Power actor, `CreateMiner`. The client adds the deposit of FIP-0077.
    CreateMiner(CreateMiner),
    /// Miner actor, `PreCommitSectorBatch2`. The client adds the deposit.
    PreCommit(PreCommitBatch),
    /// Miner actor, `ProveCommitSectors3`. The client adds the pledge.
    ProveCommit(ProveCommit),
    /// Miner actor, `SubmitWindowedPoSt`.
    SubmitWindowedPoSt(SubmitWindowedPoSt),
    /// Miner actor, `DeclareFaults`.
    DeclareFaults(DeclareFaults),
    /// Miner actor, `DeclareFaultsRecovered`.
    DeclareFaultsRecovered(DeclareFaultsRecovered),
}

impl Call {
    /// Its class, which decides sender and fees.
    pub const fn kind(&self) -> CallKind {
        match self {
            Self::CreateMiner(_) => CallKind::CreateMiner,
            Self::PreCommit(_) => CallKind::PreCommit,
            Self::ProveCommit(_) => CallKind::ProveCommit,
            Self::SubmitWindowedPoSt(_) | Self::DeclareFaults(_) | Self::DeclareFaultsRecovered(_) => CallKind::PoSt,
        }
    }

    /// The miner that it is sent to; none for `CreateMiner`.
    pub const fn miner(&self) -> Option<ActorId> {
        match self {
            Self::CreateMiner(_) => None,
            Self::PreCommit(call) => Some(call.miner),
            Self::ProveCommit(call) => Some(call.miner),
            Self::SubmitWindowedPoSt(call) => Some(call.miner),
            Self::DeclareFaults(call) => Some(call.miner),
            Self::DeclareFaultsRecovered(call) => Some(call.miner),
        }
    }
}

/// The classes of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallKind {
    /// Making a miner.
    CreateMiner,
    /// Pre-commits.
    PreCommit,
    /// Prove-commits.
    ProveCommit,
    /// Proofs of spacetime, faults and recoveries: they outrank everything else.
    PoSt,
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateMiner => "create-miner",
            Self::PreCommit => "pre-commit",
            Self::ProveCommit => "prove-commit",
            Self::PoSt => "post",
        })
    }
}

/// Makes a miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateMiner {
    /// The owner; it sends the message.
    pub owner: Address,
    /// The worker: a BLS account.
    pub worker: Address,
    /// The size of its sectors.
    pub sector_size: SectorSize,
}

/// Pre-commits sectors of one miner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreCommitBatch {
    /// The miner.
    pub miner: ActorId,
    /// The sectors.
    pub sectors: Vec<PreCommit>,
}

/// Pre-commits one sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreCommit {
    /// Its number.
    pub number: SectorNumber,
    /// How it is sealed.
    pub proof_type: SealProofType,
    /// Its replica.
    pub comm_r: CommR,
    /// Its data; none for a committed-capacity sector.
    pub comm_d: Option<CommD>,
    /// The epoch of the ticket.
    pub ticket_epoch: Epoch,
    /// When it is to expire.
    pub expiration: Epoch,
}

/// Proves sectors of one miner, each by its own proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveCommit {
    /// The miner.
    pub miner: ActorId,
    /// The proofs.
    pub sectors: Vec<SectorProof>,
    /// Whether one sector that fails makes all fail.
    pub all_or_nothing: bool,
}

/// Proves one sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorProof {
    /// Its number.
    pub number: SectorNumber,
    /// The PoRep.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
    /// The pieces in it, in order; none for a committed-capacity sector.
    pub pieces: Vec<PieceActivation>,
}

/// A piece that becomes active with its sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceActivation {
    /// The piece.
    pub piece: PieceInfo,
}

/// Proves partitions of an open deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitWindowedPoSt {
    /// The miner.
    pub miner: ActorId,
    /// The deadline.
    pub deadline: DeadlineIndex,
    /// The partitions, 1 to 3.
    pub partitions: Vec<PoStPartition>,
    /// The kind of proof.
    pub proof_type: PoStProofType,
    /// The proof.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
    /// The epoch of the chain commitment.
    pub commit_epoch: Epoch,
    /// The chain commitment.
    pub commit_randomness: Randomness,
}

/// A partition in a WindowPoSt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoStPartition {
    /// Its index.
    pub index: PartitionIndex,
    /// Sectors that are left out and become faulty.
    pub skipped: SectorSet,
}

/// Declares sectors faulty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclareFaults {
    /// The miner.
    pub miner: ActorId,
    /// The sectors by partition.
    pub faults: Vec<PartitionSectors>,
}

/// Declares faulty sectors recovered; the next WindowPoSt proves them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclareFaultsRecovered {
    /// The miner.
    pub miner: ActorId,
    /// The sectors by partition.
    pub recoveries: Vec<PartitionSectors>,
}

/// Some sectors of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionSectors {
    /// The deadline.
    pub deadline: DeadlineIndex,
    /// The partition.
    pub partition: PartitionIndex,
    /// The sectors.
    pub sectors: SectorSet,
}
