//! Who gets which slot: a plain function of who waits, what is free, and the time.

use super::spec::{Limits, SlotSpec};
use damocles_core::{
    JobId, SectorId,
    pool::{Capacity, Job, SlotReport, TaskKind},
};
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::time::Instant;

/// Kinds that go first: a missed deadline costs more than a late sector.
const URGENT: [&str; 3] = ["wdpost_read", "window_post", "winning_post"];

/// A place in the queue. Smaller is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    patience: u8,
    number: u64,
}

impl Ticket {
    /// Its number, unique in the queue.
    pub(super) fn number(self) -> u64 {
        self.number
    }
}

/// Why a job waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Busy { kind: TaskKind, slots: usize },
    Limit { kind: TaskKind, limit: usize },
    Staggered { kind: TaskKind, rest: Duration },
    Lock { lock: String },
    Resting { slot: String, rest: Duration },
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { kind, slots } => write!(f, "all slots for {kind} are busy ({slots})"),
            Self::Limit { kind, limit } => write!(f, "as many {kind} run as are allowed at a time ({limit})"),
            Self::Staggered { kind, rest } => write!(f, "starts of {kind} are kept apart, the next is in {rest:.1?}"),
            Self::Lock { lock } => write!(f, "the lock `{lock}` is held by another slot"),
            Self::Resting { slot, rest } => write!(f, "the processor of slot {slot} failed and rests for {rest:.1?}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) job: JobId,
    pub(super) kind: TaskKind,
    pub(super) sector: Option<SectorId>,
}

#[derive(Debug)]
struct Place {
    name: String,
    kinds: Vec<TaskKind>,
    locks: Vec<String>,
    holder: Option<Holder>,
    /// A process that has to end before the place can be given again.
    ending: bool,
    pid: Option<u32>,
    rests_until: Option<Instant>,
    failures: u32,
}

impl Place {
    fn free(&self) -> bool {
        self.holder.is_none() && !self.ending
    }
}

/// The queue and the slots.
#[derive(Debug)]
pub(super) struct Queue {
    places: Vec<Place>,
    limits: Limits,
    rest: Duration,
    waiting: BTreeMap<Ticket, Holder>,
    last_start: BTreeMap<TaskKind, Instant>,
    next: u64,
}

impl Queue {
    pub(super) fn new(slots: &[SlotSpec], limits: Limits, rest: Duration) -> Self {
        let place = |slot: &SlotSpec| Place {
            name: slot.name.clone(),
            kinds: slot.kinds.clone(),
            locks: slot.locks.clone(),
            holder: None,
            ending: false,
            pid: None,
            rests_until: None,
            failures: 0,
        };
        let places = slots.iter().map(place).collect();
        Self { places, limits, rest, waiting: BTreeMap::new(), last_start: BTreeMap::new(), next: 0 }
    }

    pub(super) fn push(&mut self, job: &Job) -> Ticket {
        self.next += 1;
        let patience = u8::from(!URGENT.contains(&job.kind.as_str()));
        let ticket = Ticket { patience, number: self.next };
        self.waiting.insert(ticket, Holder { job: job.id, kind: job.kind.clone(), sector: job.sector });
        ticket
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Everybody who waits, first in line first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Holder> {
        self.waiting.values()
    }

    /// Hands out what is free, first in line first.
    pub(super) fn grant(&mut self, now: Instant) -> Vec<(Ticket, usize)> {
        let tickets: Vec<Ticket> = self.waiting.keys().copied().collect();
        let mut granted = Vec::new();
        for ticket in tickets {
            let Some(kind) = self.waiting.get(&ticket).map(|holder| holder.kind.clone()) else { continue };
            let Ok(index) = self.place_for(&kind, now) else { continue };
            let holder = self.waiting.remove(&ticket);
            if let Some(place) = self.places.get_mut(index) {
                place.holder = holder;
                self.last_start.insert(kind, now);
                granted.push((ticket, index));
            }
        }
        granted
    }

    /// Takes a free slot for something that is no job.
    pub(super) fn take(&mut self, index: usize) -> bool {
        let nothing = || Holder { job: JobId(0), kind: TaskKind::new("start"), sector: None };
        match self.places.get_mut(index).filter(|place| place.free()) {
            Some(place) => {
                place.holder = Some(nothing());
                true
            }
            None => false,
        }
    }

    /// Why a job of this kind would have to wait; none if it would not.
    pub(super) fn why(&self, kind: &TaskKind, now: Instant) -> Option<Wait> {
        self.place_for(kind, now).err()
    }

    fn place_for(&self, kind: &TaskKind, now: Instant) -> Result<usize, Wait> {
        if let Some(limit) = self.limits.concurrent.get(kind)
            && self.holders().filter(|holder| holder.kind == *kind).count() >= *limit
        {
            return Err(Wait::Limit { kind: kind.clone(), limit: *limit });
        }
        if let Some(rest) = self.opens(kind).and_then(|at| left(at, now)) {
            return Err(Wait::Staggered { kind: kind.clone(), rest });
        }
        let suitable = || self.places.iter().enumerate().filter(|(_, place)| place.kinds.contains(kind));
        let mut why = Wait::Busy { kind: kind.clone(), slots: suitable().count() };
        for (index, place) in suitable().filter(|(_, place)| place.free()) {
            if let Some(rest) = place.rests_until.and_then(|until| left(until, now)) {
                why = Wait::Resting { slot: place.name.clone(), rest };
            } else if let Some(lock) = place.locks.iter().find(|lock| !self.has(lock)) {
                why = Wait::Lock { lock: lock.clone() };
            } else {
                return Ok(index);
            }
        }
        Err(why)
    }

    /// When something changes by time alone.
    pub(super) fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let opens = self.waiting.values().filter_map(|holder| self.opens(&holder.kind));
        let rested = self.places.iter().filter_map(|place| place.rests_until);
        opens.chain(rested).filter(|at| *at > now).min()
    }

    fn opens(&self, kind: &TaskKind) -> Option<Instant> {
        let apart = self.limits.staggered.get(kind)?;
        self.last_start.get(kind).map(|last| *last + *apart)
    }

    fn has(&self, lock: &String) -> bool {
        let used = self.places.iter().filter(|p| !p.free() && p.locks.contains(lock)).count();
        used < self.limits.ext_locks.get(lock).copied().unwrap_or(1)
    }

    fn holders(&self) -> impl Iterator<Item = &Holder> {
        self.places.iter().filter_map(|place| place.holder.as_ref())
    }

    /// A job has left its slot; a process that it left there has to end first.
    pub(super) fn release(&mut self, index: usize, process_has_to_end: bool) {
        if let Some(place) = self.places.get_mut(index) {
            place.holder = None;
            place.ending = process_has_to_end && place.pid.is_some();
        }
    }

    /// The slot's processor did its job well.
    pub(super) fn succeeded(&mut self, index: usize) {
        if let Some(place) = self.places.get_mut(index) {
            place.failures = 0;
            place.rests_until = None;
        }
    }

    /// The slot's processor failed as a process: it rests before it is started again.
    pub(super) fn failed(&mut self, index: usize, now: Instant) {
        let rest = self.rest;
        if let Some(place) = self.places.get_mut(index) {
            place.rests_until = Some(now + rest * (1 << place.failures.min(6)));
            place.failures = place.failures.saturating_add(1);
        }
    }

    /// A process is about to be started, or its number is known.
    pub(super) fn started(&mut self, index: usize, pid: u32) {
        if let Some(place) = self.places.get_mut(index) {
            place.pid = Some(pid);
        }
    }

    /// Nothing is left of the slot's process.
    pub(super) fn ended(&mut self, index: usize) {
        if let Some(place) = self.places.get_mut(index) {
            place.pid = None;
            place.ending = false;
        }
    }

    /// Whether no job runs.
    pub(super) fn jobless(&self) -> bool {
        self.holders().next().is_none()
    }

    /// Whether no job runs and no process is being ended.
    pub(super) fn idle(&self) -> bool {
        self.places.iter().all(Place::free)
    }

    pub(super) fn capacity(&self, kind: &TaskKind) -> Capacity {
        let suitable = || self.places.iter().filter(|place| place.kinds.contains(kind));
        Capacity { total: suitable().count(), free: suitable().filter(|place| place.free()).count() }
    }

    pub(super) fn reports(&self) -> Vec<SlotReport> {
        let report = |place: &Place| SlotReport {
            name: place.name.clone(),
            kinds: place.kinds.clone(),
            // Zero stands for a process that is just being forked.
            pid: place.pid.filter(|pid| *pid != 0),
            job: place.holder.as_ref().map(|holder| holder.job),
            sector: place.holder.as_ref().and_then(|holder| holder.sector),
        };
        self.places.iter().map(report).collect()
    }
}

fn left(at: Instant, now: Instant) -> Option<Duration> {
    at.checked_duration_since(now).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::CommandSpec;
    use bytes::Bytes;

    fn slot(name: &str, kinds: &[&str], locks: &[&str]) -> SlotSpec {
        let kinds = kinds.iter().map(|k| TaskKind::read(*k)).collect();
        let mut slot = SlotSpec::new(name, kinds, CommandSpec::new("true", [""; 0]));
        slot.locks = locks.iter().map(ToString::to_string).collect();
        slot
    }

    fn job(n: u128, kind: &str) -> Job {
        Job { id: JobId(n), kind: TaskKind::read(kind), sector: None, payload: Bytes::new() }
    }

    fn queue(slots: &[SlotSpec], limits: Limits) -> Queue {
        Queue::new(slots, limits, Duration::from_secs(1))
    }

    #[test]
    fn first_come_first_served_and_proving_before_sealing() {
        let now = Instant::now();
        let mut q = queue(&[slot("a", &["pc1", "window_post"], &[])], Limits::default());
        let tickets = [job(1, "pc1"), job(2, "pc1"), job(3, "window_post")].map(|j| q.push(&j));
        let mut order = Vec::new();
        while let [(ticket, 0)] = q.grant(now)[..] {
            order.push(ticket);
            assert!(q.grant(now).is_empty(), "a slot is given once");
            q.release(0, false);
        }
        assert_eq!(order, [tickets[2], tickets[0], tickets[1]]);
    }

    #[test]
    fn a_waiter_takes_any_suitable_slot_and_passes_those_that_cannot_go() {
        let now = Instant::now();
        let mut q = queue(&[slot("a", &["pc1"], &[]), slot("b", &["pc1", "c2"], &[])], Limits::default());
        let [one, two, blocked, c2] = [job(1, "pc1"), job(2, "pc1"), job(3, "pc1"), job(4, "c2")].map(|j| q.push(&j));
        assert_eq!(q.grant(now), [(one, 0), (two, 1)]);
        assert_eq!(q.why(&TaskKind::new("c2"), now), Some(Wait::Busy { kind: TaskKind::new("c2"), slots: 1 }));
        q.release(0, false);
        assert_eq!(q.grant(now), [(blocked, 0)], "slot a does not take c2");
        q.release(1, false);
        assert_eq!(q.grant(now), [(c2, 1)]);
    }

    #[test]
    fn limits_locks_and_staggering_hold_jobs_back() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let limits = Limits {
            concurrent: [(TaskKind::new("pc1"), 1)].into(),
            staggered: [(TaskKind::new("pc2"), second)].into(),
            time: BTreeMap::new(),
            ext_locks: [("gpu".to_owned(), 1)].into(),
        };
        let slots = [
            slot("a", &["pc1"], &[]),
            slot("b", &["pc1"], &[]),
            slot("c", &["pc2"], &[]),
            slot("d", &["pc2"], &[]),
            slot("e", &["c2"], &["gpu"]),
            slot("f", &["c2"], &["gpu"]),
        ];
        let mut q = queue(&slots, limits);
        for (n, kind) in [(1, "pc1"), (2, "pc1"), (3, "pc2"), (4, "pc2"), (5, "c2"), (6, "c2")] {
            q.push(&job(n, kind));
        }
        let granted: Vec<usize> = q.grant(now).into_iter().map(|(_, slot)| slot).collect();
        assert_eq!(granted, [0, 2, 4]);
        let why = |kind| q.why(&TaskKind::new(kind), now).unwrap().to_string();
        assert_eq!(why("pc1"), "as many pc1 run as are allowed at a time (1)");
        assert_eq!(why("pc2"), "starts of pc2 are kept apart, the next is in 1.0s");
        assert_eq!(why("c2"), "the lock `gpu` is held by another slot");
        assert_eq!(q.wakes_at(now), Some(now + second));
        let granted: Vec<usize> = q.grant(now + second).into_iter().map(|(_, slot)| slot).collect();
        assert_eq!(granted, [3]);
        q.release(4, false);
        assert_eq!(q.grant(now + second).len(), 1, "the lock is free");
    }

    #[test]
    fn a_failed_slot_rests_longer_each_time() {
        let now = Instant::now();
        let mut q = queue(&[slot("a", &["pc1"], &[])], Limits::default());
        let mut rests = Vec::new();
        for _ in 0..9 {
            q.failed(0, now);
            rests.push((q.wakes_at(now).unwrap() - now).as_secs());
        }
        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
        q.succeeded(0);
        assert_eq!(q.why(&TaskKind::new("pc1"), now), None);
    }

    #[test]
    fn a_slot_is_not_given_while_its_process_ends() {
        let now = Instant::now();
        let mut q = queue(&[slot("a", &["pc1"], &[])], Limits::default());
        q.push(&job(1, "pc1"));
        assert_eq!(q.grant(now).len(), 1);
        q.started(0, 77);
        q.release(0, true);
        q.push(&job(2, "pc1"));
        assert_eq!(q.grant(now), []);
        assert_eq!(q.capacity(&TaskKind::new("pc1")), Capacity { total: 1, free: 0 });
        assert!(q.jobless() && !q.idle());
        q.ended(0);
        assert_eq!(q.grant(now).len(), 1);
    }
}
