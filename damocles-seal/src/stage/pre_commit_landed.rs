//! Waiting until the pre-commit has landed.

use super::{Stage, StageDeps, StageOutcome, fault, id, ticket};
use crate::{journal::SectorRecord, service::CommitState};
use async_trait::async_trait;
use damocles_core::{
    Context, Epoch,
    pipeline::{SealError, StageId},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Waits until the pre-commit has landed with confidence.
#[derive(Debug)]
pub struct PreCommitLandedStage(pub Arc<StageDeps>);

/// A commitment on chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LandedOutput {
    /// The epoch at which it was executed.
    pub epoch: Epoch,
}

#[async_trait]
impl Stage for PreCommitLandedStage {
    fn id(&self) -> StageId {
        id::PRE_COMMIT_LANDED
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let (deps, op) = (&self.0, "land pre-commit");
        let again = |reason: &str| {
            let reason = fault::failed(op, reason).with("sector", record.sector());
            Ok(StageOutcome::Rewind { to: id::PRE_COMMIT, reason })
        };
        match deps.ask(cx, op, deps.service.pre_commit_state(record.lease())).await? {
            CommitState::Landed { epoch } => StageOutcome::done(&LandedOutput { epoch }),
            CommitState::Pending { until } => Ok(StageOutcome::Wait(until)),
            CommitState::NotFound => again("the manager knows of no pre-commit"),
            CommitState::Failed { reason } => again(&reason),
            CommitState::Refused { reason } => ticket::renew_if_old(deps, record, &reason, cx).await,
            CommitState::ShouldAbort { reason } => Err(fault::expired(op, &reason).with("sector", record.sector())),
        }
    }
}
