//! A mount that hangs in the middle of a copy, with real children that stand still.

use crate::world::{SECTOR, World};
use async_trait::async_trait;
use bytes::Bytes;
use damocles_core::{
    Context,
    pipeline::SealErrorKind,
    pool::{Capacity, Job, PoolError, ProcessorPool, SlotReport, Task, TaskKind},
};
use damocles_seal::{
    journal::Journal,
    pool::{CommandSpec, InlinePool, LocalPool, PoolSpec, SlotSpec},
    processor::{ProbeProcessor, Registry},
    service::InMemoryService,
    stage::{PersistStage, PersistedOutput, Stage, StageDeps, StageOutcome, id},
    store::{Attach, PersistStore, PersistStores, StoreSettings, StoreState, Wanted},
    task::{Probe, Transfer},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// A child that gets ready and stops itself, as if a disk had it: no signal but a kill moves it.
fn stopped(kind: TaskKind) -> Arc<LocalPool> {
    let ready = format!(r#"{{"frame":"ready","magic":"damocles-processor","version":2,"kinds":["{kind}"],"pid":1}}"#);
    let script = format!("printf '\\0\\0\\0\\{:03o}%s' '{ready}'; kill -STOP $$", ready.len());
    let slot = SlotSpec::new(kind.to_string(), vec![kind], CommandSpec::new("sh", ["-c", &script]));
    let mut spec = PoolSpec::new(vec![slot]);
    spec.grace = Duration::from_millis(100);
    Arc::new(LocalPool::new(spec).unwrap())
}

/// Works until it is told to hang.
#[derive(Debug)]
struct HangsLater {
    kind: TaskKind,
    well: Arc<dyn ProcessorPool>,
    hung: Arc<LocalPool>,
    hangs: Arc<AtomicBool>,
    /// Whether the first job makes everything hang.
    begins_it: bool,
}

#[async_trait]
impl ProcessorPool for HangsLater {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        let once = self.begins_it && job.kind == self.kind && !self.hangs.swap(true, Ordering::SeqCst);
        let hangs = job.kind == self.kind && (once || (!self.begins_it && self.hangs.load(Ordering::SeqCst)));
        if hangs { self.hung.run(job, cx).await } else { self.well.run(job, cx).await }
    }
    fn capacity(&self, kind: &TaskKind) -> Capacity {
        self.well.capacity(kind)
    }
    fn slots(&self) -> Vec<SlotReport> {
        self.well.slots()
    }
    async fn drain(&self) -> Result<(), PoolError> {
        self.hung.drain().await
    }
}

/// Two stores, of which the first hangs from the moment at which a copy to it begins.
fn deps(world: &World, deps: StageDeps) -> (StageDeps, Arc<HangsLater>) {
    let hangs = Arc::new(AtomicBool::new(false));
    let copies = Arc::new(HangsLater {
        kind: Transfer::KIND,
        well: Arc::clone(&deps.pool),
        hung: stopped(Transfer::KIND),
        hangs: Arc::clone(&hangs),
        begins_it: true,
    });
    let looks = HangsLater {
        kind: Probe::KIND,
        well: Arc::new(InlinePool::new(Registry::default().with::<Probe>(ProbeProcessor))),
        hung: stopped(Probe::KIND),
        hangs,
        begins_it: false,
    };
    let wanted = |name: &str, prober: Option<Arc<dyn ProcessorPool>>| {
        let location = world.dir.path().join(name);
        let attach = Attach { location, name: Some(name.to_owned()), read_only: false, scanned: false };
        Wanted { attach, prober, bytes_per_second: None }
    };
    let wanted = vec![wanted("persist", Some(Arc::new(looks))), wanted("other", None)];
    let limit = Duration::from_millis(200);
    let settings = StoreSettings { answer_limit: limit, stall_limit: limit, ..StoreSettings::default() };
    let persist = PersistStores::wanted(wanted, settings).unwrap();
    let service = Arc::new(InMemoryService::default().with_stores(&["persist", "other"]));
    (StageDeps { pool: Arc::clone(&copies) as _, persist, service, ..deps }, copies)
}

#[tokio::test]
async fn a_copy_to_a_store_that_hangs_is_given_up_and_goes_elsewhere() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::PRE_COMMIT_LANDED)).await.unwrap();
    PersistStore::init(&world.dir.path().join("other"), Some("other")).unwrap();
    let (deps, copies) = deps(&world, world.deps(&process.store));
    let persist = deps.persist.clone();
    let stage = PersistStage(Arc::new(deps));
    let record = process.journal.load(SECTOR).await.unwrap();
    let cx = Context::detached();
    let error = stage.run(&record, &cx).await.unwrap_err();
    assert_eq!(error.kind(), SealErrorKind::Stage);
    let text = error.chain();
    for part in ["the store hangs", "persist", "nothing moved there", "did not answer"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(error.hint().is_some());
    let status = persist.status();
    let of = |name: &str| status.iter().find(|store| store.name.as_deref() == Some(name)).unwrap();
    assert_eq!((of("persist").state, of("other").state), (StoreState::Suspect, StoreState::Attached));
    assert!(of("persist").reason.is_some());
    // Nothing is left of the child, nor of what the copy had.
    assert_eq!(copies.hung.capacity(&Transfer::KIND).free, 1);
    assert!(!persist.settings().ledger.is_promising());
    let StageOutcome::Done(output) = stage.run(&record, &cx).await.unwrap() else { panic!("it is not done") };
    let output: PersistedOutput = serde_json::from_value(output).unwrap();
    assert_eq!(output.store, "other");
    copies.drain().await.unwrap();
}
