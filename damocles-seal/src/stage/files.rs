//! Whether what earlier stages left is still there.

use super::{StageDeps, StageOutcome, deps::unless_cancelled, fault, id};
use crate::{journal::SectorRecord, store::StoreErrorKind, task::FileFact};
use damocles_core::{
    CancellationToken, Context,
    pipeline::{SealError, StageId},
};
use serde::Deserialize;
use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

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
    cx: &Context,
) -> Result<Option<StageOutcome>, SealError> {
    for stage in stages {
        let Files { files } = record.output(stage)?;
        let checked = deps.files(cx, "check files", move |store| {
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
pub(crate) async fn replica_damage(
    deps: &StageDeps,
    record: &SectorRecord,
    cx: &Context,
) -> Result<Option<StageOutcome>, SealError> {
    damage(deps, record, &[id::PC1, id::PC2], cx).await
}

/// How long a look at finished files goes on after a cancellation.
const GRACE: Duration = Duration::from_secs(10);

/// What is to be recorded of these files. The work that made them may have taken hours and is over: a cancellation does
/// not throw it away, unless the disk does not answer.
pub(crate) async fn facts(deps: &StageDeps, paths: Vec<PathBuf>, cx: &Context) -> Result<Vec<FileFact>, SealError> {
    let look = |cx: Context| async move {
        deps.files(&cx, "look at files", move |store| paths.iter().map(|p| store.fact(p)).collect()).await
    };
    kept(cx, look).await
}

/// Does what follows finished work, with a context that is cancelled later than `cx`.
pub(crate) async fn kept<T, F: Future<Output = T>>(cx: &Context, what: impl FnOnce(Context) -> F) -> T {
    let inner = Context { cancel: CancellationToken::new(), events: Arc::clone(&cx.events) };
    let work = what(inner.clone());
    tokio::pin!(work);
    let late = async {
        cx.cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = late => inner.cancel.cancel(),
    }
    work.await
}

/// Makes a directory and those above it.
pub(crate) async fn make_dir(dir: &Path, cx: &Context) -> Result<(), SealError> {
    let op = "make directory";
    let make = async { fs_err::tokio::create_dir_all(dir).await.map_err(|e| fault::of_io(op, dir, e)) };
    unless_cancelled(cx, op, make).await
}
