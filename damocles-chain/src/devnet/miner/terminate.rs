//! Sectors that end before their time: `TerminateSectors`, and the queue that it shares with cron.

use super::{
    encode, faults,
    invocation::{Invocation, illegal_array, illegal_state},
    monies,
};
use crate::devnet::power::{self, Economy};
use fil_actor_miner_state::v18::{
    CRON_EVENT_PROCESS_EARLY_TERMINATIONS, PowerPair, Sectors, TerminateSectorsParams, TerminateSectorsReturn,
    deadline_is_mutable,
};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::econ::TokenAmount;

pub(super) fn sectors(call: &mut Invocation<'_, '_>, params: TerminateSectorsParams) -> Result<RawBytes, ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let terminations = params.terminations.into_iter().map(|t| (t.deadline, t.partition, t.sectors));
    let mut wanted = faults::collect(policy, terminations)?;
    let mut state = call.state()?;
    let had_early_terminations = !state.early_terminations.is_empty();
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    let mut deadlines = state.load_deadlines(store)?;
    let infos = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors"))?;
    let mut delta = PowerPair::zero();
    for (index, partitions) in wanted.iter() {
        let period = state.current_proving_period_start(policy, epoch);
        if !deadline_is_mutable(policy, period, index, epoch) {
            return Err(actor_error_v18!(illegal_argument, "cannot terminate sectors in immutable deadline {}", index));
        }
        let quant = state.quant_spec_for_deadline(policy, index);
        let mut deadline = deadlines.load_deadline(store, index)?;
        let removed = deadline
            .terminate_sectors(policy, store, &infos, epoch, partitions, info.sector_size, quant)
            .map_err(illegal_state("failed to terminate sectors"))?;
        state.early_terminations.set(index);
        delta -= &removed;
        deadlines
            .update_deadline(policy, store, index, &deadline)
            .map_err(illegal_state("failed to update deadline"))?;
    }
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    call.save(&state)?;

    let more = process(call)?;
    if more && !had_early_terminations {
        schedule(call)?;
    }
    let state = call.state()?;
    call.check_balance(&state)?;
    power::update_claim(call.world, call.miner, &delta)?;
    encode(&TerminateSectorsReturn { done: !more })
}

/// Takes from the queue what one call may take: pledge comes free, fees are charged. Says whether more is waiting.
pub(super) fn process(call: &mut Invocation<'_, '_>) -> Result<bool, ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let economy = Economy::of(call.world)?;
    let mut state = call.state()?;
    let (result, more) = state
        .pop_early_terminations(policy, store, policy.addressed_partitions_max, policy.addressed_sectors_max)
        .map_err(illegal_state("failed to pop early terminations"))?;
    if result.is_empty() {
        call.save(&state)?;
        return Ok(more);
    }
    let info = call.info(&state)?;
    let sectors = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors array"))?;
    let mut pledge = TokenAmount::default();
    let mut penalty = TokenAmount::default();
    for (ended, numbers) in result.iter() {
        let infos = sectors.load_sectors(numbers)?;
        pledge += infos.iter().map(|s| &s.initial_pledge).sum::<TokenAmount>();
        penalty += monies::termination(info.sector_size, ended, &economy, &infos);
    }
    state.apply_penalty(&penalty).map_err(illegal_state("failed to apply penalty"))?;
    state.add_initial_pledge(&-&pledge).map_err(illegal_state("failed to release initial pledge"))?;
    let (burn, unlocked) = state
        .repay_partial_debt_in_priority_order(store, epoch, &call.balance())
        .map_err(illegal_state("failed to repay penalty"))?;
    call.save(&state)?;
    call.burn(&burn)?;
    power::update_pledge(call.world, call.miner, &-(pledge + unlocked))?;
    Ok(more)
}

/// Asks cron to go on with the queue at the next epoch.
pub(super) fn schedule(call: &mut Invocation<'_, '_>) -> Result<(), ActorError> {
    let next = call.world.epoch + 1;
    power::enroll(call.world, call.miner, next, CRON_EVENT_PROCESS_EARLY_TERMINATIONS)
}
