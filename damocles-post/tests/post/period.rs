//! A whole proving period under the loop, with faults.

use crate::harness::{MINER, World, sectors, until};
use async_trait::async_trait;
use damocles_core::{
    ActorId, CancellationToken, Context, Epoch,
    chain::{Call, ChainClient, TipsetRef},
    post::{Duty, Fulfilled, PoStError, PoStScheduler, ProvingView},
};
use damocles_post::{LoopOptions, PoStLoop};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

/// The loop as a program of its own.
struct Program {
    cx: Context,
    drain: CancellationToken,
    task: JoinHandle<()>,
}

impl Program {
    async fn start(world: &World) -> Self {
        Self::with(world, world.scheduler().await)
    }

    fn with(world: &World, scheduler: Arc<dyn PoStScheduler>) -> Self {
        let mut options = LoopOptions::default();
        options.first_retry = Duration::from_millis(1);
        options.longest_retry = Duration::from_millis(5);
        // The chain knows nothing of the first miner: its views fail, and that is nobody else's trouble.
        let miners = [ActorId(999), MINER];
        let watched = PoStLoop::new(scheduler, world.node.clone(), miners).with_options(options);
        let cx = Context::detached();
        let drain = CancellationToken::new();
        let (inner, draining) = (cx.clone(), drain.clone());
        Self { task: tokio::spawn(async move { watched.run(&inner, &draining).await }), cx, drain }
    }

    async fn stop(self) {
        self.cx.cancel.cancel();
        self.task.await.unwrap();
    }

    /// As kill -9 would: no more code of it runs.
    async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Ticks up to an epoch. The chain does not run away from the program: short of an epoch by which something must have
/// been sent, it waits for that.
async fn live_until(world: &World, epoch: i64, waits: &mut BTreeMap<i64, usize>) {
    while world.epoch().await < epoch {
        let now = world.epoch().await;
        if let Some(count) = waits.remove(&now) {
            let what = format!("{count} messages by epoch {now}");
            until(&what, async || {
                let sent = world.accepted().len() + world.chain.pending();
                // What waits lands only in a further epoch.
                sent >= count
            })
            .await;
        }
        world.chain.tick(1);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_whole_period_is_proven_once_in_spite_of_faults() {
    let world = World::new().await;
    // The chain begins at 1000, in deadline 16. Deadline 20 opens at 1200, 30 at 1800, 47 at 2820, 2 at 3000.
    world.hold(20, &[&[1, 2], &[3]]);
    world.hold(30, &[&[4, 5]]);
    world.hold(47, &[&[6], &[7], &[8], &[9]]);
    world.hold(2, &[&[10, 11]]);
    world.fault(30, &[5]).await;
    world.fault(2, &[11]).await;
    let program = Program::start(&world).await;

    // The first prover and the first reader die; a replica of the first deadline is bad.
    world.bench.failing_proofs.store(1, SeqCst);
    world.bench.failing_reads.store(1, SeqCst);
    world.bench.bad.lock().extend([2, 11]);
    let mut waits = BTreeMap::from([(1250, 1)]);
    live_until(&world, 1300, &mut waits).await;
    world.check(&world.accepted()[0], &[1, 3]).await;

    // Before the next deadline's cut-off, at 1730, sector 5 is declared; while the deadline is open the chain is away.
    waits.insert(1720, 2);
    live_until(&world, 1790, &mut waits).await;
    assert!(matches!(world.accepted()[1].call, Call::DeclareFaultsRecovered(_)));
    assert_eq!(world.state(30).await.partitions[0].recovering, sectors(&[5]));
    world.chain.set_unavailable(true);
    for _ in 0..30 {
        world.chain.tick(1);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.chain.set_unavailable(false);
    waits.insert(1850, 3);
    live_until(&world, 1870, &mut waits).await;
    world.check(&world.accepted()[2], &[4, 5]).await;
    assert!(world.state(30).await.partitions[0].faulty.is_empty(), "sector 5 has recovered");

    // Killed right after the first of two messages went out, and started again.
    world.node.cut.arm(usize::MAX);
    live_until(&world, 2815, &mut waits).await;
    until("both proofs are recorded", async || recorded(&world, 2820).await == 2).await;
    world.chain.set_held(true);
    live_until(&world, 2821, &mut waits).await;
    until("something is sent", async || world.chain.pending() > 0).await;
    program.kill().await;
    let proofs = world.bench.proofs();
    world.chain.set_held(false);
    let program = Program::start(&world).await;
    waits.insert(2870, 5);
    live_until(&world, 2875, &mut waits).await;
    assert_eq!(world.bench.proofs(), proofs, "what is recorded is not made again");

    // Over the end of the period; sector 11 is still bad and stays faulty.
    waits.insert(3050, 6);
    live_until(&world, 3070, &mut waits).await;
    world.check(&world.accepted()[5], &[10]).await;
    assert_eq!(world.state(2).await.partitions[0].recovering, sectors(&[]));
    program.stop().await;

    let mut by_deadline = BTreeMap::new();
    for landed in world.chain.landed_calls() {
        assert_eq!(landed.exit_code, 0);
        if let Call::SubmitWindowedPoSt(post) = &landed.call {
            let partitions: Vec<u64> = post.partitions.iter().map(|p| p.index.0).collect();
            by_deadline.entry(post.deadline.0).or_insert_with(Vec::new).push(partitions);
        }
    }
    by_deadline.values_mut().for_each(|messages| messages.sort());
    let expected =
        [(2, vec![vec![0]]), (20, vec![vec![0, 1]]), (30, vec![vec![0]]), (47, vec![vec![0, 1, 2], vec![3]])];
    assert_eq!(by_deadline, BTreeMap::from(expected), "one landed message for each group of partitions");
}

async fn recorded(world: &World, opens: i64) -> usize {
    let scheduler = world.scheduler().await;
    let all = scheduler.records().recent(MINER, 100).await.unwrap();
    all.iter().filter(|a| a.opens == Epoch(opens)).count()
}

#[tokio::test]
async fn a_stopped_loop_leaves_nothing_running() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2]]);
    world.bench.hanging.store(true, SeqCst);
    let scheduler = Watched::new(world.scheduler().await, 0);
    let program = Program::with(&world, scheduler.clone());
    until("a job runs", async || world.bench.started.load(SeqCst) == 1).await;
    for _ in 0..3 {
        let plans = scheduler.plans.load(SeqCst);
        world.chain.tick(1);
        until("it plans again", async || scheduler.plans.load(SeqCst) > plans).await;
    }
    assert_eq!(scheduler.duties.load(SeqCst), 1, "what is under way is not begun again");
    program.stop().await;
    assert_eq!(world.bench.stopped.load(SeqCst), 1, "the pool was told to stop it");
    assert_eq!(world.chain.pending(), 0);
}

#[tokio::test]
async fn a_draining_loop_ends_its_duty_and_begins_none() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2]]);
    let scheduler = Watched::new(world.scheduler().await, 0);
    let program = Program::with(&world, scheduler.clone());
    until("it is sent", async || world.chain.pending() == 1).await;
    program.drain.cancel();
    // Its challenge is known, so its proof would be begun at the next head.
    world.hold(17, &[&[3]]);
    until("the duty ends", async || {
        if !program.task.is_finished() {
            world.chain.tick(1);
        }
        program.task.is_finished()
    })
    .await;
    program.task.await.unwrap();
    world.check(&world.accepted()[0], &[1, 2]).await;
    assert_eq!((world.accepted().len(), world.chain.pending()), (1, 0));
    assert_eq!(scheduler.duties.load(SeqCst), 1, "nothing begins while it drains");
}

#[tokio::test]
async fn what_does_not_read_well_is_tried_again_later() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2]]);
    world.bench.bad.lock().extend([1, 2]);
    let program = Program::start(&world).await;
    until("it was read", async || !world.bench.reads.lock().is_empty()).await;
    world.bench.bad.lock().clear();
    let head = world.chain.head().await.unwrap();
    let mut waits = BTreeMap::from([(1015, 1)]);
    live_until(&world, 1019, &mut waits).await;
    world.check(&world.accepted()[0], &[1, 2]).await;
    assert!(head.epoch < world.accepted()[0].epoch);
    let view = world.scheduler().await.view(MINER, &head).await.unwrap();
    assert_eq!(view.deadlines.len(), 5);
    program.stop().await;
}

/// Counts what it is asked, and panics in its first duties.
#[derive(Debug)]
struct Watched {
    inner: Arc<dyn PoStScheduler>,
    panics: usize,
    plans: AtomicUsize,
    duties: AtomicUsize,
}

impl Watched {
    fn new(inner: Arc<dyn PoStScheduler>, panics: usize) -> Arc<Self> {
        Arc::new(Self { inner, panics, plans: AtomicUsize::new(0), duties: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl PoStScheduler for Watched {
    fn plan(&self, view: &ProvingView) -> Vec<Duty> {
        self.plans.fetch_add(1, SeqCst);
        self.inner.plan(view)
    }

    async fn view(&self, miner: ActorId, at: &TipsetRef) -> Result<ProvingView, PoStError> {
        self.inner.view(miner, at).await
    }

    async fn fulfil(&self, duty: &Duty, cx: &Context) -> Result<Fulfilled, PoStError> {
        assert!(self.duties.fetch_add(1, SeqCst) >= self.panics, "this call panics");
        self.inner.fulfil(duty, cx).await
    }
}

#[tokio::test]
async fn a_duty_that_panics_ends_neither_the_loop_nor_the_deadline() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2]]);
    let scheduler = Watched::new(world.scheduler().await, 1);
    let program = Program::with(&world, scheduler.clone());
    until("it panicked", async || scheduler.duties.load(SeqCst) == 1).await;
    let mut waits = BTreeMap::from([(1015, 1)]);
    live_until(&world, 1019, &mut waits).await;
    world.check(&world.accepted()[0], &[1, 2]).await;
    program.stop().await;
}
