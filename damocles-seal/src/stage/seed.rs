//! Waiting for the seed.

use super::{Stage, StageDeps, StageOutcome, fault, id};
use crate::{
    journal::SectorRecord,
    service::{Seed, SeedAnswer},
};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pipeline::{SealError, StageId},
};
use std::sync::Arc;

/// Waits for the interactive seed. Its output is a [`Seed`].
#[derive(Debug)]
pub struct SeedStage(pub Arc<StageDeps>);

#[async_trait]
impl Stage for SeedStage {
    fn id(&self) -> StageId {
        id::SEED
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        match deps.ask(cx, "ask for seed", deps.service.seed(record.lease())).await? {
            SeedAnswer::Ready(seed) => StageOutcome::done(&seed),
            SeedAnswer::Wait(until) => Ok(StageOutcome::Wait(until)),
        }
    }
}

/// A proof was refused: if the chain has another seed by now, it is made anew.
pub(super) async fn renew_if_changed(
    deps: &StageDeps,
    record: &SectorRecord,
    reason: &str,
    cx: &Context,
) -> Result<StageOutcome, SealError> {
    let used: Seed = record.output(&id::SEED)?;
    let refused = fault::refused("prove-commit", reason).with("sector", record.sector()).with("seed epoch", used.epoch);
    match deps.ask(cx, "ask for seed", deps.service.seed(record.lease())).await? {
        SeedAnswer::Ready(now) if now == used => Err(refused),
        SeedAnswer::Ready(_) | SeedAnswer::Wait(_) => Ok(StageOutcome::Rewind { to: id::SEED, reason: refused }),
    }
}
