//! A slot for the time of one job.

use super::{
    child::{Child, Ended},
    gate::Pass,
    local::{Shared, error},
    queue::InLine,
    schedule::Verdict,
    spec::SlotSpec,
};
use crate::claims::resources_of;
use bytes::Bytes;
use damocles_core::{
    CancellationToken, Context, JobEvent,
    pool::{Job, PoolError, PoolErrorKind},
};
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU32, Ordering},
};
use tokio::time::{Instant, sleep};

/// A slot for the time of one job, given back when dropped.
#[derive(Debug)]
pub(super) struct Lease {
    shared: Arc<Shared>,
    index: usize,
    child: Option<Child>,
    verdict: Verdict,
    /// How the slot's process failed, if it did.
    failure: Option<String>,
    /// Whether its process was killed and does not die.
    stuck: bool,
    /// Its job stands in line again, and the slot is given back.
    left: bool,
}

/// What became of a job in its slot.
#[derive(Debug)]
pub(super) enum Carried {
    /// It is over.
    Over(Result<Bytes, PoolError>),
    /// Somebody more urgent took its slot's GPUs from it: it waits again, at the end of the line.
    Stopped,
    /// It had not begun, and stands in line again where it was.
    Back(InLine),
}

/// What became of a claim.
enum Claimed {
    All,
    /// Somebody ahead of it can go without it, or it can have another slot.
    Recalled,
}

impl Lease {
    pub(super) fn new(shared: Arc<Shared>, index: usize, child: Option<Child>) -> Self {
        let verdict = Verdict::Dropped;
        Self { shared, index, child, verdict, failure: None, stuck: false, left: false }
    }

    fn slot(&self) -> &SlotSpec {
        self.shared.slots.get(self.index).expect("a lease is for a slot of its pool")
    }

    /// Does the job, from the claims of the slot to the answer.
    pub(super) async fn carry_out(mut self, job: &Job, cx: &Context) -> Carried {
        let inner = cx.child();
        let result = match self.claim(job, cx).await {
            Ok(Claimed::Recalled) => return self.put_back(job),
            Ok(Claimed::All) => {
                super::local::report(job, cx, JobEvent::Started { slot: self.slot().name.clone() });
                self.shared.may_stop(self.index, Some(inner.cancel.clone()));
                let result = self.run_in_time(job, &inner).await;
                self.shared.may_stop(self.index, None);
                super::local::report(job, cx, JobEvent::Ended { ok: result.is_ok() });
                result
            }
            Err(error) => Err(error),
        };
        let stopped = inner.cancel.is_cancelled() && !cx.cancel.is_cancelled();
        self.verdict = match &result {
            Ok(_) => Verdict::Done,
            Err(error) if stopped && error.kind() == PoolErrorKind::Cancelled => return Carried::Stopped,
            Err(error) => Verdict::Failed(error.kind()),
        };
        Carried::Over(result)
    }

    /// Claims what the slot has for itself on this host.
    async fn claim(&self, job: &Job, cx: &Context) -> Result<Claimed, PoolError> {
        let Some(gate) = self.shared.gate.clone() else { return Ok(Claimed::All) };
        let recall = CancellationToken::new();
        let waits = || self.shared.claiming(self.index, &recall);
        let pass = tokio::select! {
            biased;
            () = cx.cancel.cancelled() => return Err(error(PoolErrorKind::Cancelled, job)),
            () = recall.cancelled() => return Ok(Claimed::Recalled),
            pass = gate.enter(self.slot(), job, cx, &waits) => pass?,
        };
        Ok(if self.begins_with(pass) { Claimed::All } else { Claimed::Recalled })
    }

    /// Keeps what was claimed, if the job may still begin.
    fn begins_with(&self, pass: Box<dyn Pass>) -> bool {
        let waited = self.shared.state.lock().recalls.get(self.index).is_some_and(Option::is_some);
        if waited {
            // What was given back to it may be for somebody ahead of it.
            self.shared.dispatch();
        }
        let mut state = self.shared.state.lock();
        if !state.scheduler.claimed(self.index, Instant::now()) {
            drop(state);
            drop(pass);
            return false;
        }
        if let Some(recall) = state.recalls.get_mut(self.index) {
            *recall = None;
        }
        if let Some(place) = state.passes.get_mut(self.index) {
            *place = Some(pass);
        }
        true
    }

    /// Gives the slot back, and puts its job where it stood in line.
    fn put_back(mut self, job: &Job) -> Carried {
        let shared = Arc::clone(&self.shared);
        let Some(line) = shared.put_back(self.index, &mut self.child) else {
            return Carried::Over(Err(error(PoolErrorKind::Draining, job)));
        };
        self.left = true;
        Carried::Back(line)
    }

    /// Makes sure that there is a child.
    pub(super) async fn ready(&mut self, cx: &Context) -> Result<(), PoolError> {
        if self.child.as_ref().is_some_and(Child::has_ended) {
            self.child = None;
        }
        if self.child.is_some() {
            return Ok(());
        }
        let (index, shared) = (self.index, Arc::downgrade(&self.shared));
        let forked = Arc::new(AtomicU32::new(0));
        let process = Arc::clone(&forked);
        let begun = |pid| {
            forked.store(pid, Ordering::Relaxed);
            self.shared.state.lock().scheduler.forked(index, pid);
        };
        // Known before it is forked: a lease that is dropped from here on waits for the end of the process.
        self.shared.state.lock().scheduler.forking(index);
        let gone = move || {
            if let Some(shared) = Weak::upgrade(&shared) {
                shared.process_ended(index, process.load(Ordering::Relaxed));
            }
        };
        match Child::start(self.slot(), &self.shared.isolation, self.shared.last_wait, cx, begun, gone).await {
            Ok(child) => {
                self.child = Some(child);
                Ok(())
            }
            Err(error) => {
                self.blame(&error);
                Err(error)
            }
        }
    }

    fn blame(&mut self, error: &PoolError) {
        if error.kind() != PoolErrorKind::Cancelled {
            self.failure = Some(error.chain());
        }
    }

    /// Runs a job and stops it when its time is over.
    async fn run_in_time(&mut self, job: &Job, cx: &Context) -> Result<Bytes, PoolError> {
        let Some(limit) = self.shared.time.get(&job.kind).copied() else { return self.run(job, cx).await };
        let inner = cx.child();
        let result = {
            let run = self.run(job, &inner);
            tokio::pin!(run);
            tokio::select! {
                done = &mut run => return done,
                () = sleep(limit) => inner.cancel.cancel(),
            }
            // Not dropped: the processor has a grace period to stop, and work that it finished meanwhile is kept.
            run.await
        };
        result.map_err(|cause| match cause.kind() {
            PoolErrorKind::Cancelled if !cx.cancel.is_cancelled() => {
                let late = error(PoolErrorKind::TimedOut, job).with("time limit", format_args!("{limit:?}"));
                let late = late.because(cause);
                self.blame(&late);
                late
            }
            _ => cause,
        })
    }

    async fn run(&mut self, job: &Job, cx: &Context) -> Result<Bytes, PoolError> {
        self.ready(cx).await?;
        self.shared.began(self.index);
        // Out of the lease while it works: whatever happens to this future, a child in the middle of a job is killed.
        let Some(mut child) = self.child.take() else { return Err(error(PoolErrorKind::Start, job)) };
        match child.work(job, cx, self.shared.grace).await {
            Ended::Answered(answer) => {
                self.shared.state.lock().scheduler.succeeded(self.index);
                self.child = Some(child);
                answer
            }
            Ended::Broken(error) => {
                self.stuck = child.is_stuck();
                self.blame(&error);
                Err(error)
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let pass = {
            let mut state = self.shared.state.lock();
            let now = Instant::now();
            if let Some(recall) = state.recalls.get_mut(self.index) {
                *recall = None;
            }
            if let Some(failure) = self.failure.take() {
                state.scheduler.failed(self.index, failure, now);
            }
            // A child that is here has no job and stays in the slot. Without one, what was there has to end first.
            let kept = self.child.is_some();
            if let Some(place) = state.children.get_mut(self.index) {
                *place = self.child.take();
            }
            let mut free = state.scheduler.release(self.index, self.verdict, !kept, now);
            // What has hardware for itself keeps it for as long as it is there.
            if !free
                && self.stuck
                && resources_of(self.slot()).is_empty()
                && let Some(pid) = state.scheduler.leave_behind(self.index, now)
            {
                tracing::warn!(
                    pid,
                    "a process that was killed does not die; it is left behind, and another takes its place"
                );
                free = true;
            }
            if free { state.passes.get_mut(self.index).and_then(Option::take) } else { None }
        };
        drop(pass);
        self.shared.dispatch();
    }
}
