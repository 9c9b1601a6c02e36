//! Calls that change what was committed, and what a commitment refers to.

use super::PartitionSectors;
use crate::{ActorId, Address, DeadlineIndex, Epoch, PartitionIndex, SectorNumber, SectorSet};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// Extends sectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtendSectors {
    /// The miner.
    pub miner: ActorId,
    /// The extensions.
    pub extensions: Vec<SectorExtension>,
}

/// Extends sectors of one partition to one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorExtension {
    /// The deadline.
    pub deadline: DeadlineIndex,
    /// The partition.
    pub partition: PartitionIndex,
    /// Sectors without verified data.
    pub sectors: SectorSet,
    /// Sectors with verified data: all claims of each have to be named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<SectorClaims>,
    /// When they are to expire.
    pub expiration: Epoch,
}

/// The claims of one sector, and what becomes of them when it is extended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorClaims {
    /// The sector.
    pub number: SectorNumber,
    /// Claims that are kept: the sector may not outlive their terms.
    pub maintain: Vec<AllocationId>,
    /// Claims that are given up, which is allowed in the last 30 days of a sector.
    pub drop: Vec<AllocationId>,
}

/// A verified allocation of a client. A claim keeps the ID of its allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AllocationId(pub u64);

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The allocation that a piece claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Allocation {
    /// The client that made it.
    pub client: ActorId,
    /// Its ID.
    pub id: AllocationId,
}

/// An actor that is told that a piece became active, the market actor for instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// The actor.
    pub receiver: Address,
    /// What it is sent.
    #[serde(with = "hex")]
    pub payload: Vec<u8>,
}

/// Ends sectors before they expire, for a fee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminateSectors {
    /// The miner.
    pub miner: ActorId,
    /// The sectors by partition; none to work on terminations that are still queued.
    pub terminations: Vec<PartitionSectors>,
}

/// Removes terminated sectors from partitions and fills these up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactPartitions {
    /// The miner.
    pub miner: ActorId,
    /// The deadline.
    pub deadline: DeadlineIndex,
    /// The partitions. The actor loads at most 25,000 sectors: 10 partitions of 32 GiB or 64 GiB sectors.
    pub partitions: BTreeSet<PartitionIndex>,
}

/// Marks sector numbers as used for ever, which shortens the record of used numbers where it has holes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompactSectorNumbers {
    /// The miner.
    pub miner: ActorId,
    /// The numbers.
    pub mask: Vec<SectorRange>,
}

/// Successive sector numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SectorRange {
    /// The first.
    pub first: SectorNumber,
    /// The last.
    pub last: SectorNumber,
}
