//! What comes out of a miner's balance and what goes into it: withdrawals, debts, block rewards.

use super::{
    encode,
    invocation::{Invocation, illegal_state},
};
use crate::devnet::power;
use fil_actor_miner_state::v18::{WithdrawBalanceParams, WithdrawBalanceReturn, locked_reward_from_reward};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::econ::TokenAmount;

/// Pays what is free to the beneficiary, as far as it was asked for and the quota goes.
pub(super) fn withdraw(call: &mut Invocation<'_, '_>, params: WithdrawBalanceParams) -> Result<RawBytes, ActorError> {
    let asked = params.amount_requested;
    if asked.is_negative() {
        return Err(actor_error_v18!(illegal_argument, "negative fund requested for withdrawal: {}", asked));
    }
    let (epoch, store) = (call.world.epoch, call.world.store);
    let mut state = call.state()?;
    let mut info = call.info(&state)?;
    call.only(&[info.owner, info.beneficiary])?;
    if !state.early_terminations.is_empty() {
        return Err(actor_error_v18!(
            forbidden,
            "cannot withdraw funds while {} deadlines have terminated sectors with outstanding fees",
            state.early_terminations.len()
        ));
    }
    let vested = state.unlock_vested_funds(store, epoch).map_err(illegal_state("failed to vest fund"))?;
    // This accounts for fee debt already, so it comes before the debt is repaid.
    let available =
        state.get_available_balance(&call.balance()).map_err(illegal_state("failed to calculate available balance"))?;
    let debt = call.repay_debts(&mut state)?;
    let mut amount = available.min(asked);
    if amount.is_negative() {
        return Err(actor_error_v18!(illegal_state, "negative amount to withdraw: {}", amount));
    }
    if info.beneficiary != info.owner {
        let term = &info.beneficiary_term;
        let quota = term.available(epoch);
        if quota.is_zero() {
            return Err(actor_error_v18!(
                forbidden,
                "beneficiary expiration of epoch {} passed or quota of {} depleted with {} used",
                term.expiration,
                term.quota,
                term.used_quota
            ));
        }
        amount = amount.min(quota);
        if amount.is_positive() {
            info.beneficiary_term.used_quota += &amount;
            state.save_info(store, &info).map_err(illegal_state("failed to save miner info"))?;
        }
    }
    call.save(&state)?;
    if amount.is_positive() {
        let to = info.beneficiary.id().map_err(|e| actor_error_v18!(illegal_state, "beneficiary: {}", e))?;
        call.world.transfer(call.miner, to, &amount)?;
    }
    call.burn(&debt)?;
    power::update_pledge(call.world, call.miner, &-vested)?;
    call.check_balance(&state)?;
    encode(&WithdrawBalanceReturn { amount_withdrawn: amount })
}

/// Repays as much debt as there are funds for, those that vest among them.
pub(super) fn repay(call: &mut Invocation<'_, '_>) -> Result<RawBytes, ActorError> {
    let (epoch, store) = (call.world.epoch, call.world.store);
    let mut state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    let (burn, unlocked) = state
        .repay_partial_debt_in_priority_order(store, epoch, &call.balance())
        .map_err(illegal_state("failed to unlock fee debt"))?;
    call.save(&state)?;
    power::update_pledge(call.world, call.miner, &-unlocked)?;
    call.burn(&burn)?;
    call.check_balance(&state)?;
    Ok(RawBytes::default())
}

/// Takes a block reward that is in the balance already: three quarters of it vest, and debts are paid.
pub(in crate::devnet) fn reward(call: &mut Invocation<'_, '_>, reward: TokenAmount) -> Result<(), ActorError> {
    let (epoch, store) = (call.world.epoch, call.world.store);
    let mut state = call.state()?;
    let (lock, spec) = locked_reward_from_reward(reward);
    let unlocked =
        state.get_unlocked_balance(&call.balance()).map_err(illegal_state("failed to calculate unlocked balance"))?;
    if unlocked < lock {
        return Err(actor_error_v18!(
            insufficient_funds,
            "insufficient funds to lock, available: {}, requested: {}",
            unlocked,
            lock
        ));
    }
    let vested = state
        .add_locked_funds(store, epoch, &lock, spec)
        .map_err(illegal_state("failed to lock funds in vesting table"))?;
    let (burn, unlocked) = state
        .repay_partial_debt_in_priority_order(store, epoch, &call.balance())
        .map_err(illegal_state("failed to repay penalty"))?;
    call.save(&state)?;
    power::update_pledge(call.world, call.miner, &(lock - vested - unlocked))?;
    call.burn(&burn)?;
    call.check_balance(&state)
}
