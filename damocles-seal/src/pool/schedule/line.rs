//! What keeps a job from a place.

use super::{
    fit::fits,
    health::Bar,
    place::{Named, Place, Work},
    scheduler::{Keep, Scheduler, Ticket, Waiting, WaitingJob},
    sections::Section,
    wait::{Wait, Who},
};
use damocles_core::{ByteSize, GpuId, pool::TaskKind};
use std::{cmp::Reverse, collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// What those ahead in line take from those behind.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// By kind, whose turn it is.
    turn: BTreeMap<TaskKind, Who>,
    /// GPUs and who gets them next.
    promised: BTreeMap<GpuId, Who>,
    /// Places that somebody gets next with all that they need.
    pub(super) kept: Vec<(usize, Who)>,
}

/// Why somebody does not get a place now.
#[derive(Debug)]
pub(super) struct Refusal {
    wait: Box<Wait>,
    /// Whether a place is all that it waits for.
    admitted: bool,
    /// Whether it is its turn, too.
    short: bool,
    /// The GPUs of a free place that only GPUs keep it from.
    gpus: Vec<GpuId>,
}

impl Refusal {
    pub(super) fn short(&self) -> bool {
        self.short
    }
}

impl Line {
    /// Somebody stays in line who has `slots` slots for its kind.
    pub(super) fn behind(&mut self, waiting: &Waiting, refusal: Refusal, slots: usize, now: Instant) {
        let who = || waiting.named.who(None, waiting.since, now);
        if refusal.admitted && waiting.overtaken >= slots {
            self.turn.entry(waiting.named.kind.clone()).or_insert_with(who);
        }
        for gpu in refusal.gpus {
            self.promised.entry(gpu).or_insert_with(who);
        }
        self.keep(waiting, now);
    }

    /// What is kept for somebody is not for those behind.
    pub(super) fn keep(&mut self, waiting: &Waiting, now: Instant) {
        let Some(Keep { place, freed }) = waiting.keeps else { return };
        let who = waiting.named.who(None, waiting.since, now);
        if freed {
            // Nor what its kind is allowed of.
            self.turn.entry(waiting.named.kind.clone()).or_insert_with(|| who.clone());
        }
        self.kept.push((place, who));
    }
}

/// Reasons of places, the ones that say most first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    InUse,
    Resting,
    Busy,
    Out,
}

impl Scheduler {
    /// The place that a job gets, when those ahead of it have taken their part.
    pub(super) fn choose(&self, waiting: &Waiting, line: &Line, now: Instant) -> Result<usize, Refusal> {
        let refuse = |wait, admitted| Refusal { wait: Box::new(wait), admitted, short: false, gpus: Vec::new() };
        if let Some(wait) = self.barred(waiting, now) {
            return Err(refuse(wait, false));
        }
        let kind = &waiting.named.kind;
        if let Some(who) = line.turn.get(kind) {
            return Err(refuse(Wait::Turn { who: who.clone() }, true));
        }
        match self.limited(kind, now) {
            Some(wait) => Err(refuse(wait, true)),
            None => self.place_for(waiting, line, now),
        }
    }

    /// Why a job could not start even if every place were free.
    pub(super) fn barred(&self, waiting: &Waiting, now: Instant) -> Option<Wait> {
        let named = &waiting.named;
        if let Some(section) = self.sections.entered_by(&named.kind, named.sector) {
            let most = self.takes(section, now);
            if section.len() >= most {
                let (kind, next) = (section.kind.clone(), section.next.clone());
                return Some(Wait::Downstream { kind, next, most, sectors: section.sectors().collect() });
            }
        }
        // A slot that is out of service for long is no reason to hold back those who can use another.
        let mut fitting = self.fitting(waiting).map(|(_, place)| place);
        let out = |place: &Place| place.free() && !place.health.in_service(now);
        let first = fitting.next().filter(|place| out(place))?;
        fitting.all(out).then(|| rest_of(first, now)).flatten()
    }

    /// How many sectors a section takes.
    fn takes(&self, section: &Section, now: Instant) -> usize {
        let follows = |place: &&Place| place.spec.kinds.contains(&section.next) && place.health.in_service(now);
        self.places.iter().filter(follows).count() + section.most
    }

    /// What keeps a kind from starting, whatever the place.
    fn limited(&self, kind: &TaskKind, now: Instant) -> Option<Wait> {
        let holders = || self.places.iter().filter_map(Place::holder);
        if let Some(limit) = self.at_once.filter(|limit| holders().count() >= *limit) {
            return Some(Wait::AtOnce { limit });
        }
        let running = || holders().filter(|named| named.kind == *kind).count();
        if let Some(limit) = self.limits.concurrent.get(kind).filter(|limit| running() >= **limit) {
            return Some(Wait::Limit { kind: kind.clone(), limit: *limit });
        }
        self.apart(kind, now)
    }

    /// What keeps a kind from starting because another of it has just started.
    pub(super) fn apart(&self, kind: &TaskKind, now: Instant) -> Option<Wait> {
        let apart = self.limits.staggered.get(kind)?;
        let begins = |place: &&Place| place.begins(kind);
        if let Some(who) = self.places.iter().find(begins).and_then(|place| place.who(now)) {
            return Some(Wait::Beginning { who });
        }
        let rest = self.last_start.get(kind).and_then(|last| left(*last + *apart, now))?;
        Some(Wait::Staggered { kind: kind.clone(), rest })
    }

    pub(super) fn fitting<'a>(&'a self, waiting: &'a Waiting) -> impl Iterator<Item = (usize, &'a Place)> {
        let fits = |place: &Place| fits(&waiting.named.kind, &waiting.needs, &place.spec).is_ok();
        self.places.iter().enumerate().filter(move |(_, place)| fits(place))
    }

    fn place_for(&self, waiting: &Waiting, line: &Line, now: Instant) -> Result<usize, Refusal> {
        let mut best = None;
        let mut why = None;
        let mut gpus = Vec::new();
        for (index, place) in self.fitting(waiting) {
            match self.obstacle(index, place, line, now) {
                None => {
                    // One that others hold or that failed comes last; one that others cannot do with comes before one that they could use.
                    let memory = place.spec.placement.memory.unwrap_or(ByteSize(u64::MAX));
                    let poor = (place.elsewhere, place.health.failures() > 0);
                    let key = (poor, place.spec.kinds.len(), memory, place.pid.is_none(), index);
                    best = best.into_iter().chain([key]).min();
                }
                Some((weight, wait)) => {
                    if gpus.is_empty() && matches!(wait, Some(Wait::Gpu { .. })) {
                        gpus.clone_from(&place.spec.placement.gpus);
                    }
                    if why.as_ref().is_none_or(|(other, _)| weight < *other) {
                        why = Some((weight, wait));
                    }
                }
            }
        }
        if let Some((.., index)) = best {
            return Ok(index);
        }
        let wait = why.and_then(|(_, wait)| wait).unwrap_or_else(|| self.busy(waiting, now));
        Err(Refusal { wait: Box::new(wait), admitted: true, short: true, gpus })
    }

    fn busy(&self, waiting: &Waiting, now: Instant) -> Wait {
        let longest =
            self.fitting(waiting).filter_map(|(_, place)| place.who(now)).min_by_key(|who| Reverse(who.lasting));
        Wait::Busy { kind: waiting.named.kind.clone(), slots: self.fitting(waiting).count(), longest }
    }

    /// What is in the way of a place; that it has a job says nothing more.
    fn obstacle(&self, index: usize, place: &Place, line: &Line, now: Instant) -> Option<(Weight, Option<Wait>)> {
        match &place.work {
            Work::Held { .. } => return Some((Weight::Busy, None)),
            Work::Ending { since, .. } => {
                let (slot, lasting) = (place.spec.name.clone(), now.saturating_duration_since(*since));
                return Some((Weight::Resting, Some(Wait::Ending { slot, lasting })));
            }
            Work::Nothing => {}
        }
        if let Some(wait) = rest_of(place, now) {
            let weight = if matches!(wait, Wait::Resting { .. }) { Weight::Resting } else { Weight::Out };
            return Some((weight, Some(wait)));
        }
        let taken = self.in_use(place, line, now).or_else(|| self.kept(index, place, line));
        taken.map(|wait| (Weight::InUse, Some(wait)))
    }

    /// A lock or GPU of a place that is not to be had.
    fn in_use(&self, place: &Place, line: &Line, now: Instant) -> Option<Wait> {
        if let Some(lock) = place.spec.locks.iter().find(|lock| self.left_of(lock) == 0) {
            let users = self.places.iter().filter(|other| other.spec.locks.contains(lock));
            let who = users.filter_map(|other| other.who(now)).max_by_key(|who| who.lasting);
            return Some(Wait::Lock { lock: lock.clone(), who });
        }
        if let Some(gpu) = self.held_elsewhere(place).next() {
            let who = self.users_of(gpu).filter_map(|other| other.who(now)).max_by_key(|who| who.lasting);
            let needs = place.spec.placement.gpus.len();
            return Some(Wait::Gpu { needs, gpu: gpu.clone(), who });
        }
        let shared = place.spec.placement.gpus.iter().filter(|gpu| self.users_of(gpu).next().is_some());
        let mut promised = shared.filter_map(|gpu| Some((gpu, line.promised.get(gpu)?)));
        let (gpu, to) = promised.next()?;
        Some(Wait::Promised { what: gpu.to_string(), to: to.clone() })
    }

    /// The places whose job uses this GPU.
    fn users_of<'a>(&'a self, gpu: &'a GpuId) -> impl Iterator<Item = &'a Place> {
        self.places.iter().filter(move |place| place.user().is_some() && place.spec.placement.gpus.contains(gpu))
    }

    /// The GPUs of a place that another slot has.
    fn held_elsewhere<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a GpuId> {
        let gpus = place.spec.placement.gpus.iter();
        gpus.filter(|gpu| self.users_of(gpu).any(|user| user.slot != place.slot))
    }

    /// How many more may have this lock.
    pub(super) fn left_of(&self, lock: &String) -> usize {
        let uses = |place: &&Place| place.user().is_some() && place.spec.locks.contains(lock);
        let most = self.limits.ext_locks.get(lock).copied().unwrap_or(1);
        most.saturating_sub(self.places.iter().filter(uses).count())
    }

    /// Why everybody in line is there, first in line first.
    pub fn reasons(&self, now: Instant) -> Vec<(Ticket, Wait)> {
        let mut line = Line::default();
        let mut reasons = Vec::new();
        for ticket in self.tickets() {
            let Some(waiting) = self.waiting.get(&ticket) else {
                self.places.iter().filter(|place| place.claims_as(ticket)).filter_map(Place::claims).for_each(|job| {
                    line.keep(&job.waiting, now);
                });
                continue;
            };
            let wait = match self.choose(waiting, &line, now) {
                Ok(_) => Wait::Nothing,
                Err(refusal) => {
                    let wait = Wait::clone(&refusal.wait);
                    line.behind(waiting, refusal, self.capacity(&waiting.named.kind).total, now);
                    wait
                }
            };
            reasons.push((ticket, wait));
        }
        reasons
    }

    /// Everybody who waits, for a claim of its slot or in line, and why.
    pub fn explain(&self, now: Instant) -> Vec<WaitingJob> {
        let claims = self.places.iter().filter_map(|place| {
            let waiting = &place.claims()?.waiting;
            let (slot, lasting) = (place.spec.name.clone(), now.saturating_duration_since(place.since));
            let gpus = place.spec.placement.gpus.len();
            Some((&waiting.named, waiting.since, Wait::Claiming { slot, lasting, gpus, held: None }))
        });
        let in_line = self.reasons(now).into_iter().filter_map(|(ticket, wait)| {
            let waiting = self.waiting.get(&ticket)?;
            Some((&waiting.named, waiting.since, wait))
        });
        let job = |(named, since, wait): (&Named, Instant, Wait)| WaitingJob {
            job: named.job,
            kind: named.kind.clone(),
            sector: named.sector,
            waited: now.saturating_duration_since(since),
            reason: wait.to_string(),
            wait,
        };
        claims.chain(in_line).map(job).collect()
    }

    /// When something changes by time alone.
    pub fn wakes_at(&self, now: Instant) -> Option<Instant> {
        let opens = self.waiting.values().filter_map(|waiting| {
            let kind = &waiting.named.kind;
            Some(*self.last_start.get(kind)? + *self.limits.staggered.get(kind)?)
        });
        let rested = self.places.iter().filter_map(|place| place.health.wakes_at());
        opens.chain(rested).filter(|at| *at > now).min()
    }
}

/// What keeps a free place from work.
fn rest_of(place: &Place, now: Instant) -> Option<Wait> {
    let slot = place.spec.name.clone();
    let error = place.health.last_error().unwrap_or_default().to_owned();
    let left = |until| left(until, now).unwrap_or_default();
    Some(match place.health.bar(now)? {
        Bar::Rests { until } => Wait::Resting { slot, rest: left(until), error },
        Bar::Open { until } => Wait::Open { slot, failures: place.health.failures(), rest: left(until), error },
        Bar::Stopped => Wait::Stopped { slot, error },
    })
}

fn left(at: Instant, now: Instant) -> Option<Duration> {
    at.checked_duration_since(now).filter(|rest| !rest.is_zero())
}
