//! What a running worker answers: the documents, and what stands behind its control RPC.

use super::{explain::Explanation, info::WorkerInfo};
use crate::{
    exit::{Exit, Failure},
    output::{Render, table, time_text},
};
use async_trait::async_trait;
use damocles_core::{SectorId, Timestamp, pool::TaskKind};
use damocles_seal::claims::Resource;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// What a control socket asks of the worker behind it.
#[async_trait]
pub trait WorkerControl: fmt::Debug + Send + Sync + 'static {
    /// What the worker does.
    fn status(&self) -> WorkerStatus;
    /// What it is made of.
    async fn info(&self) -> WorkerInfo;
    /// Why its threads do not work.
    fn explain(&self) -> Explanation;
    /// Does to a thread what an operator orders.
    ///
    /// # Errors
    ///
    /// There is no such thread, it is not at work yet, or it refuses.
    async fn order(&self, index: usize, order: Order) -> Result<Answer, Refusal>;
    /// Gives a GPU back to a more urgent task of another program, if the task that uses it may be done again.
    fn yields(&self, resource: &Resource, wanted_for: &TaskKind) -> bool;
    /// Reads the worker's file again and takes it over as a whole.
    ///
    /// # Errors
    ///
    /// Nothing of it was taken over, for all these reasons.
    async fn reload(&self) -> Result<Answer, Refusal>;
    /// Ends all threads, and the daemon after them.
    fn drain(&self, sector: bool) -> Answer;
}

/// What an operator orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Take no new step.
    Pause {
        /// Whether the running step is given up.
        now: bool,
        /// Who asks, for people.
        by: Option<String>,
    },
    /// Go on.
    Resume {
        /// At this stage instead of where the sector stands.
        state: Option<String>,
    },
    /// End after the running step.
    Drain {
        /// After the sector instead.
        sector: bool,
    },
    /// Give the sector up.
    Abort {
        /// Why, for the manager.
        reason: String,
    },
}

/// The version of the document that the orders print with `--json`.
pub const ANSWER_VERSION: u32 = 1;

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The version of this document.
    pub version: u32,
    /// Whether something is otherwise than before. Asking twice changes nothing.
    pub changed: bool,
    /// What is so now, in words.
    pub message: String,
}

impl Answer {
    /// An answer of this version.
    pub fn new(changed: bool, message: impl Into<String>) -> Self {
        Self { version: ANSWER_VERSION, changed, message: message.into() }
    }
}

impl Render for Answer {
    fn text(&self, _: bool) -> String {
        self.message.clone()
    }
}

/// Why an order is not obeyed.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub message: String,
    /// What can be done about it.
    pub hint: Option<String>,
    /// How the command that gave the order ends.
    pub exit: Exit,
}

impl Refusal {
    /// No thread at work has this number.
    pub fn no_such_thread(index: usize) -> Self {
        Self {
            message: format!("no sealing thread at work has the number {index}"),
            hint: Some("`damocles-worker list` shows the threads and their numbers".to_owned()),
            exit: Exit::Usage,
        }
    }
}

impl From<damocles_core::pipeline::SealError> for Refusal {
    fn from(error: damocles_core::pipeline::SealError) -> Self {
        let failure = Failure::from(error);
        Self { message: format!("{:#}", failure.error), hint: failure.hint, exit: Exit::Failed }
    }
}

/// The version of the document that `list --json` prints.
pub const STATUS_VERSION: u32 = 1;

/// What a worker does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The version of this document.
    pub version: u32,
    /// The worker's name.
    pub worker: String,
    /// Its threads, in the order of the configuration file.
    pub threads: Vec<ThreadStatus>,
    /// What came of the last try to take its file over; none since it started if it is absent.
    #[serde(default)]
    pub reload: Option<Reload>,
}

/// A try to take over the worker's file while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When, in milliseconds since 1970.
    pub at: Timestamp,
    /// What asked for it.
    pub by: String,
    /// What is otherwise since then.
    pub changes: Vec<String>,
    /// Why nothing of it was taken over, if so.
    pub refused: Vec<String>,
    /// What can be done about that.
    pub hint: Option<String>,
}

impl Reload {
    /// When it was and what came of it.
    pub fn text(&self) -> String {
        let lines =
            |of: &[String]| of.iter().map(|line| format!("\n  {}", line.replace('\n', "\n  "))).collect::<String>();
        let when = format!("configuration read again at {} by {}", time_text(self.at), self.by);
        let hint = self.hint.as_ref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        match (self.refused.is_empty(), self.changes.is_empty()) {
            (false, _) => format!("{when} and refused as a whole:{}{hint}", lines(&self.refused)),
            (true, true) => format!("{when}: nothing else than was in force"),
            (true, false) => format!("{when} and taken over:{}", lines(&self.changes)),
        }
    }
}

/// What a sealing thread does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadStatus {
    /// Its number.
    pub index: usize,
    /// Its sealing store.
    pub location: PathBuf,
    /// Its plan.
    pub plan: String,
    /// Whether it is at work.
    pub state: ThreadState,
    /// Since when, in milliseconds since 1970.
    pub since: Option<Timestamp>,
    /// Its sector.
    pub sector: Option<SectorId>,
    /// The stage of that sector.
    pub stage: Option<String>,
    /// How often that stage failed since the sector moved on.
    pub failures: u32,
    /// The job of that stage, if it has one.
    pub job: Option<JobView>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Why the `config.toml` of its sealing store is not in force, if so.
    #[serde(default)]
    pub settings_refused: Option<String>,
}

/// A job of a sector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its kind.
    pub kind: String,
    /// Its slot, if it has one.
    pub slot: Option<String>,
    /// The process in that slot.
    pub pid: Option<u32>,
    /// How much of the work is done.
    pub done: Option<u64>,
    /// Of how much, in the same unit.
    pub total: Option<u64>,
    /// Why it has no slot.
    pub waits: Option<String>,
}

impl JobView {
    /// Slot, process and progress in one short text.
    pub fn short(&self) -> String {
        let place = match (&self.slot, self.pid) {
            (Some(slot), Some(pid)) => format!("{slot} (pid {pid})"),
            (Some(slot), None) => slot.clone(),
            (None, _) => format!("{} waits", self.kind),
        };
        match (self.done, self.total) {
            (Some(done), Some(total)) => format!("{place} {done}/{total}"),
            (Some(done), None) => format!("{place} {done}"),
            (None, _) => place,
        }
    }
}

/// Whether a thread is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadState {
    /// Not at work yet: the worker waits for its manager, or for parameters.
    Starting,
    /// Without a sector.
    Idle,
    /// Doing a step.
    Running,
    /// For the chain, a slot or the manager.
    Waiting,
    /// Until an operator acts on its sector.
    Parked,
    /// By an operator.
    Paused,
    /// Not taking new sectors any more.
    Draining,
    /// It has ended.
    Stopped,
}

impl ThreadState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::Idle,
        Self::Running,
        Self::Waiting,
        Self::Parked,
        Self::Paused,
        Self::Draining,
        Self::Stopped,
    ];

    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

impl Render for WorkerStatus {
    fn text(&self, color: bool) -> String {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rows = self.threads.iter().map(|thread| {
            vec![
                thread.index.to_string(),
                thread.location.display().to_string(),
                thread.plan.clone(),
                thread.state.name().to_owned(),
                or_dash(thread.since.map(time_text)),
                or_dash(thread.sector.map(|s| s.to_string())),
                or_dash(thread.stage.clone()),
                thread.failures.to_string(),
                or_dash(thread.job.as_ref().map(JobView::short)),
                or_dash(thread.last_error.clone()),
            ]
        });
        let header = ["#", "LOCATION", "PLAN", "STATE", "SINCE", "SECTOR", "STAGE", "FAILURES", "JOB", "LAST ERROR"];
        let mut text = table(&header, rows, color);
        for thread in &self.threads {
            if let Some(why) = &thread.settings_refused {
                text.push_str(&refused_text(thread.index, why));
            }
        }
        text.extend(self.reload.iter().flat_map(|reload| ["\n".to_owned(), reload.text()]));
        text
    }
}

/// That a store's file is not in force, with the reason.
pub(super) fn refused_text(thread: usize, why: &str) -> String {
    let why = why.replace('\n', "\n  ");
    format!("\nthread {thread} stays as it was, what its sealing store says is refused:\n  {why}")
}
