//! What happens at the end of a deadline.

use super::{
    addresses,
    invocation::{Invocation, illegal_state},
    monies, terminate,
};
use crate::devnet::power::{self, Economy};
use fil_actor_miner_state::v18::{CRON_EVENT_PROCESS_EARLY_TERMINATIONS, CRON_EVENT_PROVING_DEADLINE, CronEvent};
use fil_actors_shared::v18::ActorError;
use fvm_shared::econ::TokenAmount;

/// A callback that the miner asked for.
pub(in crate::devnet) fn on_deferred_cron(call: &mut Invocation<'_, '_>, event: CronEvent) -> Result<(), ActorError> {
    if event == CRON_EVENT_PROVING_DEADLINE {
        proving_deadline(call)?;
    } else if event == CRON_EVENT_PROCESS_EARLY_TERMINATIONS {
        settle(call)?;
    }
    let state = call.state()?;
    call.check_balance(&state)
}

fn proving_deadline(call: &mut Invocation<'_, '_>) -> Result<(), ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let economy = Economy::of(call.world)?;
    let mut state = call.state()?;
    let mut pledge_delta = TokenAmount::default();

    let info = call.info(&state)?;
    addresses::settle_worker(call, &mut state, info)?;
    let expired = state
        .cleanup_expired_pre_commits(policy, store, epoch)
        .map_err(illegal_state("failed to expire pre-committed sectors"))?;
    state.apply_penalty(&expired).map_err(illegal_state("failed to apply penalty"))?;

    let had_early_terminations = !state.early_terminations.is_empty();
    let result = state.advance_deadline(policy, store, epoch).map_err(illegal_state("failed to advance deadline"))?;
    pledge_delta += &result.pledge_delta;

    // Faults that this deadline found are free; sectors that were faulty before and still are pay.
    let mut penalty = monies::continued_fault(&economy, &result.previously_faulty_power.qa);
    if result.daily_fee.is_positive() {
        penalty += monies::daily_fee(policy, &economy, &result.daily_fee, &result.live_power.qa);
    }
    state.apply_penalty(&penalty).map_err(illegal_state("failed to apply penalty"))?;
    let (burn, unlocked) = state
        .repay_partial_debt_in_priority_order(store, epoch, &call.balance())
        .map_err(illegal_state("failed to unlock penalty"))?;
    pledge_delta -= unlocked;
    // Whoever paid something had what vested freed by that already.
    pledge_delta -= state.unlock_vested_funds(store, epoch).map_err(illegal_state("failed to vest funds"))?;

    let goes_on = state.continue_deadline_cron();
    if !goes_on {
        state.deadline_cron_active = false;
    }
    call.save(&state)?;
    power::update_claim(call.world, call.miner, &result.power_delta)?;
    call.burn(&burn)?;
    power::update_pledge(call.world, call.miner, &pledge_delta)?;
    if goes_on {
        let last = state.deadline_info(policy, epoch + 1).last();
        power::enroll(call.world, call.miner, last, CRON_EVENT_PROVING_DEADLINE)?;
    }
    // If there was something in the queue before, a callback of its own takes care of it.
    if !had_early_terminations && !state.early_terminations.is_empty() {
        settle(call)?;
    }
    Ok(())
}

/// Settles early terminations, and asks to be called again if that was not all.
fn settle(call: &mut Invocation<'_, '_>) -> Result<(), ActorError> {
    if terminate::process(call)? {
        terminate::schedule(call)?;
    }
    Ok(())
}
