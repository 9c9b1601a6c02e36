//! A limit on the time of jobs.

use async_trait::async_trait;
use bytes::Bytes;
use damocles_core::{
    Context, Error,
    pool::{Capacity, Job, PoolError, PoolErrorKind, ProcessorPool, SlotReport, TaskKind},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Gives jobs of some kinds a limited time, waiting for a slot included.
#[derive(Debug)]
pub struct TimeLimit {
    inner: Arc<dyn ProcessorPool>,
    limits: BTreeMap<TaskKind, Duration>,
}

impl TimeLimit {
    /// Wraps `inner`. Kinds without a limit may take for ever.
    pub fn new(inner: Arc<dyn ProcessorPool>, limits: BTreeMap<TaskKind, Duration>) -> Self {
        Self { inner, limits }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ProcessorPool for TimeLimit {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        let Some(limit) = self.limits.get(&job.kind).copied() else { return self.inner.run(job, cx).await };
        let child = cx.child();
        let (kind, id) = (job.kind.clone(), job.id);
        let mut work = self.inner.run(job, &child);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(limit) => child.cancel.cancel(),
        }
        // Not dropped: the inner pool needs its grace period to stop the processor.
        match work.await {
            // It finished while it was being stopped: finished work is kept.
            Ok(output) => Ok(output),
            Err(cause) => Err(Error::new(PoolErrorKind::Cancelled, "run job")
                .with("kind", kind)
                .with("job", id)
                .with("time limit", format_args!("{limit:?}"))
                .because(cause)),
        }
    }

    fn capacity(&self, kind: &TaskKind) -> Capacity {
        self.inner.capacity(kind)
    }

    fn slots(&self) -> Vec<SlotReport> {
        self.inner.slots()
    }

    async fn drain(&self) -> Result<(), PoolError> {
        self.inner.drain().await
    }
}
