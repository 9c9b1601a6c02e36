//! Declaring recoveries.

use crate::harness::{World, sectors};
use damocles_core::{
    Context,
    chain::{Call, PartitionSectors},
    post::{PoStErrorKind, PoStScheduler},
};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};

/// Deadline 19 opens at 1140; its cut-off is 1070.
async fn faulty() -> World {
    let world = World::new().await.landing_at_once();
    world.hold(19, &[&[1, 2, 3, 4]]);
    world.fault(19, &[2, 3, 4]).await;
    world
}

fn declared(call: &Call) -> &[PartitionSectors] {
    let Call::DeclareFaultsRecovered(call) = call else { panic!("not a declaration: {call:?}") };
    &call.recoveries
}

#[tokio::test]
async fn faulty_sectors_that_read_well_are_declared_once() {
    let world = faulty().await;
    world.bench.bad.lock().insert(3);
    world.bench.lost.lock().insert(4);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, false).await;
    assert_eq!(duty.due.0, 1069);
    let cx = Context::detached();
    let done = scheduler.fulfil(&duty, &cx).await.unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&[3, 4]));
    let [landed] = &world.accepted()[..] else { panic!("one message") };
    assert!(landed.epoch < duty.deadline.fault_cutoff);
    assert_eq!(declared(&landed.call)[0].sectors, sectors(&[2]));
    assert_eq!(world.state(19).await.partitions[0].recovering, sectors(&[2]));
    assert!(world.bench.reads.lock().iter().all(|list| list.len() == 1), "each is read alone");

    let again = scheduler.fulfil(&duty, &cx).await.unwrap();
    assert_eq!((again, world.accepted().len()), (done, 1));

    // A sector that comes back later is a duty of its own.
    world.bench.bad.lock().clear();
    let rest = world.duty(&*scheduler, false).await;
    let done = scheduler.fulfil(&rest, &cx).await.unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&[4]));
    assert_eq!(declared(&world.accepted()[1].call)[0].sectors, sectors(&[3]));
}

#[tokio::test]
async fn a_reader_that_dies_says_nothing_about_a_sector() {
    let world = faulty().await;
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, false).await;
    let cx = Context::detached();
    world.bench.failing_reads.store(3, SeqCst);
    assert_eq!(scheduler.fulfil(&duty, &cx).await.unwrap_err().kind(), PoStErrorKind::Read);
    // One of three: the others are declared now.
    world.bench.failing_reads.store(1, SeqCst);
    let done = scheduler.fulfil(&duty, &cx).await.unwrap();
    assert_eq!(done.skipped.iter().map(|s| s.sectors.len()).sum::<usize>(), 1);
    let rest = world.duty(&*scheduler, false).await;
    scheduler.fulfil(&rest, &cx).await.unwrap();
    assert_eq!(world.state(19).await.partitions[0].recovering, sectors(&[2, 3, 4]));
    assert_eq!(world.accepted().len(), 2);
}

#[tokio::test]
async fn a_faulty_sector_that_hangs_its_reader_keeps_no_other_from_recovery() {
    let mut world = faulty().await;
    world.options.least_read_time = Duration::ZERO;
    world.bench.sleepy.lock().insert(3);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, false).await;
    let (begun, work) = (world.epoch().await, duty.clone());
    let task = tokio::spawn(async move { scheduler.fulfil(&work, &Context::detached()).await });
    world.outlast(1).await;
    let done = task.await.unwrap().unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&[3]));
    assert_eq!(world.state(19).await.partitions[0].recovering, sectors(&[2, 4]));
    assert!(world.epoch().await - begun < 20, "a hang does not keep the reader from proofs for long");
}

#[tokio::test]
async fn a_store_that_does_not_answer_does_not_keep_the_reader_busy() {
    let mut world = World::new().await.landing_at_once();
    world.options.least_read_time = Duration::ZERO;
    let stored: Vec<u64> = (10..40).collect();
    let all: Vec<u64> = [1, 2].into_iter().chain(stored.iter().copied()).collect();
    world.hold(19, &[&all]);
    world.fault(19, &all).await;
    world.bench.elsewhere.lock().extend(&stored);
    world.bench.sleepy.lock().extend(&stored);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, false).await;
    let task = tokio::spawn(async move { scheduler.fulfil(&duty, &Context::detached()).await });
    for hung in 1..=3 {
        world.outlast(hung).await;
    }
    assert_eq!(task.await.unwrap().unwrap().skipped[0].sectors, sectors(&stored));
    assert_eq!(world.bench.hung.load(SeqCst), 3);
    assert_eq!(world.state(19).await.partitions[0].recovering, sectors(&[1, 2]));
}

#[tokio::test]
async fn after_the_cutoff_nothing_is_declared() {
    let world = faulty().await;
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, false).await;
    world.tick_to(1069).await;
    let err = scheduler.fulfil(&duty, &Context::detached()).await.unwrap_err();
    assert_eq!(err.kind(), PoStErrorKind::Overdue);
    assert!(world.chain.landed_calls().is_empty() && world.chain.pending() == 0);
}

#[tokio::test]
async fn what_is_all_bad_is_declared_by_nobody() {
    let world = faulty().await;
    world.bench.bad.lock().extend([2, 3, 4]);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, false).await;
    let done = scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&[2, 3, 4]));
    assert!(done.receipts.is_empty() && world.chain.landed_calls().is_empty());
}
