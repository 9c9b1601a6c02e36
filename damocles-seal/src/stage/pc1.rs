//! Pre-commit phase 1.

use super::{AddedOutput, Stage, StageDeps, StageOutcome, deps::unless_cancelled, fault, files, id};
use crate::{
    journal::SectorRecord,
    service::Ticket,
    task::{FileFact, Pc1, Pc1Output},
};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId},
};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Computes the layers.
#[derive(Debug)]
pub struct Pc1Stage(pub Arc<StageDeps>);

/// The layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayersOutput {
    /// What PC2 is given.
    pub pc1: Pc1Output,
    /// The layers and the tree over the data.
    pub files: Vec<FileFact>,
}

const TREE_D_FILE: &str = "sc-02-data-tree-d.dat";

#[async_trait]
impl Stage for Pc1Stage {
    fn id(&self) -> StageId {
        id::PC1
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if let Some(damage) = files::damage(deps, record, &[id::ADD_PIECES, id::TREE_D], cx).await? {
            return Ok(damage);
        }
        let sector = record.sector();
        let added: AddedOutput = record.output(&id::ADD_PIECES)?;
        let ticket: Ticket = record.output(&id::TICKET)?;
        let cache = deps.store.cache(sector);
        let tree = self.lend_tree(&deps.store.prepared(sector), cx).await?;
        let task = Pc1 {
            sector,
            proof_type: record.lease().proof_type,
            ticket: ticket.randomness,
            pieces: added.pieces,
            staged: deps.store.staged(sector),
            sealed: deps.store.sealed(sector),
            cache: cache.clone(),
            tree_d: Some(tree),
        };
        files::make_dir(&cache, cx).await?;
        let pc1 = deps.work(record, &id::PC1, &task, cx).await?;
        let left = pc1.files.iter().map(|name| cache.join(name)).collect();
        let files = files::facts(deps, left, cx).await?;
        StageOutcome::done(&LayersOutput { pc1, files })
    }
}

impl Pc1Stage {
    /// PC1 moves the tree away. It gets a second link, so that the recorded file stays for a repeat after a crash.
    async fn lend_tree(&self, prepared: &Path, cx: &Context) -> Result<PathBuf, SealError> {
        let dir = prepared.join("lent");
        let (tree, lent) = (prepared.join(TREE_D_FILE), dir.join(TREE_D_FILE));
        let link = async {
            fs_err::tokio::create_dir_all(&dir).await?;
            match fs_err::tokio::remove_file(&lent).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fs_err::tokio::hard_link(&tree, &lent).await
        };
        let op = "lend the tree to pc1";
        unless_cancelled(cx, op, async { link.await.map_err(|e| fault::of_io(op, &tree, e)) }).await?;
        Ok(lent)
    }
}
