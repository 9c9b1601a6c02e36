//! `ProveReplicaUpdates3`: data for sectors that were empty.

use super::{
    encode,
    invocation::{Invocation, illegal_array, illegal_state},
    pieces::implied,
    prove_commit::{notify, receivers},
    seal,
};
use crate::devnet::power::{self, Economy};
use fil_actor_miner_state::v18::{
    PowerPair, ProveReplicaUpdates3Params, ProveReplicaUpdates3Return, SectorOnChainInfo, SectorOnChainInfoFlags,
    SectorUpdateManifest, Sectors, State, daily_proof_fee, daily_proof_fee_adjust, deadline_is_mutable,
    is_sealed_sector, qa_power_for_weight,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, BatchReturn, DealWeight, stack},
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    bigint::BigInt,
    econ::TokenAmount,
    error::ExitCode,
    sector::{RegisteredUpdateProof, SectorSize},
};
use num_traits::Zero;
use std::collections::{BTreeMap, BTreeSet};

/// The longest proof of an update.
const MAX_PROOF: usize = 4096;

/// An update on its way through the checks.
struct Candidate {
    manifest: SectorUpdateManifest,
    sector: SectorOnChainInfo,
    proof: RawBytes,
}

pub(super) fn sectors(
    call: &mut Invocation<'_, '_>,
    params: ProveReplicaUpdates3Params,
) -> Result<RawBytes, ActorError> {
    let store = call.world.store;
    let state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    check_form(&params)?;
    let strict = params.require_activation_success;
    let sectors = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors array"))?;
    let mut candidates = Vec::with_capacity(params.sector_updates.len());
    let mut proofs = params.sector_proofs.iter();
    for manifest in params.sector_updates {
        let sector = sectors.must_get(manifest.sector)?;
        let proof = proofs.next().cloned().unwrap_or_default();
        candidates.push(Candidate { manifest, sector, proof });
    }
    let count = candidates.len();
    let (valid, candidates) = validate(call, &state, candidates, params.update_proofs_type, strict)?;
    if params.sector_proofs.is_empty() {
        return Err(actor_error_v18!(illegal_argument, "aggregate update proofs not yet supported"));
    }
    if count != params.sector_proofs.len() {
        return Err(actor_error_v18!(
            illegal_argument,
            "mismatched lengths: {} sector updates, {} proofs",
            count,
            params.sector_proofs.len()
        ));
    }
    let (proven, candidates) = prove(call, candidates, info.sector_size, strict)?;
    if candidates.is_empty() {
        return Err(actor_error_v18!(illegal_argument, "no valid updates"));
    }
    let (claimed, candidates) = claim(candidates, strict)?;
    if candidates.is_empty() {
        return Err(actor_error_v18!(illegal_argument, "all data activations failed"));
    }
    let receivers = receivers(candidates.iter().flat_map(|c| &c.manifest.pieces));
    activate(call, state, sectors, candidates, info.sector_size)?;
    notify(&receivers, params.require_notification_success)?;
    encode(&ProveReplicaUpdates3Return { activation_results: stack(&[valid, proven, claimed]) })
}

fn check_form(params: &ProveReplicaUpdates3Params) -> Result<(), ActorError> {
    if params.sector_proofs.is_empty() == params.aggregate_proof.is_empty() {
        return Err(actor_error_v18!(
            illegal_argument,
            "exactly one of sector proofs or aggregate proof must be non-empty"
        ));
    }
    if params.sector_proofs.is_empty() == params.aggregate_proof_type.is_none() {
        return Err(actor_error_v18!(
            illegal_argument,
            "aggregate proof type must be specified with an aggregate proof and only then"
        ));
    }
    Ok(())
}

fn validate(
    call: &Invocation<'_, '_>,
    state: &State,
    candidates: Vec<Candidate>,
    kind: RegisteredUpdateProof,
    strict: bool,
) -> Result<(BatchReturn, Vec<Candidate>), ActorError> {
    let mut seen = BTreeSet::new();
    let mut codes = Vec::with_capacity(candidates.len());
    let mut kept = Vec::with_capacity(candidates.len());
    for (index, candidate) in candidates.into_iter().enumerate() {
        match check(call, state, &candidate, kind, &mut seen) {
            Ok(()) => {
                codes.push(ExitCode::OK);
                kept.push(candidate);
            }
            Err(e) if strict => {
                return Err(e.wrap(format!("invalid update {index} while requiring activation success")));
            }
            Err(_) => codes.push(ExitCode::USR_ILLEGAL_ARGUMENT),
        }
    }
    Ok((BatchReturn::of(&codes), kept))
}

fn check(
    call: &Invocation<'_, '_>,
    state: &State,
    candidate: &Candidate,
    kind: RegisteredUpdateProof,
    seen: &mut BTreeSet<u64>,
) -> Result<(), ActorError> {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    let Candidate { manifest, sector, proof } = candidate;
    let number = manifest.sector;
    let wrong = |what: &str| actor_error_v18!(illegal_argument, "{}, skipping sector {}", what, number);
    if !seen.insert(number) {
        return Err(actor_error_v18!(illegal_argument, "skipping duplicate sector {}", number));
    }
    if proof.len() > MAX_PROOF {
        return Err(wrong(&format!("update proof is too large ({})", proof.len())));
    }
    if manifest.deadline >= policy.wpost_period_deadlines {
        return Err(wrong(&format!(
            "deadline {} not in range 0..{}",
            manifest.deadline, policy.wpost_period_deadlines
        )));
    }
    if !is_sealed_sector(&manifest.new_sealed_cid) {
        return Err(wrong(&format!("new sealed CID had wrong prefix {}", manifest.new_sealed_cid)));
    }
    let period = state.current_proving_period_start(policy, epoch);
    if !deadline_is_mutable(policy, period, manifest.deadline, epoch) {
        return Err(wrong(&format!("cannot upgrade sectors in immutable deadline {}", manifest.deadline)));
    }
    if !state.check_sector_active(call.world.store, manifest.deadline, manifest.partition, number, true)? {
        return Err(wrong("sector isn't active"));
    }
    if (&sector.deal_weight + &sector.verified_deal_weight) != DealWeight::zero() {
        return Err(wrong("cannot update sector with non-zero data"));
    }
    let expected = sector
        .seal_proof
        .registered_update_proof()
        .map_err(|e| actor_error_v18!(illegal_state, "couldn't load update proof type: {}", e))?;
    if kind != expected {
        return Err(actor_error_v18!(illegal_argument, "expected proof type {:?}, was {:?}", expected, kind));
    }
    Ok(())
}

fn prove(
    call: &Invocation<'_, '_>,
    candidates: Vec<Candidate>,
    size: SectorSize,
    strict: bool,
) -> Result<(BatchReturn, Vec<Candidate>), ActorError> {
    let mut codes = Vec::with_capacity(candidates.len());
    let mut kept = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let Candidate { manifest, sector, proof } = &candidate;
        let data = implied(size, &manifest.pieces)
            .map_err(|e| actor_error_v18!(illegal_argument, "failed to compute unsealed sector CID: {}", e))?
            .get_cid(sector.seal_proof)?;
        let replicas = (&sector.sealed_cid, &manifest.new_sealed_cid);
        let valid = seal::verify_update(call, seal::sector_size(sector.seal_proof)?, replicas, &data, proof.bytes())?;
        if valid {
            codes.push(ExitCode::OK);
            kept.push(candidate);
        } else if strict {
            return Err(actor_error_v18!(
                illegal_argument,
                "invalid proof for sector {} while requiring activation success",
                manifest.sector
            ));
        } else {
            codes.push(ExitCode::USR_ILLEGAL_ARGUMENT);
        }
    }
    Ok((BatchReturn::of(&codes), kept))
}

/// There is no registry of verified clients, so there is no allocation to be claimed either.
fn claim(candidates: Vec<Candidate>, strict: bool) -> Result<(BatchReturn, Vec<Candidate>), ActorError> {
    let mut codes = Vec::with_capacity(candidates.len());
    let mut kept = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        if candidate.manifest.pieces.iter().all(|p| p.verified_allocation_key.is_none()) {
            codes.push(ExitCode::OK);
            kept.push(candidate);
        } else if strict {
            return Err(actor_error_v18!(illegal_argument, "error claiming allocations on batch"));
        } else {
            codes.push(ExitCode::USR_NOT_FOUND);
        }
    }
    Ok((BatchReturn::of(&codes), kept))
}

fn activate<'s>(
    call: &mut Invocation<'_, 's>,
    mut state: State,
    mut sectors: Sectors<'s, crate::devnet::store::Overlay<'s>>,
    candidates: Vec<Candidate>,
    size: SectorSize,
) -> Result<(), ActorError> {
    let (policy, store) = (call.world.policy, call.world.store);
    let economy = Economy::of(call.world)?;
    let mut by_deadline: BTreeMap<u64, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        by_deadline.entry(candidate.manifest.deadline).or_default().push(candidate);
    }
    let mut deadlines = state.load_deadlines(store)?;
    let mut power = PowerPair::zero();
    let mut pledge = TokenAmount::zero();
    let mut updated = Vec::new();
    for (index, candidates) in by_deadline {
        let mut deadline = deadlines.load_deadline(store, index)?;
        let mut partitions = deadline.partitions_amt(store).map_err(illegal_state("failed to load partitions"))?;
        let quant = state.quant_spec_for_deadline(policy, index);
        for candidate in candidates {
            let new = renewed(call, &economy, &candidate, size);
            let at = candidate.manifest.partition;
            let mut partition = partitions
                .get(at)
                .map_err(illegal_array("failed to load partition"))?
                .cloned()
                .ok_or_else(|| actor_error_v18!(not_found, "no such deadline {} partition {}", index, at))?;
            let (power_delta, pledge_delta, fee_delta) = partition
                .replace_sectors(store, &[candidate.sector], std::slice::from_ref(&new), size, quant)
                .map_err(illegal_state("failed to replace sector"))?;
            partitions.set(at, partition).map_err(illegal_array("failed to save partition"))?;
            deadline.live_power += &power_delta;
            deadline.daily_fee += fee_delta;
            power += &power_delta;
            pledge += pledge_delta;
            updated.push(new);
        }
        deadline.partitions = partitions.flush().map_err(illegal_array("failed to save partitions"))?;
        deadlines.update_deadline(policy, store, index, &deadline).map_err(illegal_state("failed to save deadline"))?;
    }
    sectors.store(updated).map_err(illegal_state("failed to update sector infos"))?;
    state.sectors = sectors.amt.flush().map_err(illegal_array("failed to save sectors"))?;
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    if pledge.is_positive() {
        call.pledge(&state, &pledge)?;
    }
    state.add_initial_pledge(&pledge).map_err(illegal_state("failed to add initial pledge"))?;
    call.check_balance(&state)?;
    call.save(&state)?;
    power::update_pledge(call.world, call.miner, &pledge)?;
    power::update_claim(call.world, call.miner, &power)
}

/// A sector with its new data.
fn renewed(call: &Invocation<'_, '_>, economy: &Economy, candidate: &Candidate, size: SectorSize) -> SectorOnChainInfo {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    let Candidate { manifest, sector, .. } = candidate;
    let mut new = sector.clone();
    new.flags.set(SectorOnChainInfoFlags::SIMPLE_QA_POWER, true);
    new.sealed_cid = manifest.new_sealed_cid;
    new.sector_key_cid = sector.sector_key_cid.or(Some(sector.sealed_cid));
    new.power_base_epoch = epoch;
    let duration = new.expiration - epoch;
    let space: u64 = manifest.pieces.iter().map(|p| p.size.0).sum();
    new.deal_weight = BigInt::from(space) * duration;
    new.verified_deal_weight = DealWeight::zero();
    new.expected_day_reward = None;
    new.replaced_day_reward = None;
    new.expected_storage_pledge = None;
    let power = qa_power_for_weight(size, duration, &new.verified_deal_weight);
    new.initial_pledge = new.initial_pledge.max(economy.initial_pledge(&power));
    if new.daily_fee.is_zero() {
        new.daily_fee = daily_proof_fee(policy, &economy.circulating, &power);
    } else {
        let before = qa_power_for_weight(size, duration, &sector.verified_deal_weight);
        if before != power {
            new.daily_fee = daily_proof_fee_adjust(&new.daily_fee, &before, &power);
        }
    }
    new
}
