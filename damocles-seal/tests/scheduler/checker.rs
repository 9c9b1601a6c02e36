//! The rules of a pool, judged over what happened. Written from the rules and not from the scheduler: it knows only the
//! configuration and the trace.

use crate::drive::{Event, Trace};
use damocles_core::pool::TaskKind;
use damocles_seal::pool::PoolSpec;
use std::collections::{BTreeMap, BTreeSet};

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// A job got a place that cannot do it, or that is not free.
    Fit,
    Lock,
    Gpu,
    Limit,
    Stagger,
    Downstream,
    /// A place whose process failed was used too early.
    Health,
    /// Somebody ahead in line could have gone.
    Order,
    /// More later arrivals of a kind started before a job than there are places for the kind.
    Overtaken,
    /// A job that could go waits.
    Idle,
}

#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    #[expect(dead_code, reason = "printed when a test fails")]
    at: (u64, String),
}

struct Place {
    slot: usize,
    name: String,
    kinds: BTreeSet<String>,
    locks: BTreeSet<String>,
    gpus: BTreeSet<String>,
    memory: u64,
    auto_restart: bool,
    now: Now,
    failures: u32,
    rests_until: u64,
    /// The rest is the long one.
    open: bool,
    stopped: bool,
}

enum Now {
    Free,
    Held { job: Job, begun: bool },
    Ending,
}

#[derive(Clone)]
struct Job {
    ticket: u64,
    rank: u8,
    kind: String,
    sector: Option<u64>,
    memory: u64,
    overtaken: usize,
}

struct Section {
    first: String,
    last: String,
    most: usize,
    /// The sectors in it; whether the first stage is behind them.
    inside: BTreeMap<u64, bool>,
}

struct Judge<'a> {
    spec: &'a PoolSpec,
    time: u64,
    places: Vec<Place>,
    /// In the order of the line.
    line: Vec<Job>,
    begun: BTreeMap<String, u64>,
    sections: Vec<Section>,
}

/// Goes through a day.
pub(crate) fn check(spec: &PoolSpec, trace: &Trace) -> Result<(), Broken> {
    let mut judge = Judge::new(spec);
    for (time, event) in &trace.events {
        judge.time = *time;
        judge.see(event).map_err(|rule| Broken { rule, at: (*time, format!("{event:?}")) })?;
    }
    Ok(())
}

fn stage(kind: &str) -> Option<usize> {
    ["add_pieces", "tree_d", "pc1", "pc2", "c1", "c2", "transfer"].iter().position(|stage| *stage == kind)
}

impl<'a> Judge<'a> {
    fn new(spec: &'a PoolSpec) -> Self {
        let mut places = Vec::new();
        for (slot, of) in spec.slots.iter().enumerate() {
            for _ in 0..of.concurrent {
                places.push(Place {
                    slot,
                    name: of.name.clone(),
                    kinds: of.kinds.iter().map(ToString::to_string).collect(),
                    locks: of.locks.iter().cloned().collect(),
                    gpus: of.placement.gpus.iter().map(ToString::to_string).collect(),
                    memory: of.placement.memory.map_or(u64::MAX, |memory| memory.0),
                    auto_restart: of.auto_restart,
                    now: Now::Free,
                    failures: 0,
                    rests_until: 0,
                    open: false,
                    stopped: false,
                });
            }
        }
        let section = |(first, backlog): (&TaskKind, &damocles_seal::pool::Backlog)| Section {
            first: first.to_string(),
            last: backlog.next.to_string(),
            most: backlog.most,
            inside: BTreeMap::new(),
        };
        let sections = spec.backlog.iter().map(section).collect();
        Self { spec, time: 0, places, line: Vec::new(), begun: BTreeMap::new(), sections }
    }

    fn see(&mut self, event: &Event) -> Result<(), Rule> {
        match event {
            Event::Push { ticket, kind, sector, memory } => self.push(*ticket, kind, *sector, memory.unwrap_or(0)),
            Event::Leave { ticket } => self.line.retain(|job| job.ticket != *ticket),
            Event::Grant { ticket, place } => return self.grant(*ticket, *place),
            Event::Settled => {
                return if self.line.iter().any(|job| self.could_go(job)) { Err(Rule::Idle) } else { Ok(()) };
            }
            Event::Began { place } => return self.began(*place),
            Event::Release { place, done, ends } => self.release(*place, *done, *ends),
            Event::Ended { place } => self.places[*place].now = Now::Free,
            Event::Failed { place } => self.failed(*place),
            Event::Succeeded { place } => {
                let place = &mut self.places[*place];
                (place.failures, place.rests_until, place.open, place.stopped) = (0, 0, false, false);
            }
            Event::Forget { sector } => self.sections.iter_mut().for_each(|section| {
                section.inside.remove(sector);
            }),
            Event::Resume { slot } => {
                for place in self.places.iter_mut().filter(|place| place.name == *slot) {
                    (place.failures, place.rests_until, place.open, place.stopped) = (0, 0, false, false);
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, ticket: u64, kind: &str, sector: Option<u64>, memory: u64) {
        let rank = match kind {
            "wdpost_read" | "window_post" | "winning_post" => 0,
            "c2" => 1,
            _ => 2,
        };
        self.line.push(Job { ticket, rank, kind: kind.to_owned(), sector, memory, overtaken: 0 });
        self.line.sort_by_key(|job| (job.rank, job.ticket));
        let (Some(sector), Some(at)) = (sector, stage(kind)) else { return };
        for section in &mut self.sections {
            if stage(&section.first) < Some(at) && Some(at) <= stage(&section.last) {
                section.inside.insert(sector, true);
            } else if stage(&section.last) < Some(at) {
                section.inside.remove(&sector);
            }
        }
    }

    fn grant(&mut self, ticket: u64, index: usize) -> Result<(), Rule> {
        let job = self.line.iter().find(|job| job.ticket == ticket).expect("granted jobs are in line").clone();
        let ahead = |other: &&Job| (other.rank, other.ticket) < (job.rank, job.ticket);
        if self.line.iter().filter(ahead).any(|other| self.could_go(other)) {
            return Err(Rule::Order);
        }
        self.fits(&job, index)?;
        self.limits(&job)?;
        if !self.has_way(&job) {
            return Err(Rule::Downstream);
        }
        self.free_of_others(index)?;
        if self.healed(&self.places[index]) { Ok(()) } else { Err(Rule::Health) }?;
        if self.starves_one_ahead(&job, index) {
            return Err(Rule::Gpu);
        }
        let count = self.places_for(&job.kind);
        let overtaken: Vec<u64> = self
            .line
            .iter()
            .filter(|other| other.kind == job.kind && other.ticket < job.ticket && self.may_ever_go(other))
            .map(|other| other.ticket)
            .collect();
        for other in self.line.iter_mut().filter(|other| overtaken.contains(&other.ticket)) {
            other.overtaken += 1;
            if other.overtaken > count {
                return Err(Rule::Overtaken);
            }
        }
        self.line.retain(|other| other.ticket != ticket);
        if let Some(sector) = job.sector {
            for section in self.sections.iter_mut().filter(|section| section.first == job.kind) {
                section.inside.entry(sector).or_insert(false);
            }
        }
        self.places[index].now = Now::Held { job, begun: false };
        Ok(())
    }

    fn began(&mut self, index: usize) -> Result<(), Rule> {
        let Now::Held { job, begun } = &mut self.places[index].now else { return Err(Rule::Fit) };
        *begun = true;
        let kind = job.kind.clone();
        let last = self.begun.insert(kind.clone(), self.time);
        match (self.spec.limits.staggered.get(&TaskKind::read(kind)), last) {
            (Some(gap), Some(last)) if self.time - last < gap.as_secs() => Err(Rule::Stagger),
            _ => Ok(()),
        }
    }

    fn release(&mut self, index: usize, done: bool, ends: bool) {
        let next = if ends { Now::Ending } else { Now::Free };
        let Now::Held { job, .. } = std::mem::replace(&mut self.places[index].now, next) else { return };
        let Some(sector) = job.sector else { return };
        for section in &mut self.sections {
            if section.first == job.kind {
                match section.inside.get(&sector) {
                    Some(_) if done => section.inside.insert(sector, true),
                    Some(false) => section.inside.remove(&sector),
                    _ => None,
                };
            }
            if section.last == job.kind && done {
                section.inside.remove(&sector);
            }
        }
    }

    fn failed(&mut self, index: usize) {
        let (rest, breaker, time) = (self.spec.rest.as_secs(), self.spec.breaker, self.time);
        let place = &mut self.places[index];
        place.failures += 1;
        place.open = place.failures >= breaker.failures;
        let doubled = rest * 2u64.pow((place.failures - 1).min(6));
        place.rests_until = time + if place.open { breaker.rest.as_secs() } else { doubled };
        place.stopped = !place.auto_restart;
    }

    fn healed(&self, place: &Place) -> bool {
        !place.stopped && place.rests_until <= self.time
    }

    fn places_for(&self, kind: &str) -> usize {
        self.places.iter().filter(|place| place.kinds.contains(kind)).count()
    }

    fn fits(&self, job: &Job, index: usize) -> Result<(), Rule> {
        let place = &self.places[index];
        let fits = place.kinds.contains(&job.kind) && job.memory <= place.memory && matches!(place.now, Now::Free);
        if fits { Ok(()) } else { Err(Rule::Fit) }
    }

    fn running(&self) -> impl Iterator<Item = (&Job, bool)> {
        self.places.iter().filter_map(|place| match &place.now {
            Now::Held { job, begun } => Some((job, *begun)),
            _ => None,
        })
    }

    fn limits(&self, job: &Job) -> Result<(), Rule> {
        let kind = TaskKind::read(job.kind.clone());
        let of_kind = || self.running().filter(|(other, _)| other.kind == job.kind);
        if self.spec.at_once.is_some_and(|most| self.running().count() >= most)
            || self.spec.limits.concurrent.get(&kind).is_some_and(|most| of_kind().count() >= *most)
        {
            return Err(Rule::Limit);
        }
        let Some(gap) = self.spec.limits.staggered.get(&kind) else { return Ok(()) };
        let early = self.begun.get(&job.kind).is_some_and(|last| self.time - last < gap.as_secs());
        if early || of_kind().any(|(_, begun)| !begun) { Err(Rule::Stagger) } else { Ok(()) }
    }

    /// Whether what comes after it in the plan can follow.
    fn has_way(&self, job: &Job) -> bool {
        let Some(sector) = job.sector else { return true };
        let Some(section) = self.sections.iter().find(|section| section.first == job.kind) else { return true };
        let in_service = |place: &&Place| {
            place.kinds.contains(&section.last) && !place.stopped && !(place.open && place.rests_until > self.time)
        };
        let inside = |other: &Section| stage(&other.first) >= stage(&job.kind) && other.inside.contains_key(&sector);
        self.sections.iter().any(inside)
            || section.inside.len() < section.most + self.places.iter().filter(in_service).count()
    }

    /// Whether a place is all that a job waits for, and there is one that will be free some day soon.
    fn may_ever_go(&self, job: &Job) -> bool {
        let fitting = self.places.iter().filter(|p| p.kinds.contains(&job.kind) && job.memory <= p.memory);
        let out = |place: &Place| {
            matches!(place.now, Now::Free) && (place.stopped || place.open && place.rests_until > self.time)
        };
        self.has_way(job) && !fitting.into_iter().all(out)
    }

    /// Whether a place has its locks and its GPUs.
    fn free_of_others(&self, index: usize) -> Result<(), Rule> {
        let place = &self.places[index];
        let users = || self.places.iter().filter(|other| !matches!(other.now, Now::Free));
        for lock in &place.locks {
            let most = self.spec.limits.ext_locks.get(lock).copied().unwrap_or(1);
            if users().filter(|other| other.locks.contains(lock)).count() >= most {
                return Err(Rule::Lock);
            }
        }
        let others = || users().filter(|other| other.slot != place.slot);
        if others().any(|other| !other.gpus.is_disjoint(&place.gpus)) {
            return Err(Rule::Gpu);
        }
        Ok(())
    }

    /// Whether somebody ahead of this place in line waits for a GPU that the place's own slot keeps in use.
    fn is_promised(&self, job: &Job, index: usize, every_way: bool) -> bool {
        let place = &self.places[index];
        let mine = |other: &&Place| other.slot == place.slot && !matches!(other.now, Now::Free);
        if !self.places.iter().any(|other| mine(&other)) {
            return false;
        }
        let ahead = |other: &&Job| (other.rank, other.ticket) < (job.rank, job.ticket) && self.is_next(other);
        self.line.iter().filter(ahead).any(|other| {
            let ways: Vec<bool> = (0..self.places.len())
                .filter(|way| self.fits(other, *way).is_ok() && self.healed(&self.places[*way]))
                .filter(|way| self.free_of_others(*way) == Err(Rule::Gpu))
                .map(|way| self.places[way].slot != place.slot && !self.places[way].gpus.is_disjoint(&place.gpus))
                .collect();
            if every_way { !ways.is_empty() && ways.iter().all(|way| *way) } else { ways.contains(&true) }
        })
    }

    fn starves_one_ahead(&self, job: &Job, index: usize) -> bool {
        self.is_promised(job, index, true)
    }

    /// Whether nothing but a place keeps a job: stagger passed, limits free, admitted downstream, its turn.
    fn is_next(&self, job: &Job) -> bool {
        let due = |other: &&Job| {
            other.kind == job.kind
                && other.ticket < job.ticket
                && other.overtaken >= self.places_for(&job.kind)
                && self.may_ever_go(other)
        };
        self.may_ever_go(job) && self.limits(job).is_ok() && !self.line.iter().any(|other| due(&other))
    }

    /// Whether a job that waits could go now.
    fn could_go(&self, job: &Job) -> bool {
        self.is_next(job)
            && (0..self.places.len()).any(|index| {
                self.fits(job, index).is_ok()
                    && self.healed(&self.places[index])
                    && self.free_of_others(index).is_ok()
                    && !self.is_promised(job, index, false)
            })
    }
}
