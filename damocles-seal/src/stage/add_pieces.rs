//! Writing the data of a sector.

use super::{PiecesOutput, Stage, StageDeps, StageOutcome, deps::unless_cancelled, fault, files, id};
use crate::{
    journal::SectorRecord,
    task::{AddPieces, FileFact, PieceContent},
};
use async_trait::async_trait;
use damocles_core::{
    CommD, Context, Error, PieceInfo,
    pipeline::{SealError, SealErrorKind, StageId},
    pool::{PoolError, PoolErrorKind},
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc};

/// Writes the pieces into the staged file.
#[derive(Debug)]
pub struct AddPiecesStage(pub Arc<StageDeps>);

/// What the staged file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedOutput {
    /// All pieces in order, fillers included.
    pub pieces: Vec<PieceInfo>,
    /// The data commitment that follows from them.
    pub comm_d: CommD,
    /// The staged file.
    pub files: Vec<FileFact>,
}

#[async_trait]
impl Stage for AddPiecesStage {
    fn id(&self) -> StageId {
        id::ADD_PIECES
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        let PiecesOutput { inputs } = record.output(&id::PIECES)?;
        let content = inputs.iter().filter_map(|input| match &input.content {
            PieceContent::File(path) => Some(path.clone()),
            PieceContent::Zeros => None,
        });
        let content: Vec<PathBuf> = content.collect();
        for path in &content {
            // It may lie on a mount that hangs.
            let there =
                async { fs_err::tokio::try_exists(path).await.map_err(|e| fault::of_io("find piece", path, e)) };
            if !unless_cancelled(cx, "find piece", there).await? {
                let reason = Error::new(SealErrorKind::Damaged, "use a fetched piece")
                    .with("sector", record.sector())
                    .with("path", path.display());
                return Ok(StageOutcome::Rewind { to: id::PIECES, reason });
            }
        }
        let staged = deps.store.staged(record.sector());
        let task = AddPieces { proof_type: record.lease().proof_type, pieces: inputs, staged: staged.clone() };
        let added = match deps.work(record, &id::ADD_PIECES, &task, cx).await {
            Ok(added) => added,
            Err(error) => {
                if is_verdict(&error) {
                    self.forget_fetched(record, content).await?;
                }
                return Err(error);
            }
        };
        let files = files::facts(deps, vec![staged], cx).await?;
        StageOutcome::done(&AddedOutput { pieces: added.pieces, comm_d: added.comm_d, files })
    }
}

/// Whether a processor failed at its work. One that died says nothing about the bytes.
fn is_verdict(error: &SealError) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<PoolError>());
    source.is_some_and(|e| e.kind() == PoolErrorKind::Failed)
}

impl AddPiecesStage {
    /// The bytes may not be those of the piece, so that they have to be fetched anew; the files of others are left alone.
    async fn forget_fetched(&self, record: &SectorRecord, content: Vec<PathBuf>) -> Result<(), SealError> {
        let fetched = self.0.store.pieces(record.sector());
        let remove = move |store: &crate::store::SealingStore| {
            content.iter().filter(|path| path.starts_with(&fetched)).try_for_each(|path| store.remove(path))
        };
        self.0.change_files("forget fetched pieces", remove).await
    }
}
