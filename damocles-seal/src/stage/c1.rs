//! Commit phase 1.

use super::{AddedOutput, ReplicaOutput, Stage, StageDeps, StageOutcome, files, id};
use crate::{
    journal::SectorRecord,
    service::Seed,
    task::{C1, FileFact},
};
use async_trait::async_trait;
use damocles_core::{
    Context, Error,
    pipeline::{SealError, SealErrorKind, StageId},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Reads the challenged nodes of the replica.
#[derive(Debug)]
pub struct C1Stage(pub Arc<StageDeps>);

/// The challenged nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengesOutput {
    /// The file that holds them.
    pub files: Vec<FileFact>,
}

#[async_trait]
impl Stage for C1Stage {
    fn id(&self) -> StageId {
        id::C1
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if let Some(damage) = files::replica_damage(deps, record, cx).await? {
            return Ok(damage);
        }
        let sector = record.sector();
        let added: AddedOutput = record.output(&id::ADD_PIECES)?;
        let replica: ReplicaOutput = record.output(&id::PC2)?;
        let seed: Seed = record.output(&id::SEED)?;
        let work = deps.store.work(sector);
        files::make_dir(&work, cx).await?;
        let task = C1 {
            sector,
            proof_type: record.lease().proof_type,
            ticket: replica.ticket.randomness,
            seed: seed.randomness,
            comm_r: replica.comm_r,
            comm_d: replica.comm_d,
            pieces: added.pieces,
            sealed: deps.store.sealed(sector),
            cache: deps.store.cache(sector),
            output: work.join("c1"),
        };
        let c1 = deps.work(record, &id::C1, &task, cx).await?;
        let files = files::facts(deps, vec![c1.file], cx).await?;
        if files.iter().any(|f| f.len != c1.len) {
            return Err(Error::new(SealErrorKind::Stage, "check output of c1")
                .with("path", task.output.display())
                .with("written bytes", c1.len));
        }
        StageOutcome::done(&ChallengesOutput { files })
    }
}
