//! Submitting the pre-commit.

use super::{ReplicaOutput, Stage, StageDeps, StageOutcome, fault, id, ticket};
use crate::{
    journal::SectorRecord,
    service::{PreCommitRequest, SubmitAnswer},
};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId},
};
use std::sync::Arc;

/// Submits the pre-commit. Its output is the [`PreCommitRequest`] that was accepted.
#[derive(Debug)]
pub struct PreCommitStage(pub Arc<StageDeps>);

#[async_trait]
impl Stage for PreCommitStage {
    fn id(&self) -> StageId {
        id::PRE_COMMIT
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let (deps, op) = (&self.0, "submit pre-commit");
        let replica: ReplicaOutput = record.output(&id::PC2)?;
        let request = PreCommitRequest { comm_r: replica.comm_r, comm_d: replica.comm_d, ticket: replica.ticket };
        match deps.ask(cx, op, deps.service.submit_pre_commit(record.lease(), &request)).await? {
            SubmitAnswer::Accepted => StageOutcome::done(&request),
            SubmitAnswer::Mismatched { reason } => Err(fault::refused(op, &reason)
                .with("sector", record.sector())
                .hint_with("another pre-commit of this sector is under way; compare its CommR before going on")),
            SubmitAnswer::Rejected { reason } | SubmitAnswer::FilesMissed { reason } => {
                ticket::renew_if_old(deps, record, &reason, cx).await
            }
        }
    }
}
