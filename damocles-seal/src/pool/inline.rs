//! Jobs in this process.

use crate::processor::{ProcessorError, ProgressSink, Registry};
use async_trait::async_trait;
use bytes::Bytes;
use damocles_core::{
    Context, Error, Event, EventSink, JobEvent,
    pool::{Capacity, Job, PoolError, PoolErrorKind, ProcessorPool, SlotReport, SlotState, TaskKind},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// A pool that runs a registry on threads of this process: for tests, and for programs that seal a sector or two.
///
/// Nothing stops a thread. A cancelled job, also one whose future is dropped, keeps its slot until its work ends.
#[derive(Debug)]
pub struct InlinePool {
    registry: Registry,
    slots: BTreeMap<TaskKind, Arc<Slot>>,
    draining: watch::Sender<bool>,
    running: Arc<watch::Sender<usize>>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    turns: Arc<Semaphore>,
    job: Mutex<Option<Job>>,
}

impl InlinePool {
    /// One slot for each kind that the registry knows.
    pub fn new(registry: Registry) -> Self {
        let slot = |kind: &TaskKind| Slot {
            name: format!("{kind}-0"),
            turns: Arc::new(Semaphore::new(1)),
            job: Mutex::default(),
        };
        let slots = registry.kinds().map(|kind| (kind.clone(), Arc::new(slot(kind)))).collect();
        Self { registry, slots, draining: watch::Sender::new(false), running: Arc::new(watch::Sender::new(0)) }
    }

    async fn turn(&self, job: &Job, slot: &Slot, cx: &Context) -> Result<OwnedSemaphorePermit, PoolError> {
        let mut draining = self.draining.subscribe();
        if slot.turns.available_permits() == 0 {
            report(job, &*cx.events, JobEvent::Queued { reason: format!("slot {} is busy", slot.name) });
        }
        tokio::select! {
            biased;
            _ = draining.wait_for(|draining| *draining) => Err(error(PoolErrorKind::Draining, job)),
            () = cx.cancel.cancelled() => Err(error(PoolErrorKind::Cancelled, job)),
            turn = Arc::clone(&slot.turns).acquire_owned() => {
                turn.map_err(|e| error(PoolErrorKind::Draining, job).because(e))
            }
        }
    }
}

fn error(kind: PoolErrorKind, job: &Job) -> PoolError {
    Error::new(kind, "run job").with("kind", &job.kind).with("job", job.id)
}

fn report(job: &Job, events: &dyn EventSink, what: JobEvent) {
    events.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
}

/// A job on its thread. The slot is free when this is dropped.
struct Running {
    job: Job,
    slot: Arc<Slot>,
    events: Arc<dyn EventSink>,
    count: Arc<watch::Sender<usize>>,
    turn: Option<OwnedSemaphorePermit>,
}

impl Running {
    fn work(&self, registry: &Registry) -> Result<Vec<u8>, PoolError> {
        let worked = catch_unwind(AssertUnwindSafe(|| registry.run(&self.job.kind, &self.job.payload, self)));
        let worked = worked
            .unwrap_or_else(|panic| Some(Err(ProcessorError::because(crate::processor::panic_text(&*panic)))))
            .ok_or_else(|| error(PoolErrorKind::NoProcessor, &self.job))?;
        worked.map_err(|e| error(e.kind, &self.job).because(e))
    }
}

impl ProgressSink for Running {
    fn progress(&self, done: u64, total: Option<u64>) {
        report(&self.job, &*self.events, JobEvent::Progress { done, total });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.slot.job.lock() = None;
        self.turn.take();
        self.count.send_modify(|n| *n -= 1);
    }
}

#[async_trait]
impl ProcessorPool for InlinePool {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        if *self.draining.borrow() {
            return Err(error(PoolErrorKind::Draining, &job));
        }
        let slot = self.slots.get(&job.kind).ok_or_else(|| error(PoolErrorKind::NoProcessor, &job))?;
        let turn = self.turn(&job, slot, cx).await?;
        *slot.job.lock() = Some(job.clone());
        self.running.send_modify(|n| *n += 1);
        let running = Running {
            job: job.clone(),
            slot: Arc::clone(slot),
            events: Arc::clone(&cx.events),
            count: Arc::clone(&self.running),
            turn: Some(turn),
        };
        report(&job, &*cx.events, JobEvent::Started { slot: slot.name.clone() });
        let registry = self.registry.clone();
        let work = tokio::task::spawn_blocking(move || running.work(&registry));
        let output = work.await.unwrap_or_else(|e| Err(error(PoolErrorKind::Crashed, &job).because(e)));
        let output = if cx.cancel.is_cancelled() { Err(error(PoolErrorKind::Cancelled, &job)) } else { output };
        report(&job, &*cx.events, JobEvent::Ended { ok: output.is_ok() });
        output.map(Bytes::from)
    }

    fn capacity(&self, kind: &TaskKind) -> Capacity {
        self.slots
            .get(kind)
            .map_or_else(Capacity::default, |slot| Capacity { total: 1, free: slot.turns.available_permits() })
    }

    fn slots(&self) -> Vec<SlotReport> {
        let report = |(kind, slot): (&TaskKind, &Arc<Slot>)| {
            let job = slot.job.lock();
            let mut report = SlotReport::new(slot.name.clone(), vec![kind.clone()]);
            if let Some(job) = job.as_ref() {
                report.job = Some(job.id);
                report.sector = job.sector;
                report.state = SlotState::Busy;
            }
            report
        };
        self.slots.iter().map(report).collect()
    }

    async fn drain(&self) -> Result<(), PoolError> {
        self.draining.send_replace(true);
        // The sender lives as long as this pool, so that waiting cannot fail.
        let _ = self.running.subscribe().wait_for(|n| *n == 0).await;
        Ok(())
    }
}
