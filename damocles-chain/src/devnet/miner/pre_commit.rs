//! `PreCommitSectorBatch2`.

use super::invocation::{Invocation, illegal_state};
use crate::devnet::power::{self, Economy};
use fil_actor_miner_state::v18::{
    CRON_EVENT_PROVING_DEADLINE, CollisionPolicy, PreCommitSectorBatchParams2, SectorPreCommitInfo,
    SectorPreCommitOnChainInfo, can_pre_commit_seal_proof, is_sealed_sector, is_unsealed_sector,
    max_prove_commit_duration, qa_power_max, seal_proof_sector_maximum_lifetime,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{
        ActorError,
        runtime::{Policy, policy_constants::MAX_SECTOR_NUMBER},
    },
};
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{clock::ChainEpoch, econ::TokenAmount, sector::RegisteredSealProof};

pub(super) fn batch(
    call: &mut Invocation<'_, '_>,
    params: PreCommitSectorBatchParams2,
) -> Result<RawBytes, ActorError> {
    let epoch = call.world.epoch;
    let policy = call.world.policy;
    if params.sectors.is_empty() {
        return Err(actor_error_v18!(illegal_argument, "batch empty"));
    }
    let mut numbers = BitField::new();
    for sector in &params.sectors {
        if numbers.get(sector.sector_number) {
            return Err(actor_error_v18!(illegal_argument, "duplicate sector number {}", sector.sector_number));
        }
        check(policy, epoch, sector)?;
        numbers.set(sector.sector_number);
    }

    let economy = Economy::of(call.world)?;
    let mut state = call.state()?;
    // This accounts for fee debt already, so it comes before the debt is repaid.
    let available =
        state.get_available_balance(&call.balance()).map_err(illegal_state("failed to calculate available balance"))?;
    let debt = call.repay_debts(&mut state)?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    if epoch <= info.consensus_fault_elapsed {
        return Err(actor_error_v18!(forbidden, "pre-commit not allowed during active consensus fault"));
    }

    let deposit = economy.pre_commit_deposit(&qa_power_max(info.sector_size));
    let mut total = TokenAmount::default();
    let mut records = Vec::with_capacity(params.sectors.len());
    let mut clean_ups = Vec::with_capacity(params.sectors.len());
    for sector in params.sectors {
        let window_proof = sector.seal_proof.registered_window_post_proof().map_err(|e| {
            actor_error_v18!(
                illegal_argument,
                "failed to lookup Window PoSt proof type for {:?}: {}",
                sector.seal_proof,
                e
            )
        })?;
        if window_proof != info.window_post_proof_type {
            return Err(actor_error_v18!(
                illegal_argument,
                "sector Window PoSt proof type {:?} must match miner Window PoSt proof type {:?} (seal proof type {:?})",
                window_proof,
                info.window_post_proof_type,
                sector.seal_proof
            ));
        }
        let duration = max_prove_commit_duration(policy, sector.seal_proof).ok_or_else(|| {
            actor_error_v18!(illegal_argument, "no max seal duration set for proof type: {:?}", sector.seal_proof)
        })?;
        clean_ups.push((epoch + duration + policy.expired_pre_commit_clean_up_delay, sector.sector_number));
        total += &deposit;
        records.push(SectorPreCommitOnChainInfo {
            info: sector,
            pre_commit_deposit: deposit.clone(),
            pre_commit_epoch: epoch,
        });
    }
    if available < total {
        return Err(actor_error_v18!(
            insufficient_funds,
            "insufficient funds {} for pre-commit deposit: {}",
            available,
            total
        ));
    }
    let store = call.world.store;
    state.add_pre_commit_deposit(&total).map_err(illegal_state("failed to add pre-commit deposit"))?;
    state.allocate_sector_numbers(store, &numbers, CollisionPolicy::DenyCollisions)?;
    state.put_precommitted_sectors(store, records).map_err(illegal_state("failed to write pre-committed sectors"))?;
    state
        .add_pre_commit_clean_ups(policy, store, clean_ups)
        .map_err(illegal_state("failed to add pre-commit expiry to queue"))?;
    let first = !state.deadline_cron_active;
    state.deadline_cron_active = true;
    call.save(&state)?;
    call.burn(&debt)?;
    call.check_balance(&state)?;
    if first {
        let last = state.deadline_info(policy, epoch).last();
        power::enroll(call.world, call.miner, last, CRON_EVENT_PROVING_DEADLINE)?;
    }
    Ok(RawBytes::default())
}

/// What can be said of a pre-commit without looking at the miner.
fn check(policy: &Policy, epoch: ChainEpoch, sector: &SectorPreCommitInfo) -> Result<(), ActorError> {
    if !can_pre_commit_seal_proof(policy, sector.seal_proof) {
        return Err(actor_error_v18!(illegal_argument, "unsupported seal proof type {:?}", sector.seal_proof));
    }
    if sector.sector_number > MAX_SECTOR_NUMBER {
        return Err(actor_error_v18!(
            illegal_argument,
            "sector number {} out of range 0..(2^63-1)",
            sector.sector_number
        ));
    }
    if !is_sealed_sector(&sector.sealed_cid) {
        return Err(actor_error_v18!(illegal_argument, "sealed CID had wrong prefix"));
    }
    if !sector.deal_ids.is_empty() {
        return Err(actor_error_v18!(illegal_argument, "deal IDs are not supported in pre-commits"));
    }
    if sector.unsealed_cid.0.as_ref().is_some_and(|cid| !is_unsealed_sector(cid)) {
        return Err(actor_error_v18!(illegal_argument, "unsealed CID had wrong prefix"));
    }
    if sector.seal_rand_epoch >= epoch {
        return Err(actor_error_v18!(
            illegal_argument,
            "seal challenge epoch {} must be before now {}",
            sector.seal_rand_epoch,
            epoch
        ));
    }
    let earliest = epoch - policy.max_pre_commit_randomness_lookback;
    if sector.seal_rand_epoch < earliest {
        return Err(actor_error_v18!(
            illegal_argument,
            "seal challenge epoch {} too old, must be after {}",
            sector.seal_rand_epoch,
            earliest
        ));
    }
    // The lifetime has to be long enough even if the proof comes at the last epoch at which it may.
    let activation = epoch + max_prove_commit_duration(policy, sector.seal_proof).unwrap_or_default();
    check_expiration(policy, epoch, activation, sector.expiration, sector.seal_proof)
}

/// Whether a sector that becomes active at an epoch may live until another.
pub(super) fn check_expiration(
    policy: &Policy,
    epoch: ChainEpoch,
    activation: ChainEpoch,
    expiration: ChainEpoch,
    seal_proof: RegisteredSealProof,
) -> Result<(), ActorError> {
    if expiration <= activation {
        return Err(actor_error_v18!(
            illegal_argument,
            "sector expiration {} must be after activation {}",
            expiration,
            activation
        ));
    }
    let lifetime = expiration - activation;
    if lifetime < policy.min_sector_expiration {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid expiration {}, total sector lifetime ({}) must exceed {} after activation {}",
            expiration,
            lifetime,
            policy.min_sector_expiration,
            activation
        ));
    }
    if expiration > epoch + policy.max_sector_expiration_extension {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid expiration {}, cannot be more than {} past current epoch {}",
            expiration,
            policy.max_sector_expiration_extension,
            epoch
        ));
    }
    let longest = seal_proof_sector_maximum_lifetime(seal_proof)
        .ok_or_else(|| actor_error_v18!(illegal_argument, "unrecognized seal proof type {:?}", seal_proof))?;
    if lifetime > longest {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid expiration {}, total sector lifetime ({}) cannot exceed {} after activation {}",
            expiration,
            lifetime,
            longest,
            activation
        ));
    }
    Ok(())
}
