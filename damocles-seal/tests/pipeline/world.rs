//! Stores, a service and an allocator that outlive the processes that use them.

use crate::fake_work::{self, Bench};
use async_trait::async_trait;
use bytes::Bytes;
use damocles_core::{
    ActorId, Context, Epoch, Error, Fence, RequestId, SealProofType, SectorId, SectorNumber, SectorSize, StoreId,
    Timestamp,
    allocator::{SectorAllocator, SectorLease},
    pipeline::{SealError, SealErrorKind, SealingPipeline, StageId, Step},
    pool::{Capacity, Job, PoolError, PoolErrorKind, ProcessorPool, SlotReport, TaskKind},
    testing::{FakeClock, FakePool, InMemoryAllocator},
    verify::VerifyingKeys,
};
use damocles_seal::{
    Plan, StagedPipeline,
    journal::{Entry, EntryKind, Journal, JournalObserver, JournalSector, NewEntry, SqliteJournal, Untold},
    service::{
        CommitState, DealPiece, Hello, InMemoryService, PieceTerms, PreCommitRequest, Report, ReportAnswer,
        SealingService, SeedAnswer, ServiceError, ServiceErrorKind, StoreChoice, SubmitAnswer, Ticket,
    },
    stage::{DealSettings, LocalPieces, StageDeps},
    store::{DiskLedger, PersistStore, PersistStores, SealingStore, StaticTrees},
    worker::{Backlog, SealingThread, ThreadConfig, ThreadParts},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::watch;

pub(crate) const PROOF: SealProofType = SealProofType::of(SectorSize::KiB2);
pub(crate) const SECTOR: SectorId = SectorId::new(ActorId(1000), SectorNumber(1));

pub(crate) fn lease_of(number: u64, fence: u64) -> SectorLease {
    SectorLease {
        sector: SectorId::new(ActorId(1000), SectorNumber(number)),
        proof_type: PROOF,
        store: StoreId::new("store"),
        fence: Fence(fence),
        heard_until: Timestamp(0),
    }
}

/// What is there whether or not a worker runs.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) bench: Arc<Mutex<Bench>>,
    /// Work of this kind does not end by itself.
    pub(crate) hold: Arc<Mutex<Option<Hold>>>,
    pub(crate) service: Arc<Skewed>,
    pub(crate) allocator: Arc<InMemoryAllocator>,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) forgotten: Arc<Forgotten>,
    /// Who was promised which space.
    pub(crate) ledger: DiskLedger,
    /// Which pieces are asked for where no thread says.
    pub(crate) deals: DealSettings,
    pub(crate) static_trees: Mutex<StaticTrees>,
}

/// The sectors that are over.
#[derive(Debug, Default)]
pub(crate) struct Forgotten(pub(crate) Mutex<Vec<SectorId>>);

impl Backlog for Forgotten {
    fn forget(&self, sector: SectorId) {
        self.0.lock().push(sector);
    }
}

/// Work that goes on until it is cancelled.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) kind: TaskKind,
    /// Whether it is done all the same when it is cancelled.
    pub(crate) finishes: bool,
    /// Told when it has begun.
    pub(crate) begun: watch::Sender<bool>,
}

/// A pool in which some work takes long.
#[derive(Debug)]
struct Held {
    inner: FakePool,
    hold: Arc<Mutex<Option<Hold>>>,
}

#[async_trait]
impl ProcessorPool for Held {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        let hold = self.hold.lock().clone().filter(|hold| hold.kind == job.kind);
        let Some(hold) = hold else { return self.inner.run(job, cx).await };
        hold.begun.send_replace(true);
        cx.cancel.cancelled().await;
        if hold.finishes {
            return self.inner.run(job, &Context::detached()).await;
        }
        Err(PoolError::new(PoolErrorKind::Cancelled, "run job"))
    }
    fn capacity(&self, kind: &TaskKind) -> Capacity {
        self.inner.capacity(kind)
    }
    fn slots(&self) -> Vec<SlotReport> {
        self.inner.slots()
    }
    async fn drain(&self) -> Result<(), PoolError> {
        self.inner.drain().await
    }
}

/// One life of a worker process.
pub(crate) struct Process {
    pub(crate) store: Arc<SealingStore>,
    pub(crate) journal: Arc<Refusing>,
    pub(crate) pipeline: Arc<StagedPipeline>,
    pub(crate) persist: PersistStore,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        SealingStore::init(&dir.path().join("sealing")).unwrap();
        PersistStore::init(&dir.path().join("persist"), Some("persist")).unwrap();
        let clock = Arc::new(FakeClock::at(Timestamp(1_000)));
        Self {
            dir,
            bench: Arc::default(),
            hold: Arc::default(),
            service: Arc::new(Skewed::default()),
            allocator: Arc::new(InMemoryAllocator::new(ActorId(1000), PROOF, clock.clone()).with_limit(2)),
            clock,
            forgotten: Arc::default(),
            ledger: DiskLedger::default(),
            deals: DealSettings::default(),
            static_trees: Mutex::default(),
        }
    }

    pub(crate) fn location(&self) -> PathBuf {
        self.dir.path().join("sealing")
    }

    pub(crate) fn persist(&self) -> PersistStore {
        PersistStore::open(&self.dir.path().join("persist"), None, false).unwrap()
    }

    pub(crate) async fn start(&self) -> Process {
        self.start_observed(None).await
    }

    pub(crate) async fn start_observed(&self, observer: Option<Arc<dyn JournalObserver>>) -> Process {
        let store = SealingStore::open(&self.location()).unwrap().accounted_in(&self.ledger);
        let store = Arc::new(store);
        let mut journal = SqliteJournal::open(store.journal_path(), self.clock.clone()).await.unwrap();
        if let Some(observer) = observer {
            journal = journal.observed_by(observer);
        }
        let journal = Arc::new(Refusing { inner: journal, outputs_of: Mutex::default() });
        let plan = Plan::interactive(self.deps(&store));
        let pipeline = StagedPipeline::new(plan, journal.clone()).reporting_to(self.service.clone());
        Process { store, journal, pipeline: Arc::new(pipeline), persist: self.persist() }
    }

    pub(crate) fn deps(&self, store: &Arc<SealingStore>) -> StageDeps {
        StageDeps {
            service: self.service.clone(),
            pool: Arc::new(Held { inner: fake_work::pool(&self.bench), hold: Arc::clone(&self.hold) }),
            store: Arc::clone(store),
            persist: PersistStores::new(vec![self.persist()]).unwrap(),
            pieces: Arc::new(LocalPieces::new([self.dir.path().join("pieces")])),
            deals: self.deals.clone(),
            static_trees: self.static_trees.lock().clone(),
            call_limit: Duration::from_secs(60),
        }
    }

    pub(crate) fn runs(&self) -> BTreeMap<String, u32> {
        self.bench.lock().runs.clone()
    }
}

impl Process {
    pub(crate) fn thread(&self, world: &World) -> SealingThread {
        self.thread_with_keys(world, None)
    }

    pub(crate) fn thread_with_keys(&self, world: &World, keys: Option<VerifyingKeys>) -> SealingThread {
        self.build(world, world.allocator.clone(), keys)
    }

    /// A thread that another allocator leases to.
    pub(crate) fn thread_of(&self, world: &World, allocator: Arc<dyn SectorAllocator>) -> SealingThread {
        self.build(world, allocator, None)
    }

    fn build(&self, world: &World, allocator: Arc<dyn SectorAllocator>, keys: Option<VerifyingKeys>) -> SealingThread {
        let parts = ThreadParts {
            allocator,
            service: world.service.clone(),
            pipeline: self.pipeline.clone(),
            journal: self.journal.clone(),
            store: self.store.clone(),
            clock: world.clock.clone(),
            keys: keys.into_iter().map(|keys| (PROOF, keys)).collect(),
            backlog: Some(world.forgotten.clone()),
            deals: world.deals.clone(),
        };
        let config = ThreadConfig {
            worker: "test".to_owned(),
            seal_interval: Duration::from_millis(1),
            idle_interval: Duration::from_millis(10),
            poll_interval: Duration::from_millis(50),
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(5),
            max_retries: 3,
            ..ThreadConfig::default()
        };
        SealingThread::new(parts, config)
    }

    /// Steps until the sector is finished or fails.
    pub(crate) async fn drive(&self, id: SectorId) -> Result<(), SealError> {
        self.drive_to(id, None).await
    }

    /// Steps until this stage has ended, the sector is finished, or a step fails.
    pub(crate) async fn drive_to(&self, id: SectorId, last: Option<&StageId>) -> Result<(), SealError> {
        let cx = Context::detached();
        for _ in 0..500 {
            match self.pipeline.step(id, &cx).await? {
                Step::Finished => return Ok(()),
                Step::Advanced { stage } if Some(&stage) == last => return Ok(()),
                _ => {}
            }
        }
        panic!("{id} does not come to an end");
    }

    pub(crate) async fn take(&self, world: &World) -> SectorLease {
        let held = world.allocator.held_by(self.store.id()).await.unwrap();
        let lease = match held.first() {
            Some(held) => world.allocator.take_up(self.store.id(), held.sector, Duration::from_secs(60)).await.unwrap(),
            None => {
                let want = damocles_core::allocator::AllocateRequest {
                    request: damocles_core::RequestId::new("first"),
                    store: self.store.id().clone(),
                    worker: "test".to_owned(),
                    miners: Vec::new(),
                    proof_types: Vec::new(),
                    ttl: Duration::from_secs(60),
                };
                world.allocator.allocate(&want).await.unwrap().unwrap()
            }
        };
        self.pipeline.open(lease.clone()).await.unwrap();
        lease
    }

    /// How often each stage was started, by the journal.
    pub(crate) async fn starts(&self, id: SectorId) -> BTreeMap<String, u32> {
        let mut starts = BTreeMap::new();
        for entry in self.journal.history(id).await.unwrap() {
            if entry.kind == EntryKind::Started {
                *starts.entry(entry.stage.unwrap().to_string()).or_default() += 1;
            }
        }
        starts
    }
}

/// A journal that does not record the outputs of one stage.
#[derive(Debug)]
pub(crate) struct Refusing {
    inner: SqliteJournal,
    pub(crate) outputs_of: Mutex<Option<StageId>>,
}

#[async_trait]
impl Journal for Refusing {
    async fn open(&self, lease: &SectorLease) -> Result<(), SealError> {
        self.inner.open(lease).await
    }
    async fn append(&self, sector: SectorId, fence: Fence, entry: NewEntry) -> Result<u64, SealError> {
        if entry.kind == EntryKind::Done && entry.stage == *self.outputs_of.lock() {
            return Err(Error::new(SealErrorKind::Journal, "append to journal").with("sector", sector));
        }
        self.inner.append(sector, fence, entry).await
    }
    async fn history(&self, sector: SectorId) -> Result<Vec<Entry>, SealError> {
        self.inner.history(sector).await
    }
    async fn active(&self) -> Result<Vec<JournalSector>, SealError> {
        self.inner.active().await
    }
    async fn pending_request(&self) -> Result<Option<RequestId>, SealError> {
        self.inner.pending_request().await
    }
    async fn set_pending_request(&self, request: Option<&RequestId>) -> Result<(), SealError> {
        self.inner.set_pending_request(request).await
    }
    async fn tell(&self, sector: SectorId, fence: Fence, report: &Report) -> Result<(), SealError> {
        self.inner.tell(sector, fence, report).await
    }
    async fn untold(&self, sector: SectorId) -> Result<Vec<Untold>, SealError> {
        self.inner.untold(sector).await
    }
    async fn told(&self, sector: SectorId, number: u64) -> Result<(), SealError> {
        self.inner.told(sector, number).await
    }
}

/// The service in memory, with tickets that age and keys that differ.
#[derive(Debug, Default)]
pub(crate) struct Skewed {
    pub(crate) inner: InMemoryService,
    pub(crate) keys: Mutex<Option<VerifyingKeys>>,
    pub(crate) ticket_skew: Mutex<i64>,
    /// So many submissions of a proof are answered with files that are missed.
    pub(crate) missed: Mutex<u32>,
    /// Whether no report gets through.
    pub(crate) deaf: Mutex<bool>,
}

#[async_trait]
impl SealingService for Skewed {
    async fn hello(&self) -> Result<Hello, ServiceError> {
        let hello = self.inner.hello().await?;
        let keys = self.keys.lock().iter().map(|keys| (PROOF, keys.clone())).collect();
        Ok(Hello { keys, ..hello })
    }
    async fn pieces(&self, lease: &SectorLease, terms: PieceTerms) -> Result<Vec<DealPiece>, ServiceError> {
        self.inner.pieces(lease, terms).await
    }
    async fn ticket(&self, lease: &SectorLease) -> Result<Ticket, ServiceError> {
        let ticket = self.inner.ticket(lease).await?;
        Ok(Ticket { epoch: Epoch(ticket.epoch.0 + *self.ticket_skew.lock()), ..ticket })
    }
    async fn submit_pre_commit(
        &self,
        lease: &SectorLease,
        request: &PreCommitRequest,
    ) -> Result<SubmitAnswer, ServiceError> {
        self.inner.submit_pre_commit(lease, request).await
    }
    async fn pre_commit_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        self.inner.pre_commit_state(lease).await
    }
    async fn reserve(
        &self,
        lease: &SectorLease,
        bytes: u64,
        candidates: &[String],
    ) -> Result<Option<StoreChoice>, ServiceError> {
        self.inner.reserve(lease, bytes, candidates).await
    }
    async fn persisted(&self, lease: &SectorLease, store: &str) -> Result<bool, ServiceError> {
        self.inner.persisted(lease, store).await
    }
    async fn seed(&self, lease: &SectorLease) -> Result<SeedAnswer, ServiceError> {
        self.inner.seed(lease).await
    }
    async fn submit_proof(&self, lease: &SectorLease, proof: &[u8]) -> Result<SubmitAnswer, ServiceError> {
        {
            let mut missed = self.missed.lock();
            if *missed > 0 {
                *missed -= 1;
                return Ok(SubmitAnswer::FilesMissed { reason: "a file is not there".to_owned() });
            }
        }
        self.inner.submit_proof(lease, proof).await
    }
    async fn proof_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        self.inner.proof_state(lease).await
    }
    async fn report(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError> {
        if *self.deaf.lock() {
            return Err(ServiceError::new(ServiceErrorKind::Unavailable, "report"));
        }
        self.inner.report(lease, report).await
    }
    async fn changed(&self, lease: &SectorLease, at_most: Duration) -> Result<(), ServiceError> {
        self.inner.changed(lease, at_most).await
    }
}
