//! Supervised children in slots.

use super::{
    child::{Child, Ended},
    queue::{Holder, Queue, Ticket},
    spec::{PoolSpec, SlotSpec, SpecError},
};
use crate::placement::Isolation;
use async_trait::async_trait;
use bytes::Bytes;
use damocles_core::{
    Context, Error, Event, JobEvent, JobId, SectorId,
    pool::{Capacity, Job, PoolError, PoolErrorKind, ProcessorPool, SlotReport, TaskKind},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

/// A pool of long-lived child processes, one in each slot.
///
/// A child is started for the first job of its slot and kept for the next ones. One that dies, hangs in its handshake,
/// or says something else than the protocol is killed with all it started, its job fails with a kind that says so, and
/// the next job starts another child after a rest. A child whose job is cancelled is stopped too: proofs cannot be
/// interrupted. Children do not outlive the pool, nor this process, however it ends.
#[derive(Debug)]
pub struct LocalPool(Arc<Shared>);

/// A job that waits for a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingJob {
    /// The job.
    pub job: JobId,
    /// Its kind.
    pub kind: TaskKind,
    /// The sector that it is for.
    pub sector: Option<SectorId>,
    /// Why no slot takes it.
    pub reason: String,
}

#[derive(Debug)]
struct Shared {
    slots: Vec<SlotSpec>,
    grace: Duration,
    last_wait: Duration,
    isolation: Arc<Isolation>,
    /// How long jobs may have their slot.
    time: BTreeMap<TaskKind, Duration>,
    state: Mutex<State>,
    /// Told whenever a slot, a limit or a time changes.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// The idle children, by slot.
    children: Vec<Option<Child>>,
    grants: HashMap<u64, oneshot::Sender<Lease>>,
    draining: bool,
}

impl LocalPool {
    /// A pool of these slots. Starts nothing yet.
    ///
    /// # Errors
    ///
    /// The slots do not fit together.
    pub fn new(spec: PoolSpec) -> Result<Self, SpecError> {
        spec.check()?;
        let time = spec.limits.time.clone();
        let state = State {
            queue: Queue::new(&spec.slots, spec.limits, spec.rest),
            children: spec.slots.iter().map(|_| None).collect(),
            grants: HashMap::new(),
            draining: false,
        };
        let changed = Notify::new();
        let PoolSpec { slots, grace, last_wait, isolation, .. } = spec;
        let isolation = Arc::new(Isolation::new(isolation));
        Ok(Self(Arc::new(Shared { slots, grace, last_wait, isolation, time, state: Mutex::new(state), changed })))
    }

    /// Starts the child of every free slot now instead of with its first job, so that what is wrong with it shows.
    ///
    /// # Errors
    ///
    /// The first child that could not be started; the others are left running.
    pub async fn start(&self, cx: &Context) -> Result<(), PoolError> {
        for index in 0..self.0.slots.len() {
            let taken = self.0.state.lock().queue.take(index);
            if taken {
                let mut lease = Lease { shared: Arc::clone(&self.0), index, child: None, rests: false };
                lease.ready(cx).await?;
            }
        }
        Ok(())
    }

    /// The jobs that wait, first in line first, and why.
    pub fn waiting(&self) -> Vec<WaitingJob> {
        let state = self.0.state.lock();
        let now = Instant::now();
        let explain = |holder: &Holder| WaitingJob {
            job: holder.job,
            kind: holder.kind.clone(),
            sector: holder.sector,
            reason: state.queue.why(&holder.kind, now).map_or_else(|| "others are first".to_owned(), |w| w.to_string()),
        };
        state.queue.waiting().map(explain).collect()
    }

    fn refused(&self, job: &Job) -> Option<PoolErrorKind> {
        let state = self.0.state.lock();
        if state.draining {
            Some(PoolErrorKind::Draining)
        } else if state.queue.capacity(&job.kind).total == 0 {
            Some(PoolErrorKind::NoProcessor)
        } else {
            None
        }
    }
}

fn error(kind: PoolErrorKind, job: &Job) -> PoolError {
    Error::new(kind, "run job").with("kind", &job.kind).with("job", job.id)
}

fn report(job: &Job, cx: &Context, what: JobEvent) {
    cx.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
}

#[async_trait]
impl ProcessorPool for LocalPool {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        if let Some(kind) = self.refused(&job) {
            return Err(error(kind, &job));
        }
        if cx.cancel.is_cancelled() {
            return Err(error(PoolErrorKind::Cancelled, &job));
        }
        let mut lease = self.0.acquire(&job, cx).await?;
        report(&job, cx, JobEvent::Started { slot: lease.slot().name.clone() });
        let result = lease.run_in_time(&job, cx).await;
        drop(lease);
        report(&job, cx, JobEvent::Ended { ok: result.is_ok() });
        result
    }

    fn capacity(&self, kind: &TaskKind) -> Capacity {
        self.0.state.lock().queue.capacity(kind)
    }

    fn slots(&self) -> Vec<SlotReport> {
        self.0.state.lock().queue.reports()
    }

    async fn drain(&self) -> Result<(), PoolError> {
        let refused: Vec<_> = {
            let mut state = self.0.state.lock();
            state.draining = true;
            state.grants.drain().collect()
        };
        // Whoever waits for one of these finds it gone and fails with `Draining`.
        drop(refused);
        self.0.changed.notify_waiters();
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let jobless = {
                let state = self.0.state.lock();
                if state.queue.idle() {
                    break;
                }
                state.queue.jobless()
            };
            if !jobless {
                changed.await;
            } else if timeout(self.0.last_wait, changed).await.is_err() {
                // What is left was killed, and the kernel does not let it die.
                break;
            }
        }
        let children: Vec<Child> = self.0.state.lock().children.iter_mut().filter_map(Option::take).collect();
        futures::future::join_all(children.into_iter().map(|child| child.shut_down(self.0.grace))).await;
        Ok(())
    }
}

impl Shared {
    /// Waits for a slot.
    async fn acquire(self: &Arc<Self>, job: &Job, cx: &Context) -> Result<Lease, PoolError> {
        let (grant, mut granted) = oneshot::channel();
        let waiting = {
            let mut state = self.state.lock();
            if state.draining {
                return Err(error(PoolErrorKind::Draining, job));
            }
            let ticket = state.queue.push(job);
            state.grants.insert(ticket.number(), grant);
            Waiting { shared: Arc::clone(self), ticket }
        };
        self.dispatch();
        let mut told = None;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match granted.try_recv() {
                Ok(lease) => return Ok(lease),
                Err(oneshot::error::TryRecvError::Closed) => return Err(error(PoolErrorKind::Draining, job)),
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            let now = Instant::now();
            let (why, wakes_at) = {
                let state = self.state.lock();
                (state.queue.why(&job.kind, now), state.queue.wakes_at(now))
            };
            // The seconds in a reason run: a reason is told again only when it is another one.
            let kind_of_reason = why.as_ref().map(std::mem::discriminant);
            if told != Some(kind_of_reason) {
                told = Some(kind_of_reason);
                let reason = why.map_or_else(|| "others are first".to_owned(), |why| why.to_string());
                report(job, cx, JobEvent::Queued { reason });
            }
            let wake = async {
                match wakes_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = wake => self.dispatch(),
                () = cx.cancel.cancelled() => {
                    drop(waiting);
                    return Err(error(PoolErrorKind::Cancelled, job));
                }
            }
        }
    }

    /// Gives out what is free, and tells everybody that something changed.
    fn dispatch(self: &Arc<Self>) {
        let mut leases = Vec::new();
        {
            let mut state = self.state.lock();
            for (ticket, index) in state.queue.grant(Instant::now()) {
                let child = state.children.get_mut(index).and_then(Option::take);
                let lease = Lease { shared: Arc::clone(self), index, child, rests: false };
                leases.push((state.grants.remove(&ticket.number()), lease));
            }
        }
        for (grant, lease) in leases {
            // A lease that nobody waits for any more is dropped, which gives the slot back.
            if let Some(grant) = grant {
                let _ = grant.send(lease);
            }
        }
        self.changed.notify_waiters();
    }
}

/// A place in the queue, given up when dropped.
struct Waiting {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.queue.remove(self.ticket);
        state.grants.remove(&self.ticket.number());
    }
}

/// A slot for the time of one job, given back when dropped.
#[derive(Debug)]
struct Lease {
    shared: Arc<Shared>,
    index: usize,
    child: Option<Child>,
    rests: bool,
}

impl Lease {
    fn slot(&self) -> &SlotSpec {
        self.shared.slots.get(self.index).expect("a lease is for a slot of its pool")
    }

    /// Makes sure that there is a child.
    async fn ready(&mut self, cx: &Context) -> Result<(), PoolError> {
        if self.child.as_ref().is_some_and(Child::has_ended) {
            self.child = None;
        }
        if self.child.is_some() {
            return Ok(());
        }
        let (index, shared) = (self.index, Arc::downgrade(&self.shared));
        let begun = |pid| self.shared.state.lock().queue.started(index, pid);
        // Known before it is forked: a lease that is dropped from here on waits for the end of the process.
        begun(0);
        let gone = move || {
            if let Some(shared) = Weak::upgrade(&shared) {
                shared.state.lock().queue.ended(index);
                shared.dispatch();
            }
        };
        match Child::start(self.slot(), &self.shared.isolation, self.shared.last_wait, cx, begun, gone).await {
            Ok(child) => {
                self.child = Some(child);
                Ok(())
            }
            Err(error) => {
                self.rests = error.kind() != PoolErrorKind::Cancelled;
                Err(error)
            }
        }
    }

    /// Runs a job and stops it when its time is over.
    async fn run_in_time(&mut self, job: &Job, cx: &Context) -> Result<Bytes, PoolError> {
        let Some(limit) = self.shared.time.get(&job.kind).copied() else { return self.run(job, cx).await };
        let inner = cx.child();
        let run = self.run(job, &inner);
        tokio::pin!(run);
        tokio::select! {
            done = &mut run => return done,
            () = sleep(limit) => inner.cancel.cancel(),
        }
        // Not dropped: the processor has a grace period to stop, and work that it finished meanwhile is kept.
        run.await.map_err(|cause| match cause.kind() {
            PoolErrorKind::Cancelled if !cx.cancel.is_cancelled() => {
                error(PoolErrorKind::TimedOut, job).with("time limit", format_args!("{limit:?}")).because(cause)
            }
            _ => cause,
        })
    }

    async fn run(&mut self, job: &Job, cx: &Context) -> Result<Bytes, PoolError> {
        self.ready(cx).await?;
        // Out of the lease while it works: whatever happens to this future, a child in the middle of a job is killed.
        let Some(mut child) = self.child.take() else { return Err(error(PoolErrorKind::Start, job)) };
        match child.work(job, cx, self.shared.grace).await {
            Ended::Answered(answer) => {
                self.shared.state.lock().queue.succeeded(self.index);
                self.child = Some(child);
                answer
            }
            Ended::Broken(error) => {
                self.rests = error.kind() != PoolErrorKind::Cancelled;
                Err(error)
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock();
            if self.rests {
                state.queue.failed(self.index, Instant::now());
            }
            // A child that is here has no job and stays in the slot. Without one, what was there has to end first.
            let kept = self.child.is_some();
            if let Some(place) = state.children.get_mut(self.index) {
                *place = self.child.take();
            }
            state.queue.release(self.index, !kept);
        }
        self.shared.dispatch();
    }
}
