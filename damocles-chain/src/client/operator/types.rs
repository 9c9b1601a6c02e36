//! What operators are told.

use damocles_core::{
    ActorId, Address, DeadlineIndex, Epoch, SectorSize, Timestamp, TokenAmount,
    chain::{PartitionState, TipsetKey},
};
use serde::{Deserialize, Serialize};

/// A tipset with what its blocks say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TipsetDetail {
    /// Its epoch.
    pub epoch: Epoch,
    /// When that began.
    pub time: Timestamp,
    /// The price of a unit of gas that its messages burnt.
    pub base_fee: TokenAmount,
    /// The tipset before it.
    pub parents: TipsetKey,
    /// Its blocks.
    pub blocks: Vec<BlockDetail>,
}

/// A block and who made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockDetail {
    /// Its CID.
    pub cid: String,
    /// Who made it.
    pub miner: Address,
}

/// All that a miner actor says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerDetail {
    /// The miner.
    pub miner: ActorId,
    /// The owner.
    pub owner: Address,
    /// Who was offered the ownership and has not confirmed it.
    pub pending_owner: Option<Address>,
    /// The worker.
    pub worker: Address,
    /// The worker that takes over, and from which epoch on that can be confirmed.
    pub new_worker: Option<(Address, Epoch)>,
    /// The control addresses.
    pub control: Vec<Address>,
    /// Who receives withdrawals.
    pub beneficiary: Address,
    /// What it may receive, if it is not the owner.
    pub term: Option<Term>,
    /// A beneficiary that was proposed and is not agreed on by everybody.
    pub pending_beneficiary: Option<PendingBeneficiary>,
    /// The libp2p identity.
    pub peer_id: Option<String>,
    /// Where it is found.
    pub multiaddrs: Vec<String>,
    /// The size of its sectors.
    pub sector_size: SectorSize,
    /// The most sectors in a partition.
    pub partition_sectors: u64,
    /// Until when it may not mine after a fault.
    pub consensus_fault_until: Option<Epoch>,
}

/// What a beneficiary may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// In all.
    pub quota: TokenAmount,
    /// So far.
    pub used: TokenAmount,
    /// Until when.
    pub expiration: Epoch,
}

/// A beneficiary that was proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingBeneficiary {
    /// Who.
    pub beneficiary: Address,
    /// What it may receive.
    pub quota: TokenAmount,
    /// Until when.
    pub expiration: Epoch,
    /// Whether the present beneficiary agreed.
    pub approved_by_present: bool,
    /// Whether the proposed one agreed.
    pub approved_by_proposed: bool,
}

/// Where a miner's money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinerFunds {
    /// All that the actor owns.
    pub balance: TokenAmount,
    /// What can be withdrawn or pledged: the debt and what is locked are taken off it.
    pub available: TokenAmount,
    /// Rewards that are released over time.
    pub vesting: TokenAmount,
    /// Pledged for sectors.
    pub initial_pledge: TokenAmount,
    /// Deposited for pre-commits.
    pub pre_commit_deposits: TokenAmount,
    /// What it owes. A withdrawal burns it first and pays out what is available beside it.
    pub fee_debt: TokenAmount,
}

/// A deadline and the partitions in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadlineDetail {
    /// Its index.
    pub index: DeadlineIndex,
    /// When it opens next, or opened if it is open.
    pub open: Epoch,
    /// When that window closes.
    pub close: Epoch,
    /// Whether it is the current one.
    pub current: bool,
    /// The partitions that were proven in the current window.
    pub proven: Vec<u64>,
    /// Its partitions.
    pub partitions: Vec<PartitionState>,
    /// The fee of a day for its sectors.
    pub daily_fee: TokenAmount,
}

/// What a message would cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// What goes along with it.
    pub value: TokenAmount,
    /// Its gas limit.
    pub gas_limit: u64,
    /// The most that is paid for a unit of gas.
    pub fee_cap: TokenAmount,
    /// The most that the gas may cost.
    pub max_fee: TokenAmount,
}
