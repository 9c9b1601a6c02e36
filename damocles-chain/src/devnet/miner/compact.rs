//! `CompactPartitions` and `CompactSectorNumbers`.

use super::invocation::{Invocation, illegal_array, illegal_state};
use fil_actor_miner_state::v18::{
    CollisionPolicy, CompactPartitionsParams, CompactSectorNumbersParams, Sectors, deadline_available_for_compaction,
    load_partitions_sectors_max,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, runtime::policy_constants::MAX_SECTOR_NUMBER},
};
use fvm_ipld_encoding::RawBytes;

/// Throws terminated sectors out of partitions, and fills partitions up with what is left.
pub(super) fn partitions(
    call: &mut Invocation<'_, '_>,
    params: CompactPartitionsParams,
) -> Result<RawBytes, ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let index = params.deadline;
    if index >= policy.wpost_period_deadlines {
        return Err(actor_error_v18!(illegal_argument, "invalid deadline {}", index));
    }
    let mut state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    let period = state.current_proving_period_start(policy, epoch);
    if !deadline_available_for_compaction(policy, period, index, epoch) {
        return Err(actor_error_v18!(
            forbidden,
            "cannot compact deadline {} during its challenge window, or the prior challenge window, or before {} epochs \
             have passed since its last challenge window ended",
            index,
            policy.wpost_dispute_window
        ));
    }
    let limit = load_partitions_sectors_max(policy, info.window_post_partition_sectors);
    if params.partitions.len() > limit {
        return Err(actor_error_v18!(
            illegal_argument,
            "too many partitions {}, limit {}",
            params.partitions.len(),
            limit
        ));
    }
    let quant = state.quant_spec_for_deadline(policy, index);
    let mut deadlines = state.load_deadlines(store)?;
    let mut deadline = deadlines.load_deadline(store, index)?;
    let daily_fee = deadline.daily_fee.clone();
    let mut sectors = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors"))?;
    let dead = deadline
        .compact_partitions(
            store,
            &mut sectors,
            info.sector_size,
            info.window_post_partition_sectors,
            &params.partitions,
            quant,
        )
        .map_err(illegal_state("failed to remove partitions"))?;
    sectors.delete_sectors(&dead)?;
    state.sectors = sectors.amt.flush().map_err(illegal_array("failed to save sectors after compaction"))?;
    deadlines.update_deadline(policy, store, index, &deadline).map_err(illegal_state("failed to update deadline"))?;
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    if deadline.daily_fee != daily_fee {
        return Err(actor_error_v18!(illegal_state, "unexpected daily fee change during partition compaction"));
    }
    call.save(&state)?;
    Ok(RawBytes::default())
}

/// Gives up sector numbers, so that the set of those that were used has fewer gaps.
pub(super) fn numbers(
    call: &mut Invocation<'_, '_>,
    params: CompactSectorNumbersParams,
) -> Result<RawBytes, ActorError> {
    let mask = params.mask_sector_numbers;
    let last = mask.last().ok_or_else(|| actor_error_v18!(illegal_argument, "invalid mask bitfield"))?;
    if last > MAX_SECTOR_NUMBER {
        return Err(actor_error_v18!(illegal_argument, "masked sector number {} exceeded max sector number", last));
    }
    let mut state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    state.allocate_sector_numbers(call.world.store, &mask, CollisionPolicy::AllowCollisions)?;
    call.save(&state)?;
    Ok(RawBytes::default())
}
