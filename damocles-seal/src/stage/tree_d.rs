//! Building the tree over a sector's data.

use super::{AddedOutput, Stage, StageDeps, StageOutcome, files, id};
use crate::{
    journal::SectorRecord,
    task::{FileFact, TreeD},
};
use async_trait::async_trait;
use damocles_core::{
    CommD, Context, Error,
    pipeline::{SealError, SealErrorKind, StageId},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Builds the tree over the data.
#[derive(Debug)]
pub struct TreeDStage(pub Arc<StageDeps>);

/// The tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeOutput {
    /// Its root.
    pub comm_d: CommD,
    /// Its file.
    pub files: Vec<FileFact>,
}

#[async_trait]
impl Stage for TreeDStage {
    fn id(&self) -> StageId {
        id::TREE_D
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if let Some(damage) = files::damage(deps, record, &[id::ADD_PIECES], cx).await? {
            return Ok(damage);
        }
        let sector = record.sector();
        let added: AddedOutput = record.output(&id::ADD_PIECES)?;
        let task = TreeD {
            proof_type: record.lease().proof_type,
            staged: deps.store.staged(sector),
            dir: deps.store.prepared(sector),
        };
        let dir = task.dir.clone();
        files::make_dir(&dir, cx).await?;
        let tree = deps.work(record, &id::TREE_D, &task, cx).await?;
        if tree.comm_d != added.comm_d {
            let reason = Error::new(SealErrorKind::Damaged, "build the tree over the data")
                .with("sector", sector)
                .with("pieces give", added.comm_d)
                .with("staged file gives", tree.comm_d);
            return Ok(StageOutcome::Rewind { to: id::ADD_PIECES, reason });
        }
        let files = files::facts(deps, vec![tree.file], cx).await?;
        StageOutcome::done(&TreeOutput { comm_d: tree.comm_d, files })
    }
}
