//! `ProveCommitSectorsNI`: sectors that were sealed without an interaction with the chain (FIP-0092).

use super::{
    encode,
    invocation::{Invocation, illegal_state},
    pre_commit::check_expiration,
    prove_commit::check_aggregate,
    seal::{self, SealInput},
};
use crate::devnet::{
    power::{self, Economy},
    randomness::{entropy, tag},
};
use damocles_core::verify::NI_SEED;
use fil_actor_miner_state::v18::{
    CRON_EVENT_PROVING_DEADLINE, CollisionPolicy, CompactCommD, MinerInfo, ProveCommitSectorsNIParams,
    ProveCommitSectorsNIReturn, SectorNIActivationInfo, SectorOnChainInfo, SectorOnChainInfoFlags, State,
    can_prove_commit_ni_seal_proof, daily_proof_fee, deadline_is_mutable, is_sealed_sector, raw_power_for_sector,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, BatchReturn, DealWeight, runtime::policy_constants::MAX_SECTOR_NUMBER},
};
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    econ::TokenAmount,
    error::ExitCode,
    sector::{RegisteredAggregateProof, RegisteredSealProof},
};
use num_traits::Zero;

pub(super) fn sectors(
    call: &mut Invocation<'_, '_>,
    params: ProveCommitSectorsNIParams,
) -> Result<RawBytes, ActorError> {
    let policy = call.world.policy;
    let state = call.state()?;
    let info = call.info(&state)?;
    let bounds = policy.min_aggregated_sectors_ni..=policy.max_aggregated_sectors_ni;
    check_aggregate(policy, &params.aggregate_proof, params.sectors.len(), bounds)?;
    call.only_controllers(&info)?;
    check(call, &state, &info, &params)?;
    let (valid, inputs, numbers) = validate(call, &params)?;
    if valid.success_count == 0 {
        return Err(actor_error_v18!(illegal_argument, "no valid NI commits specified"));
    }
    // Those that cannot be activated are in the proof all the same.
    if !seal::verify_ni(call, params.seal_proof_type, &inputs, params.aggregate_proof.bytes())? {
        return Err(actor_error_v18!(illegal_argument, "aggregate seal verify failed"));
    }
    let codes = valid.codes();
    let accepted = params.sectors.iter().zip(codes).filter(|(_, code)| code.is_success()).map(|(s, _)| s);
    let accepted = accepted.cloned().collect();
    activate(call, state, &info, accepted, &numbers, (params.seal_proof_type, params.proving_deadline))?;
    encode(&ProveCommitSectorsNIReturn { activation_results: valid })
}

fn check(
    call: &Invocation<'_, '_>,
    state: &State,
    info: &MinerInfo,
    params: &ProveCommitSectorsNIParams,
) -> Result<(), ActorError> {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    let index = params.proving_deadline;
    if index >= policy.wpost_period_deadlines {
        return Err(actor_error_v18!(illegal_argument, "proving deadline index {} invalid", index));
    }
    if !deadline_is_mutable(policy, state.current_proving_period_start(policy, epoch), index, epoch) {
        return Err(actor_error_v18!(forbidden, "proving deadline {} must not be the current or next deadline", index));
    }
    if epoch <= info.consensus_fault_elapsed {
        return Err(actor_error_v18!(forbidden, "ProveCommitSectorsNI not allowed during active consensus fault"));
    }
    if !can_prove_commit_ni_seal_proof(policy, params.seal_proof_type) {
        return Err(actor_error_v18!(illegal_argument, "unsupported seal proof type {:?}", params.seal_proof_type));
    }
    if params.aggregate_proof_type != RegisteredAggregateProof::SnarkPackV2 {
        return Err(actor_error_v18!(illegal_argument, "aggregate proof type must be SnarkPackV2"));
    }
    Ok(())
}

fn validate(
    call: &Invocation<'_, '_>,
    params: &ProveCommitSectorsNIParams,
) -> Result<(BatchReturn, Vec<SealInput>, BitField), ActorError> {
    let epoch = call.world.epoch;
    let data = CompactCommD::empty().get_cid(params.seal_proof_type)?;
    let mut codes = Vec::with_capacity(params.sectors.len());
    let mut inputs = Vec::with_capacity(params.sectors.len());
    let mut numbers = BitField::new();
    for (index, sector) in params.sectors.iter().enumerate() {
        if numbers.get(sector.sector_number) {
            return Err(actor_error_v18!(illegal_argument, "duplicate sector number {}", sector.sector_number));
        }
        let good = is_valid(call, params.seal_proof_type, sector);
        // Nobody knows the randomness of the future.
        if sector.seal_rand_epoch >= epoch {
            return Err(actor_error_v18!(
                illegal_argument,
                "seal challenge epoch {} must be before now {}",
                sector.seal_rand_epoch,
                epoch
            ));
        }
        if !good && params.require_activation_success {
            return Err(actor_error_v18!(
                illegal_argument,
                "invalid NI commit {} while requiring activation success: {:?}",
                index,
                sector
            ));
        }
        // Numbers above the greatest are refused below, one by one; that one comes twice is an error whatever it is.
        numbers
            .try_set(sector.sector_number)
            .map_err(|e| actor_error_v18!(illegal_argument, "sector number {}: {}", sector.sector_number, e))?;
        let entropy = entropy(call.miner);
        inputs.push(SealInput {
            number: sector.sealing_number,
            sealed: sector.sealed_cid,
            data,
            ticket: call.world.ticket_randomness(tag::SEAL_TICKET, sector.seal_rand_epoch, &entropy),
            seed: NI_SEED.0,
        });
        codes.push(if good { ExitCode::OK } else { ExitCode::USR_ILLEGAL_ARGUMENT });
    }
    Ok((BatchReturn::of(&codes), inputs, numbers))
}

fn is_valid(call: &Invocation<'_, '_>, proof: RegisteredSealProof, sector: &SectorNIActivationInfo) -> bool {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    sector.sector_number <= MAX_SECTOR_NUMBER
        && check_expiration(policy, epoch, epoch, sector.expiration, proof).is_ok()
        && sector.sealer_id == call.miner
        && sector.sector_number == sector.sealing_number
        && is_sealed_sector(&sector.sealed_cid)
        && sector.seal_rand_epoch >= epoch - policy.max_prove_commit_ni_randomness_lookback
}

fn activate(
    call: &mut Invocation<'_, '_>,
    mut state: State,
    info: &MinerInfo,
    accepted: Vec<SectorNIActivationInfo>,
    numbers: &BitField,
    (seal_proof, deadline): (RegisteredSealProof, u64),
) -> Result<(), ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let economy = Economy::of(call.world)?;
    // Without data there is no quality.
    let power = raw_power_for_sector(info.sector_size);
    let pledge = economy.initial_pledge(&power);
    let daily_fee = daily_proof_fee(policy, &economy.circulating, &power);
    let sectors: Vec<SectorOnChainInfo> = accepted
        .into_iter()
        .map(|sector| SectorOnChainInfo {
            sector_number: sector.sector_number,
            seal_proof,
            sealed_cid: sector.sealed_cid,
            deprecated_deal_ids: Vec::new(),
            activation: epoch,
            expiration: sector.expiration,
            deal_weight: DealWeight::zero(),
            verified_deal_weight: DealWeight::zero(),
            initial_pledge: pledge.clone(),
            expected_day_reward: None,
            expected_storage_pledge: None,
            power_base_epoch: epoch,
            replaced_day_reward: None,
            sector_key_cid: None,
            flags: SectorOnChainInfoFlags::SIMPLE_QA_POWER,
            daily_fee: daily_fee.clone(),
        })
        .collect();
    let total: TokenAmount = &pledge * u64::try_from(sectors.len()).unwrap_or(u64::MAX);
    call.pledge(&state, &total)?;
    let first = !state.deadline_cron_active;
    state.deadline_cron_active = true;
    state.allocate_sector_numbers(store, numbers, CollisionPolicy::DenyCollisions)?;
    state.put_sectors(store, sectors.clone()).map_err(illegal_state("failed to put new sectors"))?;
    state.assign_sectors_to_deadline(
        policy,
        store,
        epoch,
        sectors,
        info.window_post_partition_sectors,
        info.sector_size,
        deadline,
    )?;
    state.add_initial_pledge(&total).map_err(illegal_state("failed to add initial pledge"))?;
    let debt = call.repay_debts(&mut state)?;
    call.save(&state)?;
    call.burn(&debt)?;
    power::update_pledge(call.world, call.miner, &total)?;
    call.check_balance(&state)?;
    if first {
        let last = state.deadline_info(policy, epoch).last();
        power::enroll(call.world, call.miner, last, CRON_EVENT_PROVING_DEADLINE)?;
    }
    Ok(())
}
