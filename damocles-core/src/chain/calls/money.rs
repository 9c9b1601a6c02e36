//! Calls that move money.

use crate::{ActorId, Address, TokenAmount};
use serde::{Deserialize, Serialize};

/// Takes money out of a miner; it goes to the beneficiary, which is the owner unless another was agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawBalance {
    /// The miner.
    pub miner: ActorId,
    /// How much; the actor pays out less if less is available.
    pub amount: TokenAmount,
    /// Who sends it: the owner or the beneficiary; the owner if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Address>,
}

/// Pays a miner's fee debt, from what is sent along and from what the miner has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepayDebt {
    /// The miner.
    pub miner: ActorId,
    /// How much is sent along. What the debt does not take stays with the miner.
    pub amount: TokenAmount,
}

/// Sends money from one account to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Who sends it.
    pub from: Address,
    /// Who gets it. An account that is not on chain yet is made.
    pub to: Address,
    /// How much.
    pub amount: TokenAmount,
}
