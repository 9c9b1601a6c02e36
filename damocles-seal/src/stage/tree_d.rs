//! Building the tree over a sector's data.

use super::{AddedOutput, PiecesOutput, Stage, StageDeps, StageOutcome, files, id};
use crate::{
    journal::SectorRecord,
    processor::names::TREE_D,
    store::StaticTrees,
    task::{FileFact, TreeD},
};
use async_trait::async_trait;
use damocles_core::{
    CommD, Context, Error, Event,
    pipeline::{SealError, SealErrorKind, StageId},
};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Builds the tree over the data, or takes the ready-made one of a sector without data.
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
        files::make_dir(&task.dir, cx).await?;
        if let Some(file) = self.ready_made(record, &task.dir, cx).await? {
            let files = files::facts(deps, vec![file], cx).await?;
            return StageOutcome::done(&TreeOutput { comm_d: added.comm_d, files });
        }
        // What lies there may be a link to a ready-made tree, and a program may write to it instead of replacing it.
        let left = task.dir.join(TREE_D);
        deps.change_files("make way for the data tree", move |store| store.remove(&left)).await?;
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

impl TreeDStage {
    /// The ready-made tree as a link in this directory, if there is one for the sector. One that cannot be used costs the
    /// time to build another, and no more.
    async fn ready_made(&self, record: &SectorRecord, dir: &Path, cx: &Context) -> Result<Option<PathBuf>, SealError> {
        const OP: &str = "use a ready-made data tree";
        let (deps, size) = (&self.0, record.lease().proof_type.sector_size());
        let PiecesOutput { inputs } = record.output(&id::PIECES)?;
        let Some(tree) = deps.static_trees.of(size).filter(|_| inputs.is_empty()).map(Path::to_owned) else {
            return Ok(None);
        };
        let (file, looked_at) = (dir.join(TREE_D), tree.clone());
        let lent = match deps.files(cx, OP, move |_| StaticTrees::check(size, &looked_at)).await {
            Ok(()) => {
                let to = file.clone();
                deps.change_files(OP, move |_| StaticTrees::lend(&tree, &to)).await
            }
            Err(error) => Err(error),
        };
        match lent {
            Ok(()) => Ok(Some(file)),
            Err(error) if error.kind() == SealErrorKind::Cancelled => Err(error),
            Err(error) => {
                let text = format!("{}: the data tree is built: {}", record.sector(), error.chain());
                cx.emit(Event::Note { from: "tree_d".to_owned(), text });
                Ok(None)
            }
        }
    }
}
