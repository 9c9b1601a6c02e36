//! Fees that cron charges.

use crate::devnet::power::Economy;
use fil_actor_miner_state::v18::{
    SectorOnChainInfo, daily_proof_fee_payable, expected_reward_for_power, pledge_penalty_for_continued_fault,
    pledge_penalty_for_termination, qa_power_for_sector,
};
use fil_actors_shared::v18::{network::EPOCHS_IN_DAY, runtime::Policy};
use fvm_shared::{
    clock::ChainEpoch,
    econ::TokenAmount,
    sector::{SectorSize, StoragePower},
};

/// What sectors cost that stay faulty for another period.
pub(super) fn continued_fault(economy: &Economy, qa_power: &StoragePower) -> TokenAmount {
    pledge_penalty_for_continued_fault(&economy.reward, &economy.qa_power, qa_power)
}

/// The daily fee of a deadline, capped by what it is expected to earn.
pub(super) fn daily_fee(policy: &Policy, economy: &Economy, fee: &TokenAmount, live: &StoragePower) -> TokenAmount {
    let reward = expected_reward_for_power(&economy.reward, &economy.qa_power, live, EPOCHS_IN_DAY);
    daily_proof_fee_payable(policy, fee, &reward)
}

/// What sectors cost that end before their time.
pub(super) fn termination(
    size: SectorSize,
    epoch: ChainEpoch,
    economy: &Economy,
    sectors: &[SectorOnChainInfo],
) -> TokenAmount {
    sectors
        .iter()
        .map(|sector| {
            let fault = continued_fault(economy, &qa_power_for_sector(size, sector));
            pledge_penalty_for_termination(&sector.initial_pledge, epoch - sector.activation, &fault)
        })
        .sum()
}
