//! How many sectors a day come out of given stages: a simulation from event to event.

mod report;
mod run;

use super::figures::{Figures, Step};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

pub use report::{Queue, Report, Resource, Stage};

/// A pipeline: what each step takes, and what there is of everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// How long each step takes; a step that is not named takes no time.
    pub times: BTreeMap<Step, Duration>,
    /// How many sectors may be in a step at a time; as many as come where it is not named.
    pub concurrent: BTreeMap<Step, NonZeroU32>,
    /// The least time between two starts of a step.
    pub staggered: BTreeMap<Step, Duration>,
    /// Counting locks, and the steps that hold each: a card that two stages share.
    pub locks: BTreeMap<String, (NonZeroU32, Vec<Step>)>,
    /// Sectors on their way at a time. A thread takes its next sector when the proof of the last one is made.
    pub threads: NonZeroU32,
    /// How long it runs, from an empty machine on.
    pub days: NonZeroU32,
}

impl Pipeline {
    /// A pipeline with the table's times, in which nothing is limited.
    pub fn of(figures: &Figures, threads: NonZeroU32, days: NonZeroU32) -> Self {
        Self {
            times: Step::ALL.into_iter().map(|step| (step, figures.cost(step).time)).collect(),
            concurrent: BTreeMap::new(),
            staggered: BTreeMap::new(),
            locks: BTreeMap::new(),
            threads,
            days,
        }
    }

    /// Runs it, and then again with one more of everything that is limited.
    ///
    /// # Errors
    ///
    /// It never ends, or would take too long.
    pub fn simulate(&self) -> Result<Report, PipelineError> {
        report::report(self)
    }

    fn time(&self, step: Step) -> Duration {
        self.times.get(&step).copied().unwrap_or_default()
    }
}

/// A pipeline that cannot be simulated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// Nothing takes time.
    #[error("no stage takes any time: sectors would be done as soon as they are begun")]
    NoTime,
    /// More happens in these days than can be simulated.
    #[error("more than {most} stages would run in {days} days")]
    TooMuch {
        /// The most that are simulated.
        most: u64,
        /// The days that were asked for.
        days: NonZeroU32,
    },
}

impl PipelineError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoTime => "give at least one stage a time",
            Self::TooMuch { .. } => "simulate fewer days, or fewer threads",
        }
    }
}
