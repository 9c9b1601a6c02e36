//! Jobs in the time that a duty has.

use super::WindowScheduler;
use crate::fingerprint::fingerprint;
use bytes::Bytes;
use damocles_core::{
    CancellationToken, Context, Epoch, Error, Event, EventSink, JobEvent, JobId,
    chain::ChainClientExt,
    pool::{Job, PoolError, PoolErrorKind, Task},
    post::{Duty, PoStError, PoStErrorKind},
};
use std::{error::Error as _, future::Future, sync::Arc};

/// How much of the time until a duty is due one job may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    parts: i64,
    of: i64,
    /// In epochs, however much time there is.
    most: i64,
}

impl Share {
    pub(super) const fn new(parts: i64, of: i64) -> Self {
        Self { parts, of, most: i64::MAX }
    }

    pub(super) const fn at_most(self, most: i64) -> Self {
        Self { most, ..self }
    }

    pub(super) fn end(self, now: Epoch, due: Epoch) -> Epoch {
        let left = (due - now).max(0);
        now + (left.saturating_mul(self.parts) / self.of).clamp(1, self.most)
    }
}

impl WindowScheduler {
    /// Runs a task in the pool, for at most its share of the time that is left. That is counted from when a slot takes the
    /// job: one that waits for a slot says nothing about what it works on. A job that takes longer is stopped and fails
    /// with `kind`.
    pub(super) async fn work<T: Task>(
        &self,
        duty: &Duty,
        task: &T,
        kind: PoStErrorKind,
        share: Share,
        cx: &Context,
    ) -> Result<T::Output, PoStError> {
        let failed = |e: PoolError| {
            // A job that was stopped because of its time is cancelled too, but not by the caller.
            let cancelled = e.kind() == PoolErrorKind::Cancelled && cx.cancel.is_cancelled();
            let kind = if cancelled { PoStErrorKind::Cancelled } else { kind };
            let recovery = e.recovery();
            self.failed(kind, "run task", duty).with("task", T::KIND).recover_by(recovery).because(e)
        };
        let mut job = Job::of(JobId(0), None, task).map_err(failed)?;
        // The same work is the same job, also after a restart.
        job.id = JobId(fingerprint([T::KIND.as_str().as_bytes(), &job.payload]));
        let started = CancellationToken::new();
        let events = Arc::new(Starts { job: job.id, started: started.clone(), inner: Arc::clone(&cx.events) });
        let inner = Context { cancel: cx.cancel.child_token(), events };
        let run = self.deps.pool.run(job, &inner);
        let due = self.deps.chain.reached(duty.due, &inner);
        let late = async {
            started.cancelled().await;
            let least = tokio::time::sleep(self.options.least_read_time);
            let share = async {
                let now = self.deps.chain.reached(Epoch(i64::MIN), &inner).await?;
                self.deps.chain.reached(share.end(now.epoch, duty.due), &inner).await
            };
            tokio::join!(least, share).1
        };
        tokio::pin!(run, due, late);
        let output = tokio::select! {
            biased;
            output = &mut run => output,
            Ok(head) = &mut due => {
                inner.cancel.cancel();
                let _ = self.stopped::<T>(run).await;
                return Err(self.overdue(duty, head.epoch));
            }
            Ok(_) = &mut late => {
                inner.cancel.cancel();
                self.stopped::<T>(run).await
            }
        };
        let output = output.map_err(failed)?;
        serde_json::from_slice(&output)
            .map_err(|e| self.failed(kind, "decode output", duty).with("task", T::KIND).because(e))
    }

    /// The end of a job that was cancelled. The pool gives its children the time that they need to wind down, but a
    /// child that sleeps in the kernel, e.g. on a disk that is gone, cannot even be killed: it is not waited for.
    async fn stopped<T: Task>(&self, run: impl Future<Output = Result<Bytes, PoolError>>) -> Result<Bytes, PoolError> {
        tokio::time::timeout(self.options.stop_time, run).await.unwrap_or_else(|elapsed| {
            Err(Error::new(PoolErrorKind::Cancelled, "stop job").with("kind", T::KIND).because(elapsed))
        })
    }
}

/// Whether the child of a job died, or was stopped because it took too long.
pub(super) fn is_of_child(error: &PoStError) -> bool {
    is(error, PoolErrorKind::Crashed) || is(error, PoolErrorKind::OutOfMemory) || is_late(error)
}

/// Whether a job was stopped because it took too long.
pub(super) fn is_late(error: &PoStError) -> bool {
    let stopped = is(error, PoolErrorKind::Cancelled) || is(error, PoolErrorKind::TimedOut);
    error.kind() != PoStErrorKind::Cancelled && stopped
}

fn is(error: &PoStError, kind: PoolErrorKind) -> bool {
    error.source().and_then(|e| e.downcast_ref::<PoolError>()).is_some_and(|e| e.kind() == kind)
}

/// Hears when a slot takes a job, and passes everything on.
#[derive(Debug)]
struct Starts {
    job: JobId,
    started: CancellationToken,
    inner: Arc<dyn EventSink>,
}

impl EventSink for Starts {
    fn emit(&self, event: Event) {
        if matches!(&event, Event::Job { job, what: JobEvent::Started { .. }, .. } if *job == self.job) {
            self.started.cancel();
        }
        self.inner.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_at_least_an_epoch_and_never_more_than_its_most() {
        for (share, now, due, end) in [
            (Share::new(1, 3), 0, 60, 20),
            (Share::new(2, 3), 10, 70, 50),
            (Share::new(1, 16), 0, 8, 1),
            (Share::new(1, 3), 9, 9, 10),
            (Share::new(1, 3), 12, 9, 13),
            (Share::new(1, 32).at_most(4), 0, 1000, 4),
            (Share::new(1, 1), 0, i64::MAX, i64::MAX),
        ] {
            assert_eq!(share.end(Epoch(now), Epoch(due)), Epoch(end), "{share:?} of {now}..{due}");
        }
    }
}
