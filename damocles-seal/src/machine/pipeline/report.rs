//! What a simulation tells.

use super::{
    Pipeline, PipelineError,
    run::{Counts, Ran, run},
};
use crate::machine::figures::Step;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// What came of a simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Sectors that were finished.
    pub finished: u64,
    /// Sectors a day in the second half, when the pipeline has filled.
    pub per_day: f64,
    /// The steps in the order of a sector's way.
    pub stages: Vec<Stage>,
    /// Everything that is limited, that of which one more would give most first.
    pub resources: Vec<Resource>,
}

impl Report {
    /// That of which one more would give most; `None` if one more of anything would give nothing.
    pub fn bottleneck(&self) -> Option<&Resource> {
        self.resources.first().filter(|resource| resource.one_more > self.per_day)
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Which.
    pub step: Step,
    /// How long it takes, in minutes.
    pub minutes: f64,
    /// How many sectors may be in it at a time.
    pub concurrent: Option<u32>,
    /// Sectors that it has finished.
    pub finished: u64,
    /// The mean number of sectors in it.
    pub busy: f64,
    /// The sectors that waited for it.
    pub queue: Queue,
}

/// Sectors that waited for a step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Their mean number.
    pub mean: f64,
    /// Their greatest number.
    pub longest: usize,
}

/// Something of which there is only so much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// A step, a lock, or `threads`.
    pub name: String,
    /// How much of it there is.
    pub count: u32,
    /// The part of it that was used, from 0 to 1.
    pub used: f64,
    /// Sectors a day with one more of it.
    pub one_more: f64,
}

#[expect(clippy::cast_precision_loss, reason = "ratios are shown with three digits")]
fn ratio(part: u128, whole: u128) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

const DAY: u128 = 24 * 60 * 60 * 1000;

fn last(ran: &Ran) -> Option<&Counts> {
    Step::ALL.last().and_then(|step| ran.steps.get(step))
}

fn per_day(ran: &Ran) -> f64 {
    let late = u128::from(last(ran).map_or(0, |counts| counts.finished_late));
    ratio(late * 2 * DAY, u128::from(ran.end))
}

pub(super) fn report(pipeline: &Pipeline) -> Result<Report, PipelineError> {
    let ran = run(pipeline)?;
    let end = u128::from(ran.end);
    let stage = |(step, counts): (&Step, &Counts)| Stage {
        step: *step,
        minutes: pipeline.time(*step).as_secs_f64() / 60.0,
        concurrent: pipeline.concurrent.get(step).map(|most| most.get()),
        finished: counts.finished,
        busy: ratio(counts.busy, end),
        queue: Queue { mean: ratio(counts.queued, end), longest: counts.longest },
    };
    let mut resources = resources(pipeline, &ran)?;
    resources.sort_by(|a, b| b.one_more.total_cmp(&a.one_more).then(b.used.total_cmp(&a.used)));
    Ok(Report {
        finished: last(&ran).map_or(0, |counts| counts.finished),
        per_day: per_day(&ran),
        stages: ran.steps.iter().map(stage).collect(),
        resources,
    })
}

fn resources(pipeline: &Pipeline, ran: &Ran) -> Result<Vec<Resource>, PipelineError> {
    let end = u128::from(ran.end);
    let used = |busy: u128, count: NonZeroU32| ratio(busy, u128::from(count.get()) * end);
    let more = |change: &dyn Fn(&mut Pipeline)| {
        let mut other = pipeline.clone();
        change(&mut other);
        run(&other).map(|ran| per_day(&ran))
    };
    let mut resources = Vec::new();
    for (step, count) in &pipeline.concurrent {
        let busy = ran.steps.get(step).map_or(0, |counts| counts.busy);
        let one_more = more(&|p| *p.concurrent.entry(*step).or_insert(*count) = count.saturating_add(1))?;
        let name = step.name().to_owned();
        resources.push(Resource { name, count: count.get(), used: used(busy, *count), one_more });
    }
    for (lock, (count, steps)) in &pipeline.locks {
        let busy = ran.locks.get(lock).copied().unwrap_or(0);
        let one_more =
            more(&|p| p.locks.entry(lock.clone()).or_insert((*count, steps.clone())).0 = count.saturating_add(1))?;
        resources.push(Resource { name: lock.clone(), count: count.get(), used: used(busy, *count), one_more });
    }
    // A thread without a sector waits for one to be added, and nothing else.
    let idle = ran.steps.get(&Step::AddPieces).map_or(0, |counts| counts.queued);
    let all = u128::from(pipeline.threads.get()) * end;
    let one_more = more(&|p| p.threads = p.threads.saturating_add(1))?;
    let used = ratio(all.saturating_sub(idle), all);
    resources.push(Resource { name: "threads".to_owned(), count: pipeline.threads.get(), used, one_more });
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::figures::Figures;
    use damocles_core::SectorSize;

    fn count(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_busy_pc1_is_the_bottleneck_and_then_its_threads_are() {
        let figures = Figures::of(SectorSize::GiB32);
        let mut pipeline = Pipeline::of(&figures, count(16), count(30));
        for (step, n) in [(Step::Pc1, 5), (Step::Pc2, 1), (Step::C2, 1)] {
            pipeline.concurrent.insert(step, count(n));
        }
        pipeline.locks.insert("gpu0".to_owned(), (count(1), vec![Step::Pc2, Step::C2]));
        let report = pipeline.simulate().unwrap();
        // 5 x 24 h / 177 min, as far as whole sectors go.
        assert!((report.per_day - 40.67).abs() < 0.5, "{}", report.per_day);
        let bottleneck = report.bottleneck().unwrap();
        assert_eq!(bottleneck.name, "pc1");
        assert!((bottleneck.used - 1.0).abs() < 0.02 && bottleneck.one_more > report.per_day + 4.0, "{bottleneck:?}");
        pipeline.threads = count(4);
        let report = pipeline.simulate().unwrap();
        assert_eq!(report.bottleneck().unwrap().name, "threads");
        pipeline.threads = count(16);
        pipeline.concurrent.insert(Step::Pc1, count(12));
        let few = pipeline.simulate().unwrap();
        assert!(few.stages.iter().all(|stage| stage.queue.mean <= 16.0));
        assert!(few.resources.iter().all(|resource| (0.0..=1.0).contains(&resource.used)), "{:?}", few.resources);
    }
}
