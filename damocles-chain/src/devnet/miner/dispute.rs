//! `DisputeWindowedPoSt`: anybody may show that a proof which was taken on trust does not hold.

use super::{
    invocation::{Invocation, illegal_array, illegal_state},
    post::verify,
};
use crate::devnet::power::{self, Economy};
use fil_actor_miner_state::v18::{
    DeadlineInfo, DisputeWindowedPoStParams, PowerPair, Sectors, State, deadline_available_for_optimistic_post_dispute,
    new_deadline_info, pledge_penalty_for_invalid_windowpost, quant_spec_for_deadline, reward_for_disputed_window_post,
};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_ipld_encoding::RawBytes;

pub(super) fn post(call: &mut Invocation<'_, '_>, params: DisputeWindowedPoStParams) -> Result<RawBytes, ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    if params.deadline >= policy.wpost_period_deadlines {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid deadline {} of {}",
            params.deadline,
            policy.wpost_period_deadlines
        ));
    }
    let economy = Economy::of(call.world)?;
    let mut state = call.state()?;
    let current = state.deadline_info(policy, epoch);
    if !deadline_available_for_optimistic_post_dispute(policy, current.period_start, params.deadline, epoch) {
        return Err(actor_error_v18!(
            forbidden,
            "can only dispute window posts during the dispute window ({} epochs after the challenge window closes)",
            policy.wpost_dispute_window
        ));
    }
    let info = call.info(&state)?;
    let elapsed = if current.index < params.deadline { policy.wpost_proving_period } else { 0 };
    let target = new_deadline_info(policy, current.period_start - elapsed, params.deadline, epoch);
    let (power_delta, disputed) = refute(call, &mut state, &params, &target)?;

    let reward = reward_for_disputed_window_post(info.window_post_proof_type, disputed.clone());
    let base = pledge_penalty_for_invalid_windowpost(&economy.reward, &economy.qa_power, &disputed.qa);
    state.apply_penalty(&(base + &reward)).map_err(illegal_state("failed to apply penalty"))?;
    let (burn, unlocked) = state
        .repay_partial_debt_in_priority_order(store, epoch, &call.balance())
        .map_err(illegal_state("failed to pay debt"))?;
    let reward = reward.min(burn.clone());
    call.save(&state)?;
    power::update_claim(call.world, call.miner, &power_delta)?;
    call.world.transfer(call.miner, call.caller, &reward)?;
    call.burn(&(burn - reward))?;
    power::update_pledge(call.world, call.miner, &-unlocked)?;
    call.check_balance(&state)?;
    Ok(RawBytes::default())
}

/// Takes the disputed proof out of the snapshot and makes its sectors faulty, unless it holds. Returns what that does to
/// the miner's power, and the power that it pays for.
fn refute(
    call: &Invocation<'_, '_>,
    state: &mut State,
    params: &DisputeWindowedPoStParams,
    target: &DeadlineInfo,
) -> Result<(PowerPair, PowerPair), ActorError> {
    let (policy, store) = (call.world.policy, call.world.store);
    let info = call.info(state)?;
    let mut deadlines = state.load_deadlines(store)?;
    let mut deadline = deadlines.load_deadline(store, params.deadline)?;
    let (partitions, proofs) = deadline
        .take_post_proofs(store, params.post_index)
        .map_err(illegal_state("failed to load proof for dispute"))?;
    let mut dispute = deadline
        .load_partitions_for_dispute(store, partitions)
        .map_err(illegal_state("failed to load partition for dispute"))?;
    let sectors =
        Sectors::load(store, &deadline.sectors_snapshot).map_err(illegal_array("failed to load sectors array"))?;
    let infos = sectors
        .load_for_proof(&dispute.all_sector_nos, &dispute.ignored_sector_nos)
        .map_err(illegal_state("failed to load sectors to dispute window post"))?;
    let proof =
        proofs.first().ok_or_else(|| actor_error_v18!(illegal_state, "a submission without a proof was recorded"))?;
    if verify(call, target.challenge, infos, proof)? {
        return Err(actor_error_v18!(illegal_argument, "failed to dispute valid post"));
    }
    let delta = deadline
        .record_faults(
            store,
            &sectors,
            info.sector_size,
            quant_spec_for_deadline(policy, target),
            target.last() + policy.fault_max_age,
            &mut dispute.disputed_sectors,
        )
        .map_err(illegal_state("failed to declare faults"))?;
    deadlines
        .update_deadline(policy, store, params.deadline, &deadline)
        .map_err(illegal_state("failed to update deadline"))?;
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    Ok((delta, dispute.disputed_power))
}
