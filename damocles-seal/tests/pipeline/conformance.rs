//! The contract of the pipeline seam.

use crate::world::lease_of;
use async_trait::async_trait;
use damocles_core::{
    Context,
    conformance::pipeline,
    pipeline::{SealError, SealErrorKind, SealingPipeline, StageId, Step},
    testing::FakeClock,
};
use damocles_seal::{
    Plan, PlanError, StagedPipeline,
    journal::{InMemoryJournal, Journal, SectorRecord, SqliteJournal},
    stage::{Stage, StageOutcome},
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

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

/// A stage that takes hours, during which the disk of the journal fills up.
#[derive(Debug)]
struct Long {
    journal: Arc<InMemoryJournal>,
    runs: AtomicU32,
    failing: AtomicU32,
}

#[async_trait]
impl Stage for Long {
    fn id(&self) -> StageId {
        StageId::new("long")
    }

    async fn run(&self, _: &SectorRecord, _: &Context) -> Result<StageOutcome, SealError> {
        self.runs.fetch_add(1, SeqCst);
        self.journal.fail_next(self.failing.load(SeqCst));
        Ok(StageOutcome::Done("hours of work".into()))
    }
}

#[tokio::test]
async fn a_result_that_could_not_be_recorded_is_kept() {
    let journal = Arc::new(InMemoryJournal::new());
    let long = Arc::new(Long { journal: journal.clone(), runs: AtomicU32::new(0), failing: AtomicU32::new(3) });
    let plan = plan().with_after(&StageId::new("one"), long.clone()).unwrap();
    let pipeline = StagedPipeline::new(plan, journal.clone());
    let id = pipeline.open(lease_of(7, 1)).await.unwrap();
    let cx = Context::detached();
    pipeline.step(id, &cx).await.unwrap();
    for _ in 0..2 {
        assert_eq!(pipeline.step(id, &cx).await.unwrap_err().kind(), SealErrorKind::Journal);
        assert_eq!(journal.load(id).await.unwrap().facts().len(), 1, "nothing is recorded");
    }
    // The same process under a new lease is still the one that did the work.
    assert_eq!(pipeline.open(lease_of(7, 2)).await.unwrap_err().kind(), SealErrorKind::Journal);
    pipeline.open(lease_of(7, 2)).await.unwrap();
    long.failing.store(0, SeqCst);
    let step = pipeline.step(id, &cx).await.unwrap();
    assert!(matches!(step, Step::Advanced { ref stage } if stage.as_str() == "long"), "{step:?}");
    assert_eq!(journal.load(id).await.unwrap().facts()[1].output, "hours of work");
    assert_eq!(long.runs.load(SeqCst), 1);

    // A result that was rewound counts no more.
    pipeline.rewind(id, &StageId::new("long")).await.unwrap();
    long.failing.store(1, SeqCst);
    pipeline.step(id, &cx).await.unwrap_err();
    pipeline.rewind(id, &StageId::new("long")).await.unwrap();
    long.failing.store(0, SeqCst);
    pipeline.step(id, &cx).await.unwrap();
    assert_eq!(long.runs.load(SeqCst), 3);
}
