//! `ProveCommitSectors3` with one proof per sector.

use super::{
    encode,
    invocation::{Invocation, illegal_state},
    pieces::data_commitment,
};
use crate::devnet::{
    power::{self, Economy},
    randomness::{entropy, tag},
};
use damocles_core::{
    ActorId, CommD, CommR, SealProofType, SectorId, SectorNumber,
    verify::{Randomness, SealStatement},
};
use fil_actor_miner_state::v18::{
    CompactCommD, ERR_NOTIFICATION_SEND_FAILED, PieceActivationManifest, ProveCommitSectors3Params,
    ProveCommitSectors3Return, SectorOnChainInfo, SectorOnChainInfoFlags, SectorPreCommitOnChainInfo, State,
    daily_proof_fee, max_prove_commit_duration, qa_power_for_weight,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, BatchReturn, DealWeight, stack},
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{bigint::BigInt, econ::TokenAmount, error::ExitCode, sector::SectorSize};

/// A sector on its way through the checks.
struct Candidate {
    pre_commit: SectorPreCommitOnChainInfo,
    pieces: Vec<PieceActivationManifest>,
    proof: RawBytes,
}

pub(super) fn sectors(
    call: &mut Invocation<'_, '_>,
    params: ProveCommitSectors3Params,
) -> Result<RawBytes, ActorError> {
    let state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    check_params(&params)?;
    let strict = params.require_activation_success;

    let numbers: Vec<u64> = params.sector_activations.iter().map(|a| a.sector_number).collect();
    let mut distinct = numbers.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() != numbers.len() {
        return Err(actor_error_v18!(illegal_argument, "duplicate sector numbers in activations"));
    }
    let pre_commits = state.get_precommitted_sectors(call.world.store, &numbers)?;
    let candidates = pre_commits
        .into_iter()
        .zip(params.sector_activations)
        .zip(params.sector_proofs)
        .map(|((pre_commit, activation), proof)| Candidate { pre_commit, pieces: activation.pieces, proof })
        .collect();

    let (valid, in_time) = keep(candidates, |candidate| in_time(call, candidate, strict))?;
    let (proven, candidates) = keep(in_time, |candidate| proven(call, candidate))?;
    if strict && !proven.all_ok() {
        return Err(actor_error_v18!(illegal_argument, "invalid proof"));
    }
    if proven.success_count == 0 {
        return Err(actor_error_v18!(illegal_argument, "no valid proofs specified"));
    }
    let notified = candidates.iter().flat_map(|c| &c.pieces).any(|p| !p.notify.is_empty());
    let (claimed, candidates) = keep(candidates, |candidate| claimed(candidate, info.sector_size, strict))?;
    let activated = candidates.iter().map(|c| c.pre_commit.clone()).collect();
    let spaces = candidates.iter().map(|c| c.pieces.iter().map(|p| p.size.0).sum()).collect();
    activate(call, state, activated, spaces)?;
    if notified && params.require_notification_success {
        return Err(ActorError::unchecked(ERR_NOTIFICATION_SEND_FAILED, "sector change notification failed".into()));
    }
    encode(&ProveCommitSectors3Return { activation_results: stack(&[valid, proven, claimed]) })
}

fn check_params(params: &ProveCommitSectors3Params) -> Result<(), ActorError> {
    if params.sector_proofs.is_empty() == params.aggregate_proof.is_empty() {
        return Err(actor_error_v18!(
            illegal_argument,
            "exactly one of sector proofs or aggregate proof must be non-empty"
        ));
    }
    if !params.aggregate_proof.is_empty() || params.aggregate_proof_type.is_some() {
        return Err(actor_error_v18!(illegal_argument, "aggregate proofs are not verified on this network"));
    }
    if params.sector_activations.len() != params.sector_proofs.len() {
        return Err(actor_error_v18!(
            illegal_argument,
            "mismatched lengths: {} sector activations, {} proofs",
            params.sector_activations.len(),
            params.sector_proofs.len()
        ));
    }
    Ok(())
}

/// Splits off the candidates that fail a check, as the batch return counts them.
fn keep(
    candidates: Vec<Candidate>,
    mut check: impl FnMut(&Candidate) -> Result<ExitCode, ActorError>,
) -> Result<(BatchReturn, Vec<Candidate>), ActorError> {
    let mut codes = Vec::with_capacity(candidates.len());
    let mut kept = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let code = check(&candidate)?;
        codes.push(code);
        if code.is_success() {
            kept.push(candidate);
        }
    }
    Ok((BatchReturn::of(&codes), kept))
}

fn in_time(call: &Invocation<'_, '_>, candidate: &Candidate, strict: bool) -> Result<ExitCode, ActorError> {
    let (policy, epoch) = (call.world.policy, call.world.epoch);
    let pre_commit = &candidate.pre_commit;
    let number = pre_commit.info.sector_number;
    let duration = max_prove_commit_duration(policy, pre_commit.info.seal_proof).ok_or_else(|| {
        actor_error_v18!(illegal_argument, "no max seal duration for proof type: {:?}", pre_commit.info.seal_proof)
    })?;
    if epoch <= pre_commit.pre_commit_epoch + policy.pre_commit_challenge_delay {
        return Err(actor_error_v18!(forbidden, "too early to prove sector {}", number));
    }
    let due = pre_commit.pre_commit_epoch + duration;
    let lifetime = pre_commit.info.expiration - epoch;
    if epoch <= due && lifetime >= policy.min_sector_expiration {
        return Ok(ExitCode::OK);
    }
    if strict {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid pre-commit for sector {}: proven at {}, due {}, lifetime {}",
            number,
            epoch,
            due,
            lifetime
        ));
    }
    Ok(ExitCode::USR_ILLEGAL_ARGUMENT)
}

fn proven(call: &Invocation<'_, '_>, candidate: &Candidate) -> Result<ExitCode, ActorError> {
    let info = &candidate.pre_commit.info;
    let wrong = |what: &str, e: &dyn std::fmt::Display| actor_error_v18!(illegal_argument, "{}: {}", what, e);
    let seed_epoch = candidate.pre_commit.pre_commit_epoch + call.world.policy.pre_commit_challenge_delay;
    let entropy = entropy(call.miner);
    let statement = SealStatement {
        sector: SectorId::new(ActorId(call.miner), SectorNumber(info.sector_number)),
        proof_type: SealProofType::try_from(i64::from(info.seal_proof)).map_err(|e| wrong("seal proof type", &e))?,
        comm_r: CommR::from_cid(&info.sealed_cid).map_err(|e| wrong("sealed CID", &e))?,
        comm_d: CommD::from_cid(&info.unsealed_cid.get_cid(info.seal_proof)?).map_err(|e| wrong("unsealed CID", &e))?,
        ticket: Randomness(call.world.ticket_randomness(tag::SEAL_TICKET, info.seal_rand_epoch, &entropy)),
        seed: Randomness(call.world.beacon_randomness(tag::INTERACTIVE_SEED, seed_epoch, &entropy)),
    };
    let valid = call
        .world
        .verifier
        .verify_seal(&statement, candidate.proof.bytes())
        .map_err(|e| actor_error_v18!(illegal_state, "seal verifier: {}", e.chain()))?;
    Ok(if valid { ExitCode::OK } else { ExitCode::USR_ILLEGAL_ARGUMENT })
}

fn claimed(candidate: &Candidate, size: SectorSize, strict: bool) -> Result<ExitCode, ActorError> {
    let implied = if candidate.pieces.is_empty() {
        CompactCommD::empty()
    } else {
        CompactCommD::of(
            data_commitment(size, &candidate.pieces)
                .map_err(|e| actor_error_v18!(illegal_argument, "failed to compute unsealed sector CID: {}", e))?,
        )
    };
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

fn activate(
    call: &mut Invocation<'_, '_>,
    mut state: State,
    pre_commits: Vec<SectorPreCommitOnChainInfo>,
    spaces: Vec<u64>,
) -> Result<(), ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let info = call.info(&state)?;
    let economy = Economy::of(call.world)?;
    let mut deposits = TokenAmount::default();
    let mut pledge = TokenAmount::default();
    let mut sectors = Vec::with_capacity(pre_commits.len());
    for (pre_commit, space) in pre_commits.into_iter().zip(spaces) {
        let duration = pre_commit.info.expiration - epoch;
        let verified = DealWeight::default();
        let power = qa_power_for_weight(info.sector_size, duration, &verified);
        let initial_pledge = economy.initial_pledge(&power);
        deposits += &pre_commit.pre_commit_deposit;
        pledge += &initial_pledge;
        sectors.push(SectorOnChainInfo {
            sector_number: pre_commit.info.sector_number,
            seal_proof: pre_commit.info.seal_proof,
            sealed_cid: pre_commit.info.sealed_cid,
            deprecated_deal_ids: Vec::new(),
            activation: epoch,
            expiration: pre_commit.info.expiration,
            deal_weight: BigInt::from(space) * duration,
            verified_deal_weight: verified,
            initial_pledge,
            expected_day_reward: None,
            expected_storage_pledge: None,
            power_base_epoch: epoch,
            replaced_day_reward: None,
            sector_key_cid: None,
            flags: SectorOnChainInfoFlags::SIMPLE_QA_POWER,
            daily_fee: daily_proof_fee(policy, &economy.circulating, &power),
        });
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
    let unlocked =
        state.get_unlocked_balance(&call.balance()).map_err(illegal_state("failed to calculate unlocked balance"))?;
    if unlocked < pledge {
        return Err(actor_error_v18!(
            insufficient_funds,
            "insufficient funds for aggregate initial pledge requirement {}, available: {}",
            pledge,
            unlocked
        ));
    }
    state.add_initial_pledge(&pledge).map_err(illegal_state("failed to add initial pledge"))?;
    call.check_balance(&state)?;
    call.save(&state)?;
    power::update_pledge(call.world, &pledge)
}
