//! The rules one by one.

use super::*;
use crate::pool::{Backlog, CommandSpec, Limits, PoolSpec, SlotSpec};
use bytes::Bytes;
use damocles_core::{
    ActorId, ByteSize, GpuId, JobId, SectorId, SectorNumber,
    pool::{Capacity, Job, Needs, PoolErrorKind, SlotState, TaskKind},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn slot(name: &str, kinds: &[&str], locks: &[&str]) -> SlotSpec {
    let kinds = kinds.iter().map(|k| TaskKind::read(*k)).collect();
    let mut slot = SlotSpec::new(name, kinds, CommandSpec::new("true", [""; 0]));
    slot.locks = locks.iter().map(ToString::to_string).collect();
    slot
}

fn on_gpu(mut slot: SlotSpec, gpu: &str) -> SlotSpec {
    slot.placement.gpus.push(GpuId(gpu.to_owned()));
    slot
}

fn job(n: u128, kind: &str) -> Job {
    Job { id: JobId(n), kind: TaskKind::read(kind), sector: None, payload: Bytes::new(), needs: Needs::default() }
}

fn sector(n: u64) -> SectorId {
    SectorId { miner: ActorId(1000), number: SectorNumber(n) }
}

fn of_sector(n: u64, kind: &str) -> Job {
    Job { sector: Some(sector(n)), ..job(u128::from(n), kind) }
}

/// A scheduler and its time.
#[derive(Debug)]
struct World {
    scheduler: Scheduler,
    now: Instant,
}

impl World {
    fn new(spec: &PoolSpec) -> Self {
        spec.check().unwrap();
        let now = Instant::now();
        Self { scheduler: Scheduler::new(spec, now), now }
    }

    fn of(slots: &[SlotSpec]) -> Self {
        Self::new(&PoolSpec::new(slots.to_vec()))
    }

    fn push(&mut self, job: &Job) -> Ticket {
        self.scheduler.push(job, self.now)
    }

    /// Grants, and lets the granted begin at once. The places.
    fn grant(&mut self) -> Vec<usize> {
        let granted = self.scheduler.grant(self.now);
        for grant in &granted {
            self.scheduler.began(grant.place, self.now);
        }
        granted.into_iter().map(|grant| grant.place).collect()
    }

    fn done(&mut self, place: usize) {
        self.scheduler.release(place, Verdict::Done, false, self.now);
    }

    fn why(&self) -> Vec<String> {
        self.scheduler.explain(self.now).into_iter().map(|waiting| waiting.reason).collect()
    }
}

#[test]
fn first_come_first_served_and_proving_before_sealing() {
    let mut world = World::of(&[slot("a", &["pc1", "c2", "window_post"], &[])]);
    for (n, kind) in [(1, "pc1"), (2, "pc1"), (3, "c2"), (4, "window_post")] {
        world.push(&job(n, kind));
    }
    let mut order = Vec::new();
    while world.grant() == [0] {
        order.push(world.scheduler.reports(world.now)[0].job.unwrap().0);
        assert!(world.grant().is_empty(), "a slot is given once");
        world.done(0);
    }
    assert_eq!(order, [4, 3, 1, 2]);
}

#[test]
fn a_waiter_takes_any_suitable_slot_and_passes_those_that_cannot_go() {
    let mut world = World::of(&[slot("a", &["pc1"], &[]), slot("b", &["pc1", "pc2"], &[])]);
    for (n, kind) in [(1, "pc1"), (2, "pc1"), (3, "pc1"), (4, "pc2")] {
        world.push(&job(n, kind));
    }
    assert_eq!(world.grant(), [0, 1], "the slot that others can use too is left to them");
    world.now += SECOND;
    let one = format!("all slots for pc2 are busy (1), one by pc1 ({}) in slot b for 1.0s", JobId(2));
    assert_eq!(world.why()[1], one);
    world.done(0);
    assert_eq!(world.grant(), [0], "slot a does not take pc2");
    world.done(1);
    assert_eq!(world.grant(), [1]);
}

#[test]
fn limits_locks_and_staggering_hold_jobs_back() {
    let limits = Limits {
        concurrent: [(TaskKind::new("pc1"), 1)].into(),
        staggered: [(TaskKind::new("pc2"), SECOND)].into(),
        time: BTreeMap::new(),
        ext_locks: [("gpu".to_owned(), 1)].into(),
    };
    let mut spec = PoolSpec::new(vec![
        slot("a", &["pc1"], &[]),
        slot("b", &["pc1"], &[]),
        slot("c", &["pc2"], &[]),
        slot("d", &["pc2"], &[]),
        slot("e", &["c1"], &["gpu"]),
        slot("f", &["c1"], &["gpu"]),
    ]);
    spec.limits = limits;
    let mut world = World::new(&spec);
    for (n, kind) in [(1, "pc1"), (2, "pc1"), (3, "pc2"), (4, "pc2"), (5, "c1"), (6, "c1")] {
        world.push(&of_sector(n, kind));
    }
    assert_eq!(world.grant(), [0, 2, 4]);
    let reasons = [
        "as many pc1 run as are allowed at a time (1)",
        "starts of pc2 are kept apart, the next is in 1.0s",
        "the lock `gpu` is held by c1 of s-t01000-5 in slot e for 0.0ns",
    ];
    assert_eq!(world.why(), reasons);
    assert_eq!(world.scheduler.wakes_at(world.now), Some(world.now + SECOND));
    world.now += SECOND;
    assert_eq!(world.grant(), [3]);
    world.done(4);
    assert_eq!(world.grant(), [4], "the lock is free");
    spec.at_once = Some(1);
    let mut world = World::new(&spec);
    world.push(&job(1, "pc1"));
    world.push(&job(2, "pc2"));
    assert_eq!(world.grant(), [0]);
    assert_eq!(world.why(), ["as many jobs run as are allowed at a time (1)"]);
}

#[test]
fn starts_are_kept_apart_from_when_a_job_really_begins() {
    let mut spec = PoolSpec::new(vec![slot("a", &["pc1"], &[]), slot("b", &["pc1"], &[])]);
    spec.limits.staggered = [(TaskKind::new("pc1"), 10 * SECOND)].into();
    let mut world = World::new(&spec);
    world.push(&of_sector(1, "pc1"));
    world.push(&of_sector(2, "pc1"));
    assert_eq!(world.scheduler.grant(world.now).len(), 1);
    // Its child takes its time to get ready.
    world.now += 20 * SECOND;
    assert!(world.grant().is_empty());
    let reason = "starts of pc1 are kept apart, and one has not begun yet: pc1 of s-t01000-1 in slot a for 20.0s";
    assert_eq!(world.why(), [reason]);
    world.scheduler.began(0, world.now);
    world.now += 9 * SECOND;
    assert!(world.grant().is_empty());
    world.now += SECOND;
    assert_eq!(world.grant(), [1]);
}

#[test]
fn a_failed_slot_rests_longer_each_time_until_its_breaker_opens() {
    let mut world = World::of(&[slot("a", &["pc1"], &[])]);
    let mut rests = Vec::new();
    for _ in 0..6 {
        world.scheduler.failed(0, "exit 3".to_owned(), world.now);
        rests.push((world.scheduler.wakes_at(world.now).unwrap() - world.now).as_secs());
    }
    assert_eq!(rests, [1, 2, 4, 8, 600, 600]);
    world.push(&job(1, "pc1"));
    assert!(world.grant().is_empty());
    assert_eq!(world.why(), ["breaker of slot a open after 6 failures, next trial in 10m00s, last: exit 3"]);
    assert_eq!(world.scheduler.reports(world.now)[0].state, SlotState::Open);
    world.now += 600 * SECOND;
    assert_eq!(world.grant(), [0], "one trial");
    world.scheduler.failed(0, "exit 4".to_owned(), world.now);
    world.done(0);
    world.push(&job(2, "pc1"));
    assert!(world.grant().is_empty(), "the trial failed");
    assert!(world.scheduler.resume("a") && !world.scheduler.resume("b"));
    assert_eq!(world.grant(), [0], "an operator cuts the rest short");
    world.scheduler.succeeded(0);
    world.done(0);
    let report = &world.scheduler.reports(world.now)[0];
    assert_eq!((report.state, report.failures, report.last_error.as_deref()), (SlotState::Idle, 0, Some("exit 4")));
}

#[test]
fn a_slot_without_auto_restart_waits_for_its_operator() {
    let mut once = slot("a", &["pc1"], &[]);
    once.auto_restart = false;
    once.concurrent = 2;
    let mut world = World::of(&[once]);
    world.scheduler.failed(0, "exit 3".to_owned(), world.now);
    world.scheduler.forked(1, 77);
    world.scheduler.ended(1, false, world.now);
    world.push(&job(1, "pc1"));
    world.now += 10_000 * SECOND;
    assert!(world.grant().is_empty());
    assert_eq!(world.why(), ["slot a.0 failed and is not restarted by itself, resume it: exit 3"]);
    assert_eq!(world.scheduler.wakes_at(world.now), None);
    assert!(world.scheduler.resume("a.1"));
    assert_eq!(world.grant(), [1]);
    assert!(world.scheduler.resume("a"), "stands for all its children");
    world.push(&job(2, "pc1"));
    assert_eq!(world.grant(), [0]);
}

#[test]
fn a_slot_is_not_given_while_its_process_ends() {
    let mut world = World::of(&[on_gpu(slot("a", &["pc2"], &[]), "G0"), on_gpu(slot("b", &["c2"], &[]), "G0")]);
    world.push(&of_sector(1, "pc2"));
    assert_eq!(world.grant(), [0]);
    world.scheduler.forked(0, 77);
    assert!(!world.scheduler.release(0, Verdict::Failed(PoolErrorKind::Crashed), true, world.now));
    world.push(&job(2, "pc2"));
    world.push(&job(3, "c2"));
    world.now += 5 * SECOND;
    assert!(world.grant().is_empty());
    let gpu = "needs 1 GPU; G0 is held by pc2 of s-t01000-1 in slot a for 5.0s";
    assert_eq!(world.why(), [gpu, "the old process of slot a has been ending for 5.0s"]);
    assert_eq!(world.scheduler.capacity(&TaskKind::new("pc2")), Capacity { total: 1, free: 0 });
    assert!(world.scheduler.jobless() && !world.scheduler.idle());
    assert!(world.scheduler.ended(0, false, world.now));
    assert_eq!(world.grant(), [1], "C2 before PC2");
    let stats = &world.scheduler.stats().kinds[&TaskKind::new("pc2")];
    assert_eq!((stats.starts, stats.failures["crashed"], stats.waiting, stats.done), (1, 1, 1, 0));
}

#[test]
fn children_of_one_slot_share_its_card_until_somebody_ahead_wants_it() {
    let mut pc2 = on_gpu(slot("pc2", &["pc2"], &[]), "G0");
    pc2.concurrent = 2;
    let mut world = World::of(&[pc2, on_gpu(slot("c2", &["c2"], &[]), "G0")]);
    world.push(&of_sector(1, "pc2"));
    assert_eq!(world.grant(), [0]);
    world.push(&of_sector(2, "pc2"));
    assert_eq!(world.grant(), [1], "shared");
    world.done(0);
    world.push(&of_sector(3, "pc2"));
    world.push(&of_sector(4, "c2"));
    assert!(world.grant().is_empty());
    assert_eq!(world.why()[1], "G0 goes next to one ahead in line: c2 of s-t01000-4 for 0.0ns");
    world.done(1);
    assert_eq!(world.grant(), [2]);
    world.done(2);
    assert_eq!(world.grant(), [0]);
}

#[test]
fn a_job_takes_no_slot_whose_memory_it_overflows_and_is_overtaken_only_so_often() {
    let (small, large) = (ByteSize(64 << 30), ByteSize(128 << 30));
    let mut slots = [slot("large", &["pc1"], &[]), slot("small", &["pc1"], &[])];
    slots[0].placement.memory = Some(large);
    slots[1].placement.memory = Some(small);
    let mut world = World::of(&slots);
    let needs = |n: u64, memory| Job { needs: Needs::memory(memory), ..of_sector(n, "pc1") };
    let misfits = world.scheduler.misfits(&needs(1, ByteSize(256 << 30))).unwrap();
    assert_eq!(misfits[1].to_string(), "slot small may use 64GiB of memory, and the job needs 256GiB");
    world.push(&needs(1, large));
    world.push(&needs(2, large));
    assert_eq!(world.grant(), [0]);
    for n in 3..5 {
        world.push(&needs(n, small));
        assert_eq!(world.grant(), [1]);
        world.done(1);
    }
    world.push(&needs(5, small));
    assert!(world.grant().is_empty());
    assert!(world.why()[1].starts_with("one that came first was overtaken often enough: pc1 of s-t01000-2"));
    world.done(0);
    assert_eq!(world.grant(), [0, 1]);
}

#[test]
fn a_sector_waits_outside_while_the_end_of_its_section_cannot_follow() {
    let slots: Vec<SlotSpec> = ["x", "y", "z"].iter().map(|name| slot(name, &["pc1"], &[])).collect();
    let mut spec = PoolSpec::new(slots);
    spec.slots.push(slot("pc2", &["pc2"], &[]));
    spec.backlog = [(TaskKind::new("pc1"), Backlog { next: TaskKind::new("pc2"), most: 1 })].into();
    let mut world = World::new(&spec);
    for n in 1..4 {
        world.push(&of_sector(n, "pc1"));
    }
    assert_eq!(world.grant(), [0, 1]);
    let reason =
        "pc2 cannot follow: as many sectors as may (2) are between pc1 and the end of pc2: s-t01000-1, s-t01000-2";
    assert_eq!(world.why(), [reason]);
    // One that failed in its first stage leaves nothing behind; one that is through counts until the end of the other.
    world.scheduler.release(0, Verdict::Failed(PoolErrorKind::Failed), false, world.now);
    assert_eq!(world.grant(), [0]);
    world.done(1);
    world.push(&of_sector(4, "pc1"));
    world.push(&of_sector(2, "pc1"));
    assert_eq!(world.grant(), [1], "a sector that is inside is never held back");
    world.done(1);
    world.push(&of_sector(2, "pc2"));
    assert_eq!(world.grant(), [3]);
    world.done(3);
    assert_eq!(world.grant(), [1]);
    world.push(&of_sector(5, "pc1"));
    world.scheduler.failed(3, "exit 3".to_owned(), world.now);
    world.scheduler.forget(sector(4));
    assert_eq!(world.grant(), [2], "it rests but follows soon");
    for _ in 0..4 {
        world.scheduler.failed(3, "exit 3".to_owned(), world.now);
    }
    world.scheduler.forget(sector(3));
    world.push(&of_sector(6, "pc1"));
    assert!(world.grant().is_empty(), "its breaker is open: only the backlog of one is left");

    // Another process put these there: they count from when they ask for what comes next.
    let mut restarted = World::new(&spec);
    restarted.push(&of_sector(1, "pc2"));
    restarted.push(&of_sector(2, "pc2"));
    restarted.push(&of_sector(3, "pc1"));
    assert_eq!(restarted.grant(), [3]);
    restarted.scheduler.forget(sector(2));
    assert_eq!(restarted.grant(), [0]);
}

#[test]
fn a_process_that_does_not_die_is_left_behind_as_often_as_the_slot_says() {
    let mut patient = slot("transfer-0", &["transfer"], &[]);
    patient.leave_behind = 1;
    let mut world = World::of(&[patient]);
    let gets_stuck = |world: &mut World, pid: u32| {
        world.push(&job(u128::from(pid), "transfer"));
        assert_eq!(world.grant(), [0]);
        world.scheduler.forking(0);
        world.scheduler.forked(0, pid);
        assert!(!world.scheduler.release(0, Verdict::Failed(PoolErrorKind::Cancelled), true, world.now));
        world.scheduler.leave_behind(0, world.now)
    };
    assert_eq!(gets_stuck(&mut world, 70), Some(70));
    assert_eq!(gets_stuck(&mut world, 71), None, "one is enough");
    world.push(&job(9, "transfer"));
    assert!(world.grant().is_empty());
    // The first dies at last, which says nothing of the second.
    assert!(world.scheduler.left_ended(0, 70) && !world.scheduler.left_ended(0, 71));
    assert!(world.grant().is_empty());
    assert_eq!(world.scheduler.leave_behind(0, world.now), Some(71));
    assert_eq!(world.grant(), [0]);
}

#[test]
fn other_limits_hold_for_what_starts_from_now_on() {
    let mut spec = PoolSpec::new(["a", "b", "c"].iter().map(|name| slot(name, &["pc1"], &["disk"])).collect());
    spec.slots.push(slot("d", &["pc2"], &[]));
    spec.limits = Limits { ext_locks: [("disk".to_owned(), 2)].into(), ..Limits::default() };
    spec.backlog = [(TaskKind::new("pc1"), Backlog { next: TaskKind::new("pc2"), most: 9 })].into();
    let mut world = World::new(&spec);
    for n in 1..6 {
        world.push(&of_sector(n, "pc1"));
    }
    assert_eq!(world.grant(), [0, 1], "the lock is for two");
    // Less than run now: they go on, and none starts.
    let one = Limits { concurrent: [(TaskKind::new("pc1"), 1)].into(), ..spec.limits.clone() };
    world.scheduler.limit(one, &spec.backlog);
    assert!(world.grant().is_empty());
    assert_eq!(world.why()[0], "as many pc1 run as are allowed at a time (1)");
    world.done(0);
    assert!(world.grant().is_empty(), "one still runs");
    let apart = Limits {
        staggered: [(TaskKind::new("pc1"), 10 * SECOND)].into(),
        ext_locks: [("disk".to_owned(), 3)].into(),
        ..Limits::default()
    };
    world.scheduler.limit(apart.clone(), &spec.backlog);
    assert!(world.grant().is_empty(), "the last start was now, although nothing was kept apart then");
    world.now += 10 * SECOND;
    assert_eq!(world.grant().len(), 1);
    let full = [(TaskKind::new("pc1"), Backlog { next: TaskKind::new("pc2"), most: 0 })].into();
    world.scheduler.limit(Limits { staggered: BTreeMap::new(), ..apart }, &full);
    assert!(world.grant().is_empty());
    assert!(world.why()[0].starts_with("pc2 cannot follow: as many sectors as may (1)"), "{:?}", world.why());
}

#[test]
fn a_c2_goes_before_a_pc2_that_waits_for_another_program() {
    let mut world = World::of(&[on_gpu(slot("pc2", &["pc2"], &[]), "G0"), on_gpu(slot("c2", &["c2"], &[]), "G0")]);
    world.scheduler.elsewhere(0, true);
    world.scheduler.elsewhere(1, true);
    let pc2 = world.push(&of_sector(1, "pc2"));
    let granted = world.scheduler.grant(world.now);
    assert_eq!(granted, [Grant { ticket: pc2, place: 0 }]);
    world.scheduler.claiming(0, world.now);
    assert!(world.scheduler.recalled().is_empty(), "nobody else wants it");
    world.push(&of_sector(2, "c2"));
    world.push(&of_sector(3, "pc2"));
    assert!(world.scheduler.grant(world.now).is_empty(), "it has to leave first");
    assert_eq!(world.scheduler.recalled(), [0]);
    assert!(!world.scheduler.claimed(0, world.now), "too late");
    assert_eq!(world.scheduler.put_back(0, world.now), Some(pc2));
    assert_eq!(world.grant(), [1]);
    assert!(world.scheduler.recalled().is_empty());
    assert!(world.why()[0].contains("G0 is held by c2 of s-t01000-2"), "{:?}", world.why());
    world.done(1);
    assert_eq!(world.scheduler.grant(world.now), [Grant { ticket: pc2, place: 0 }], "where it stood");
    let stats = &world.scheduler.stats().kinds[&TaskKind::new("pc2")];
    assert_eq!((stats.starts, stats.running, stats.waiting), (1, 1, 1), "a start that came to nothing is none");
}

#[test]
fn a_job_that_waits_for_another_program_takes_any_slot_that_frees_and_keeps_nobody_from_one() {
    let on = |n: usize| on_gpu(slot(&format!("pc2-{n}"), &["pc2"], &[]), &format!("G{n}"));
    let mut spec = PoolSpec::new(vec![on(0), on(1), on(2)]);
    spec.limits.staggered = [(TaskKind::new("pc2"), 10 * SECOND)].into();
    let mut world = World::new(&spec);
    (0..3).for_each(|place| world.scheduler.elsewhere(place, true));
    let first = world.push(&of_sector(1, "pc2"));
    assert_eq!(world.scheduler.grant(world.now).len(), 1);
    world.scheduler.claiming(0, world.now);
    world.scheduler.elsewhere(1, false);
    assert!(world.scheduler.grant(world.now).is_empty());
    assert_eq!(world.scheduler.recalled(), [0], "another card is free");
    world.scheduler.put_back(0, world.now);
    assert_eq!(world.scheduler.grant(world.now), [Grant { ticket: first, place: 1 }]);
    // It waits again, and the next one need not wait for its start.
    world.scheduler.claiming(1, world.now);
    world.scheduler.elsewhere(1, true);
    world.scheduler.elsewhere(2, false);
    let second = world.push(&of_sector(2, "pc2"));
    world.scheduler.elsewhere(2, true);
    assert_eq!(world.scheduler.grant(world.now), [Grant { ticket: second, place: 0 }]);
    world.scheduler.claiming(0, world.now);
    assert!(world.scheduler.claimed(0, world.now));
    world.scheduler.began(0, world.now);
    // Two starts stay apart also when both cards come at a time.
    assert!(!world.scheduler.claimed(1, world.now));
    assert_eq!(world.scheduler.put_back(1, world.now), Some(first));
    assert!(world.grant().is_empty());
    world.now += 10 * SECOND;
    assert_eq!(world.grant().len(), 1);
}

#[test]
fn who_needs_two_things_is_passed_only_so_often() {
    let mut both = on_gpu(slot("c2", &["c2", "window_post"], &[]), "G0");
    both.placement.gpus.push(GpuId("G1".to_owned()));
    let cards = [both, on_gpu(slot("pc2-0", &["pc2"], &[]), "G0"), on_gpu(slot("pc2-1", &["pc2"], &[]), "G1")];
    let mut spec = PoolSpec::new(vec![
        slot("both", &["c2"], &["a", "b"]),
        slot("one", &["pc2"], &["a"]),
        slot("other", &["pc2"], &["b"]),
    ]);
    spec.limits.ext_locks = [("a".to_owned(), 1), ("b".to_owned(), 1)].into();
    let locks = "the lock `a` goes next to one ahead in line: c2 of s-t01000-9 for 0.0ns";
    let gpus = "G0 goes next to one ahead in line: c2 of s-t01000-9 for 0.0ns";
    for (spec, reason) in [(PoolSpec::new(cards.to_vec()), gpus), (spec, locks)] {
        let mut world = World::new(&spec);
        for n in 1..8 {
            world.push(&of_sector(n, "pc2"));
        }
        assert_eq!(world.grant(), [1, 2]);
        world.push(&of_sector(9, "c2"));
        for place in [1, 2] {
            world.done(place);
            assert_eq!(world.grant(), [place], "the other is not free");
        }
        world.done(1);
        assert!(world.grant().is_empty(), "twice is enough");
        assert_eq!(world.why()[1], reason);
        world.done(2);
        assert_eq!(world.grant(), [0]);
    }
    // A proof with a deadline is passed by nobody.
    let mut world = World::of(&cards);
    for n in 1..4 {
        world.push(&of_sector(n, "pc2"));
    }
    assert_eq!(world.grant(), [1, 2]);
    world.push(&of_sector(9, "window_post"));
    world.done(1);
    assert!(world.grant().is_empty());
    world.done(2);
    assert_eq!(world.grant(), [0]);
}
