//! Running heavy work on bound processors.

use crate::{ByteSize, Context, Error, JobId, Kind, Recovery, SectorId};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{borrow::Cow, fmt, future::Future, time::Duration};

/// The name of a kind of work, e.g. `pc1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskKind(Cow<'static, str>);

impl TaskKind {
    /// Names a kind.
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// Names a kind that was read from somewhere.
    pub fn read(name: impl Into<String>) -> Self {
        Self(Cow::Owned(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A typed unit of work.
pub trait Task: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind, unique in the workspace.
    const KIND: TaskKind;
    /// What the work yields.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// What a slot must have for it, beyond taking its kind.
    fn needs(&self) -> Needs {
        Needs::default()
    }
}

/// What a job needs of its slot beyond being of a kind that it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Needs {
    /// Memory that the work fills for certain: a slot that may use less can only fail.
    pub memory: Option<ByteSize>,
}

impl Needs {
    /// Work that fills this much memory.
    pub const fn memory(memory: ByteSize) -> Self {
        Self { memory: Some(memory) }
    }
}

/// An erased [`Task`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Stable across retries, so that a pool can recognise a repeat.
    pub id: JobId,
    /// Which processor to use.
    pub kind: TaskKind,
    /// The sector that it is for, if it is for one.
    pub sector: Option<SectorId>,
    /// The task as JSON.
    pub payload: Bytes,
    /// What it needs of its slot.
    #[serde(default)]
    pub needs: Needs,
}

impl Job {
    /// Erases a task.
    ///
    /// # Errors
    ///
    /// The task cannot be expressed as JSON, e.g. because a path is not UTF-8.
    pub fn of<T: Task>(id: JobId, sector: Option<SectorId>, task: &T) -> Result<Self, PoolError> {
        let payload = serde_json::to_vec(task)
            .map_err(|e| Error::new(PoolErrorKind::Encoding, "encode task").with("kind", T::KIND).because(e))?;
        Ok(Self { id, kind: T::KIND, sector, payload: payload.into(), needs: task.needs() })
    }
}

/// Runs jobs on processors that are bound to CPUs, memory nodes and GPUs.
///
/// # Contract
///
/// - `run` resolves only when no process that it started for the job alone is left. The one exception is a process that
///   the kernel does not let die, e.g. one that waits for a disk that is gone: seconds after it was killed, `run` fails
///   all the same, and its slot stays taken until the process is gone.
/// - When `cx.cancel` fires, the pool asks the processor to stop, waits for the grace period, then kills its whole
///   process group, and `run` fails with [`PoolErrorKind::Cancelled`].
/// - Dropping the future kills the processor without grace.
/// - Waiting for a free slot is part of `run`; a full pool is not an error.
/// - A pool may limit the time of a job, counted from the moment at which it has a slot. A job that takes longer is
///   stopped like a cancelled one, and `run` fails with [`PoolErrorKind::TimedOut`].
/// - A kind without any slot fails at once with [`PoolErrorKind::NoProcessor`].
/// - After `drain` began, `run` fails with [`PoolErrorKind::Draining`]; `drain` resolves when running jobs have ended.
#[async_trait]
pub trait ProcessorPool: fmt::Debug + Send + Sync + 'static {
    /// Runs one job to its end and returns its output as JSON.
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError>;

    /// Slots for `kind`: how many there are and how many are free now.
    fn capacity(&self, kind: &TaskKind) -> Capacity;

    /// Every slot, with what it does now.
    fn slots(&self) -> Vec<SlotReport>;

    /// Takes no more jobs and resolves when the running ones have ended.
    async fn drain(&self) -> Result<(), PoolError>;
}

/// Slots of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// All slots.
    pub total: usize,
    /// Slots free at this moment.
    pub free: usize,
}

/// One slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotReport {
    /// Its name, unique in the pool, e.g. `pc1-0`.
    pub name: String,
    /// The kinds of job that it takes.
    pub kinds: Vec<TaskKind>,
    /// The process that serves it, if one is running.
    pub pid: Option<u32>,
    /// The job that it runs.
    pub job: Option<JobId>,
    /// The sector of that job.
    pub sector: Option<SectorId>,
    /// What it does.
    #[serde(default)]
    pub state: SlotState,
    /// For how long it has done that.
    #[serde(default)]
    pub lasting: Duration,
    /// When it is tried again, if it rests.
    #[serde(default)]
    pub next_try: Option<Duration>,
    /// How often its process was started anew.
    #[serde(default)]
    pub restarts: u64,
    /// How often its process failed since it last did a job.
    #[serde(default)]
    pub failures: u32,
    /// How its process failed last, with the causes.
    #[serde(default)]
    pub last_error: Option<String>,
}

impl SlotReport {
    /// A slot without process or job.
    pub fn new(name: impl Into<String>, kinds: Vec<TaskKind>) -> Self {
        Self {
            name: name.into(),
            kinds,
            pid: None,
            job: None,
            sector: None,
            state: SlotState::Idle,
            lasting: Duration::ZERO,
            next_try: None,
            restarts: 0,
            failures: 0,
            last_error: None,
        }
    }
}

/// What a slot does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotState {
    /// It waits for a job.
    #[default]
    Idle,
    /// It has a job and waits for what other programs on this host hold.
    Claiming,
    /// Its process gets ready.
    Starting,
    /// It works.
    Busy,
    /// What it did is over, and its process is being ended.
    Ending,
    /// Its process failed: it is tried again soon.
    Resting,
    /// Its process failed again and again: it is tried again after a long rest.
    Open,
    /// Its process failed and is not started again before an operator says so.
    Stopped,
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Claiming => "claiming",
            Self::Starting => "starting",
            Self::Busy => "busy",
            Self::Ending => "ending",
            Self::Resting => "resting",
            Self::Open => "open",
            Self::Stopped => "stopped",
        })
    }
}

/// The typed face of [`ProcessorPool`], for callers.
pub trait ProcessorPoolExt: ProcessorPool {
    /// Runs a typed task.
    fn run_task<T: Task>(
        &self,
        id: JobId,
        sector: Option<SectorId>,
        task: &T,
        cx: &Context,
    ) -> impl Future<Output = Result<T::Output, PoolError>> + Send {
        async move {
            let job = Job::of(id, sector, task)?;
            let output = self.run(job, cx).await?;
            // What a child prints is the child's failure, never ours: another slot may do better.
            serde_json::from_slice(&output)
                .map_err(|e| Error::new(PoolErrorKind::Rubbish, "decode output").with("kind", T::KIND).because(e))
        }
    }
}

impl<P: ProcessorPool + ?Sized> ProcessorPoolExt for P {}

/// An error of a [`ProcessorPool`].
pub type PoolError = Error<PoolErrorKind>;

/// What went wrong in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolErrorKind {
    /// No processor is configured for the kind of the job.
    NoProcessor,
    /// The processor could not be started or bound.
    Start,
    /// The processor died without an answer.
    Crashed,
    /// The kernel killed the processor because its memory ran out.
    OutOfMemory,
    /// The processor is there but does nothing any more: it was stopped, or waits for itself.
    Hung,
    /// The processor answered with something that is not an answer.
    Rubbish,
    /// The processor answered with an error.
    Failed,
    /// The processor says that no space is left.
    DiskFull,
    /// The job was cancelled.
    Cancelled,
    /// The job took longer than the pool lets it.
    TimedOut,
    /// The pool takes no more jobs.
    Draining,
    /// The task could not be encoded.
    Encoding,
}

impl fmt::Display for PoolErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoProcessor => "no processor is configured for this kind of task",
            Self::Start => "the processor did not start",
            Self::Crashed => "the processor died without an answer",
            Self::OutOfMemory => "the processor was killed because its memory ran out",
            Self::Hung => "the processor hangs",
            Self::Rubbish => "the processor's answer could not be understood",
            Self::Failed => "the processor reported a failure",
            Self::DiskFull => "the processor found no space left",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "the processor took longer than it may",
            Self::Draining => "the pool takes no more jobs",
            Self::Encoding => "the task could not be encoded",
        })
    }
}

impl Kind for PoolErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::Start
            | Self::Crashed
            | Self::OutOfMemory
            | Self::Hung
            | Self::Rubbish
            | Self::Failed
            | Self::DiskFull
            | Self::Cancelled
            | Self::TimedOut
            | Self::Draining => Recovery::RETRY,
            Self::NoProcessor | Self::Encoding => Recovery::Park,
        }
    }

    fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoProcessor => Some("add a [[processors.<kind>]] entry for it"),
            Self::TimedOut => {
                Some("see why it hangs, or give it more time with `processors.limitation.timeout.<kind>`")
            }
            Self::OutOfMemory => {
                Some("raise the slot's memory limit, or let fewer tasks run at a time on this machine")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakePool;
    use std::sync::Arc;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Double(u64);
    impl Task for Double {
        const KIND: TaskKind = TaskKind::new("double");
        type Output = u64;
    }

    #[tokio::test]
    async fn typed_call_through_a_trait_object() {
        let pool: Arc<dyn ProcessorPool> = Arc::new(FakePool::new().with::<Double>(|Double(n)| Ok(n * 2)));
        let cx = Context::detached();
        assert_eq!(pool.run_task(JobId(1), None, &Double(21), &cx).await.unwrap(), 42);

        cx.cancel.cancel();
        let err = pool.run_task(JobId(2), None, &Double(1), &cx).await.unwrap_err();
        assert_eq!(err.kind(), PoolErrorKind::Cancelled);
        // It can be spawned: the future is Send.
        fn is_send<T: Send>(_: &T) {}
        let f = pool.run_task(JobId(3), None, &Double(1), &cx);
        is_send(&f);
    }
}
