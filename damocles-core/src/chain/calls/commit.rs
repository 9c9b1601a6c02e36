//! Calls that bring sectors and their data onto the chain.

use super::{Allocation, Notification};
use crate::{
    ActorId, CommD, CommR, DeadlineIndex, Epoch, PartitionIndex, PieceInfo, SealProofType, SectorNumber, SectorSize,
};
use serde::{Deserialize, Serialize};

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
    /// The verified allocation that it claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<Allocation>,
    /// Who is told of it. A refusal of theirs does not keep the sector from becoming active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notification>,
}

impl PieceActivation {
    /// A piece that claims nothing and of which nobody is told.
    pub const fn of(piece: PieceInfo) -> Self {
        Self { piece, allocation: None, notify: Vec::new() }
    }
}

/// Proves pre-committed sectors of one miner by one aggregated proof (SnarkPack v2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveCommitAggregate {
    /// The miner.
    pub miner: ActorId,
    /// The sectors in the order in which they were aggregated, 4 to 819.
    pub sectors: Vec<SectorPieces>,
    /// The aggregated proof.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
    /// Whether one sector that fails makes all fail.
    pub all_or_nothing: bool,
}

/// A sector and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorPieces {
    /// Its number.
    pub number: SectorNumber,
    /// The pieces in it, in order; none for a committed-capacity sector.
    pub pieces: Vec<PieceActivation>,
}

/// Puts data into committed-capacity sectors of one miner, each proven by its own proof.
///
/// The actor knows a field for an aggregated proof and refuses every message that uses it, so there is none here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveReplicaUpdates {
    /// The miner.
    pub miner: ActorId,
    /// The size of its sectors, from which the kind of proof follows.
    pub sector_size: SectorSize,
    /// The updates.
    pub sectors: Vec<SectorUpdate>,
    /// Whether one sector that fails makes all fail.
    pub all_or_nothing: bool,
}

/// Puts data into one sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorUpdate {
    /// Its number.
    pub number: SectorNumber,
    /// The deadline that it is in; it must not be open, nor the next to open.
    pub deadline: DeadlineIndex,
    /// The partition that it is in.
    pub partition: PartitionIndex,
    /// The new replica.
    pub comm_r: CommR,
    /// The proof of the update.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
    /// The pieces in it, in order.
    pub pieces: Vec<PieceActivation>,
}

/// Commits sectors without data by one aggregated non-interactive proof; there is no pre-commit (FIP-0092).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveCommitNi {
    /// The miner.
    pub miner: ActorId,
    /// The size of its sectors, from which the kind of proof follows.
    pub sector_size: SectorSize,
    /// The sectors in the order in which they were aggregated, 1 to 65.
    pub sectors: Vec<NiSector>,
    /// The aggregated proof.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
    /// The deadline that the sectors go to; it must not be open, nor the next to open.
    pub deadline: DeadlineIndex,
    /// Whether one sector that fails makes all fail.
    pub all_or_nothing: bool,
}

/// A sector with a non-interactive proof. It was sealed under its own number by the miner itself: the actor takes no
/// other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NiSector {
    /// Its number.
    pub number: SectorNumber,
    /// Its replica.
    pub comm_r: CommR,
    /// The epoch of the ticket.
    pub ticket_epoch: Epoch,
    /// When it is to expire.
    pub expiration: Epoch,
}
