//! `DeclareFaults` and `DeclareFaultsRecovered`.

use super::invocation::{Invocation, illegal_array, illegal_state};
use crate::devnet::power;
use fil_actor_miner_state::v18::{
    DeadlineInfo, DeadlineSectorMap, DeclareFaultsParams, DeclareFaultsRecoveredParams, PowerPair, Sectors,
    new_deadline_info,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorDowncast, ActorError, runtime::Policy},
};
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{clock::ChainEpoch, error::ExitCode};

pub(super) fn declare(call: &mut Invocation<'_, '_>, params: DeclareFaultsParams) -> Result<RawBytes, ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let mut wanted = collect(policy, params.faults.into_iter().map(|f| (f.deadline, f.partition, f.sectors)))?;
    let mut state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    let mut deadlines = state.load_deadlines(store)?;
    let sectors = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors array"))?;
    let mut delta = PowerPair::zero();
    for (index, partitions) in wanted.iter() {
        let target = target(policy, state.current_proving_period_start(policy, epoch), index, epoch)?;
        if target.fault_cutoff_passed() {
            return Err(actor_error_v18!(
                illegal_argument,
                "failed fault declaration at deadline {}: late fault or recovery declaration",
                index
            ));
        }
        let mut deadline = deadlines.load_deadline(store, index)?;
        delta += &deadline
            .record_faults(
                store,
                &sectors,
                info.sector_size,
                target.quant_spec(),
                target.last() + policy.fault_max_age,
                partitions,
            )
            .map_err(|e| {
                e.downcast_default(
                    ExitCode::USR_ILLEGAL_STATE,
                    format!("failed to declare faults for deadline {index}"),
                )
            })?;
        deadlines
            .update_deadline(policy, store, index, &deadline)
            .map_err(illegal_state("failed to store deadline"))?;
    }
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    call.save(&state)?;
    power::update_claim(call.world, call.miner, &delta)?;
    Ok(RawBytes::default())
}

pub(super) fn declare_recovered(
    call: &mut Invocation<'_, '_>,
    params: DeclareFaultsRecoveredParams,
) -> Result<RawBytes, ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let mut wanted = collect(policy, params.recoveries.into_iter().map(|r| (r.deadline, r.partition, r.sectors)))?;
    let mut state = call.state()?;
    // Debt is paid before anything recovers.
    let debt = call.repay_debts(&mut state)?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    if epoch <= info.consensus_fault_elapsed {
        return Err(actor_error_v18!(forbidden, "recovery not allowed during active consensus fault"));
    }
    let mut deadlines = state.load_deadlines(store)?;
    let sectors = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors array"))?;
    for (index, partitions) in wanted.iter() {
        let target = target(policy, state.current_proving_period_start(policy, epoch), index, epoch)?;
        if target.fault_cutoff_passed() {
            return Err(actor_error_v18!(
                illegal_argument,
                "failed recovery declaration at deadline {}: late fault or recovery declaration",
                index
            ));
        }
        let mut deadline = deadlines.load_deadline(store, index)?;
        deadline.declare_faults_recovered(store, &sectors, info.sector_size, partitions).map_err(|e| {
            e.downcast_default(
                ExitCode::USR_ILLEGAL_STATE,
                format!("failed to declare recoveries for deadline {index}"),
            )
        })?;
        deadlines
            .update_deadline(policy, store, index, &deadline)
            .map_err(illegal_state("failed to store deadline"))?;
    }
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    call.save(&state)?;
    call.burn(&debt)?;
    call.check_balance(&state)?;
    Ok(RawBytes::default())
}

/// What was declared, by deadline and partition, if it is not too much.
pub(super) fn collect(
    policy: &Policy,
    declared: impl Iterator<Item = (u64, u64, BitField)>,
) -> Result<DeadlineSectorMap, ActorError> {
    let mut wanted = DeadlineSectorMap::new();
    for (deadline, partition, sectors) in declared {
        wanted.add(policy, deadline, partition, sectors).map_err(|e| {
            e.downcast_default(
                ExitCode::USR_ILLEGAL_ARGUMENT,
                format!("failed to process deadline {deadline}, partition {partition}"),
            )
        })?;
    }
    wanted
        .check(policy.addressed_partitions_max, policy.addressed_sectors_max)
        .map_err(|e| e.downcast_default(ExitCode::USR_ILLEGAL_ARGUMENT, "cannot process requested parameters"))?;
    Ok(wanted)
}

/// The next occurrence of a deadline that has not gone by.
fn target(
    policy: &Policy,
    period_start: ChainEpoch,
    index: u64,
    epoch: ChainEpoch,
) -> Result<DeadlineInfo, ActorError> {
    if index >= policy.wpost_period_deadlines {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid deadline {}, must be < {}",
            index,
            policy.wpost_period_deadlines
        ));
    }
    Ok(new_deadline_info(policy, period_start, index, epoch).next_not_elapsed())
}
