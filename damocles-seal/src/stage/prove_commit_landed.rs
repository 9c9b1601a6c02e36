//! Waiting until the proof has landed.

use super::{LandedOutput, Stage, StageDeps, StageOutcome, fault, id, seed};
use crate::{journal::SectorRecord, service::CommitState};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId},
};
use std::sync::Arc;

/// Waits until the proof has landed with confidence. Its output is a [`LandedOutput`].
#[derive(Debug)]
pub struct ProveCommitLandedStage(pub Arc<StageDeps>);

#[async_trait]
impl Stage for ProveCommitLandedStage {
    fn id(&self) -> StageId {
        id::PROVE_COMMIT_LANDED
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let (deps, op) = (&self.0, "land proof");
        let again = |reason: &str| {
            let reason = fault::failed(op, reason).with("sector", record.sector());
            Ok(StageOutcome::Rewind { to: id::PROVE_COMMIT, reason })
        };
        match deps.ask(cx, op, deps.service.proof_state(record.lease())).await? {
            CommitState::Landed { epoch } => StageOutcome::done(&LandedOutput { epoch }),
            CommitState::Pending { until } => Ok(StageOutcome::Wait(until)),
            CommitState::NotFound => again("the manager knows of no proof"),
            CommitState::Failed { reason } => again(&reason),
            CommitState::Refused { reason } => seed::renew_if_changed(deps, record, &reason, cx).await,
            CommitState::ShouldAbort { reason } => Err(fault::expired(op, &reason).with("sector", record.sector())),
        }
    }
}
