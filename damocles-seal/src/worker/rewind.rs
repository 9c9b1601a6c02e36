//! Whether a sector can go back to a stage.

use super::thread::ThreadParts;
use crate::{
    journal::{Fact, SectorRecord},
    stage::id,
    task::FileFact,
};
use damocles_core::{
    Error, Recovery, SectorId,
    pipeline::{SealError, SealErrorKind, StageId},
};
use serde::Deserialize;
use std::sync::Arc;

/// Every output that names files does so under `files`.
#[derive(Deserialize)]
struct Files {
    files: Vec<FileFact>,
}

/// The stages whose outputs a rewind to `stage` drops.
pub(super) async fn check(parts: &ThreadParts, sector: SectorId, stage: &StageId) -> Result<Vec<StageId>, SealError> {
    let open = parts.pipeline.progress().await?.into_iter().find(|p| p.lease.sector == sector);
    let Some(open) = open else {
        return Err(refused("the sector is not open").with("sector", sector).hint_with(
            "a sector is opened after its manager has answered and its journal was read: resume it without a stage",
        ));
    };
    let at = open.done.iter().position(|done| done == stage);
    let Some(at) = at.or_else(|| (open.next.as_ref() == Some(stage)).then_some(open.done.len())) else {
        let reached = open.done.iter().chain(&open.next).map(StageId::as_str).collect::<Vec<_>>().join(", ");
        return Err(refused("the sector has not come to that stage, or its plan lacks it")
            .with("sector", sector)
            .with("stage", stage)
            .hint_with(format!("it can go on at {reached}")));
    };
    let record = parts.journal.load(sector).await?;
    if *stage == id::TICKET && sent(&record) {
        return Err(refused("the pre-commit names the replica of the ticket that it has")
            .with("sector", sector)
            .with("stage", stage)
            .hint_with("go back to an earlier or a later stage: the ticket is kept; or abort the sector"));
    }
    let earlier: Vec<Fact> = record.facts().iter().take(at).cloned().collect();
    let store = Arc::clone(&parts.store);
    let checked = tokio::task::spawn_blocking(move || {
        earlier.into_iter().find_map(|fact| {
            // An output without files leaves nothing to look for.
            let files = Files::deserialize(&fact.output).map(|found| found.files).unwrap_or_default();
            let error = files.iter().find_map(|file| store.check(file).err())?;
            Some((fact.stage, error))
        })
    });
    match checked.await.map_err(|e| Error::new(SealErrorKind::Stage, "check files").because(e))? {
        None => Ok(open.done.into_iter().skip(at).collect()),
        Some((left_by, error)) => Err(refused("what the stage starts from is not there any more")
            .with("sector", sector)
            .with("stage", stage)
            .with("left by", &left_by)
            .hint_with(format!("go back to {left_by}"))
            .because(error)),
    }
}

/// Whether a pre-commit may be on chain.
fn sent(record: &SectorRecord) -> bool {
    record.fact(&id::PRE_COMMIT).is_some() || record.dropped(&id::PRE_COMMIT).next().is_some()
}

pub(super) fn refused(why: &'static str) -> SealError {
    Error::new(SealErrorKind::Refused, "steer sealing thread").with("because", why).recover_by(Recovery::Park)
}
