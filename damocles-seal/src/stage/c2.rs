//! Commit phase 2.

use super::{ChallengesOutput, Stage, StageDeps, StageOutcome, files, id};
use crate::{journal::SectorRecord, task::C2};
use async_trait::async_trait;
use damocles_core::{
    Context, Error,
    pipeline::{SealError, SealErrorKind, StageId},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Makes the proof.
#[derive(Debug)]
pub struct C2Stage(pub Arc<StageDeps>);

/// The proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofOutput {
    /// Its bytes.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
}

#[async_trait]
impl Stage for C2Stage {
    fn id(&self) -> StageId {
        id::C2
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if let Some(damage) = files::damage(deps, record, &[id::C1], cx).await? {
            return Ok(damage);
        }
        let ChallengesOutput { files } = record.output(&id::C1)?;
        let file = files.first().ok_or_else(|| {
            Error::new(SealErrorKind::CorruptJournal, "find output of c1").with("sector", record.sector())
        })?;
        let task = C2 {
            sector: record.sector(),
            proof_type: record.lease().proof_type,
            c1: deps.store.location().join(&file.path),
        };
        let c2 = deps.work(record, &id::C2, &task, cx).await?;
        StageOutcome::done(&ProofOutput { proof: c2.proof })
    }
}
