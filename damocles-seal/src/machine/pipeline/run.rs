//! One run from event to event.

use super::{Pipeline, PipelineError};
use crate::machine::figures::Step;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    num::NonZeroU32,
    time::Duration,
};

/// Runs of stages that are simulated: those of 100 sectors a day for almost seven years.
const MOST: u64 = 2_000_000;

const DAY: u64 = 24 * 60 * 60 * 1000;

/// Milliseconds since the begin.
type Millis = u64;

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What a step did in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) started: u64,
    pub(super) finished: u64,
    /// Of these in the second half.
    pub(super) finished_late: u64,
    /// Time that sectors spent in it until the end of the run, added up.
    pub(super) busy: u128,
    /// Sectors in its queue, added up over time.
    pub(super) queued: u128,
    pub(super) longest: usize,
    pub(super) in_it: u64,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ran {
    pub(super) steps: BTreeMap<Step, Counts>,
    pub(super) locks: BTreeMap<String, u128>,
    pub(super) end: Millis,
}

#[derive(Debug)]
struct Station {
    step: Step,
    time: Millis,
    most: u64,
    gap: Millis,
    not_before: Millis,
    /// The wake-up that is ordered already.
    wake: Option<Millis>,
    queue: VecDeque<u32>,
    counts: Counts,
    touched: Millis,
}

impl Station {
    fn age(&mut self, now: Millis) {
        let waited = u128::from(now.saturating_sub(self.touched));
        self.counts.queued += waited * self.queue.len() as u128;
        self.touched = now;
    }

    fn arrive(&mut self, sector: u32, now: Millis) {
        self.age(now);
        self.queue.push_back(sector);
    }
}

#[derive(Debug)]
struct Lock {
    name: String,
    most: u64,
    held: u64,
    steps: Vec<Step>,
    busy: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Done { sector: u32, station: usize },
    Wake,
}

struct Run {
    stations: Vec<Station>,
    locks: Vec<Lock>,
    events: BinaryHeap<Reverse<(Millis, u64, What)>>,
    /// Events at one time come in the order in which they were ordered.
    ordered: u64,
    end: Millis,
    started: u64,
    days: NonZeroU32,
}

pub(super) fn run(pipeline: &Pipeline) -> Result<Ran, PipelineError> {
    if Step::ALL.into_iter().all(|step| millis(pipeline.time(step)) == 0) {
        return Err(PipelineError::NoTime);
    }
    if u64::from(pipeline.threads.get()) > MOST {
        return Err(PipelineError::TooMuch { most: MOST, days: pipeline.days });
    }
    let mut run = Run::of(pipeline);
    if let Some(first) = run.stations.first_mut() {
        first.queue = (0..pipeline.threads.get()).collect();
        first.counts.longest = first.queue.len();
    }
    run.start_all(0)?;
    while let Some(Reverse((now, _, what))) = run.events.pop() {
        if now > run.end {
            break;
        }
        if let What::Done { sector, station } = what {
            run.done(sector, station, now);
        }
        // All that happens at one moment has happened before anything starts: nobody overtakes by its number.
        let more = run.events.peek().is_some_and(|Reverse((at, ..))| *at == now);
        if !more {
            run.start_all(now)?;
        }
    }
    Ok(run.ended())
}

impl Run {
    fn of(pipeline: &Pipeline) -> Self {
        let station = |step: Step| Station {
            step,
            time: millis(pipeline.time(step)),
            most: pipeline.concurrent.get(&step).map_or(u64::MAX, |most| u64::from(most.get())),
            gap: pipeline.staggered.get(&step).copied().map_or(0, millis),
            not_before: 0,
            wake: None,
            queue: VecDeque::new(),
            counts: Counts::default(),
            touched: 0,
        };
        let lock = |(name, (most, steps)): (&String, &(NonZeroU32, Vec<Step>))| Lock {
            name: name.clone(),
            most: u64::from(most.get()),
            held: 0,
            steps: steps.clone(),
            busy: 0,
        };
        Self {
            stations: Step::ALL.map(station).into(),
            locks: pipeline.locks.iter().map(lock).collect(),
            events: BinaryHeap::new(),
            ordered: 0,
            end: u64::from(pipeline.days.get()).saturating_mul(DAY),
            started: 0,
            days: pipeline.days,
        }
    }

    fn order(&mut self, at: Millis, what: What) {
        self.ordered += 1;
        self.events.push(Reverse((at, self.ordered, what)));
    }

    /// Starts whatever can start, what is nearest to its end first.
    fn start_all(&mut self, now: Millis) -> Result<(), PipelineError> {
        for number in (0..self.stations.len()).rev() {
            while self.start(number, now) {
                self.started += 1;
                if self.started > MOST {
                    return Err(PipelineError::TooMuch { most: MOST, days: self.days });
                }
            }
        }
        for station in &mut self.stations {
            station.counts.longest = station.counts.longest.max(station.queue.len());
        }
        Ok(())
    }

    fn start(&mut self, number: usize, now: Millis) -> bool {
        let end = self.end;
        let Some(station) = self.stations.get_mut(number) else { return false };
        let step = station.step;
        let held = |lock: &Lock| lock.steps.contains(&step) && lock.held >= lock.most;
        if station.queue.is_empty() || station.counts.in_it >= station.most || self.locks.iter().any(held) {
            return false;
        }
        if station.not_before > now {
            let wake = station.not_before;
            if station.wake.replace(wake) != Some(wake) {
                self.order(wake, What::Wake);
            }
            return false;
        }
        station.age(now);
        let Some(sector) = station.queue.pop_front() else { return false };
        station.not_before = now.saturating_add(station.gap);
        station.counts.started += 1;
        station.counts.in_it += 1;
        let done = now.saturating_add(station.time);
        let busy = u128::from(done.min(end).saturating_sub(now));
        station.counts.busy += busy;
        for lock in self.locks.iter_mut().filter(|lock| lock.steps.contains(&step)) {
            lock.held += 1;
            lock.busy += busy;
        }
        self.order(done, What::Done { sector, station: number });
        true
    }

    fn done(&mut self, sector: u32, number: usize, now: Millis) {
        let late = now > self.end / 2;
        let Some(station) = self.stations.get_mut(number) else { return };
        station.counts.in_it -= 1;
        station.counts.finished += 1;
        station.counts.finished_late += u64::from(late);
        let step = station.step;
        for lock in self.locks.iter_mut().filter(|lock| lock.steps.contains(&step)) {
            lock.held -= 1;
        }
        let next = (number + 1) % self.stations.len();
        if let Some(next) = self.stations.get_mut(next) {
            next.arrive(sector, now);
        }
    }

    fn ended(mut self) -> Ran {
        for station in &mut self.stations {
            station.age(self.end);
        }
        Ran {
            steps: self.stations.into_iter().map(|station| (station.step, station.counts)).collect(),
            locks: self.locks.into_iter().map(|lock| (lock.name, lock.busy)).collect(),
            end: self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pipelines() -> impl Strategy<Value = Pipeline> {
        let times = prop::collection::btree_map(prop::sample::select(Step::ALL.to_vec()), 0u64..300, 1..9);
        let most = prop::collection::btree_map(prop::sample::select(Step::ALL.to_vec()), 1u32..6, 0..9);
        let gaps = prop::collection::btree_map(prop::sample::select(Step::ALL.to_vec()), 1u64..90, 0..3);
        let lock = prop::collection::vec(prop::sample::select(Step::ALL.to_vec()), 1..4);
        (times, most, gaps, lock, 1u32..3, 1u32..40, 1u32..8).prop_map(
            |(times, most, gaps, lock, of, threads, days)| {
                let count = |n| NonZeroU32::new(n).unwrap();
                let minutes = |(step, n): (Step, u64)| (step, Duration::from_secs(60 * n));
                let mut lock = lock;
                lock.sort();
                lock.dedup();
                Pipeline {
                    times: times.into_iter().map(minutes).chain([(Step::Pc1, Duration::from_secs(60))]).collect(),
                    concurrent: most.into_iter().map(|(step, n)| (step, count(n))).collect(),
                    staggered: gaps.into_iter().map(minutes).collect(),
                    locks: BTreeMap::from([("gpu".to_owned(), (count(of), lock))]),
                    threads: count(threads),
                    days: count(days),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn no_stage_does_more_than_it_can_and_no_sector_is_lost(pipeline in pipelines()) {
            let ran = run(&pipeline).unwrap();
            let end = u128::from(ran.end);
            let mut on_their_way = 0;
            let mut came = None;
            for step in Step::ALL {
                let counts = &ran.steps[&step];
                let time = pipeline.time(step).as_millis();
                prop_assert_eq!(counts.started, counts.finished + counts.in_it);
                if let Some(most) = pipeline.concurrent.get(&step) {
                    let most = u128::from(most.get());
                    prop_assert!(counts.busy <= most * end);
                    prop_assert!(time == 0 || u128::from(counts.finished) <= most * (end / time));
                }
                if let Some(gap) = pipeline.staggered.get(&step) {
                    prop_assert!(u128::from(counts.started) <= end / gap.as_millis() + 1);
                }
                // What a step was given is what the one before it has finished.
                if let Some(came) = came {
                    let waiting = came - counts.started;
                    on_their_way += waiting;
                }
                on_their_way += counts.in_it;
                came = Some(counts.finished);
            }
            let last = &ran.steps[&Step::C2];
            let first = &ran.steps[&Step::AddPieces];
            on_their_way += last.finished + u64::from(pipeline.threads.get()) - first.started;
            prop_assert_eq!(on_their_way, u64::from(pipeline.threads.get()));
            let (of, steps) = &pipeline.locks["gpu"];
            let held: u128 = steps.iter().map(|step| ran.steps[step].busy).sum();
            prop_assert_eq!(held, ran.locks["gpu"]);
            prop_assert!(held <= u128::from(of.get()) * end);
        }
    }

    #[test]
    fn nothing_that_takes_time_never_ends() {
        let one = NonZeroU32::MIN;
        let mut pipeline = Pipeline {
            times: BTreeMap::new(),
            concurrent: BTreeMap::new(),
            staggered: BTreeMap::new(),
            locks: BTreeMap::new(),
            threads: one,
            days: one,
        };
        assert_eq!(run(&pipeline), Err(PipelineError::NoTime));
        pipeline.times.insert(Step::C1, Duration::from_millis(1));
        pipeline.days = NonZeroU32::new(1000).unwrap();
        assert!(matches!(run(&pipeline), Err(PipelineError::TooMuch { .. })));
        (pipeline.days, pipeline.threads) = (one, NonZeroU32::MAX);
        assert!(matches!(run(&pipeline), Err(PipelineError::TooMuch { .. })));
    }

    #[test]
    fn one_slot_does_a_day_of_work_in_a_day() {
        let hour = Duration::from_secs(3600);
        let pipeline = Pipeline {
            times: BTreeMap::from([(Step::Pc1, hour)]),
            concurrent: BTreeMap::from([(Step::Pc1, NonZeroU32::MIN)]),
            staggered: BTreeMap::new(),
            locks: BTreeMap::new(),
            threads: NonZeroU32::new(3).unwrap(),
            days: NonZeroU32::new(2).unwrap(),
        };
        let ran = run(&pipeline).unwrap();
        assert_eq!(ran.steps[&Step::C2].finished, 48);
        assert_eq!(ran.steps[&Step::Pc1].busy, 2 * u128::from(DAY));
        // One is in PC1 and two wait.
        assert_eq!((ran.steps[&Step::Pc1].longest, ran.steps[&Step::Pc1].queued), (2, 4 * u128::from(DAY)));
    }
}
