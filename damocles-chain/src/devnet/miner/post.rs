//! `SubmitWindowedPoSt`. On public networks a proof that recovers nothing is taken on trust and may be disputed; here
//! every proof is verified when it lands, unless the configuration asks for trust.

use super::invocation::{Invocation, illegal_array, illegal_state};
use crate::devnet::{
    power,
    randomness::{entropy, tag},
};
use damocles_core::{
    ActorId, CommR, PoStProofType, SectorNumber,
    verify::{PoStStatement, ProvenSector, Randomness},
};
use fil_actor_miner_state::v18::{
    DeadlineInfo, MinerInfo, SectorOnChainInfo, Sectors, State, SubmitWindowedPoStParams, load_partitions_sectors_max,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorDowncast, ActorError, runtime::Policy},
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{clock::ChainEpoch, error::ExitCode, randomness::RANDOMNESS_LENGTH, sector::PoStProof};

pub(super) fn submit(
    call: &mut Invocation<'_, '_>,
    mut params: SubmitWindowedPoStParams,
) -> Result<RawBytes, ActorError> {
    let (policy, epoch, store) = (call.world.policy, call.world.epoch, call.world.store);
    let [proof] = params.proofs.as_slice() else {
        return Err(actor_error_v18!(illegal_argument, "expected exactly one proof, got {}", params.proofs.len()));
    };
    let proof = proof.clone();
    if params.deadline >= policy.wpost_period_deadlines {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid deadline {} of {}",
            params.deadline,
            policy.wpost_period_deadlines
        ));
    }
    if params.chain_commit_rand.0.len() > RANDOMNESS_LENGTH {
        return Err(actor_error_v18!(
            illegal_argument,
            "expected at most {} bytes of randomness, got {}",
            RANDOMNESS_LENGTH,
            params.chain_commit_rand.0.len()
        ));
    }
    let mut state = call.state()?;
    let info = call.info(&state)?;
    call.only_controllers(&info)?;
    check_sizes(policy, &info, &params, &proof)?;
    let current = check_deadline(policy, epoch, &state, &params)?;
    let commitment = call.world.ticket_randomness(tag::CHAIN_COMMIT, params.chain_commit_epoch, &[]);
    if params.chain_commit_rand.0 != commitment {
        return Err(actor_error_v18!(illegal_argument, "post commit randomness mismatched"));
    }

    let sectors = Sectors::load(store, &state.sectors).map_err(illegal_array("failed to load sectors"))?;
    let mut deadlines = state.load_deadlines(store)?;
    let mut deadline = deadlines.load_deadline(store, params.deadline)?;
    let result = deadline
        .record_proven_sectors(
            store,
            &sectors,
            info.sector_size,
            current.quant_spec(),
            current.last() + policy.fault_max_age,
            &mut params.partitions,
        )
        .map_err(|e| {
            e.downcast_default(
                ExitCode::USR_ILLEGAL_STATE,
                format!("failed to process post submission for deadline {}", params.deadline),
            )
        })?;
    let proven = &result.sectors - &result.ignored_sectors;
    if proven.is_empty() {
        return Err(actor_error_v18!(illegal_argument, "cannot prove partitions with no active sectors"));
    }
    let infos = sectors
        .load_for_proof(&result.sectors, &result.ignored_sectors)
        .map_err(illegal_state("failed to load sectors for post verification"))?;
    let on_trust = call.world.parameters.optimistic_post && result.recovered_power.is_zero();
    if !on_trust && !verify(call, current.challenge, infos, &proof)? {
        return Err(actor_error_v18!(illegal_argument, "invalid post was submitted"));
    }
    if result.recovered_power.is_zero() {
        deadline
            .record_post_proofs(store, &result.partitions, &params.proofs)
            .map_err(illegal_state("failed to record proof for optimistic verification"))?;
    }
    deadlines
        .update_deadline(policy, store, params.deadline, &deadline)
        .map_err(illegal_state("failed to update deadline"))?;
    state.save_deadlines(store, deadlines).map_err(illegal_state("failed to save deadlines"))?;
    call.save(&state)?;
    power::update_claim(call.world, call.miner, &result.power_delta)?;
    call.check_balance(&state)?;
    Ok(RawBytes::default())
}

fn check_sizes(
    policy: &Policy,
    info: &MinerInfo,
    params: &SubmitWindowedPoStParams,
    proof: &PoStProof,
) -> Result<(), ActorError> {
    if proof.post_proof != info.window_post_proof_type {
        return Err(actor_error_v18!(
            illegal_argument,
            "expected proof of type {:?}, got {:?}",
            info.window_post_proof_type,
            proof.post_proof
        ));
    }
    let single = info
        .window_post_proof_type
        .proof_size()
        .map_err(|e| actor_error_v18!(illegal_state, "failed to determine max window post proof size: {}", e))?;
    let longest = single.saturating_mul(params.partitions.len());
    if proof.proof_bytes.len() > longest {
        return Err(actor_error_v18!(illegal_argument, "expect proof to be smaller than {} bytes", longest));
    }
    let limit =
        load_partitions_sectors_max(policy, info.window_post_partition_sectors).min(policy.posted_partitions_max);
    if params.partitions.len() as u64 > limit {
        return Err(actor_error_v18!(
            illegal_argument,
            "too many partitions {}, limit {}",
            params.partitions.len(),
            limit
        ));
    }
    Ok(())
}

fn check_deadline(
    policy: &Policy,
    epoch: ChainEpoch,
    state: &State,
    params: &SubmitWindowedPoStParams,
) -> Result<DeadlineInfo, ActorError> {
    let current = state.deadline_info(policy, epoch);
    if !current.is_open() {
        return Err(actor_error_v18!(
            illegal_state,
            "proving period {} not yet open at {}",
            current.period_start,
            epoch
        ));
    }
    if params.deadline != current.index {
        return Err(actor_error_v18!(
            illegal_argument,
            "invalid deadline {} at epoch {}, expected {}",
            params.deadline,
            epoch,
            current.index
        ));
    }
    if params.chain_commit_epoch < current.challenge {
        return Err(actor_error_v18!(
            illegal_argument,
            "expected chain commit epoch {} to be after {}",
            params.chain_commit_epoch,
            current.challenge
        ));
    }
    if params.chain_commit_epoch >= epoch {
        return Err(actor_error_v18!(
            illegal_argument,
            "chain commit epoch {} must be less than the current epoch {}",
            params.chain_commit_epoch,
            epoch
        ));
    }
    Ok(current)
}

/// Whether a proof holds for these sectors.
pub(super) fn verify(
    call: &Invocation<'_, '_>,
    challenge: ChainEpoch,
    infos: Vec<SectorOnChainInfo>,
    proof: &PoStProof,
) -> Result<bool, ActorError> {
    let wrong = |what: &str, e: &dyn std::fmt::Display| actor_error_v18!(illegal_argument, "{}: {}", what, e);
    let mut sectors = Vec::with_capacity(infos.len());
    for info in infos {
        let comm_r = CommR::from_cid(&info.sealed_cid).map_err(|e| wrong("sealed CID", &e))?;
        sectors.push(ProvenSector { number: SectorNumber(info.sector_number), comm_r });
    }
    // Stand-ins for faulty sectors repeat a sector; the proof is over the set of sectors, as in the proofs library.
    sectors.sort_unstable_by_key(|s| s.number.0);
    sectors.dedup_by_key(|s| s.number.0);
    let seed = call.world.beacon_randomness(tag::WINDOW_POST, challenge, &entropy(call.miner));
    let statement = PoStStatement {
        miner: ActorId(call.miner),
        proof_type: PoStProofType::try_from(i64::from(proof.post_proof)).map_err(|e| wrong("proof type", &e))?,
        randomness: Randomness(seed),
        sectors,
    };
    call.world
        .verifier
        .verify_window_post(&statement, &proof.proof_bytes)
        .map_err(|e| actor_error_v18!(illegal_state, "PoSt verifier: {}", e.chain()))
}
