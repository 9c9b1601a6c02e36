//! `ProveCommitSectors3`, with one proof per sector or one for all.

use super::{
    encode,
    invocation::{Invocation, illegal_state},
    pieces::implied,
    seal::{self, SealInput},
};
use crate::devnet::{
    power::{self, Economy},
    randomness::{entropy, tag},
};
use fil_actor_miner_state::v18::{
    ERR_NOTIFICATION_RECEIVER_ABORTED, PieceActivationManifest, ProveCommitSectors3Params, ProveCommitSectors3Return,
    SectorOnChainInfo, SectorOnChainInfoFlags, SectorPreCommitOnChainInfo, State, daily_proof_fee,
    max_prove_commit_duration, qa_power_for_weight,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, BatchReturn, DealWeight, STORAGE_MARKET_ACTOR_ADDR, runtime::Policy, stack},
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    address::Address,
    bigint::BigInt,
    econ::TokenAmount,
    error::ExitCode,
    sector::{RegisteredAggregateProof, RegisteredSealProof, SectorSize},
};
use std::{collections::BTreeSet, ops::RangeInclusive};

/// A sector on its way through the checks.
struct Candidate {
    pre_commit: SectorPreCommitOnChainInfo,
    pieces: Vec<PieceActivationManifest>,
    proof: RawBytes,
    input: SealInput,
}

pub(super) fn sectors(
    call: &mut Invocation<'_, '_>,
    params: ProveCommitSectors3Params,
) -> Result<RawBytes, ActorError> {
    let state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    let strict = params.require_activation_success;
    let numbers: Vec<u64> = params.sector_activations.iter().map(|a| a.sector_number).collect();
    let pre_commits = state.get_precommitted_sectors(call.world.store, &numbers)?;
    let seal_proof = pre_commits.first().map(|p| p.info.seal_proof);
    let seal_proof = seal_proof.ok_or_else(|| actor_error_v18!(illegal_argument, "no sectors to prove"))?;
    check_params(call.world.policy, &params, seal_proof)?;

    let mut proofs = params.sector_proofs.into_iter();
    let mut candidates = Vec::with_capacity(pre_commits.len());
    for (pre_commit, activation) in pre_commits.into_iter().zip(params.sector_activations) {
        let input = input_of(call, &pre_commit, seal_proof)?;
        let proof = proofs.next().unwrap_or_default();
        candidates.push(Candidate { pre_commit, pieces: activation.pieces, proof, input });
    }
    let (valid, codes) = in_time(call, &candidates, strict)?;
    if valid.success_count == 0 {
        return Err(actor_error_v18!(illegal_argument, "no valid precommits specified"));
    }
    if !params.aggregate_proof.is_empty() {
        // Sectors that come too late are in the proof all the same.
        let inputs: Vec<SealInput> = candidates.iter().map(|c| c.input.clone()).collect();
        if !seal::verify_aggregate(call, seal_proof, &inputs, params.aggregate_proof.bytes())? {
            return Err(actor_error_v18!(illegal_argument, "aggregate seal verify failed"));
        }
    }
    let in_time = good(candidates, &codes);
    let codes = if params.aggregate_proof.is_empty() {
        in_time.iter().map(|c| proven(call, c, strict)).collect::<Result<Vec<_>, _>>()?
    } else {
        vec![ExitCode::OK; in_time.len()]
    };
    let proven = BatchReturn::of(&codes);
    if proven.success_count == 0 {
        return Err(actor_error_v18!(illegal_argument, "no valid proofs specified"));
    }
    let candidates = good(in_time, &codes);
    let codes = candidates.iter().map(|c| claimed(c, info.sector_size, strict)).collect::<Result<Vec<_>, _>>()?;
    let claimed = BatchReturn::of(&codes);
    if claimed.success_count == 0 {
        return Err(actor_error_v18!(illegal_argument, "all data activations failed"));
    }
    let candidates = good(candidates, &codes);
    let receivers = receivers(candidates.iter().flat_map(|c| &c.pieces));
    activate(call, state, candidates)?;
    notify(&receivers, params.require_notification_success)?;
    encode(&ProveCommitSectors3Return { activation_results: stack(&[valid, proven, claimed]) })
}

/// Who is to be told of pieces, in the order in which they are told.
pub(super) fn receivers<'p>(pieces: impl IntoIterator<Item = &'p PieceActivationManifest>) -> BTreeSet<Address> {
    pieces.into_iter().flat_map(|p| &p.notify).map(|n| n.address).collect()
}

/// Tells them. Nobody but the market is ever told, and the one here knows no method.
pub(super) fn notify(receivers: &BTreeSet<Address>, strict: bool) -> Result<(), ActorError> {
    match receivers.first() {
        Some(receiver) if strict && *receiver != STORAGE_MARKET_ACTOR_ADDR => {
            Err(actor_error_v18!(illegal_argument, "disallowed notification receiver: {}", receiver))
        }
        Some(_) if strict => Err(ActorError::unchecked(
            ERR_NOTIFICATION_RECEIVER_ABORTED,
            format!("receiver aborted with {}", ExitCode::USR_UNHANDLED_MESSAGE),
        )),
        _ => Ok(()),
    }
}

fn check_params(
    policy: &Policy,
    params: &ProveCommitSectors3Params,
    seal_proof: RegisteredSealProof,
) -> Result<(), ActorError> {
    if params.sector_proofs.is_empty() == params.aggregate_proof.is_empty() {
        return Err(actor_error_v18!(
            illegal_argument,
            "exactly one of sector proofs or aggregate proof must be non-empty"
        ));
    }
    if params.sector_proofs.is_empty() {
        if params.aggregate_proof_type != Some(RegisteredAggregateProof::SnarkPackV2) {
            return Err(actor_error_v18!(illegal_argument, "aggregate proof type must be SnarkPackV2"));
        }
        let bounds = policy.min_aggregated_sectors..=policy.max_aggregated_sectors;
        return check_aggregate(policy, &params.aggregate_proof, params.sector_activations.len(), bounds);
    }
    if params.aggregate_proof_type.is_some() {
        return Err(actor_error_v18!(illegal_argument, "aggregate proof type must be null with batched proofs"));
    }
    if params.sector_activations.len() != params.sector_proofs.len() {
        return Err(actor_error_v18!(
            illegal_argument,
            "mismatched lengths: {} sector activations, {} proofs",
            params.sector_activations.len(),
            params.sector_proofs.len()
        ));
    }
    let longest = seal_proof
        .proof_size()
        .map_err(|e| actor_error_v18!(illegal_state, "failed to determine max proof size: {}", e))?;
    match params.sector_proofs.iter().find(|proof| proof.len() > longest) {
        Some(proof) => {
            Err(actor_error_v18!(illegal_argument, "sector proof size {} exceeds max {}", proof.len(), longest))
        }
        None => Ok(()),
    }
}

/// Whether an aggregate may be so long and be about so many sectors.
pub(super) fn check_aggregate(
    policy: &Policy,
    proof: &RawBytes,
    sectors: usize,
    bounds: RangeInclusive<u64>,
) -> Result<(), ActorError> {
    let sectors = u64::try_from(sectors).unwrap_or(u64::MAX);
    if sectors > *bounds.end() {
        return Err(actor_error_v18!(
            illegal_argument,
            "too many sectors addressed, addressed {} want <= {}",
            sectors,
            bounds.end()
        ));
    }
    if sectors < *bounds.start() {
        return Err(actor_error_v18!(
            illegal_argument,
            "too few sectors addressed, addressed {} want >= {}",
            sectors,
            bounds.start()
        ));
    }
    if proof.len() > policy.max_aggregated_proof_size {
        return Err(actor_error_v18!(
            illegal_argument,
            "sector prove-commit proof of size {} exceeds max size of {}",
            proof.len(),
            policy.max_aggregated_proof_size
        ));
    }
    Ok(())
}

/// What the proof of a sector is about, once its seed is there.
fn input_of(
    call: &Invocation<'_, '_>,
    pre_commit: &SectorPreCommitOnChainInfo,
    seal_proof: RegisteredSealProof,
) -> Result<SealInput, ActorError> {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    let info = &pre_commit.info;
    if info.seal_proof != seal_proof {
        return Err(actor_error_v18!(
            illegal_state,
            "seal proof group for verification contains mismatched seal proofs {:?} and {:?}",
            seal_proof,
            info.seal_proof
        ));
    }
    let seed_epoch = pre_commit.pre_commit_epoch + policy.pre_commit_challenge_delay;
    if epoch <= seed_epoch {
        return Err(actor_error_v18!(forbidden, "too early to prove sector {}", info.sector_number));
    }
    let entropy = entropy(call.miner);
    Ok(SealInput {
        number: info.sector_number,
        sealed: info.sealed_cid,
        data: info.unsealed_cid.get_cid(info.seal_proof)?,
        ticket: call.world.ticket_randomness(tag::SEAL_TICKET, info.seal_rand_epoch, &entropy),
        seed: call.world.beacon_randomness(tag::INTERACTIVE_SEED, seed_epoch, &entropy),
    })
}

/// The candidates that passed a check.
fn good(candidates: Vec<Candidate>, codes: &[ExitCode]) -> Vec<Candidate> {
    candidates.into_iter().zip(codes).filter(|(_, code)| code.is_success()).map(|(c, _)| c).collect()
}

/// Which candidates do not come too late.
fn in_time(
    call: &Invocation<'_, '_>,
    candidates: &[Candidate],
    strict: bool,
) -> Result<(BatchReturn, Vec<ExitCode>), ActorError> {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    let mut codes = Vec::with_capacity(candidates.len());
    for (index, candidate) in candidates.iter().enumerate() {
        let proof = candidate.pre_commit.info.seal_proof;
        let duration = max_prove_commit_duration(policy, proof)
            .ok_or_else(|| actor_error_v18!(illegal_state, "no max seal duration for proof type: {:?}", proof))?;
        let due = candidate.pre_commit.pre_commit_epoch + duration;
        if epoch <= due {
            codes.push(ExitCode::OK);
        } else if strict {
            return Err(actor_error_v18!(
                illegal_argument,
                "invalid pre-commit {} while requiring activation success: sector {} is proven at {}, due {}",
                index,
                candidate.pre_commit.info.sector_number,
                epoch,
                due
            ));
        } else {
            codes.push(ExitCode::USR_ILLEGAL_ARGUMENT);
        }
    }
    Ok((BatchReturn::of(&codes), codes))
}

fn proven(call: &Invocation<'_, '_>, candidate: &Candidate, strict: bool) -> Result<ExitCode, ActorError> {
    let info = &candidate.pre_commit.info;
    if seal::verify_one(call, info.seal_proof, &candidate.input, candidate.proof.bytes())? {
        return Ok(ExitCode::OK);
    }
    if strict {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid proof for sector {} while requiring activation success",
            info.sector_number
        ));
    }
    Ok(ExitCode::USR_ILLEGAL_ARGUMENT)
}

fn claimed(candidate: &Candidate, size: SectorSize, strict: bool) -> Result<ExitCode, ActorError> {
    let implied = implied(size, &candidate.pieces)
        .map_err(|e| actor_error_v18!(illegal_argument, "failed to compute unsealed sector CID: {}", e))?;
    let declared = &candidate.pre_commit.info.unsealed_cid;
    let seal_proof = candidate.pre_commit.info.seal_proof;
    if implied.get_cid(seal_proof)? != declared.get_cid(seal_proof)? {
        return Err(actor_error_v18!(
            illegal_argument,
            "unsealed CID does not match data commitment: {:?} expected {:?}",
            implied,
            declared
        ));
    }
    // There is no registry of verified clients, so there is no allocation to be claimed either.
    if candidate.pieces.iter().any(|p| p.verified_allocation_key.is_some()) {
        if strict {
            return Err(actor_error_v18!(illegal_argument, "error claiming allocations on batch"));
        }
        return Ok(ExitCode::USR_NOT_FOUND);
    }
    Ok(ExitCode::OK)
}

fn activate(call: &mut Invocation<'_, '_>, mut state: State, candidates: Vec<Candidate>) -> Result<(), ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let info = call.info(&state)?;
    let economy = Economy::of(call.world)?;
    let mut deposits = TokenAmount::default();
    let mut pledge = TokenAmount::default();
    let mut sectors = Vec::with_capacity(candidates.len());
    for Candidate { pre_commit, pieces, .. } in candidates {
        let sector = activated(policy, epoch, &economy, info.sector_size, &pre_commit, &pieces)?;
        deposits += &pre_commit.pre_commit_deposit;
        pledge += &sector.initial_pledge;
        sectors.push(sector);
    }
    let numbers: Vec<u64> = sectors.iter().map(|s| s.sector_number).collect();
    state.put_sectors(store, sectors.clone()).map_err(illegal_state("failed to put new sectors"))?;
    state.delete_precommitted_sectors(store, &numbers)?;
    state
        .assign_sectors_to_deadlines(
            policy,
            store,
            epoch,
            sectors,
            info.window_post_partition_sectors,
            info.sector_size,
        )
        .map_err(illegal_state("failed to assign new sectors to deadlines"))?;
    // The deposits of proven sectors become free and may serve as pledge.
    state.add_pre_commit_deposit(&-deposits).map_err(illegal_state("failed to unlock pre-commit deposits"))?;
    call.pledge(&state, &pledge)?;
    state.add_initial_pledge(&pledge).map_err(illegal_state("failed to add initial pledge"))?;
    call.check_balance(&state)?;
    call.save(&state)?;
    power::update_pledge(call.world, call.miner, &pledge)
}

/// A sector at its activation.
fn activated(
    policy: &Policy,
    epoch: i64,
    economy: &Economy,
    size: SectorSize,
    pre_commit: &SectorPreCommitOnChainInfo,
    pieces: &[PieceActivationManifest],
) -> Result<SectorOnChainInfo, ActorError> {
    let duration = pre_commit.info.expiration - epoch;
    if duration < policy.min_sector_expiration {
        return Err(actor_error_v18!(
            illegal_argument,
            "precommit {} has lifetime {} less than minimum {}. ignoring",
            pre_commit.info.sector_number,
            duration,
            policy.min_sector_expiration
        ));
    }
    let space: u64 = pieces.iter().map(|p| p.size.0).sum();
    let verified = DealWeight::default();
    let power = qa_power_for_weight(size, duration, &verified);
    Ok(SectorOnChainInfo {
        sector_number: pre_commit.info.sector_number,
        seal_proof: pre_commit.info.seal_proof,
        sealed_cid: pre_commit.info.sealed_cid,
        deprecated_deal_ids: Vec::new(),
        activation: epoch,
        expiration: pre_commit.info.expiration,
        deal_weight: BigInt::from(space) * duration,
        verified_deal_weight: verified,
        initial_pledge: economy.initial_pledge(&power),
        expected_day_reward: None,
        expected_storage_pledge: None,
        power_base_epoch: epoch,
        replaced_day_reward: None,
        sector_key_cid: None,
        flags: SectorOnChainInfoFlags::SIMPLE_QA_POWER,
        daily_fee: daily_proof_fee(policy, &economy.circulating, &power),
    })
}
