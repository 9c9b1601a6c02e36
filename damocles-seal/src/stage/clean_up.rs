//! Removing layers and trees.

use super::{LandedOutput, PersistedOutput, Stage, StageDeps, StageOutcome, id, persist};
use crate::journal::SectorRecord;
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId},
};
use serde_json::Value;
use std::sync::Arc;

/// Removes everything that the sealing store holds of the sector, after its proof has landed and with the replica
/// read again from the persist store.
#[derive(Debug)]
pub struct CleanUpStage(pub Arc<StageDeps>);

#[async_trait]
impl Stage for CleanUpStage {
    fn id(&self) -> StageId {
        id::CLEAN_UP
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        // Both must be recorded, whatever the plan says.
        let _: LandedOutput = record.output(&id::PROVE_COMMIT_LANDED)?;
        let persisted: PersistedOutput = record.output(&id::PERSIST)?;
        if let Some(damage) = persist::confirm_copy(deps, record, &persisted, cx).await? {
            return Ok(damage);
        }
        let sector = record.sector();
        deps.change_files("remove work files", move |store| store.wipe(sector)).await?;
        Ok(StageOutcome::Done(Value::Null))
    }
}
