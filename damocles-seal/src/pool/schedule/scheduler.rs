//! The state of a pool and what changes it.

use super::{
    fit::{Misfit, fits},
    health::{Health, Policy},
    line::{Line, Refusal},
    place::{Named, Phase, Place, Work},
    sections::Sections,
    stats::{KindStats, PoolStats},
    wait::Wait,
};
use crate::pool::{Backlog, Limits, PoolSpec, SlotSpec};
use damocles_core::{
    JobId, SectorId,
    pool::{Capacity, Job, Needs, PoolErrorKind, SlotReport, TaskKind},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// Kinds that go first: a missed deadline costs more than a late sector.
const URGENT: [&str; 3] = ["wdpost_read", "window_post", "winning_post"];
/// The kind that goes next: it ends what PC2, which uses the same cards, only begins.
const LAST_PROOF: &str = "c2";

/// A place in the line. Smaller is earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub(super) rank: u8,
    number: u64,
}

impl Ticket {
    /// Its number, unique in the pool.
    pub fn number(self) -> u64 {
        self.number
    }
}

/// A job that was given a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The job's ticket.
    pub ticket: Ticket,
    /// The number of the place.
    pub place: usize,
}

/// How a job left its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Done,
    /// With an error.
    Failed(PoolErrorKind),
    /// Nobody waits for it any more.
    Dropped,
}

/// A job that waits for a slot, or for what its slot claims on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingJob {
    /// The job.
    pub job: JobId,
    /// Its kind.
    pub kind: TaskKind,
    /// The sector that it is for.
    pub sector: Option<SectorId>,
    /// For how long it has waited.
    pub waited: Duration,
    /// Why no slot takes it.
    pub wait: Wait,
    /// The same in an operator's words.
    pub reason: String,
}

/// A place that is kept for a job from those behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    pub(super) place: usize,
    /// It is just being left for it.
    pub(super) freed: bool,
}

/// A job and where it stands in line.
#[derive(Clone, Debug)]
pub(super) struct InLine {
    pub(super) ticket: Ticket,
    pub(super) waiting: Waiting,
}

#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) named: Named,
    pub(super) needs: Needs,
    pub(super) since: Instant,
    /// How many later ones of its kind started while it could have.
    pub(super) overtaken: usize,
    /// How many from behind it, of whatever kind, took something that it needs.
    pub(super) passed: usize,
    /// The place that is kept for it from those behind.
    pub(super) keeps: Option<Keep>,
}

/// Everybody who waits, every place, and what keeps one from the other.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) places: Vec<Place>,
    pub(super) limits: Limits,
    pub(super) at_once: Option<usize>,
    pub(super) sections: Sections,
    pub(super) waiting: BTreeMap<Ticket, Waiting>,
    pub(super) last_start: BTreeMap<TaskKind, Instant>,
    pub(super) stats: PoolStats,
    next: u64,
}

impl Scheduler {
    /// The slots of a pool that passed [`PoolSpec::check`], with a place for each child.
    pub fn new(spec: &PoolSpec, now: Instant) -> Self {
        let place = |(slot, place): (usize, SlotSpec)| {
            let policy = Policy { rest: spec.rest, breaker: spec.breaker, auto_restart: place.auto_restart };
            let health = Health::new(policy);
            Place {
                spec: place,
                slot,
                work: Work::Nothing,
                pid: None,
                left: Vec::new(),
                health,
                starts: 0,
                elsewhere: false,
                since: now,
            }
        };
        let kinds = spec.slots.iter().flat_map(|slot| slot.kinds.iter().cloned());
        let stats = PoolStats { kinds: kinds.map(|kind| (kind, KindStats::default())).collect() };
        Self {
            places: spec.places().map(place).collect(),
            limits: spec.limits.clone(),
            at_once: spec.at_once,
            sections: Sections::new(spec),
            waiting: BTreeMap::new(),
            last_start: BTreeMap::new(),
            stats,
            next: 0,
        }
    }

    /// Puts a job at the end of its rank.
    pub fn push(&mut self, job: &Job, now: Instant) -> Ticket {
        self.next += 1;
        let rank = match job.kind.as_str() {
            kind if URGENT.contains(&kind) => 0,
            LAST_PROOF => 1,
            _ => 2,
        };
        let ticket = Ticket { rank, number: self.next };
        self.sections.queued(&job.kind, job.sector);
        let named = Named { job: job.id, kind: job.kind.clone(), sector: job.sector };
        let needs = job.needs.clone();
        let waiting = Waiting { named, needs, since: now, overtaken: 0, passed: 0, keeps: None };
        self.waiting.insert(ticket, waiting);
        ticket
    }

    /// Nobody waits for this one any more.
    pub fn remove(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Other limits from now on, under which the slots can work, and other numbers for the backlogs that there are. What
    /// runs goes on, also where there is more of it than may start now.
    pub fn limit(&mut self, limits: Limits, backlog: &BTreeMap<TaskKind, Backlog>) {
        self.limits = limits;
        self.sections.limit(backlog);
    }

    /// The sector has left for good, and makes room for others.
    pub fn forget(&mut self, sector: SectorId) {
        self.sections.forget(sector);
    }

    /// Hands out what is free, first in line first.
    pub fn grant(&mut self, now: Instant) -> Vec<Grant> {
        // One at a time: a grant changes what those ahead keep from those behind, in either way.
        std::iter::from_fn(|| self.grant_one(now)).collect()
    }

    fn grant_one(&mut self, now: Instant) -> Option<Grant> {
        let mut line = Line::default();
        for ticket in self.tickets() {
            let Some(waiting) = self.waiting.get(&ticket) else {
                self.reconsider(ticket, &mut line, now);
                continue;
            };
            match self.choose(waiting, &line, now) {
                Ok(place) => {
                    self.hand_over(ticket, place, now);
                    return Some(Grant { ticket, place });
                }
                Err(refusal) => self.stay(ticket, refusal, &mut line, now),
            }
        }
        None
    }

    /// Stays in line, with what those behind have to leave to it.
    fn stay(&mut self, ticket: Ticket, refusal: Refusal, line: &mut Line, now: Instant) {
        let keeps = self.keeps(ticket, refusal.short(), line, now);
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return };
        waiting.keeps = keeps;
        let Some(waiting) = self.waiting.get(&ticket) else { return };
        line.behind(waiting, refusal, self.capacity(&waiting.named.kind).total, now);
    }

    fn hand_over(&mut self, ticket: Ticket, index: usize, now: Instant) {
        let Some(kind) = self.waiting.get(&ticket).map(|waiting| waiting.named.kind.clone()) else { return };
        self.overtake(ticket, &kind, index, now);
        let (Some(waiting), Some(place)) = (self.waiting.remove(&ticket), self.places.get_mut(index)) else { return };
        let stats = self.stats.kinds.entry(kind).or_default();
        stats.starts += 1;
        stats.waited += now.saturating_duration_since(waiting.since);
        self.sections.granted(&waiting.named.kind, waiting.named.sector);
        let by = Some(waiting.named.clone());
        let from = Some(Box::new(InLine { ticket, waiting }));
        place.work = Work::Held { by, since: now, phase: Phase::Starting, from };
        place.since = now;
    }

    /// Takes a free place for something that is no job.
    pub fn take(&mut self, place: usize, now: Instant) -> bool {
        match self.places.get_mut(place).filter(|place| place.free()) {
            Some(place) => {
                place.work = Work::Held { by: None, since: now, phase: Phase::Starting, from: None };
                place.since = now;
                true
            }
            None => false,
        }
    }

    /// The places whose job uses this, with its kind.
    pub(in crate::pool) fn using(&self, uses: impl Fn(&SlotSpec) -> bool) -> Vec<(usize, TaskKind)> {
        let used = self.places.iter().enumerate().filter(|(_, place)| uses(&place.spec));
        used.filter_map(|(index, place)| Some((index, place.holder()?.kind.clone()))).collect()
    }

    /// The job in this place really begins.
    pub fn began(&mut self, place: usize, now: Instant) {
        self.enter(place, Phase::Working, now);
        if let Some(named) = self.places.get(place).and_then(Place::holder) {
            self.last_start.insert(named.kind.clone(), now);
        }
    }

    pub(super) fn enter(&mut self, place: usize, phase: Phase, now: Instant) {
        if let Some(place) = self.places.get_mut(place) {
            place.enter(phase, now);
        }
    }

    /// A job has left its place; a process that it left there has to end first if `process_has_to_end`. Whether the
    /// place is free now.
    pub fn release(&mut self, index: usize, verdict: Verdict, process_has_to_end: bool, now: Instant) -> bool {
        let Some(place) = self.places.get_mut(index) else { return true };
        let Work::Held { by, since, .. } = std::mem::replace(&mut place.work, Work::Nothing) else { return true };
        place.since = now;
        if let Some(named) = &by {
            let stats = self.stats.kinds.entry(named.kind.clone()).or_default();
            stats.worked += now.saturating_duration_since(since);
            match verdict {
                Verdict::Done => stats.done += 1,
                Verdict::Failed(kind) => stats.failed(kind),
                Verdict::Dropped => stats.dropped += 1,
            }
            self.sections.ended(&named.kind, named.sector, verdict == Verdict::Done);
        }
        if process_has_to_end && place.pid.is_some() {
            place.work = Work::Ending { of: by, since };
        }
        place.free()
    }

    /// The place's processor did its job well, as a process.
    pub fn succeeded(&mut self, place: usize) {
        if let Some(place) = self.places.get_mut(place) {
            place.health.succeeded();
        }
    }

    /// The place's processor failed as a process.
    pub fn failed(&mut self, place: usize, error: String, now: Instant) {
        if let Some(place) = self.places.get_mut(place) {
            place.health.failed(now, error);
        }
    }

    /// An operator lets the places of this slot, or one of them, work again at once. Whether there is such a slot.
    pub fn resume(&mut self, name: &str) -> bool {
        let slot = self.places.iter().find(|place| place.spec.name == name).map(|place| (place.slot, true));
        let part = |place: &Place| place.spec.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let whole = self.places.iter().find(|place| part(place)).map(|place| (place.slot, false));
        let Some((slot, one)) = slot.or(whole) else { return false };
        for place in self.places.iter_mut().filter(|place| place.slot == slot && (!one || place.spec.name == name)) {
            place.health.resume();
        }
        true
    }

    /// A process is about to be forked for this place.
    pub fn forking(&mut self, place: usize) {
        if let Some(place) = self.places.get_mut(place) {
            place.pid = Some(0);
        }
    }

    /// It was.
    pub fn forked(&mut self, place: usize, pid: u32) {
        if let Some(place) = self.places.get_mut(place) {
            place.pid = Some(pid);
            place.starts += 1;
        }
    }

    /// Nothing is left of the place's process, which is a surprise if it was not `wanted` and had no job. Whether the
    /// place is free now.
    pub fn ended(&mut self, place: usize, wanted: bool, now: Instant) -> bool {
        let Some(place) = self.places.get_mut(place) else { return true };
        place.pid = None;
        match place.work {
            Work::Nothing if !wanted => {
                place.health.died_idle();
                place.since = now;
            }
            Work::Ending { .. } => {
                place.work = Work::Nothing;
                place.since = now;
            }
            _ => {}
        }
        place.free()
    }

    /// The process that is to end in this place does not die: another may work in its place, if the slot leaves as many
    /// behind. The process, if it is left.
    pub fn leave_behind(&mut self, place: usize, now: Instant) -> Option<u32> {
        let place = self.places.get_mut(place)?;
        let stuck = matches!(place.work, Work::Ending { .. }) && place.left.len() < place.spec.leave_behind;
        let pid = place.pid.filter(|_| stuck)?;
        place.left.push(pid);
        (place.pid, place.work, place.since) = (None, Work::Nothing, now);
        Some(pid)
    }

    /// Nothing is left of a process. Whether it was one that had been left behind: then the place is another's by now.
    pub fn left_ended(&mut self, place: usize, pid: u32) -> bool {
        let Some(place) = self.places.get_mut(place) else { return false };
        let before = place.left.len();
        place.left.retain(|left| *left != pid);
        place.left.len() < before
    }

    /// Whether no job runs.
    pub fn jobless(&self) -> bool {
        !self.places.iter().any(Place::held)
    }

    /// Whether no job runs and no process is being ended.
    pub fn idle(&self) -> bool {
        self.places.iter().all(Place::free)
    }

    /// The places that take this kind.
    pub fn capacity(&self, kind: &TaskKind) -> Capacity {
        let suitable = || self.places.iter().filter(|place| place.spec.kinds.contains(kind));
        Capacity { total: suitable().count(), free: suitable().filter(|place| place.free()).count() }
    }

    /// What each slot for its kind lacks for this job; none if there is one that fits.
    pub fn misfits(&self, job: &Job) -> Option<Vec<Misfit>> {
        let of_kind = self.places.iter().filter(|place| place.spec.kinds.contains(&job.kind));
        of_kind.map(|place| fits(&job.kind, &job.needs, &place.spec).err()).collect()
    }

    /// Every place and what it does.
    pub fn reports(&self, now: Instant) -> Vec<SlotReport> {
        self.places.iter().map(|place| place.report(now)).collect()
    }

    /// What was done so far.
    pub fn stats(&self) -> PoolStats {
        let mut stats = self.stats.clone();
        for waiting in self.waiting.values() {
            stats.kinds.entry(waiting.named.kind.clone()).or_default().waiting += 1;
        }
        for named in self.places.iter().filter_map(Place::holder) {
            stats.kinds.entry(named.kind.clone()).or_default().running += 1;
        }
        stats
    }
}
