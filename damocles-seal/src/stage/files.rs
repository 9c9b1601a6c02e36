//! Whether what earlier stages left is still there.

use super::{StageDeps, StageOutcome, fault, id};
use crate::{journal::SectorRecord, store::StoreErrorKind, task::FileFact};
use damocles_core::pipeline::{SealError, StageId};
use serde::Deserialize;
use std::path::PathBuf;

/// Every output that names files does so under `files`.
#[derive(Deserialize)]
struct Files {
    files: Vec<FileFact>,
}

/// Checks the files that these stages left, in the order given. The first stage with a damaged one has to be repeated.
pub(crate) async fn damage(
    deps: &StageDeps,
    record: &SectorRecord,
    stages: &[StageId],
) -> Result<Option<StageOutcome>, SealError> {
    for stage in stages {
        let Files { files } = record.output(stage)?;
        let checked = deps.files("check files", move |store| {
            let damaged = files.iter().map(|f| store.check(f)).find_map(Result::err);
            // A file system that fails is no reason to repeat hours of work.
            match damaged {
                Some(e) if e.kind() != StoreErrorKind::Damaged => Err(e),
                other => Ok(other),
            }
        });
        if let Some(error) = checked.await? {
            let reason = fault::of_store("use what an earlier stage left", error)
                .with("sector", record.sector())
                .with("stage", stage);
            return Ok(Some(StageOutcome::Rewind { to: stage.clone(), reason }));
        }
    }
    Ok(None)
}

/// The files of the replica and what C1 and PoSt need beside it.
pub(crate) async fn replica_damage(deps: &StageDeps, record: &SectorRecord) -> Result<Option<StageOutcome>, SealError> {
    damage(deps, record, &[id::PC1, id::PC2]).await
}

/// What is to be recorded of these files.
pub(crate) async fn facts(deps: &StageDeps, paths: Vec<PathBuf>) -> Result<Vec<FileFact>, SealError> {
    deps.files("look at files", move |store| paths.iter().map(|p| store.fact(p)).collect()).await
}
