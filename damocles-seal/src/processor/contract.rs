//! Processors and the registry that a child or an inline pool serves jobs from.

use damocles_core::{
    BoxError,
    pool::{PoolErrorKind, Task, TaskKind},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Where a processor reports how far it is.
pub trait ProgressSink: Send + Sync {
    /// `done` of `total` units.
    fn progress(&self, done: u64, total: Option<u64>);

    /// Whether the work was asked to stop. Only those look who say so with [`Processor::stops_when_asked`].
    fn is_stopped(&self) -> bool {
        false
    }
}

/// Does the work of one kind of task. Blocking: it runs in a process or thread of its own.
///
/// # Contract
///
/// - May be killed at any instant and run again with the same task: it trusts no file that a recorded stage did not
///   leave, and leaves synced files behind when it succeeds.
pub trait Processor<T: Task>: fmt::Debug + Send + Sync + 'static {
    /// Does the work.
    ///
    /// # Errors
    ///
    /// The work failed; the kind says whether another try makes sense.
    fn process(&self, task: T, progress: &dyn ProgressSink) -> Result<T::Output, ProcessorError>;

    /// Whether the work looks at [`ProgressSink::is_stopped`] every second or so, and fails when it was stopped. The
    /// process then stays for the next task; that of any other work ends with it.
    fn stops_when_asked(&self) -> bool {
        false
    }
}

/// Why the work failed.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct ProcessorError {
    /// What a pool should make of it: [`PoolErrorKind::Failed`] or [`PoolErrorKind::DiskFull`].
    pub kind: PoolErrorKind,
    what: String,
    #[source]
    source: Option<BoxError>,
}

impl ProcessorError {
    /// A failure with a cause. An out-of-space error anywhere in the cause's chain makes it [`PoolErrorKind::DiskFull`].
    pub fn new(what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        let source = source.into();
        let kind = if is_disk_full(&*source) { PoolErrorKind::DiskFull } else { PoolErrorKind::Failed };
        Self { kind, what: what.into(), source: Some(source) }
    }

    /// A failure without a deeper cause.
    pub fn because(what: impl Into<String>) -> Self {
        Self { kind: PoolErrorKind::Failed, what: what.into(), source: None }
    }
}

pub(super) fn is_disk_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        {
            return true;
        }
        next = error.source();
    }
    false
}

type Work = dyn Fn(&[u8], &dyn ProgressSink) -> Result<Vec<u8>, ProcessorError> + Send + Sync;

#[derive(Clone)]
struct Erased {
    work: Arc<Work>,
    stops_when_asked: bool,
}

/// Processors by kind of task.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<TaskKind, Erased>);

impl Registry {
    /// A registry that knows no kind.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the processor of a kind.
    #[must_use]
    pub fn with<T: Task>(mut self, processor: impl Processor<T>) -> Self {
        let stops_when_asked = processor.stops_when_asked();
        let work = move |payload: &[u8], progress: &dyn ProgressSink| {
            let task = serde_json::from_slice(payload)
                .map_err(|e| ProcessorError::new(format!("decode {} task", T::KIND), e))?;
            let output = processor.process(task, progress)?;
            serde_json::to_vec(&output).map_err(|e| ProcessorError::new(format!("encode {} output", T::KIND), e))
        };
        self.0.insert(T::KIND, Erased { work: Arc::new(work), stops_when_asked });
        self
    }

    /// The kinds that it knows.
    pub fn kinds(&self) -> impl Iterator<Item = &TaskKind> {
        self.0.keys()
    }

    /// Runs a task given as JSON. None if the kind is unknown.
    pub fn run(
        &self,
        kind: &TaskKind,
        payload: &[u8],
        progress: &dyn ProgressSink,
    ) -> Option<Result<Vec<u8>, ProcessorError>> {
        self.0.get(kind).map(|erased| (erased.work)(payload, progress))
    }

    /// Whether work of this kind stops when it is asked to.
    pub(crate) fn stops_when_asked(&self, kind: &TaskKind) -> bool {
        self.0.get(kind).is_some_and(|erased| erased.stops_when_asked)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registry").field(&self.0.keys()).finish()
    }
}
