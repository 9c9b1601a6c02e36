//! A sealing thread that is to behave otherwise while it runs.

use crate::{
    thread::{Running, SECOND, eventually, finalized, run},
    world::{Hold, SECTOR, World},
};
use async_trait::async_trait;
use damocles_core::{
    ActorId, Error, SectorId, StoreId,
    allocator::{AllocError, AllocErrorKind, AllocateRequest, Outcome, SectorAllocator, SectorLease},
    pool::{PoolErrorKind, Task as _},
    testing::InMemoryAllocator,
};
use damocles_seal::{
    service::CommitState,
    stage::id,
    task::{Pc1, Pc2},
    worker::{Pause, ThreadConfig, ThreadState},
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;

const HOUR: Duration = Duration::from_secs(3600);
const NOBODY: ActorId = ActorId(1);

/// Lets a running thread behave otherwise.
fn change(running: &Running, change: impl FnOnce(&mut ThreadConfig)) -> bool {
    let mut config = ThreadConfig::clone(&running.control.config());
    change(&mut config);
    running.control.reconfigure(config)
}

#[tokio::test]
async fn a_thread_that_waits_for_work_asks_again_at_once() {
    let world = World::new();
    let process = world.start().await;
    let mut thread = process.thread(&world);
    thread.configure(|config| (config.miners, config.idle_interval) = (vec![NOBODY], HOUR));
    let running = run(thread);
    running.shows(|s| s.state == ThreadState::Idle && s.wakes_at.is_some()).await;
    assert!(!change(&running, |_| {}), "that is how it behaves");
    assert!(change(&running, |config| config.miners.clear()));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_sector_in_work_is_kept_and_the_next_is_taken_by_the_new_settings() {
    let world = World::new();
    let (begun, mut has_begun) = watch::channel(false);
    *world.hold.lock() = Some(Hold { kind: Pc1::KIND, finishes: true, begun });
    let process = world.start().await;
    let running = run(process.thread(&world));
    has_begun.wait_for(|begun| *begun).await.unwrap();
    // It would neither be leased nor retried any more.
    assert!(change(&running, |config| {
        (config.miners, config.idle_interval, config.max_retries) = (vec![NOBODY], HOUR, 0);
    }));
    tokio::task::yield_now().await;
    let status = running.control.status();
    assert_eq!((status.sector, status.state, status.failures), (Some(SECTOR), ThreadState::Running, 0));
    assert_eq!(world.runs().get("pc1"), None, "nobody cancelled it");
    running.control.pause_as(Pause { now: true, by: None });
    running.shows(|s| s.state == ThreadState::Paused).await;
    *world.hold.lock() = None;
    running.control.resume();
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    assert_eq!(process.starts(SECTOR).await["pc1"], 1);
    running.shows(|s| s.state == ThreadState::Idle && s.sector.is_none() && s.wakes_at.is_some()).await;
    assert!(!finalized(&world, SECOND));
    assert!(change(&running, |config| config.miners.clear()));
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn the_wait_before_a_repeat_is_as_long_as_the_settings_say_now() {
    let world = World::new();
    world.bench.lock().before.push((Pc2::KIND, PoolErrorKind::Crashed));
    let process = world.start().await;
    let mut thread = process.thread(&world);
    thread.configure(|config| (config.first_wait, config.longest_wait) = (HOUR, HOUR));
    let running = run(thread);
    let before = running.shows(|s| s.state == ThreadState::Waiting && s.failures == 1 && s.wakes_at.is_some()).await;
    change(&running, |config| (config.first_wait, config.longest_wait) = (2 * HOUR, 2 * HOUR));
    running.shows(|s| s.state == ThreadState::Waiting && s.wakes_at > before.wakes_at).await;
    change(&running, |config| config.longest_wait = Duration::from_millis(1));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_parked_sector_goes_on_by_itself_as_soon_as_the_settings_say_so() {
    let world = World::new();
    world.bench.lock().before.extend(std::iter::repeat_n((Pc2::KIND, PoolErrorKind::Crashed), 4));
    let process = world.start().await;
    let running = run(process.thread(&world));
    let parked = running.shows(|s| s.state == ThreadState::Parked).await;
    assert_eq!(parked.wakes_at, None);
    change(&running, |config| config.auto_resume = Some(HOUR));
    running.shows(|s| s.state == ThreadState::Parked && s.wakes_at.is_some()).await;
    change(&running, |config| config.auto_resume = None);
    running.shows(|s| s.state == ThreadState::Parked && s.wakes_at.is_none()).await;
    change(&running, |config| config.auto_resume = Some(Duration::from_millis(1)));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn more_repeats_count_from_the_next_failure_on() {
    let world = World::new();
    world.bench.lock().before.extend(std::iter::repeat_n((Pc2::KIND, PoolErrorKind::Crashed), 9));
    let process = world.start().await;
    let mut thread = process.thread(&world);
    thread.configure(|config| {
        (config.first_wait, config.longest_wait, config.max_retries) = (HOUR, HOUR, 1);
    });
    let running = run(thread);
    running.shows(|s| s.state == ThreadState::Waiting && s.failures == 1).await;
    change(&running, |config| {
        (config.first_wait, config.longest_wait, config.max_retries) = (Duration::ZERO, Duration::ZERO, 20);
    });
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn a_sector_that_waits_for_the_chain_is_looked_at_as_often_as_the_settings_say() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::PRE_COMMIT)).await.unwrap();
    let until = damocles_core::pipeline::Wake::Epoch(damocles_core::Epoch(900));
    world.service.inner.set_pre_commit_state(SECTOR, CommitState::Pending { until });
    let mut thread = process.thread(&world);
    thread.configure(|config| config.poll_interval = HOUR);
    let running = run(thread);
    let before = running.shows(|s| s.state == ThreadState::Waiting && s.wakes_at.is_some()).await;
    change(&running, |config| config.poll_interval = HOUR / 2);
    running.shows(|s| s.state == ThreadState::Waiting && s.wakes_at.is_some_and(|at| Some(at) < before.wakes_at)).await;
    running.drained().await;
}

/// A manager that is away for whoever asks for sectors of certain miners.
#[derive(Debug)]
struct AwayForSome {
    inner: Arc<InMemoryAllocator>,
    asked: Mutex<Vec<Vec<ActorId>>>,
}

#[async_trait]
impl SectorAllocator for AwayForSome {
    async fn allocate(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
        self.asked.lock().push(want.miners.clone());
        match want.miners.is_empty() {
            true => self.inner.allocate(want).await,
            false => Err(Error::new(AllocErrorKind::Unavailable, "allocate")),
        }
    }
    async fn take_up(&self, store: &StoreId, sector: SectorId, ttl: Duration) -> Result<SectorLease, AllocError> {
        self.inner.take_up(store, sector, ttl).await
    }
    async fn held_by(&self, store: &StoreId) -> Result<Vec<SectorLease>, AllocError> {
        self.inner.held_by(store).await
    }
    async fn renew(&self, lease: &SectorLease, ttl: Duration) -> Result<SectorLease, AllocError> {
        self.inner.renew(lease, ttl).await
    }
    async fn release(&self, lease: &SectorLease, outcome: Outcome) -> Result<(), AllocError> {
        self.inner.release(lease, outcome).await
    }
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_not_asked_for_again() {
    let world = World::new();
    let process = world.start().await;
    let manager = Arc::new(AwayForSome { inner: world.allocator.clone(), asked: Mutex::default() });
    let mut thread = process.thread_of(&world, manager.clone());
    thread.configure(|config| {
        (config.miners, config.first_wait, config.longest_wait) = (vec![NOBODY], HOUR, HOUR);
    });
    let running = run(thread);
    running.shows(|s| s.state == ThreadState::Waiting && s.failures == 1).await;
    change(&running, |config| {
        config.miners.clear();
        (config.first_wait, config.longest_wait) = (Duration::ZERO, Duration::ZERO);
    });
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    let asked = manager.asked.lock().clone();
    assert!(asked.len() >= 2 && asked[0] == [NOBODY] && asked[1..].iter().all(Vec::is_empty), "{asked:?}");
    running.drained().await;
}
