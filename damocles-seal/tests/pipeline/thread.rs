//! The loop of a sealing store.

use crate::world::{SECTOR, World};
use async_trait::async_trait;
use damocles_core::{
    ActorId, CancellationToken, Context, Recovery, SectorId, SectorNumber, SectorSize, StoreId,
    allocator::{AllocError, AllocErrorKind, AllocateRequest, Outcome, SectorAllocator, SectorLease},
    pipeline::SealError,
    pool::{PoolErrorKind, Task},
    testing::InMemoryAllocator,
    verify::VerifyingKeys,
};
use damocles_seal::{
    journal::{Journal, Phase},
    service::{CommitState, Report, ReportAnswer, ServiceCall, ServiceErrorKind},
    task::{Pc1, Pc2},
    worker::{SealingThread, ThreadControl, ThreadState, ThreadStatus},
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;

pub(crate) const SECOND: SectorId = SectorId::new(ActorId(1000), SectorNumber(2));

pub(crate) struct Running {
    pub(crate) control: ThreadControl,
    pub(crate) drain: CancellationToken,
    cx: Context,
    pub(crate) task: JoinHandle<Result<(), SealError>>,
}

pub(crate) fn run(thread: SealingThread) -> Running {
    let (cx, drain) = (Context::detached(), CancellationToken::new());
    let control = thread.control();
    let task = tokio::spawn({
        let (cx, drain) = (cx.clone(), drain.clone());
        async move { thread.run(&cx, &drain).await }
    });
    Running { control, drain, cx, task }
}

impl Running {
    pub(crate) async fn drained(self) {
        self.drain.cancel();
        self.task.await.unwrap().unwrap();
        assert_eq!(self.control.status().state, ThreadState::Stopped);
    }

    pub(crate) async fn shows(&self, what: impl Fn(&ThreadStatus) -> bool + Send + Sync) -> ThreadStatus {
        eventually(|| Some(self.control.status()).filter(&what)).await
    }
}

/// Bounded only so that a failure ends; nothing depends on how long it takes.
pub(crate) async fn eventually<T: Send>(what: impl Fn() -> Option<T> + Send + Sync) -> T {
    for _ in 0..6_000 {
        if let Some(found) = what() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came true");
}

pub(crate) fn finalized(world: &World, sector: SectorId) -> bool {
    world.service.inner.reports().contains(&(sector, Report::Finalized))
}

#[tokio::test]
async fn sector_after_sector_without_an_operator() {
    let world = World::new();
    let process = world.start().await;
    let running = run(process.thread(&world));
    eventually(|| (finalized(&world, SECTOR) && finalized(&world, SECOND)).then_some(())).await;
    running.shows(|s| s.state == ThreadState::Idle && s.sector.is_none()).await;
    assert!(world.allocator.held_by(process.store.id()).await.unwrap().is_empty(), "both leases are given back");
    assert!(process.journal.active().await.unwrap().is_empty());
    running.drained().await;
}

#[tokio::test]
async fn a_manager_that_is_away_is_waited_for() {
    let world = World::new();
    for call in [
        ServiceCall::Hello,
        ServiceCall::Pieces,
        ServiceCall::Ticket,
        ServiceCall::SubmitPreCommit,
        ServiceCall::Persisted,
        ServiceCall::SubmitProof,
        ServiceCall::Report,
    ] {
        for _ in 0..10 {
            world.service.inner.fail_next(call, ServiceErrorKind::Unavailable);
        }
    }
    let process = world.start().await;
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_full_disk_shows_its_hint_and_goes_on_by_itself() {
    let world = World::new();
    world.bench.lock().before.extend(std::iter::repeat_n((Pc2::KIND, PoolErrorKind::DiskFull), 20));
    let process = world.start().await;
    let running = run(process.thread(&world));
    let status = running.shows(|s| s.state == ThreadState::Waiting && s.failures > 3).await;
    assert!(status.last_error.unwrap().hint.unwrap().contains("free space"));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_stage_that_keeps_failing_is_parked_and_stays_so_over_a_restart() {
    let world = World::new();
    world.bench.lock().before.extend(std::iter::repeat_n((Pc1::KIND, PoolErrorKind::Crashed), 4));
    let process = world.start().await;
    let running = run(process.thread(&world));
    let status = running.shows(|s| s.state == ThreadState::Parked).await;
    assert_eq!((status.sector, status.stage.unwrap().as_str()), (Some(SECTOR), "pc1"));
    running.drained().await;
    drop(process);

    let process = world.start().await;
    let running = run(process.thread(&world));
    let status = running.shows(|s| s.state == ThreadState::Parked).await;
    assert_eq!(status.sector, Some(SECTOR));
    assert!(status.last_error.unwrap().error.contains("died"), "the error is still shown");
    let active = process.journal.active().await.unwrap();
    assert!(matches!(active[0].phase, Phase::Parked { .. }));
    assert_eq!(world.runs().get("pc1"), None);

    running.control.resume();
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn an_abandoned_sector_is_wiped_only_after_the_manager_knows() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&damocles_seal::stage::id::PRE_COMMIT)).await.unwrap();
    world.service.inner.set_pre_commit_state(SECTOR, CommitState::ShouldAbort { reason: "gone".to_owned() });
    // The manager refuses to hear of it: nothing may be removed.
    for _ in 0..2 {
        world.service.inner.fail_next(ServiceCall::Report, ServiceErrorKind::Refused);
    }
    let running = run(process.thread(&world));
    running.shows(|s| s.state == ThreadState::Parked).await;
    assert!(process.store.sealed(SECTOR).exists());
    let active = process.journal.active().await.unwrap();
    assert!(matches!(active[0].phase, Phase::Ending { .. }));
    // A restart finishes what was begun.
    running.drained().await;
    let running = run(process.thread(&world));
    let aborted = |(id, report): &(SectorId, Report)| *id == SECTOR && matches!(report, Report::Aborted { .. });
    eventually(|| world.service.inner.reports().iter().any(aborted).then_some(())).await;
    eventually(|| (!process.store.sealed(SECTOR).exists()).then_some(())).await;
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn other_verifying_keys_seal_nothing() {
    let world = World::new();
    let keys = |name: &str| VerifyingKeys { porep: name.to_owned(), window_post: name.to_owned() };
    *world.service.keys.lock() = Some(keys("theirs"));
    let process = world.start().await;
    let running = run(process.thread_with_keys(&world, Some(keys("ours"))));
    let status = running.shows(|s| s.state == ThreadState::Parked).await;
    let error = status.last_error.unwrap();
    assert!(error.error.contains("theirs") && error.hint.is_some(), "{error:?}");
    assert!(world.allocator.held_by(process.store.id()).await.unwrap().is_empty(), "no number is burnt");
    *world.service.keys.lock() = Some(keys("ours"));
    running.control.resume();
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_request_whose_answer_was_lost_gets_the_same_sector() {
    let world = World::new();
    let process = world.start().await;
    process.journal.set_pending_request(Some(&damocles_core::RequestId::new("first"))).await.unwrap();
    let want = damocles_core::allocator::AllocateRequest {
        request: damocles_core::RequestId::new("first"),
        store: process.store.id().clone(),
        worker: "test".to_owned(),
        miners: Vec::new(),
        proof_types: Vec::new(),
        ttl: Duration::from_secs(60),
    };
    let lost = world.allocator.allocate(&want).await.unwrap().unwrap();
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, lost.sector).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_pause_keeps_what_is_done_and_a_resume_goes_on() {
    let world = World::new();
    let process = world.start().await;
    let thread = process.thread(&world);
    thread.control().pause();
    let running = run(thread);
    running.shows(|s| s.state == ThreadState::Paused).await;
    assert!(world.runs().is_empty());
    running.control.resume();
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_lease_that_was_taken_over_stops_the_sector() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&damocles_seal::stage::id::PRE_COMMIT)).await.unwrap();
    let waiting = CommitState::Pending { until: damocles_core::pipeline::Wake::After(Duration::from_millis(5)) };
    world.service.inner.set_pre_commit_state(SECTOR, waiting);
    let mut thread = process.thread(&world);
    thread.configure(|config| config.ttl = Duration::from_millis(30));
    let running = run(thread);
    running.shows(|s| s.sector == Some(SECTOR) && s.state == ThreadState::Waiting).await;
    let id = process.store.id().clone();
    world.allocator.take_up(&id, SECTOR, Duration::from_secs(60)).await.unwrap();
    let status = running.shows(|s| s.state == ThreadState::Parked).await;
    assert!(status.last_error.unwrap().error.contains("fence"), "the error says why");
    running.cx.cancel.cancel();
    running.task.await.unwrap().unwrap();
    assert!(!finalized(&world, SECTOR));
    let store = Arc::clone(&process.store);
    store.check(&store.fact(&store.sealed(SECTOR)).unwrap()).unwrap();
    assert_eq!(std::fs::metadata(store.sealed(SECTOR)).unwrap().len(), SectorSize::KiB2.bytes());
}

#[tokio::test]
async fn a_sector_that_the_manager_gave_up_is_given_up() {
    let world = World::new();
    let process = world.start().await;
    let aborted = ReportAnswer { finalized: true, abort_reason: Some("an operator said so".to_owned()) };
    world.service.inner.set_report_answer(SECTOR, aborted);
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    assert!(!process.store.staged(SECTOR).exists(), "its files are gone");
    assert_eq!(world.service.inner.pre_commit_of(SECTOR), None);
    running.drained().await;
}

/// An allocator whose manager gave the first sector up.
#[derive(Debug)]
struct GivenUp(Arc<InMemoryAllocator>);

#[async_trait]
impl SectorAllocator for GivenUp {
    async fn allocate(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
        self.0.allocate(want).await
    }
    async fn take_up(&self, store: &StoreId, sector: SectorId, ttl: Duration) -> Result<SectorLease, AllocError> {
        if sector == SECTOR {
            return Err(AllocError::new(AllocErrorKind::Refused, "take sector up").recover_by(Recovery::Abandon));
        }
        self.0.take_up(store, sector, ttl).await
    }
    async fn held_by(&self, store: &StoreId) -> Result<Vec<SectorLease>, AllocError> {
        self.0.held_by(store).await
    }
    async fn renew(&self, lease: &SectorLease, ttl: Duration) -> Result<SectorLease, AllocError> {
        self.0.renew(lease, ttl).await
    }
    async fn release(&self, lease: &SectorLease, outcome: Outcome) -> Result<(), AllocError> {
        self.0.release(lease, outcome).await
    }
}

#[tokio::test]
async fn a_parked_sector_that_was_given_up_is_removed_when_it_is_resumed() {
    // The lease that the journal knows may be older than the one that is recorded.
    for newer in [false, true] {
        let world = World::new();
        let process = world.start().await;
        let lease = process.take(&world).await;
        process.drive_to(SECTOR, Some(&damocles_seal::stage::id::PC1)).await.unwrap();
        let parked = damocles_seal::journal::NewEntry::parked(None, "broken", None);
        process.journal.append(SECTOR, lease.fence, parked).await.unwrap();
        if newer {
            world.allocator.take_up(process.store.id(), SECTOR, Duration::from_secs(60)).await.unwrap();
        }
        let running = run(process.thread_of(&world, Arc::new(GivenUp(world.allocator.clone()))));
        eventually(|| finalized(&world, SECOND).then_some(())).await;
        assert!(!process.store.cache(SECTOR).exists(), "its files are gone");
        assert_eq!(world.runs()["pc1"], 2, "nothing more was done for it");
        running.drained().await;
    }
}

#[tokio::test]
async fn a_corrupt_journal_entry_parks_its_sector_and_the_thread_lives() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&damocles_seal::stage::id::PC1)).await.unwrap();
    crate::journal::sql(
        &process.store.journal_path(),
        "DROP TRIGGER entry_is_never_changed; UPDATE entry SET output = '{}' WHERE seq = 3",
    )
    .await;
    let running = run(process.thread(&world));
    let status = running.shows(|s| s.state == ThreadState::Parked).await;
    let error = status.last_error.unwrap();
    assert!(error.error.contains("journal.db") && error.hint.is_some(), "{error:?}");
    assert_eq!(status.sector, Some(SECTOR));
    assert!(process.store.cache(SECTOR).exists(), "nothing is lost");
    // A resume takes the sector up anew, and it parks again.
    let greeted = world.service.inner.count(ServiceCall::Hello);
    running.control.resume();
    eventually(|| (world.service.inner.count(ServiceCall::Hello) > greeted).then_some(())).await;
    running.shows(|s| s.state == ThreadState::Parked).await;
    running.drained().await;
}

#[tokio::test]
async fn an_end_whose_lease_was_taken_over_is_told_under_a_new_one() {
    let world = World::new();
    let process = world.start().await;
    let lease = process.take(&world).await;
    process.drive(SECTOR).await.unwrap();
    let ending = damocles_seal::journal::NewEntry::ending(damocles_core::allocator::Outcome::Sealed, None);
    process.journal.append(SECTOR, lease.fence, ending).await.unwrap();
    // Whoever took it up died before its journal was opened.
    let newer = world.allocator.take_up(process.store.id(), SECTOR, Duration::from_secs(60)).await.unwrap();
    assert!(newer.fence > lease.fence);
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    assert!(finalized(&world, SECTOR));
    let held = world.allocator.held_by(process.store.id()).await.unwrap();
    assert!(held.iter().all(|l| l.sector != SECTOR), "the lease is given back");
    running.drained().await;
}

#[tokio::test]
async fn an_end_of_a_sector_that_another_store_has_waits_for_an_operator() {
    let world = World::new();
    let process = world.start().await;
    let lease = process.take(&world).await;
    process.drive(SECTOR).await.unwrap();
    let ending = damocles_seal::journal::NewEntry::ending(damocles_core::allocator::Outcome::Sealed, None);
    process.journal.append(SECTOR, lease.fence, ending).await.unwrap();
    world.allocator.release(&lease, damocles_core::allocator::Outcome::Handed).await.unwrap();
    let other = damocles_core::StoreId::new("other");
    let theirs = world.allocator.take_up(&other, SECTOR, Duration::from_secs(60)).await.unwrap();
    let running = run(process.thread(&world));
    let status = running.shows(|s| s.state == ThreadState::Parked).await;
    assert!(status.last_error.unwrap().hint.unwrap().contains("sectors release"));
    assert_eq!(world.allocator.held_by(&other).await.unwrap(), [theirs], "their lease stands");
    running.drained().await;
}

#[tokio::test]
async fn a_lost_journal_leases_no_other_sector() {
    let world = World::new();
    let process = world.start().await;
    let want = damocles_core::allocator::AllocateRequest {
        request: damocles_core::RequestId::new("forgotten"),
        store: process.store.id().clone(),
        worker: "test".to_owned(),
        miners: Vec::new(),
        proof_types: Vec::new(),
        ttl: Duration::from_secs(60),
    };
    let known = world.allocator.allocate(&want).await.unwrap().unwrap();
    let running = run(process.thread(&world));
    let status = running.shows(|s| s.state == ThreadState::Parked).await;
    let error = status.last_error.unwrap();
    assert!(error.error.contains("journal.db") && error.error.contains("s-t01000-1"), "{error:?}");
    assert!(error.hint.unwrap().contains("release"));
    assert_eq!(world.allocator.held_by(process.store.id()).await.unwrap(), std::slice::from_ref(&known));
    assert_eq!(process.journal.pending_request().await.unwrap(), None);
    // The operator ends the lease and lets the thread go on.
    world.allocator.release(&known, damocles_core::allocator::Outcome::Abandoned).await.unwrap();
    running.control.resume();
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    running.drained().await;
}
