//! `ExtendSectorExpiration2`.

use super::{
    invocation::{Invocation, illegal_array, illegal_state},
    pre_commit::check_expiration,
};
use crate::devnet::power::{self, Economy};
use fil_actor_miner_state::v18::{
    Deadline, ExpirationExtension2, ExtendSectorExpiration2Params, PowerPair, SectorOnChainInfo,
    SectorOnChainInfoFlags, Sectors, State, can_extend_seal_proof_type, daily_proof_fee, daily_proof_fee_adjust,
    qa_power_for_sector, qa_power_for_weight,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, runtime::Policy},
};
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    bigint::{BigInt, Integer},
    clock::ChainEpoch,
    econ::TokenAmount,
    sector::SectorSize,
};
use num_traits::{Signed, Zero};
use std::collections::BTreeMap;

/// Sectors of one partition that are to live until an epoch.
struct Extension {
    partition: u64,
    sectors: BitField,
    expiration: ChainEpoch,
}

pub(super) fn sectors(
    call: &mut Invocation<'_, '_>,
    params: ExtendSectorExpiration2Params,
) -> Result<RawBytes, ActorError> {
    let store = call.world.store;
    let wanted = collect(call.world.policy, params.extensions)?;
    let economy = Economy::of(call.world)?;
    let mut state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    let mut deadlines = state.load_deadlines(store)?;
    let mut sectors = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors array"))?;
    let mut power = PowerPair::zero();
    let mut pledge = TokenAmount::zero();
    for (index, extensions) in wanted {
        let mut deadline = deadlines.load_deadline(store, index)?;
        let (power_delta, pledge_delta) =
            extend(call, &economy, &state, info.sector_size, &mut sectors, &mut deadline, (index, extensions))?;
        power += &power_delta;
        pledge += pledge_delta;
        deadlines
            .update_deadline(call.world.policy, store, index, &deadline)
            .map_err(illegal_state("failed to save deadline"))?;
    }
    state.sectors = sectors.amt.flush().map_err(illegal_array("failed to save sectors"))?;
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    call.save(&state)?;
    power::update_claim(call.world, call.miner, &power)?;
    power::update_pledge(call.world, call.miner, &pledge)?;
    Ok(RawBytes::default())
}

/// By deadline, each in the order of the declarations.
fn collect(policy: &Policy, declared: Vec<ExpirationExtension2>) -> Result<BTreeMap<u64, Vec<Extension>>, ActorError> {
    let mut wanted: BTreeMap<u64, Vec<Extension>> = BTreeMap::new();
    for declaration in declared {
        if declaration.deadline >= policy.wpost_period_deadlines {
            return Err(actor_error_v18!(
                illegal_argument,
                "deadline {} not in range 0..{}",
                declaration.deadline,
                policy.wpost_period_deadlines
            ));
        }
        let mut sectors = declaration.sectors;
        for claims in declaration.sectors_with_claims {
            // There is no registry of verified clients, so there is no claim to be kept or dropped either.
            if !(claims.maintain_claims.is_empty() && claims.drop_claims.is_empty()) {
                return Err(actor_error_v18!(
                    illegal_argument,
                    "failed to get claims for sector {}: invalid claims",
                    claims.sector_number
                ));
            }
            sectors
                .try_set(claims.sector_number)
                .map_err(|e| actor_error_v18!(illegal_argument, "sector number {}: {}", claims.sector_number, e))?;
        }
        wanted.entry(declaration.deadline).or_default().push(Extension {
            partition: declaration.partition,
            sectors,
            expiration: declaration.new_expiration,
        });
    }
    Ok(wanted)
}

/// Extends sectors of one deadline. Returns what that does to power and pledge.
fn extend<'s>(
    call: &Invocation<'_, 's>,
    economy: &Economy,
    state: &State,
    size: SectorSize,
    sectors: &mut Sectors<'s, crate::devnet::store::Overlay<'s>>,
    deadline: &mut Deadline,
    (index, extensions): (u64, Vec<Extension>),
) -> Result<(PowerPair, TokenAmount), ActorError> {
    let (policy, store) = (call.world.policy, call.world.store);
    let mut partitions = deadline.partitions_amt(store).map_err(illegal_state("failed to load partitions"))?;
    let quant = state.quant_spec_for_deadline(policy, index);
    let mut power = PowerPair::zero();
    let mut pledge = TokenAmount::zero();
    let mut by_expiration: BTreeMap<ChainEpoch, Vec<u64>> = BTreeMap::new();
    for extension in extensions {
        let mut partition = partitions
            .get(extension.partition)
            .map_err(illegal_array("failed to load partition"))?
            .cloned()
            .ok_or_else(|| {
                actor_error_v18!(not_found, "no such partition {} of deadline {}", extension.partition, index)
            })?;
        let old = sectors.load_sectors(&extension.sectors)?;
        let new = old
            .iter()
            .map(|sector| extended(call, economy, size, sector, extension.expiration))
            .collect::<Result<Vec<_>, _>>()?;
        sectors.store(new.clone()).map_err(illegal_state("failed to update sectors"))?;
        let (power_delta, pledge_delta, fee_delta) = partition
            .replace_sectors(store, &old, &new, size, quant)
            .map_err(illegal_state("failed to replace sector expirations"))?;
        power += &power_delta;
        pledge += pledge_delta;
        deadline.daily_fee += fee_delta;
        partitions.set(extension.partition, partition).map_err(illegal_array("failed to save partition"))?;
        by_expiration.entry(extension.expiration).or_default().push(extension.partition);
    }
    deadline.live_power += &power;
    deadline.partitions = partitions.flush().map_err(illegal_array("failed to save partitions"))?;
    for (expiration, partitions) in by_expiration {
        deadline
            .add_expiration_partitions(store, expiration, &partitions, quant)
            .map_err(illegal_state("failed to add expiration partitions"))?;
    }
    Ok((power, pledge))
}

/// A sector as it is once it is extended.
fn extended(
    call: &Invocation<'_, '_>,
    economy: &Economy,
    size: SectorSize,
    sector: &SectorOnChainInfo,
    expiration: ChainEpoch,
) -> Result<SectorOnChainInfo, ActorError> {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    check(policy, epoch, sector, expiration)?;
    let mut new = sector.clone();
    let left = sector.expiration - epoch;
    let whole = sector.expiration - sector.power_base_epoch;
    if sector.flags.contains(SectorOnChainInfoFlags::SIMPLE_QA_POWER) {
        if sector.verified_deal_weight.is_positive() {
            return Err(actor_error_v18!(
                illegal_argument,
                "claim missing from declaration for sector {} with non-zero verified deal weight {}",
                sector.sector_number,
                sector.verified_deal_weight
            ));
        }
        if sector.deal_weight.is_positive() {
            new.deal_weight = &sector.deal_weight * left / whole;
        }
    } else {
        let spent = |weight: &BigInt| (weight * left).div_floor(&BigInt::from(whole));
        new.deal_weight = spent(&sector.deal_weight);
        new.verified_deal_weight = spent(&sector.verified_deal_weight);
        new.expected_day_reward = None;
        new.replaced_day_reward = None;
        new.expected_storage_pledge = None;
    }
    new.expiration = expiration;
    new.power_base_epoch = epoch;
    let power = qa_power_for_weight(size, expiration - epoch, &new.verified_deal_weight);
    if new.daily_fee.is_zero() {
        new.daily_fee = daily_proof_fee(policy, &economy.circulating, &power);
    } else {
        let before = qa_power_for_sector(size, sector);
        if before != power {
            new.daily_fee = daily_proof_fee_adjust(&sector.daily_fee, &before, &power);
        }
    }
    Ok(new)
}

fn check(
    policy: &Policy,
    epoch: ChainEpoch,
    sector: &SectorOnChainInfo,
    expiration: ChainEpoch,
) -> Result<(), ActorError> {
    if !can_extend_seal_proof_type(sector.seal_proof) {
        return Err(actor_error_v18!(
            forbidden,
            "cannot extend expiration for sector {} with unsupported seal type {:?}",
            sector.sector_number,
            sector.seal_proof
        ));
    }
    // A sector that should be gone is still there until its deadline's end.
    if sector.expiration < epoch {
        return Err(actor_error_v18!(
            forbidden,
            "cannot extend expiration for expired sector {} at {}",
            sector.sector_number,
            sector.expiration
        ));
    }
    if expiration < sector.expiration {
        return Err(actor_error_v18!(
            illegal_argument,
            "cannot reduce sector {} expiration to {} from {}",
            sector.sector_number,
            expiration,
            sector.expiration
        ));
    }
    check_expiration(policy, epoch, sector.activation, expiration, sector.seal_proof)
}
