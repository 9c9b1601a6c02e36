//! The contract of the pipeline seam.

use crate::world::lease_of;
use async_trait::async_trait;
use damocles_core::{
    Context,
    conformance::pipeline,
    pipeline::{SealError, SealErrorKind, SealingPipeline, StageId},
    testing::FakeClock,
};
use damocles_seal::{
    Plan, PlanError, StagedPipeline,
    journal::{InMemoryJournal, Journal, SectorRecord, SqliteJournal},
    stage::{Stage, StageOutcome},
};
use std::sync::Arc;

#[derive(Debug)]
struct Named(&'static str);

#[async_trait]
impl Stage for Named {
    fn id(&self) -> StageId {
        StageId::new(self.0)
    }

    async fn run(&self, _: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        if cx.cancel.is_cancelled() {
            return Err(damocles_core::Error::new(SealErrorKind::Cancelled, "run named stage"));
        }
        Ok(StageOutcome::Done(self.0.into()))
    }
}

fn plan() -> Plan {
    Plan::new(["one", "two", "three"].map(|n| Arc::new(Named(n)) as Arc<dyn Stage>).to_vec()).unwrap()
}

#[tokio::test]
async fn over_a_journal_in_memory() {
    pipeline::all(&StagedPipeline::new(plan(), Arc::new(InMemoryJournal::new())), lease_of(7, 1)).await;
}

#[tokio::test]
async fn over_a_journal_in_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let journal = SqliteJournal::open(dir.path().join("journal.db"), Arc::new(FakeClock::default())).await.unwrap();
    pipeline::all(&StagedPipeline::new(plan(), Arc::new(journal)), lease_of(7, 1)).await;
}

#[test]
fn names_in_a_plan_are_unique() {
    assert_eq!(Plan::new(Vec::new()).unwrap_err(), PlanError::Empty);
    let twice = plan().with_after(&StageId::new("one"), Arc::new(Named("two")));
    assert_eq!(twice.unwrap_err(), PlanError::Twice(StageId::new("two")));
    let nowhere = plan().with_after(&StageId::new("four"), Arc::new(Named("new")));
    assert_eq!(nowhere.unwrap_err(), PlanError::Unknown(StageId::new("four")));
    let longer = plan().with_after(&StageId::new("one"), Arc::new(Named("new"))).unwrap();
    assert_eq!(longer.stages()[1].id().as_str(), "new");
}

#[tokio::test]
async fn a_result_that_could_not_be_recorded_is_made_again() {
    let journal = Arc::new(InMemoryJournal::new());
    let pipeline = StagedPipeline::new(plan(), journal.clone());
    let id = pipeline.open(lease_of(7, 1)).await.unwrap();
    journal.fail_next(1);
    let err = pipeline.step(id, &Context::detached()).await.unwrap_err();
    assert_eq!(err.kind(), SealErrorKind::Journal);
    assert!(journal.load(id).await.unwrap().facts().is_empty());
    pipeline.step(id, &Context::detached()).await.unwrap();
    assert_eq!(journal.load(id).await.unwrap().facts().len(), 1);
}
