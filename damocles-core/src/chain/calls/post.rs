//! Calls that keep sectors proven.

use crate::{ActorId, DeadlineIndex, Epoch, PartitionIndex, PoStProofType, SectorSet, verify::Randomness};
use serde::{Deserialize, Serialize};

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
