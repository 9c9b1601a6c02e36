//! One miner on a chain in memory, a pool whose disks and provers fail on request, and a node that can be cut off at
//! any call.

use async_trait::async_trait;
use bytes::Bytes;
use damocles_core::{
    ActorId, BoxError, CommR, Context, DeadlineIndex, Epoch, Event, EventSink, JobEvent, PartitionIndex, SealProofType,
    SectorId, SectorNumber, SectorSet, SectorSize, TokenAmount,
    chain::{
        BoxStream, Call, ChainClient, ChainError, DeadlineInfo, DeadlineState, HeadChange, MessageId, MessageState,
        MinerInfo, NetworkInfo, OnChain, PartitionState, RandomnessKind, SectorInfo, SubmitKey, SubmitWindowedPoSt,
        TipsetRef,
    },
    pool::{Capacity, Job, PoolError, PoolErrorKind, ProcessorPool, SlotReport, Task as _, TaskKind},
    post::{
        ChallengeRead, Duty, DutyKind, PoStScheduler, ProveWindowPoSt, ReadChallenges, ReplicaPaths, WindowPoStProof,
    },
    testing::{FakePool, FakeVerifier, InMemoryChain, LandedCall, fake_proof},
    verify::{PoStStatement, ProofVerifier, ProvenSector, Randomness},
};
use damocles_post::{Deps, Options, ReplicaSource, WindowScheduler};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::sync::{Notify, Semaphore};

pub(crate) const MINER: ActorId = ActorId(1000);

pub(crate) struct World {
    pub(crate) chain: Arc<InMemoryChain>,
    pub(crate) node: Arc<Node>,
    pub(crate) bench: Arc<Bench>,
    pub(crate) options: Options,
    db: sqlx::AnyPool,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        sqlx::any::install_default_drivers();
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", dir.path().join("manager.db").display());
        let db = sqlx::any::AnyPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
        sqlx::query("PRAGMA journal_mode = WAL").execute(&db).await.unwrap();
        let chain = Arc::new(InMemoryChain::new(MINER));
        let cut = Arc::new(Cut::default());
        let node = Arc::new(Node {
            chain: chain.clone(),
            cut: cut.clone(),
            ticks_per_submit: AtomicI64::new(0),
            reverted: AtomicBool::new(false),
        });
        let bench = Arc::new(Bench { cut, ..Bench::default() });
        let mut options = Options::default();
        options.confidence = 2;
        options.challenge_confidence = 1;
        Self { chain, node, bench, options, db, _dir: dir }
    }

    /// Messages land as soon as they are sent, deep enough to be confirmed.
    pub(crate) fn landing_at_once(self) -> Self {
        self.node.ticks_per_submit.store(1 + self.options.confidence, SeqCst);
        self
    }

    /// A scheduler as after a start of the program.
    pub(crate) async fn scheduler(&self) -> Arc<WindowScheduler> {
        let deps = Deps {
            chain: self.node.clone(),
            pool: Arc::new(BenchPool { inner: pool(&self.bench), bench: self.bench.clone() }),
            verifier: Arc::new(FakeVerifier),
            replicas: self.bench.clone(),
            records: self.db.clone(),
        };
        Arc::new(WindowScheduler::open(deps, self.options.clone()).await.unwrap())
    }

    /// Puts sectors into a deadline, a list for each partition.
    pub(crate) fn hold(&self, deadline: u64, partitions: &[&[u64]]) {
        let states = partitions.iter().map(|numbers| {
            let all = sectors(numbers);
            PartitionState { all: all.clone(), live: all.clone(), active: all, ..PartitionState::default() }
        });
        let state = DeadlineState { proven: Vec::new(), partitions: states.collect() };
        self.chain.set_deadline(DeadlineIndex(deadline), state);
        for number in partitions.iter().copied().flatten() {
            let info = SectorInfo {
                number: SectorNumber(*number),
                seal_proof: SealProofType::of(SectorSize::KiB2),
                comm_r: comm_r(*number),
                activation: Epoch(1),
                expiration: Epoch(1_000_000),
                initial_pledge: TokenAmount::from_fil(1),
            };
            self.chain.set_sector(SectorNumber(*number), OnChain::Active(info));
        }
    }

    /// Makes sectors of a deadline's first partition faulty.
    pub(crate) async fn fault(&self, deadline: u64, numbers: &[u64]) {
        let mut state = self.state(deadline).await;
        state.partitions[0].faulty = sectors(numbers);
        state.partitions[0].active = state.partitions[0].live.minus(&sectors(numbers));
        self.chain.set_deadline(DeadlineIndex(deadline), state);
    }

    pub(crate) async fn state(&self, deadline: u64) -> DeadlineState {
        let head = self.chain.head().await.unwrap();
        self.chain.partitions(&head, MINER, DeadlineIndex(deadline)).await.unwrap()
    }

    pub(crate) async fn epoch(&self) -> i64 {
        self.chain.head().await.unwrap().epoch.0
    }

    /// Ticks to an epoch, letting others work in between.
    pub(crate) async fn tick_to(&self, epoch: i64) {
        while self.epoch().await < epoch {
            self.chain.tick(1);
            tokio::task::yield_now().await;
        }
    }

    /// Lets epochs pass until the `nth` job that hangs is stopped. None passes before it hangs.
    pub(crate) async fn outlast(&self, nth: usize) {
        until("a job hangs", async || self.bench.hung.load(SeqCst) >= nth).await;
        until("it is stopped", async || {
            self.chain.tick(1);
            // Stopping takes some real time, in which epochs must not run away: the duty would be overdue.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            self.bench.stopped.load(SeqCst) >= nth
        })
        .await;
    }

    /// The only duty of a kind that is planned at the head.
    pub(crate) async fn duty(&self, scheduler: &dyn PoStScheduler, proof: bool) -> Duty {
        let head = self.chain.head().await.unwrap();
        let view = scheduler.view(MINER, &head).await.unwrap();
        let mut duties = scheduler.plan(&view);
        duties.retain(|d| matches!(d.what, DutyKind::Prove { .. }) == proof);
        assert_eq!(duties.len(), 1, "{duties:?}");
        duties.remove(0)
    }

    /// Checks a landed proof as a strict actor would: it must prove exactly `good`.
    pub(crate) async fn check(&self, landed: &LandedCall, good: &[u64]) -> SubmitWindowedPoSt {
        let Call::SubmitWindowedPoSt(post) = landed.call.clone() else { panic!("not a proof: {landed:?}") };
        let at = TipsetRef { epoch: landed.epoch, key: self.chain.head().await.unwrap().key };
        let current = self.chain.deadline(&at, MINER).await.unwrap();
        assert_eq!(post.deadline, current.index, "a proof is taken while its deadline is open only");
        assert!(post.commit_epoch >= current.challenge && post.commit_epoch < landed.epoch);
        let draw = async |kind| self.chain.randomness(&at, kind, current.challenge, MINER).await.unwrap();
        assert_eq!(post.commit_randomness, draw(RandomnessKind::PoStChainCommit).await);
        let statement = PoStStatement {
            miner: MINER,
            proof_type: post.proof_type,
            randomness: draw(RandomnessKind::WindowPoStChallenge).await,
            sectors: good.iter().map(|n| ProvenSector { number: SectorNumber(*n), comm_r: comm_r(*n) }).collect(),
        };
        assert!(FakeVerifier.verify_window_post(&statement, &post.proof).unwrap(), "proves {good:?}: {post:?}");
        post
    }

    /// What landed and was accepted.
    pub(crate) fn accepted(&self) -> Vec<LandedCall> {
        self.chain.landed_calls().into_iter().filter(|c| c.exit_code == 0).collect()
    }
}

pub(crate) fn sectors(numbers: &[u64]) -> SectorSet {
    numbers.iter().copied().map(SectorNumber).collect()
}

pub(crate) fn proof_of(partitions: &[(u64, &[u64])]) -> DutyKind {
    DutyKind::Prove { partitions: partitions.iter().map(|(i, n)| (PartitionIndex(*i), sectors(n))).collect() }
}

fn comm_r(number: u64) -> CommR {
    CommR([u8::try_from(number % 251).unwrap(); 32])
}

/// Keeps every event.
#[derive(Debug, Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<Event>>);

impl EventSink for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().push(event);
    }
}

/// Waits until `done`, which nothing but the code under test brings about.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..20_000 {
        if done().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}

/// Cuts a program off for ever at the n-th step.
#[derive(Debug)]
pub(crate) struct Cut {
    steps: AtomicUsize,
    at: AtomicUsize,
    pub(crate) reached: Notify,
}

impl Default for Cut {
    fn default() -> Self {
        Self { steps: AtomicUsize::new(0), at: AtomicUsize::new(usize::MAX), reached: Notify::new() }
    }
}

impl Cut {
    pub(crate) fn arm(&self, at: usize) {
        self.steps.store(0, SeqCst);
        self.at.store(at, SeqCst);
    }

    pub(crate) async fn step(&self) {
        let at = self.at.load(SeqCst);
        if self.steps.fetch_add(1, SeqCst) >= at {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

/// A client of the chain: each call has a step before and one behind.
#[derive(Debug)]
pub(crate) struct Node {
    chain: Arc<InMemoryChain>,
    pub(crate) cut: Arc<Cut>,
    ticks_per_submit: AtomicI64,
    /// Messages that landed are no longer on the chain.
    pub(crate) reverted: AtomicBool,
}

macro_rules! pass {
    ($self:ident, $call:expr) => {{
        $self.cut.step().await;
        let answer = $call.await;
        $self.cut.step().await;
        answer
    }};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ChainClient for Node {
    async fn head(&self) -> Result<TipsetRef, ChainError> {
        pass!(self, self.chain.head())
    }

    fn head_changes(&self) -> BoxStream<HeadChange> {
        self.chain.head_changes()
    }

    async fn network(&self, at: &TipsetRef) -> Result<NetworkInfo, ChainError> {
        pass!(self, self.chain.network(at))
    }

    async fn miner(&self, at: &TipsetRef, miner: ActorId) -> Result<MinerInfo, ChainError> {
        pass!(self, self.chain.miner(at, miner))
    }

    async fn randomness(
        &self,
        at: &TipsetRef,
        kind: RandomnessKind,
        epoch: Epoch,
        miner: ActorId,
    ) -> Result<Randomness, ChainError> {
        pass!(self, self.chain.randomness(at, kind, epoch, miner))
    }

    async fn sector(&self, at: &TipsetRef, id: SectorId) -> Result<OnChain, ChainError> {
        pass!(self, self.chain.sector(at, id))
    }

    async fn sectors(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        numbers: &SectorSet,
    ) -> Result<Vec<SectorInfo>, ChainError> {
        pass!(self, self.chain.sectors(at, miner, numbers))
    }

    async fn deadline(&self, at: &TipsetRef, miner: ActorId) -> Result<DeadlineInfo, ChainError> {
        pass!(self, self.chain.deadline(at, miner))
    }

    async fn partitions(
        &self,
        at: &TipsetRef,
        miner: ActorId,
        deadline: DeadlineIndex,
    ) -> Result<DeadlineState, ChainError> {
        pass!(self, self.chain.partitions(at, miner, deadline))
    }

    async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError> {
        self.cut.step().await;
        let answer = self.chain.submit(key, call).await;
        self.chain.tick(self.ticks_per_submit.load(SeqCst));
        self.cut.step().await;
        answer
    }

    async fn message(&self, id: &MessageId, confidence: i64) -> Result<MessageState, ChainError> {
        let answer = pass!(self, self.chain.message(id, confidence));
        if self.reverted.load(SeqCst) { Ok(MessageState::Pending { trouble: None }) } else { answer }
    }
}

/// The disks and provers.
#[derive(Debug, Default)]
pub(crate) struct Bench {
    cut: Arc<Cut>,
    /// Sectors that do not read well.
    pub(crate) bad: Mutex<BTreeSet<u64>>,
    /// Sectors that no store holds.
    pub(crate) lost: Mutex<BTreeSet<u64>>,
    /// The lists that were read, in order.
    pub(crate) reads: Mutex<Vec<Vec<u64>>>,
    /// Proofs that were made.
    pub(crate) proofs: AtomicUsize,
    /// This many next reads crash.
    pub(crate) failing_reads: AtomicUsize,
    /// This many next proofs crash.
    pub(crate) failing_proofs: AtomicUsize,
    /// Sectors that a reader dies of.
    pub(crate) deadly: Mutex<BTreeSet<u64>>,
    /// Sectors that a reader never ends with.
    pub(crate) sleepy: Mutex<BTreeSet<u64>>,
    /// Sectors that a reader never ends with, not even when it is killed.
    pub(crate) frozen: Mutex<BTreeSet<u64>>,
    /// Jobs that met one of them.
    pub(crate) hung: AtomicUsize,
    /// Sectors that are in another store.
    pub(crate) elsewhere: Mutex<BTreeSet<u64>>,
    /// Slots whose process does not die.
    pub(crate) stuck: AtomicUsize,
    /// Where jobs queue, if they do.
    pub(crate) queue: Mutex<Option<Arc<Semaphore>>>,
    /// This many next proofs hang.
    pub(crate) hanging_proofs: AtomicUsize,
    /// The prover makes proofs that prove nothing.
    pub(crate) lying: AtomicBool,
    /// The reader forgets the last sector.
    pub(crate) forgetful: AtomicBool,
    /// The prover never ends by itself.
    pub(crate) hanging: AtomicBool,
    /// Jobs that began.
    pub(crate) started: AtomicUsize,
    /// Jobs that were stopped.
    pub(crate) stopped: AtomicUsize,
}

impl Bench {
    pub(crate) fn proofs(&self) -> usize {
        self.proofs.load(SeqCst)
    }

    fn fails(counter: &AtomicUsize) -> bool {
        counter.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok()
    }

    fn read(&self, task: &ReadChallenges) -> Result<Vec<ChallengeRead>, PoolErrorKind> {
        if Self::fails(&self.failing_reads) {
            return Err(PoolErrorKind::Crashed);
        }
        let numbers: Vec<u64> = task.replicas.iter().map(|r| r.sector.number.0).collect();
        if numbers.iter().any(|n| self.deadly.lock().contains(n)) {
            return Err(PoolErrorKind::Crashed);
        }
        let read = |number: &u64| {
            let sector = SectorNumber(*number);
            if self.bad.lock().contains(number) {
                ChallengeRead::Bad { number: sector, reason: "a leaf does not match its root".to_owned() }
            } else {
                ChallengeRead::Read { number: sector, vanilla: vanilla(*number, &numbers, task.randomness) }
            }
        };
        let mut answers: Vec<_> = numbers.iter().map(read).collect();
        if self.forgetful.load(SeqCst) {
            answers.pop();
        }
        self.reads.lock().push(numbers);
        Ok(answers)
    }

    fn meets(job: &Job, sectors: &Mutex<BTreeSet<u64>>) -> bool {
        let replicas = serde_json::from_slice(&job.payload).map(|task: ReadChallenges| task.replicas);
        let sectors = sectors.lock();
        replicas.is_ok_and(|list| list.iter().any(|r| sectors.contains(&r.sector.number.0)))
    }

    fn prove(&self, task: ProveWindowPoSt) -> Result<WindowPoStProof, PoolErrorKind> {
        if Self::fails(&self.failing_proofs) {
            return Err(PoolErrorKind::Crashed);
        }
        let numbers: Vec<u64> = task.sectors.iter().map(|s| s.number.0).collect();
        assert!(numbers.is_sorted(), "a statement is in ascending order");
        // Challenges depend on the whole list, so a vanilla proof of another list is worth nothing.
        let expected: Vec<String> =
            numbers.iter().map(|n| hex::encode(vanilla(*n, &numbers, task.randomness))).collect();
        if task.vanilla != expected {
            return Err(PoolErrorKind::Failed);
        }
        self.proofs.fetch_add(1, SeqCst);
        let ProveWindowPoSt { miner, proof_type, mut randomness, sectors, .. } = task;
        if self.lying.load(SeqCst) {
            randomness.0[0] ^= 1;
        }
        let proof = fake_proof::window_post(&PoStStatement { miner, proof_type, randomness, sectors });
        Ok(WindowPoStProof { proof })
    }
}

fn vanilla(number: u64, list: &[u64], randomness: Randomness) -> Vec<u8> {
    format!("{number} of {list:?} by {randomness:?}").into_bytes()
}

#[async_trait]
impl ReplicaSource for Bench {
    async fn locate(&self, sector: SectorId) -> Result<Option<ReplicaPaths>, BoxError> {
        self.cut.step().await;
        let lost = self.lost.lock().contains(&sector.number.0);
        let elsewhere = self.elsewhere.lock().contains(&sector.number.0);
        let root = PathBuf::from(if elsewhere { "/stores/b" } else { "/stores/a" });
        let (sealed, cache) = (root.join("sealed"), root.join("cache"));
        let name = sector.to_string();
        Ok((!lost).then(|| ReplicaPaths { sealed: sealed.join(&name), cache: cache.join(&name) }))
    }
}

fn pool(bench: &Arc<Bench>) -> FakePool {
    let (disks, provers) = (bench.clone(), bench.clone());
    FakePool::new()
        .with::<ReadChallenges>(move |task| disks.read(&task))
        .with::<ProveWindowPoSt>(move |task| provers.prove(task))
}

#[derive(Debug)]
struct BenchPool {
    inner: FakePool,
    bench: Arc<Bench>,
}

#[async_trait]
impl ProcessorPool for BenchPool {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        self.bench.cut.step().await;
        self.bench.started.fetch_add(1, SeqCst);
        let queue = self.bench.queue.lock().clone();
        let _turn = match queue {
            Some(queue) => match cx.cancel.run_until_cancelled(queue.acquire_owned()).await {
                Some(turn) => Some(turn.unwrap()),
                None => {
                    self.bench.stopped.fetch_add(1, SeqCst);
                    return self.inner.run(job, cx).await;
                }
            },
            None => None,
        };
        let what = JobEvent::Started { slot: "bench".to_owned() };
        cx.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
        let frozen = Bench::meets(&job, &self.bench.frozen);
        let hangs = job.kind == ProveWindowPoSt::KIND && Bench::fails(&self.bench.hanging_proofs);
        let hangs = hangs || frozen || Bench::meets(&job, &self.bench.sleepy);
        self.bench.hung.fetch_add(usize::from(hangs), SeqCst);
        if hangs || self.bench.hanging.load(SeqCst) {
            cx.cancel.cancelled().await;
            self.bench.stopped.fetch_add(1, SeqCst);
        }
        if frozen {
            self.bench.stuck.fetch_add(1, SeqCst);
            std::future::pending::<()>().await;
        }
        let output = self.inner.run(job, cx).await;
        self.bench.cut.step().await;
        output
    }

    fn capacity(&self, kind: &TaskKind) -> Capacity {
        let Capacity { total, free } = self.inner.capacity(kind);
        Capacity { total, free: free.saturating_sub(self.bench.stuck.load(SeqCst)) }
    }

    fn slots(&self) -> Vec<SlotReport> {
        self.inner.slots()
    }

    async fn drain(&self) -> Result<(), PoolError> {
        self.inner.drain().await
    }
}
