//! From a duty to a verified proof.

use super::{
    WindowScheduler,
    read::Candidates,
    work::{Share, is_late},
};
use crate::{
    plan::to_prove,
    record::{Attempt, AttemptEnd, Intent, ProofIntent},
};
use damocles_core::{
    Context, Epoch, PartitionIndex, SectorSet,
    chain::{DeadlineState, PoStPartition, RandomnessKind, TipsetRef},
    post::{Duty, Fulfilled, PoStError, PoStErrorKind, ProveWindowPoSt},
    verify::{PoStStatement, Randomness},
};
use std::sync::Arc;

/// Exit codes below this are the chain's own, e.g. for gas and funds, and say nothing about the proof.
const FIRST_ACTOR_EXIT_CODE: i64 = 16;

/// What one try of a proof may take. A prover that is slow and well must not be taken for one that hangs, so that the
/// second try has less.
const PROOF: Share = Share::new(2, 3);

/// How often a proof is tried that takes too long.
const PROOF_TRIES: u32 = 4;

impl WindowScheduler {
    /// Makes the proof that a duty calls for now, or says that there is nothing to send.
    pub(super) async fn make_proof(
        &self,
        duty: &Duty,
        partitions: &[(PartitionIndex, SectorSet)],
        previous: Option<&Attempt>,
        cx: &Context,
    ) -> Result<Result<Intent, Fulfilled>, PoStError> {
        let challenged = duty.deadline.challenge + self.options.challenge_confidence.max(0);
        let head = self.in_time(challenged, duty, cx).await?;
        let state = self.deadline_state(duty, &head, cx).await?;
        let wanted = wanted(partitions, duty, &state, head.epoch);
        if wanted.is_empty() {
            return Ok(Err(Fulfilled::default()));
        }
        let randomness = self.challenge(duty, &head, cx).await?;
        if let Some(proof) = previous.and_then(still_good)
            && proof.statement.randomness == randomness
            && covered(proof) == union(&wanted)
        {
            return Ok(Ok(Intent::Proof(proof.clone())));
        }
        let miner = self.ask("read miner", cx, self.deps.chain.miner(&head, duty.miner)).await?;
        let candidates = self.candidates(duty, &wanted, &head, cx).await?;
        let Some(vanilla) = self.read_all(duty, miner.window_post_proof, randomness, candidates, cx).await? else {
            let skipped = Candidates::partition_sectors(duty, &wanted, &union(&wanted));
            return Ok(Err(Fulfilled { receipts: Vec::new(), skipped }));
        };
        let statement = PoStStatement {
            miner: duty.miner,
            proof_type: miner.window_post_proof,
            randomness,
            sectors: vanilla.sectors.clone(),
        };
        let task = ProveWindowPoSt {
            miner: duty.miner,
            proof_type: statement.proof_type,
            randomness,
            sectors: vanilla.sectors,
            vanilla: vanilla.proofs,
        };
        let proof = self.prove(duty, &task, cx).await?;
        self.verify(duty, &statement, &proof).await?;
        let good: SectorSet = statement.sectors.iter().map(|s| s.number).collect();
        let skipped = Candidates::partition_sectors(duty, &wanted, &union(&wanted).minus(&good));
        let partitions = wanted.iter().filter(|(_, sectors)| !sectors.intersect(&good).is_empty());
        let partitions =
            partitions.map(|(index, sectors)| PoStPartition { index: *index, skipped: sectors.minus(&good) });
        let intent = ProofIntent { statement, partitions: partitions.collect(), skipped, proof: hex::encode(proof) };
        Ok(Ok(Intent::Proof(intent)))
    }

    /// Lets another prover try where one hangs, as long as there is time.
    async fn prove(&self, duty: &Duty, task: &ProveWindowPoSt, cx: &Context) -> Result<Vec<u8>, PoStError> {
        let mut tries = 1;
        loop {
            match self.work(duty, task, PoStErrorKind::Prove, PROOF, cx).await {
                Err(e) if tries < PROOF_TRIES && is_late(&e) => {
                    tries += 1;
                    self.note(cx, format!("miner {}, deadline {}: {}", duty.miner, duty.deadline.index, e.chain()));
                }
                made => return made.map(|made| made.proof),
            }
        }
    }

    /// The challenge of a duty's deadline, as the chain up to `at` has it.
    pub(super) async fn challenge(&self, duty: &Duty, at: &TipsetRef, cx: &Context) -> Result<Randomness, PoStError> {
        let kind = RandomnessKind::WindowPoStChallenge;
        let draw = self.deps.chain.randomness(at, kind, duty.deadline.challenge, duty.miner);
        self.ask("draw randomness", cx, draw).await
    }

    async fn verify(&self, duty: &Duty, statement: &PoStStatement, proof: &[u8]) -> Result<(), PoStError> {
        let (verifier, statement, proof) = (Arc::clone(&self.deps.verifier), statement.clone(), proof.to_vec());
        let checked = tokio::task::spawn_blocking(move || verifier.verify_window_post(&statement, &proof)).await;
        let failed = |kind| self.failed(kind, "verify proof", duty);
        match checked {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(failed(PoStErrorKind::BadProof)),
            Ok(Err(e)) => {
                let recovery = e.recovery();
                Err(failed(PoStErrorKind::Prove).recover_by(recovery).because(e))
            }
            Err(e) => Err(failed(PoStErrorKind::Prove).because(e)),
        }
    }
}

/// What is left to prove of a duty's partitions.
fn wanted(
    partitions: &[(PartitionIndex, SectorSet)],
    duty: &Duty,
    state: &DeadlineState,
    now: Epoch,
) -> Vec<(PartitionIndex, SectorSet)> {
    let asked = |index: PartitionIndex| partitions.iter().any(|(i, _)| *i == index);
    let left = to_prove(state, duty.deadline.open <= now);
    left.into_iter().filter(|(index, _)| asked(*index)).collect()
}

/// Whether a proof covers exactly what the chain wants now of its duty.
pub(super) fn is_wanted(proof: &ProofIntent, duty: &Duty, state: &DeadlineState, now: Epoch) -> bool {
    let partitions = crate::plan::partitions_of(&duty.what);
    union(&wanted(partitions, duty, state, now)) == covered(proof)
}

/// Whether the chain shows a proof's partitions as proven.
pub(super) fn is_shown(proof: &ProofIntent, duty: &Duty, state: &DeadlineState, now: Epoch) -> bool {
    let proven: SectorSet = proof.statement.sectors.iter().map(|s| s.number).collect();
    proof.partitions.iter().all(|partition| {
        if now < duty.deadline.close {
            return state.proven.contains(&partition.index.0);
        }
        // The list is gone when the window closes, and a partition that was not proven is faulty altogether then.
        let index = usize::try_from(partition.index.0).unwrap_or(usize::MAX);
        let held = state.partitions.get(index);
        held.is_some_and(|p| {
            let ours = p.live.intersect(&proven);
            ours.is_empty() || !ours.minus(&p.faulty).is_empty()
        })
    })
}

fn still_good(attempt: &Attempt) -> Option<&ProofIntent> {
    let Intent::Proof(proof) = &attempt.intent else {
        return None;
    };
    match &attempt.end {
        Some(AttemptEnd::Landed(receipt)) if receipt.exit_code >= FIRST_ACTOR_EXIT_CODE => None,
        _ => Some(proof),
    }
}

fn covered(proof: &ProofIntent) -> SectorSet {
    let good = proof.statement.sectors.iter().map(|s| s.number);
    good.chain(proof.skipped.iter().flat_map(|s| s.sectors.iter())).collect()
}

fn union(partitions: &[(PartitionIndex, SectorSet)]) -> SectorSet {
    partitions.iter().flat_map(|(_, sectors)| sectors.iter()).collect()
}
