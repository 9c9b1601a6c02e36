//! Fulfilling one proof duty, with everything that can go wrong on the way.

use crate::harness::{Heard, MINER, World, proof_of, sectors, until};
use damocles_core::{
    Context, Event, MessageEvent, PartitionIndex, Recovery,
    chain::{ChainClient, DeadlineState},
    post::{Duty, Fulfilled, PoStError, PoStErrorKind, PoStScheduler},
};
use damocles_post::{Attempt, AttemptEnd, WindowScheduler};
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinHandle};

fn begin(scheduler: &Arc<WindowScheduler>, duty: &Duty, cx: &Context) -> JoinHandle<Result<Fulfilled, PoStError>> {
    let (scheduler, duty, cx) = (scheduler.clone(), duty.clone(), cx.clone());
    tokio::spawn(async move { scheduler.fulfil(&duty, &cx).await })
}

fn landed_with(event: &Event) -> Option<i64> {
    match event {
        Event::Message { what: MessageEvent::Landed { exit_code }, .. } => Some(*exit_code),
        _ => None,
    }
}

async fn attempts(scheduler: &WindowScheduler) -> Vec<Attempt> {
    scheduler.records().recent(MINER, 100).await.unwrap()
}

#[tokio::test]
async fn a_sector_that_reads_badly_is_skipped_and_the_rest_is_read_again() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1, 2], &[3, 4]]);
    world.bench.bad.lock().insert(3);
    world.bench.lost.lock().insert(2);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let done = scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    assert_eq!(*world.bench.reads.lock(), [vec![1, 3, 4], vec![1, 4]]);
    let skipped: Vec<_> = done.skipped.iter().map(|s| (s.partition.0, s.sectors.clone())).collect();
    assert_eq!(skipped, [(0, sectors(&[2])), (1, sectors(&[3]))]);
    let post = world.check(&world.accepted()[0], &[1, 4]).await;
    assert_eq!(post.partitions[0].skipped, sectors(&[2]));
    assert_eq!(post.partitions[1].skipped, sectors(&[3]));
    let state = world.state(16).await;
    assert_eq!((&state.partitions[0].faulty, &state.partitions[1].faulty), (&sectors(&[2]), &sectors(&[3])));
}

#[tokio::test]
async fn a_sector_that_kills_its_reader_is_skipped() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1, 2], &[3, 4]]);
    world.bench.deadly.lock().insert(3);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let done = scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&[3]));
    world.check(&world.accepted()[0], &[1, 2, 4]).await;
    // Where every sector does, it is the reader.
    let other = World::new().await.landing_at_once();
    other.hold(16, &[&[1, 2]]);
    other.bench.deadly.lock().extend([1, 2]);
    let scheduler = other.scheduler().await;
    let duty = other.duty(&*scheduler, true).await;
    let error = scheduler.fulfil(&duty, &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoStErrorKind::Read);
    assert_eq!(other.accepted().len(), 0);
}

#[tokio::test]
async fn a_sector_that_hangs_its_reader_is_skipped() {
    let mut world = World::new().await;
    world.options.least_read_time = Duration::ZERO;
    world.hold(16, &[&[1, 2, 3]]);
    world.bench.sleepy.lock().insert(2);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    for hung in 1..=2 {
        world.outlast(hung).await;
    }
    until("the rest is sent", async || world.chain.pending() == 1).await;
    assert!(world.epoch().await < duty.due.0);
    world.chain.tick(1 + world.options.confidence);
    let done = task.await.unwrap().unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&[2]));
    world.check(&world.accepted()[0], &[1, 3]).await;
}

#[tokio::test]
async fn a_store_that_does_not_answer_costs_three_small_reads_and_its_own_sectors() {
    let mut world = World::new().await;
    world.options.least_read_time = Duration::ZERO;
    let stored: Vec<u64> = (10..50).collect();
    world.hold(16, &[&[1, 2, 3], &stored]);
    world.bench.elsewhere.lock().extend(&stored);
    world.bench.sleepy.lock().extend(&stored);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let begun = world.epoch().await;
    let task = begin(&scheduler, &duty, &Context::detached());
    for hung in 1..=3 {
        world.outlast(hung).await;
    }
    until("the rest is sent", async || world.chain.pending() == 1).await;
    assert!(world.epoch().await - begun < (duty.due.0 - begun) / 3, "{} of {}", world.epoch().await, duty.due);
    world.chain.tick(1 + world.options.confidence);
    let done = task.await.unwrap().unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&stored));
    assert_eq!(world.bench.hung.load(SeqCst), 3);
    assert_eq!(*world.bench.reads.lock(), [vec![1], vec![1, 2, 3]]);
    world.check(&world.accepted()[0], &[1, 2, 3]).await;
}

#[tokio::test]
async fn a_disk_that_is_gone_costs_one_slot() {
    let mut world = World::new().await;
    (world.options.least_read_time, world.options.stop_time) = (Duration::ZERO, Duration::from_millis(1));
    world.hold(16, &[&[1, 2, 3], &[11, 12, 13, 14]]);
    world.bench.elsewhere.lock().extend([11, 12, 13, 14]);
    world.bench.frozen.lock().extend([11, 12, 13, 14]);
    world.options.partitions_per_proof = 3;
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    world.outlast(1).await;
    until("the rest is sent", async || world.chain.pending() == 1).await;
    world.chain.tick(1 + world.options.confidence);
    assert_eq!(task.await.unwrap().unwrap().skipped[0].sectors, sectors(&[11, 12, 13, 14]));
    // The next deadline leaves the store alone as long as the process is stuck, and no longer.
    world.tick_to(1021).await;
    world.hold(17, &[&[4, 15]]);
    world.bench.elsewhere.lock().insert(15);
    let next = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &next, &Context::detached());
    until("it is proven", async || world.bench.proofs() == 2).await;
    assert_eq!((world.bench.hung.load(SeqCst), world.bench.reads.lock().last()), (1, Some(&vec![4])));
    task.abort();
    world.bench.stuck.store(0, SeqCst);
    world.bench.frozen.lock().clear();
    world.hold(17, &[&[], &[5, 16]]);
    world.bench.elsewhere.lock().insert(16);
    let last = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &last, &Context::detached());
    until("it is proven", async || world.bench.proofs() == 3).await;
    assert_eq!(world.bench.reads.lock().last(), Some(&vec![5, 16]));
    task.abort();
}

#[tokio::test]
async fn a_sector_that_hangs_costs_no_other_sector_of_its_store() {
    let mut world = World::new().await;
    world.options.least_read_time = Duration::ZERO;
    world.hold(16, &[&[1, 2], &[3, 4, 5]]);
    world.bench.elsewhere.lock().extend([3, 4, 5]);
    world.bench.sleepy.lock().insert(3);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    // As the first probe of its store, in the list, as a probe of the store again, alone.
    for hung in 1..=4 {
        world.outlast(hung).await;
    }
    until("the rest is sent", async || world.chain.pending() == 1).await;
    world.chain.tick(1 + world.options.confidence);
    let done = task.await.unwrap().unwrap();
    assert_eq!(done.skipped[0].sectors, sectors(&[3]));
    world.check(&world.accepted()[0], &[1, 2, 4, 5]).await;
}

#[tokio::test]
async fn waiting_for_a_slot_counts_against_no_sector() {
    let mut world = World::new().await;
    world.options.least_read_time = Duration::ZERO;
    world.hold(16, &[&[1, 2, 3]]);
    let slots = Arc::new(Semaphore::new(0));
    *world.bench.queue.lock() = Some(slots.clone());
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    until("the reader queues", async || world.bench.started.load(SeqCst) == 1).await;
    for _ in world.epoch().await..duty.due.0 - 4 {
        world.chain.tick(1);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(world.bench.stopped.load(SeqCst), 0);
    slots.add_permits(1);
    until("the proof is sent", async || world.chain.pending() == 1).await;
    world.chain.tick(1 + world.options.confidence);
    assert_eq!(task.await.unwrap().unwrap().skipped, []);
    world.check(&world.accepted()[0], &[1, 2, 3]).await;
}

#[tokio::test]
async fn a_reader_that_cannot_be_killed_is_not_waited_for() {
    let mut world = World::new().await;
    (world.options.least_read_time, world.options.stop_time) = (Duration::ZERO, Duration::from_millis(1));
    world.hold(16, &[&[1, 2, 3]]);
    world.bench.frozen.lock().insert(2);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    for hung in 1..=2 {
        world.outlast(hung).await;
    }
    until("the rest is sent", async || world.chain.pending() == 1).await;
    world.chain.tick(1 + world.options.confidence);
    assert_eq!(task.await.unwrap().unwrap().skipped[0].sectors, sectors(&[2]));
    // When the duty is due neither.
    let mut late = World::new().await;
    late.options.stop_time = Duration::from_millis(1);
    late.hold(16, &[&[2]]);
    late.bench.frozen.lock().insert(2);
    let scheduler = late.scheduler().await;
    let duty = late.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    until("the reader hangs", async || late.bench.hung.load(SeqCst) == 1).await;
    late.tick_to(duty.due.0).await;
    assert_eq!(task.await.unwrap().unwrap_err().kind(), PoStErrorKind::Overdue);
}

#[tokio::test]
async fn a_partition_without_a_good_sector_is_left_out() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1, 2], &[3]]);
    world.bench.bad.lock().extend([1, 2]);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let done = scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    assert_eq!(done.skipped.len(), 1);
    assert_eq!(done.skipped[0].sectors, sectors(&[1, 2]));
    let post = world.check(&world.accepted()[0], &[3]).await;
    assert_eq!(post.partitions.iter().map(|p| p.index).collect::<Vec<_>>(), [PartitionIndex(1)]);
}

#[tokio::test]
async fn without_any_good_sector_nothing_is_sent() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1], &[2]]);
    world.bench.bad.lock().insert(1);
    world.bench.lost.lock().insert(2);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let done = scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    assert!(done.receipts.is_empty() && done.skipped.len() == 2, "{done:?}");
    assert!(world.chain.landed_calls().is_empty());
    // Nothing is held against them: once they read well, they are proven.
    world.bench.bad.lock().clear();
    scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    world.check(&world.accepted()[0], &[1]).await;
}

#[tokio::test]
async fn rubbish_from_a_child_is_the_childs_failure() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1, 2]]);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let cx = Context::detached();
    world.bench.forgetful.store(true, SeqCst);
    assert_eq!(scheduler.fulfil(&duty, &cx).await.unwrap_err().kind(), PoStErrorKind::Read);
    world.bench.forgetful.store(false, SeqCst);
    world.bench.lying.store(true, SeqCst);
    assert_eq!(scheduler.fulfil(&duty, &cx).await.unwrap_err().kind(), PoStErrorKind::BadProof);
    world.bench.lying.store(false, SeqCst);
    world.bench.failing_proofs.store(1, SeqCst);
    let err = scheduler.fulfil(&duty, &cx).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (PoStErrorKind::Prove, Recovery::RETRY));
    assert!(attempts(&scheduler).await.is_empty(), "only what verifies is recorded");
    scheduler.fulfil(&duty, &cx).await.unwrap();
    assert_eq!(world.chain.landed_calls().len(), 1);
}

#[tokio::test]
async fn a_message_without_gas_is_sent_again_with_the_same_proof() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1, 2]]);
    world.chain.next_exit_code(7);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let heard = Arc::new(Heard::default());
    let done = scheduler.fulfil(&duty, &Context::new(heard.clone())).await.unwrap();
    assert!(done.receipts.iter().all(|r| r.is_success()));
    assert_eq!(world.bench.proofs(), 1);
    let landed: Vec<_> = heard.0.lock().iter().filter_map(landed_with).collect();
    assert_eq!(landed, [7, 0]);
    let keys: Vec<_> = world.chain.landed_calls().into_iter().map(|c| c.key.0).collect();
    assert_eq!(keys, ["post/1000/940/16/0/1", "post/1000/940/16/0/2"]);
    world.check(&world.accepted()[0], &[1, 2]).await;
}

#[tokio::test]
async fn a_proof_that_the_actor_refuses_is_made_again_but_not_for_ever() {
    let mut world = World::new().await.landing_at_once();
    world.options.attempts = 3;
    world.hold(16, &[&[1, 2]]);
    (0..3).for_each(|_| world.chain.next_exit_code(16));
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let err = scheduler.fulfil(&duty, &Context::detached()).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (PoStErrorKind::Submit, Recovery::Park));
    assert_eq!((world.chain.landed_calls().len(), world.bench.proofs()), (3, 3));
}

#[tokio::test]
async fn what_was_proven_by_others_is_not_proven_again() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1], &[2]]);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    assert_eq!(duty.what, proof_of(&[(0, &[1]), (1, &[2])]));
    let state = world.state(16).await;
    world.chain.set_deadline(duty.deadline.index, DeadlineState { proven: vec![0], ..state.clone() });
    scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    world.check(&world.accepted()[0], &[2]).await;
    world.chain.set_deadline(duty.deadline.index, DeadlineState { proven: vec![0, 1], ..state });
    let again = scheduler.fulfil(&duty, &Context::detached()).await.unwrap();
    assert_eq!(again.receipts.len(), 1, "the one that was sent");
    assert_eq!(world.chain.landed_calls().len(), 1);
}

/// A duty whose proof is recorded while its deadline, number 17, is not open yet.
async fn proven_early(
    world: &World,
    scheduler: &Arc<WindowScheduler>,
    cx: &Context,
) -> (Duty, JoinHandle<Result<Fulfilled, PoStError>>) {
    world.hold(17, &[&[1, 2]]);
    world.tick_to(1002).await;
    let duty = world.duty(&**scheduler, true).await;
    assert_eq!(duty.deadline.open.0, 1020);
    let task = begin(scheduler, &duty, cx);
    until("the proof is recorded", async || !attempts(scheduler).await.is_empty()).await;
    (duty, task)
}

#[tokio::test]
async fn a_proof_is_made_before_its_deadline_opens_and_sent_after() {
    let world = World::new().await;
    let scheduler = world.scheduler().await;
    let (_, task) = proven_early(&world, &scheduler, &Context::detached()).await;
    world.tick_to(1019).await;
    assert_eq!((world.chain.pending(), world.chain.landed_calls().len()), (0, 0));
    world.tick_to(1020).await;
    until("it is sent", async || world.chain.pending() == 1).await;
    world.chain.tick(3);
    task.await.unwrap().unwrap();
    world.check(&world.accepted()[0], &[1, 2]).await;
    assert_eq!(world.bench.proofs(), 1);
}

#[tokio::test]
async fn a_changed_challenge_outdates_a_recorded_proof() {
    let world = World::new().await;
    let scheduler = world.scheduler().await;
    let (_, task) = proven_early(&world, &scheduler, &Context::detached()).await;
    world.chain.redraw();
    world.tick_to(1020).await;
    until("another is sent", async || world.chain.pending() == 1).await;
    world.chain.tick(3);
    task.await.unwrap().unwrap();
    let [landed] = &world.chain.landed_calls()[..] else { panic!("one message") };
    assert_eq!(landed.key.0, "post/1000/1000/17/0/2");
    world.check(landed, &[1, 2]).await;
    let first = attempts(&scheduler).await.pop().unwrap();
    assert!(matches!(first.end, Some(AttemptEnd::GivenUp { .. })) && first.call.is_none(), "{first:?}");
}

#[tokio::test]
async fn a_challenge_that_changes_under_a_sent_message_is_proven_again() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2]]);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    until("it is sent", async || world.chain.pending() == 1).await;
    world.chain.set_held(true);
    world.chain.redraw();
    world.chain.tick(1);
    until("another is sent", async || world.chain.pending() == 2).await;
    // The actor refuses the first: its commitment is not of this chain.
    world.chain.next_exit_code(16);
    world.chain.set_held(false);
    world.chain.tick(3);
    let done = task.await.unwrap().unwrap();
    assert!(done.receipts.iter().all(|r| r.is_success()));
    let [landed] = &world.accepted()[..] else { panic!("one is accepted") };
    world.check(landed, &[1, 2]).await;
}

#[tokio::test]
async fn a_message_that_does_not_land_in_time_is_overdue() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2]]);
    world.chain.set_held(true);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    until("it is sent", async || world.chain.pending() == 1).await;
    world.tick_to(1020).await;
    assert_eq!(task.await.unwrap().unwrap_err().kind(), PoStErrorKind::Overdue);
    assert_eq!(world.chain.pending(), 1, "and nothing more is sent");
}

#[tokio::test]
async fn a_prover_that_hangs_costs_a_part_of_the_time() {
    let mut world = World::new().await;
    world.options.least_read_time = Duration::ZERO;
    world.hold(16, &[&[1, 2]]);
    world.bench.hanging_proofs.store(2, SeqCst);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    for hung in 1..=2 {
        world.outlast(hung).await;
    }
    until("the proof is sent", async || world.chain.pending() == 1).await;
    assert!(world.epoch().await < duty.due.0);
    world.chain.tick(1 + world.options.confidence);
    assert_eq!(task.await.unwrap().unwrap().skipped, []);
    assert_eq!(world.bench.reads.lock().len(), 1, "what was read is proven again");
    world.check(&world.accepted()[0], &[1, 2]).await;
}

#[tokio::test]
async fn a_prover_that_hangs_is_stopped_when_the_duty_is_due() {
    let world = World::new().await;
    world.hold(16, &[&[1, 2]]);
    world.bench.hanging_proofs.store(1, SeqCst);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let task = begin(&scheduler, &duty, &Context::detached());
    until("the prover hangs", async || world.bench.hung.load(SeqCst) == 1).await;
    world.tick_to(1019).await;
    assert_eq!(task.await.unwrap().unwrap_err().kind(), PoStErrorKind::Overdue);
    assert_eq!(world.bench.stopped.load(SeqCst), 1);
    assert_eq!(world.chain.pending(), 0);
}

#[tokio::test]
async fn cancellation_ends_every_wait() {
    let world = World::new().await;
    let scheduler = world.scheduler().await;
    // Waiting for the deadline to open.
    let cx = Context::detached();
    let (duty, task) = proven_early(&world, &scheduler, &cx).await;
    cx.cancel.cancel();
    assert_eq!(task.await.unwrap().unwrap_err().kind(), PoStErrorKind::Cancelled);
    // Waiting for the message.
    world.tick_to(1020).await;
    let cx = Context::detached();
    let task = begin(&scheduler, &duty, &cx);
    until("it is sent", async || world.chain.pending() == 1).await;
    cx.cancel.cancel();
    assert_eq!(task.await.unwrap().unwrap_err().kind(), PoStErrorKind::Cancelled);
    assert_eq!(world.bench.proofs(), 1, "what is recorded is not made again");
    // Waiting for the pool.
    world.chain.tick(10);
    world.bench.hanging.store(true, SeqCst);
    world.hold(17, &[&[], &[7]]);
    let cx = Context::detached();
    let head = world.chain.head().await.unwrap();
    assert!(head.epoch < duty.due);
    let duty = world.duty(&*scheduler, true).await;
    let started = world.bench.started.load(SeqCst);
    let task = begin(&scheduler, &duty, &cx);
    until("the pool has it", async || world.bench.started.load(SeqCst) > started).await;
    cx.cancel.cancel();
    assert_eq!(task.await.unwrap().unwrap_err().kind(), PoStErrorKind::Cancelled);
    assert_eq!(world.bench.stopped.load(SeqCst), 1);
}

#[tokio::test]
async fn an_accepted_message_that_left_no_trace_is_not_believed() {
    let world = World::new().await.landing_at_once();
    world.hold(16, &[&[1, 2]]);
    let scheduler = world.scheduler().await;
    let duty = world.duty(&*scheduler, true).await;
    let cx = Context::detached();
    let done = scheduler.fulfil(&duty, &cx).await.unwrap();
    let state = world.state(16).await;
    world.chain.set_deadline(duty.deadline.index, DeadlineState { proven: Vec::new(), ..state.clone() });
    // The message stands, so another one would be refused: ask again later.
    assert_eq!(scheduler.fulfil(&duty, &cx).await.unwrap_err().kind(), PoStErrorKind::Submit);
    // A reorganisation took it back into the pool: it is waited for again.
    world.node.reverted.store(true, SeqCst);
    let task = begin(&scheduler, &duty, &cx);
    until("it counts as under way", async || attempts(&scheduler).await[0].end.is_none()).await;
    world.node.reverted.store(false, SeqCst);
    world.chain.set_deadline(duty.deadline.index, state);
    world.chain.tick(1);
    assert_eq!(task.await.unwrap().unwrap(), done);
    assert_eq!((world.chain.landed_calls().len(), world.bench.proofs()), (1, 1));
}
