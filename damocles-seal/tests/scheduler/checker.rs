//! The rules of a pool, judged over what happened. Written from the rules and not from the scheduler: it knows only the
//! configuration and the trace.

mod kept;
mod world;

use crate::drive::{Event, Trace};
use damocles_core::pool::TaskKind;
use damocles_seal::pool::PoolSpec;
use kept::{Entitled, waits_for_its_kind};
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
    /// A job took what is kept for one ahead in line: for one that was passed too often, or that a place is made free
    /// for.
    Kept,
    /// A job that waits for another program keeps its place from one ahead in line, or could have another place.
    Claim,
    /// Such a job was told to leave its place, and nobody gains by it.
    Recall,
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
    /// Another program holds a card of it.
    elsewhere: bool,
    failures: u32,
    rests_until: u64,
    /// The rest is the long one.
    open: bool,
    stopped: bool,
}

enum Now {
    Free,
    Held { job: Job, phase: Phase },
    Ending,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Claiming,
    Recalled,
    Begun,
}

#[derive(Clone)]
struct Job {
    ticket: u64,
    rank: u8,
    kind: String,
    sector: Option<u64>,
    memory: u64,
    overtaken: usize,
    passed: usize,
}

impl Job {
    fn order(&self) -> Order {
        (self.rank, self.ticket)
    }

    /// How many may take something from it that it needs.
    fn patience(&self) -> usize {
        if self.rank == 0 { 0 } else { 2 }
    }
}

/// Where a job stands in line.
type Order = (u8, u64);

/// A world in which jobs from here on in line, that wait for other programs, have left their places.
#[derive(Clone, Copy)]
struct Eyes {
    from: Order,
    /// Only those that were told to.
    told: bool,
    /// This one stays.
    but: Option<usize>,
}

/// The world as it is.
const PLAIN: Eyes = Eyes { from: (u8::MAX, u64::MAX), told: false, but: None };

/// How sure an answer has to be: those ahead have a choice that the judge does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sure {
    /// Whatever they choose.
    Yes,
    Perhaps,
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
    /// Recalls that nobody gained by when they were made; the grants made with them may explain them.
    doubts: Vec<usize>,
    /// How often a job waited only because of what was kept for another.
    kept: usize,
}

/// Goes through a day. How often a job waited because something was kept for another.
pub(crate) fn check(spec: &PoolSpec, trace: &Trace) -> Result<usize, Broken> {
    let mut judge = Judge::new(spec);
    for (time, event) in &trace.events {
        judge.time = *time;
        judge.see(event).map_err(|rule| Broken { rule, at: (*time, format!("{event:?}")) })?;
    }
    Ok(judge.kept)
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
                    elsewhere: false,
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
        let (line, begun) = (Vec::new(), BTreeMap::new());
        Self { spec, time: 0, places, line, begun, sections, doubts: Vec::new(), kept: 0 }
    }

    fn see(&mut self, event: &Event) -> Result<(), Rule> {
        match event {
            Event::Push { ticket, kind, sector, memory } => self.push(*ticket, kind, *sector, memory.unwrap_or(0)),
            Event::Leave { ticket } => self.line.retain(|job| job.ticket != *ticket),
            Event::Grant { ticket, place } => return self.grant(*ticket, *place),
            Event::Settled => return self.settled(),
            Event::Elsewhere { place, held } => self.places[*place].elsewhere = *held,
            Event::Claiming { place } => self.enter(*place, Phase::Claiming),
            Event::Claimed { place, begins } => return self.claimed(*place, *begins),
            Event::Recall { place } => {
                self.enter(*place, Phase::Recalled);
                if !self.gains(*place) {
                    self.doubts.push(*place);
                }
            }
            Event::Back { place } => {
                let job = self.leave(*place, false, false).expect("a job is there");
                self.line.push(job);
                self.line.sort_by_key(Job::order);
            }
            Event::Began { place } => return self.began(*place),
            Event::Release { place, done, ends } => drop(self.leave(*place, *done, *ends)),
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
        self.line.push(Job { ticket, rank, kind: kind.to_owned(), sector, memory, overtaken: 0, passed: 0 });
        self.line.sort_by_key(Job::order);
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
        let entitled = self.entitled();
        let ahead = |other: &&Job| other.order() < job.order();
        if self.line.iter().filter(ahead).any(|other| self.could_go(other, PLAIN, &entitled, Sure::Yes)) {
            return Err(Rule::Order);
        }
        self.fits(&job, index, PLAIN)?;
        self.limits(&job, PLAIN)?;
        if !self.has_way(&job) {
            return Err(Rule::Downstream);
        }
        self.free_of_others(index, PLAIN)?;
        if self.healed(&self.places[index]) { Ok(()) } else { Err(Rule::Health) }?;
        if self.is_promised(&job, index, Sure::Yes, PLAIN, &entitled) {
            return Err(Rule::Gpu);
        }
        if self.is_kept(&job, index, Sure::Yes, PLAIN, &entitled) {
            return Err(Rule::Kept);
        }
        self.pass(&job, index);
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
        self.places[index].now = Now::Held { job, phase: Phase::Starting };
        Ok(())
    }

    /// Counts for those ahead what a job takes from them.
    fn pass(&mut self, job: &Job, index: usize) {
        let takes = |other: &&Job| {
            other.order() < job.order()
                && self.may_ever_go(other)
                && self.ways(other).into_iter().any(|way| self.clash(index, way, 1, PLAIN))
        };
        let passed: Vec<u64> = self.line.iter().filter(takes).map(|other| other.ticket).collect();
        for other in self.line.iter_mut().filter(|other| passed.contains(&other.ticket)) {
            other.passed += 1;
        }
    }

    fn enter(&mut self, index: usize, next: Phase) {
        if let Now::Held { phase, .. } = &mut self.places[index].now {
            *phase = next;
        }
    }

    fn claimed(&mut self, index: usize, begins: bool) -> Result<(), Rule> {
        let Now::Held { job, phase } = &self.places[index].now else { return Err(Rule::Fit) };
        let may = *phase == Phase::Claiming && self.apart(job);
        match (may, begins) {
            (true, true) => self.enter(index, Phase::Starting),
            (false, false) => self.enter(index, Phase::Recalled),
            (true, false) => return Err(Rule::Idle),
            (false, true) if *phase == Phase::Recalled => return Err(Rule::Claim),
            (false, true) => return Err(Rule::Stagger),
        }
        Ok(())
    }

    /// Nothing more is handed out: nobody can have anything more.
    fn settled(&mut self) -> Result<(), Rule> {
        let entitled = self.entitled();
        let goes = |job: &Job, eyes, sure| self.could_go(job, eyes, &entitled, sure);
        if self.line.iter().any(|job| goes(job, PLAIN, Sure::Yes)) {
            return Err(Rule::Idle);
        }
        let all = |job: &Job| Eyes { from: job.order(), told: false, but: None };
        let told = |job: &Job| Eyes { told: true, ..all(job) };
        let back = self.claimers().filter(|(_, _, phase)| *phase == Phase::Recalled).map(|(_, job, _)| job);
        if self
            .line
            .iter()
            .chain(back)
            .any(|job| goes(job, all(job), Sure::Yes) && !goes(job, told(job), Sure::Perhaps))
        {
            return Err(Rule::Claim);
        }
        let could_move = |(place, job, phase): (usize, &Job, Phase)| {
            phase == Phase::Claiming && self.places[place].elsewhere && self.could_move(job, &entitled, Sure::Yes)
        };
        if self.claimers().any(could_move) {
            return Err(Rule::Claim);
        }
        if self.doubts.iter().any(|place| !self.gains(*place)) {
            return Err(Rule::Recall);
        }
        let waits = |job: &&Job| self.could_go(job, PLAIN, &[], Sure::Yes);
        self.kept += self.line.iter().filter(waits).count();
        self.doubts.clear();
        Ok(())
    }

    fn began(&mut self, index: usize) -> Result<(), Rule> {
        let Now::Held { job, phase } = &mut self.places[index].now else { return Err(Rule::Fit) };
        if *phase != Phase::Starting {
            return Err(Rule::Claim);
        }
        *phase = Phase::Begun;
        let kind = job.kind.clone();
        let last = self.begun.insert(kind.clone(), self.time);
        match (self.spec.limits.staggered.get(&TaskKind::read(kind)), last) {
            (Some(gap), Some(last)) if self.time - last < gap.as_secs() => Err(Rule::Stagger),
            _ => Ok(()),
        }
    }

    fn leave(&mut self, index: usize, done: bool, ends: bool) -> Option<Job> {
        let next = if ends { Now::Ending } else { Now::Free };
        let Now::Held { job, .. } = std::mem::replace(&mut self.places[index].now, next) else { return None };
        let Some(sector) = job.sector else { return Some(job) };
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
        Some(job)
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
}
