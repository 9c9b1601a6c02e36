//! A pool of closures.

use crate::{
    Context, Error,
    pool::{Capacity, Job, PoolError, PoolErrorKind, ProcessorPool, SlotReport, Task, TaskKind},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

type Handler = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, PoolError> + Send + Sync>;

/// A pool that answers each kind of job by a closure, at once.
#[derive(Default)]
pub struct FakePool {
    handlers: BTreeMap<TaskKind, Handler>,
    draining: AtomicBool,
}

impl FakePool {
    /// A pool that knows no kind.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers jobs of `T` by `work`.
    #[must_use]
    pub fn with<T: Task>(
        mut self,
        work: impl Fn(T) -> Result<T::Output, PoolErrorKind> + Send + Sync + 'static,
    ) -> Self {
        let handler = move |payload: &[u8]| {
            let task = serde_json::from_slice(payload)
                .map_err(|e| Error::new(PoolErrorKind::Failed, "decode task").because(e))?;
            let output = work(task).map_err(|kind| Error::new(kind, "fake work").with("kind", T::KIND))?;
            serde_json::to_vec(&output).map_err(|e| Error::new(PoolErrorKind::Encoding, "encode output").because(e))
        };
        self.handlers.insert(T::KIND, Arc::new(handler));
        self
    }
}

impl fmt::Debug for FakePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakePool").field("kinds", &self.handlers.keys()).finish_non_exhaustive()
    }
}

#[async_trait]
impl ProcessorPool for FakePool {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        let error = |kind| Error::new(kind, "run job").with("kind", &job.kind).with("job", job.id);
        if self.draining.load(Ordering::Acquire) {
            return Err(error(PoolErrorKind::Draining));
        }
        let handler = self.handlers.get(&job.kind).ok_or_else(|| error(PoolErrorKind::NoProcessor))?;
        if cx.cancel.is_cancelled() {
            return Err(error(PoolErrorKind::Cancelled));
        }
        handler(&job.payload).map(Bytes::from)
    }

    fn capacity(&self, kind: &TaskKind) -> Capacity {
        let slots = usize::from(self.handlers.contains_key(kind));
        Capacity { total: slots, free: slots }
    }

    fn slots(&self) -> Vec<SlotReport> {
        let slot = |kind: &TaskKind| SlotReport::new(format!("{kind}-0"), vec![kind.clone()]);
        self.handlers.keys().map(slot).collect()
    }

    async fn drain(&self) -> Result<(), PoolError> {
        self.draining.store(true, Ordering::Release);
        Ok(())
    }
}
