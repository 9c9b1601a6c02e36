//! Submitting the proof.

use super::{PersistedOutput, ProofOutput, Stage, StageDeps, StageOutcome, fault, id, persist, seed};
use crate::{
    journal::SectorRecord,
    service::{CommitState, SubmitAnswer},
};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId},
};
use serde_json::Value;
use std::sync::Arc;

/// Submits the proof, never before the replica is recorded to be in a persist store.
#[derive(Debug)]
pub struct ProveCommitStage(pub Arc<StageDeps>);

#[async_trait]
impl Stage for ProveCommitStage {
    fn id(&self) -> StageId {
        id::PROVE_COMMIT
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let (deps, op) = (&self.0, "submit proof");
        // A plan without the persist stage fails here: once proven, a lost replica costs more than the sector.
        let persisted: PersistedOutput = record.output(&id::PERSIST)?;
        let ProofOutput { proof } = record.output(&id::C2)?;
        let submit = || deps.ask(cx, op, deps.service.submit_proof(record.lease(), &proof));
        let mut answer = submit().await?;
        if let SubmitAnswer::FilesMissed { .. } = answer {
            // The proof is worth keeping, so that only files that are lost are copied again.
            if let Some(damage) = persist::restore_copy(deps, record, &persisted.store, cx).await? {
                return Ok(damage);
            }
            answer = submit().await?;
        }
        match answer {
            SubmitAnswer::Accepted => Ok(StageOutcome::Done(Value::Null)),
            SubmitAnswer::Mismatched { reason } => earlier_proof(deps, record, &reason, cx).await,
            SubmitAnswer::Rejected { reason } => seed::renew_if_changed(deps, record, &reason, cx).await,
            SubmitAnswer::FilesMissed { reason } => Err(fault::refused(op, &reason)
                .with("sector", record.sector())
                .with("store", persisted.store)
                .hint_with("worker and manager must see the same directory under the name of this store")),
        }
    }
}

/// Another proof of the sector was submitted before: a stage was repeated since, and no two proofs of one replica are
/// the same. The sector needs one that lands, whichever it is.
async fn earlier_proof(
    deps: &StageDeps,
    record: &SectorRecord,
    reason: &str,
    cx: &Context,
) -> Result<StageOutcome, SealError> {
    let op = "land the earlier proof";
    match deps.ask(cx, op, deps.service.proof_state(record.lease())).await? {
        CommitState::Landed { .. } => Ok(StageOutcome::Done(Value::Null)),
        CommitState::Pending { until } => Ok(StageOutcome::Wait(until)),
        _ => Err(fault::refused("submit proof", reason)
            .with("sector", record.sector())
            .hint_with("the manager holds on to another proof of this sector; see `damocles-manager sectors show`")),
    }
}
