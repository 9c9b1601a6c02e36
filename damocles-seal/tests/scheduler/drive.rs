//! A random day of a pool, with a clock that only the test moves.

use crate::mix::{GPUS, KINDS};
use damocles_core::{
    ActorId, ByteSize, JobId, SectorId, SectorNumber,
    pool::{Job, Needs, PoolErrorKind, TaskKind},
};
use damocles_seal::pool::{
    PoolSpec, SlotSpec,
    schedule::{Scheduler, Ticket, Verdict},
};
use rand::{Rng as _, rngs::StdRng, seq::SliceRandom as _};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// Something that was done to the scheduler, or that it did.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Push {
        ticket: u64,
        kind: String,
        sector: Option<u64>,
        memory: Option<u64>,
    },
    Leave {
        ticket: u64,
    },
    Grant {
        ticket: u64,
        place: usize,
    },
    /// Another program holds a card of this place, or holds none any more.
    Elsewhere {
        place: usize,
        held: bool,
    },
    /// The job in this place waits for what other programs hold.
    Claiming {
        place: usize,
    },
    /// It has that; whether the scheduler lets it begin.
    Claimed {
        place: usize,
        begins: bool,
    },
    /// The scheduler wants it back in line.
    Recall {
        place: usize,
    },
    /// It is there.
    Back {
        place: usize,
    },
    /// It has handed out all that it wants to.
    Settled,
    Began {
        place: usize,
    },
    Release {
        place: usize,
        done: bool,
        ends: bool,
    },
    Ended {
        place: usize,
    },
    Failed {
        place: usize,
    },
    Succeeded {
        place: usize,
    },
    Forget {
        sector: u64,
    },
    Resume {
        slot: String,
    },
}

impl Event {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Push { .. } => "push",
            Self::Leave { .. } => "leave",
            Self::Grant { .. } => "grant",
            Self::Elsewhere { .. } => "elsewhere",
            Self::Claiming { .. } => "claiming",
            Self::Claimed { begins: true, .. } => "claimed",
            Self::Claimed { begins: false, .. } => "claimed in vain",
            Self::Recall { .. } => "recall",
            Self::Back { .. } => "back",
            Self::Settled => "settled",
            Self::Began { .. } => "began",
            Self::Release { .. } => "release",
            Self::Ended { .. } => "ended",
            Self::Failed { .. } => "failed",
            Self::Succeeded { .. } => "succeeded",
            Self::Forget { .. } => "forget",
            Self::Resume { .. } => "resume",
        }
    }
}

/// All of a day, with the second at which it happened.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) events: Vec<(u64, Event)>,
    /// Jobs that still wait although everything that could be done was done.
    pub(crate) left: usize,
}

/// A job in a place.
struct Held {
    job: Job,
    ticket: Ticket,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It has just got it.
    New,
    Claiming,
    Recalled,
    /// It has its claims.
    Ready,
    Begun,
}

struct Day<'a> {
    spec: Vec<SlotSpec>,
    /// The cards that other programs hold.
    outside: BTreeSet<&'static str>,
    elsewhere: BTreeSet<usize>,
    scheduler: Scheduler,
    origin: Instant,
    now: u64,
    trace: Vec<(u64, Event)>,
    line: BTreeMap<Ticket, Job>,
    /// By place.
    held: BTreeMap<usize, Held>,
    ending: Vec<usize>,
    sectors: Vec<u64>,
    jobs: u128,
    random: &'a mut StdRng,
}

pub(crate) fn drive(spec: &PoolSpec, random: &mut StdRng) -> Trace {
    let origin = Instant::now();
    let of = |slot: &SlotSpec| vec![slot.clone(); slot.concurrent];
    let mut day = Day {
        spec: spec.slots.iter().flat_map(of).collect(),
        outside: BTreeSet::new(),
        elsewhere: BTreeSet::new(),
        scheduler: Scheduler::new(spec, origin),
        origin,
        now: 0,
        trace: Vec::new(),
        line: BTreeMap::new(),
        held: BTreeMap::new(),
        ending: Vec::new(),
        sectors: Vec::new(),
        jobs: 0,
        random,
    };
    for _ in 0..120 {
        day.step(spec);
        day.settle();
    }
    day.close(spec);
    Trace { left: day.line.len() + day.held.len(), events: day.trace }
}

impl Day<'_> {
    fn at(&self) -> Instant {
        self.origin + Duration::from_secs(self.now)
    }

    fn note(&mut self, event: Event) {
        self.trace.push((self.now, event));
    }

    fn settle(&mut self) {
        self.look();
        let granted = self.scheduler.grant(self.at());
        for place in self.scheduler.recalled() {
            let held = self.held.get_mut(&place).expect("only a job in a place is recalled");
            if held.phase != Phase::Recalled {
                held.phase = Phase::Recalled;
                self.note(Event::Recall { place });
            }
        }
        for grant in granted {
            let job = self.line.remove(&grant.ticket).expect("only those in line are granted");
            let held = Held { job, ticket: grant.ticket, phase: Phase::New };
            assert!(self.held.insert(grant.place, held).is_none(), "a place is given once");
            self.note(Event::Grant { ticket: grant.ticket.number(), place: grant.place });
        }
        self.note(Event::Settled);
    }

    /// Sees which cards other programs hold.
    fn look(&mut self) {
        for place in 0..self.spec.len() {
            let held = self.held_outside(place);
            let changed = if held { self.elsewhere.insert(place) } else { self.elsewhere.remove(&place) };
            if changed {
                self.scheduler.elsewhere(place, held);
                self.note(Event::Elsewhere { place, held });
            }
        }
    }

    fn held_outside(&self, place: usize) -> bool {
        self.spec[place].placement.gpus.iter().any(|gpu| self.outside.contains(gpu.0.as_str()))
    }

    /// Another program takes a card that no job here has claimed, or gives it back.
    fn others(&mut self) {
        let gpu = *GPUS.choose(self.random).expect("there are cards");
        let uses = |place: &usize| self.spec[*place].placement.gpus.iter().any(|used| used.0 == gpu);
        let claimed = |(place, held): (&usize, &Held)| held.phase >= Phase::Ready && uses(place);
        if !self.outside.remove(gpu) && !self.held.iter().any(claimed) && !self.ending.iter().any(uses) {
            self.outside.insert(gpu);
        }
    }

    /// Lets time pass as the pool does: it looks again whenever the scheduler says so.
    fn pass(&mut self, seconds: u64) {
        let until = self.now + seconds;
        while let Some(at) = self.scheduler.wakes_at(self.at()) {
            let at = (at - self.origin).as_secs();
            if at > until {
                break;
            }
            self.now = at;
            self.settle();
        }
        self.now = until;
    }

    fn push(&mut self, kind: &str, sector: Option<u64>) {
        self.jobs += 1;
        let memory = self.random.gen_bool(0.3).then(|| self.random.gen_range(1..4));
        let needs = memory.map_or_else(Needs::default, |memory| Needs::memory(ByteSize(memory)));
        let id = sector.map(|number| SectorId { miner: ActorId(1000), number: SectorNumber(number) });
        let job = Job { id: JobId(self.jobs), kind: TaskKind::read(kind), sector: id, payload: "1".into(), needs };
        // A pool refuses what no slot can do.
        if self.scheduler.misfits(&job).is_some() {
            return;
        }
        let ticket = self.scheduler.push(&job, self.at());
        self.line.insert(ticket, job);
        self.sectors.extend(sector);
        self.note(Event::Push { ticket: ticket.number(), kind: kind.to_owned(), sector, memory });
    }

    fn step(&mut self, spec: &PoolSpec) {
        match self.random.gen_range(0..100) {
            0..=34 => {
                let kind = *KINDS.choose(self.random).expect("there are kinds");
                let sector = self.random.gen_bool(0.7).then(|| self.random.gen_range(0..12));
                self.push(kind, sector);
            }
            35..=37 => {
                let tickets: Vec<Ticket> = self.line.keys().copied().collect();
                if let Some(ticket) = tickets.choose(self.random) {
                    self.leave(*ticket);
                }
            }
            38..=42 => self.others(),
            43..=56 => self.begin(),
            57..=74 => self.release(),
            75..=79 => self.end(),
            80..=82 => {
                if let Some(sector) = self.sectors.choose(self.random).copied() {
                    self.forget(sector);
                }
            }
            83..=85 => {
                let slot = spec.slots.choose(self.random).expect("there are slots").name.clone();
                self.resume(slot);
            }
            _ => {
                let seconds = self.random.gen_range(1..15);
                self.pass(seconds);
            }
        }
    }

    fn leave(&mut self, ticket: Ticket) {
        self.scheduler.remove(ticket);
        self.line.remove(&ticket);
        self.note(Event::Leave { ticket: ticket.number() });
    }

    fn begin(&mut self) {
        let waits: Vec<usize> =
            self.held.iter().filter(|(_, held)| held.phase < Phase::Begun).map(|(place, _)| *place).collect();
        let Some(place) = waits.choose(self.random).copied() else { return };
        let outside = self.held_outside(place);
        match self.held[&place].phase {
            // Nobody may hold its card, and somebody in another program stand before it for that.
            Phase::New if outside || self.random.gen_bool(0.3) => {
                self.scheduler.claiming(place, self.at());
                self.enter(place, Phase::Claiming);
                self.note(Event::Claiming { place });
            }
            Phase::Claiming if outside => {}
            Phase::Claiming => self.claimed(place),
            Phase::Recalled if !outside && self.random.gen_bool(0.3) => self.claimed(place),
            Phase::Recalled => self.back(place),
            _ => {
                self.scheduler.began(place, self.at());
                self.enter(place, Phase::Begun);
                self.note(Event::Began { place });
            }
        }
    }

    fn enter(&mut self, place: usize, phase: Phase) {
        self.held.get_mut(&place).expect("a job is there").phase = phase;
    }

    /// A job has its claims, at last.
    fn claimed(&mut self, place: usize) {
        self.settle();
        let begins = self.scheduler.claimed(place, self.at());
        self.note(Event::Claimed { place, begins });
        if begins {
            self.enter(place, Phase::Ready);
        } else {
            self.back(place);
        }
    }

    fn back(&mut self, place: usize) {
        let Held { job, ticket, .. } = self.held.remove(&place).expect("a job is there");
        assert_eq!(self.scheduler.put_back(place, self.at()), Some(ticket));
        self.line.insert(ticket, job);
        self.note(Event::Back { place });
    }

    fn release(&mut self) {
        let places: Vec<usize> = self.held.keys().copied().collect();
        let Some(place) = places.choose(self.random).copied() else { return };
        let Some(Held { job, phase, .. }) = self.held.remove(&place) else { return };
        let begun = phase == Phase::Begun;
        let (verdict, crashed) = match self.random.gen_range(0..10) {
            0..=5 if begun => (Verdict::Done, false),
            6 if begun => (Verdict::Failed(PoolErrorKind::Failed), false),
            7 => (Verdict::Dropped, false),
            _ if phase < Phase::Ready => (Verdict::Dropped, false),
            _ => (Verdict::Failed(PoolErrorKind::Crashed), true),
        };
        let done = verdict == Verdict::Done;
        let answered = done || verdict == Verdict::Failed(PoolErrorKind::Failed);
        if answered {
            self.scheduler.succeeded(place);
            self.note(Event::Succeeded { place });
        }
        if crashed {
            self.scheduler.failed(place, "it crashed".to_owned(), self.at());
            self.note(Event::Failed { place });
        }
        let ends = !answered && phase >= Phase::Ready && self.random.gen_bool(0.5);
        if ends {
            self.scheduler.forked(place, 77);
        }
        self.scheduler.release(place, verdict, ends, self.at());
        self.note(Event::Release { place, done, ends });
        if ends {
            self.ending.push(place);
        }
        let next = match job.kind.as_str() {
            "pc1" => "pc2",
            "pc2" => "c2",
            _ => return,
        };
        if done && self.random.gen_bool(0.7) {
            self.push(next, job.sector.map(|sector| sector.number.0));
        }
    }

    fn end(&mut self) {
        if self.ending.is_empty() {
            return;
        }
        let place = self.ending.swap_remove(self.random.gen_range(0..self.ending.len()));
        self.scheduler.ended(place, false, self.at());
        self.note(Event::Ended { place });
    }

    fn forget(&mut self, sector: u64) {
        self.scheduler.forget(SectorId { miner: ActorId(1000), number: SectorNumber(sector) });
        self.note(Event::Forget { sector });
    }

    fn resume(&mut self, slot: String) {
        assert!(self.scheduler.resume(&slot), "{slot} is there");
        self.note(Event::Resume { slot });
    }

    /// Ends everything that goes on, again and again, until nobody is in line.
    fn close(&mut self, spec: &PoolSpec) {
        for _ in 0..400 {
            if self.line.is_empty() && self.held.is_empty() {
                return;
            }
            while !self.ending.is_empty() {
                self.end();
            }
            self.outside.clear();
            for _ in 0..3 {
                self.begin();
            }
            if self.random.gen_bool(0.7) {
                self.release();
            }
            self.settle();
            // Sectors that nobody goes on with are given up, and an operator looks after what stands still.
            let sectors = std::mem::take(&mut self.sectors);
            for sector in sectors {
                let goes_on = |job: &Job| job.sector.is_some_and(|id| id.number.0 == sector);
                if self.line.values().any(goes_on) || self.held.values().any(|held| goes_on(&held.job)) {
                    self.sectors.push(sector);
                } else {
                    self.forget(sector);
                }
            }
            if self.held.is_empty() && self.scheduler.wakes_at(self.at()).is_none() {
                for slot in &spec.slots {
                    self.resume(slot.name.clone());
                }
            }
            self.settle();
            self.pass(5);
        }
    }
}
