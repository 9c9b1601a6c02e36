//! For whom sectors are made.

use damocles_core::{ActorId, SealProofType, allocator::AllocateRequest};
use serde::{Deserialize, Serialize};

/// What sectors of one miner are to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerPolicy {
    /// The miner.
    pub miner: ActorId,
    /// How its new sectors are sealed.
    pub proof_type: SealProofType,
    /// Lower numbers are never handed out.
    pub min_number: u64,
    /// Whether new sectors are handed out at all.
    pub enabled: bool,
    /// Hand out at most this many sectors, abandoned ones not counted; none for no limit.
    pub max_sectors: Option<u64>,
}

impl MinerPolicy {
    /// New sectors without limit, from number 1.
    pub fn new(miner: ActorId, proof_type: SealProofType) -> Self {
        Self { miner, proof_type, min_number: 1, enabled: true, max_sectors: None }
    }

    pub(super) fn serves(&self, want: &AllocateRequest) -> bool {
        self.enabled
            && (want.miners.is_empty() || want.miners.contains(&self.miner))
            && (want.proof_types.is_empty() || want.proof_types.contains(&self.proof_type))
    }
}
