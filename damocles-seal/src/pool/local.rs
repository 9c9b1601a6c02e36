//! Supervised children in slots.

use super::{
    child::Child,
    gate::{Gate, Pass},
    lease::{Carried, Lease},
    queue::InLine,
    schedule::{PoolStats, Scheduler, Wait, WaitingJob},
    spec::{Backlog, Limits, PlacementSpec, PoolSpec, SlotSpec, SpecError},
};
use crate::{
    claims::{Resource, may_yield, resources_of},
    placement::Isolation,
};
use async_trait::async_trait;
use bytes::Bytes;
use damocles_core::{
    CancellationToken, Context, Error, Event, JobEvent, SectorId,
    pool::{Capacity, Job, PoolError, PoolErrorKind, ProcessorPool, SlotReport, TaskKind},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout},
};

/// A pool of long-lived child processes, one in each slot.
///
/// A child is started for the first job of its slot and kept for the next ones. One that dies, hangs in its handshake,
/// or says something else than the protocol is killed with all it started, its job fails with a kind that says so, and
/// the next job starts another child after a rest. A child whose job is cancelled is stopped too: proofs cannot be
/// interrupted. Children do not outlive the pool, nor this process, however it ends. Who gets which slot is said in
/// [`super::schedule`].
#[derive(Debug)]
pub struct LocalPool(Arc<Shared>);

/// What the program around a pool adds to it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Hooks {
    /// What a slot has to pass before it is used.
    pub gate: Option<Arc<dyn Gate>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    /// One for each child.
    pub(super) slots: Vec<SlotSpec>,
    pub(super) grace: Duration,
    pub(super) last_wait: Duration,
    pub(super) isolation: Arc<Isolation>,
    /// How long jobs may have their slot.
    pub(super) time: BTreeMap<TaskKind, Duration>,
    pub(super) gate: Option<Arc<dyn Gate>>,
    preempt: bool,
    pub(super) state: Mutex<State>,
    /// Told whenever a slot, a limit or a time changes.
    changed: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) scheduler: Scheduler,
    /// The idle children, by slot.
    pub(super) children: Vec<Option<Child>>,
    /// What the slots have claimed on this host.
    pub(super) passes: Vec<Option<Box<dyn Pass>>>,
    /// What stops the jobs that run, by slot.
    stops: Vec<Option<CancellationToken>>,
    /// What calls back the jobs that wait for what other programs hold, by slot.
    pub(super) recalls: Vec<Option<CancellationToken>>,
    pub(super) grants: HashMap<u64, Waiter>,
    pub(super) draining: bool,
}

/// Somebody in line.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) grant: oneshot::Sender<Lease>,
    /// Why it still is there.
    pub(super) wait: Wait,
}

/// What a child is bound to.
#[derive(Clone, Debug)]
pub struct Binding {
    /// CPUs, memory nodes, limits and GPUs.
    pub placement: PlacementSpec,
    /// Who else on this machine holds something of it, in words.
    pub held_by: Option<String>,
}

impl LocalPool {
    /// A pool of these slots. Starts nothing yet.
    ///
    /// # Errors
    ///
    /// The slots do not fit together.
    pub fn new(spec: PoolSpec) -> Result<Self, SpecError> {
        Self::with(spec, Hooks::default())
    }

    /// A pool of these slots that asks `hooks` on the way. Starts nothing yet.
    ///
    /// # Errors
    ///
    /// The slots do not fit together.
    pub fn with(spec: PoolSpec, hooks: Hooks) -> Result<Self, SpecError> {
        spec.check()?;
        let mut slots: Vec<SlotSpec> = spec.places().map(|(_, slot)| slot).collect();
        for slot in &mut slots {
            slot.talk.time.clone_from(&spec.limits.time);
        }
        let state = State {
            scheduler: Scheduler::new(&spec, Instant::now()),
            children: slots.iter().map(|_| None).collect(),
            passes: slots.iter().map(|_| None).collect(),
            stops: slots.iter().map(|_| None).collect(),
            recalls: slots.iter().map(|_| None).collect(),
            grants: HashMap::new(),
            draining: false,
        };
        let Hooks { gate } = hooks;
        let PoolSpec { grace, last_wait, limits, preempt, isolation, .. } = spec;
        let isolation = Arc::new(Isolation::new(isolation));
        let (state, changed) = (Mutex::new(state), Notify::new());
        Ok(Self(Arc::new(Shared {
            slots,
            grace,
            last_wait,
            isolation,
            time: limits.time,
            gate,
            preempt,
            state,
            changed,
        })))
    }

    /// Starts the child of every free slot now instead of with its first job, so that what is wrong with it shows.
    ///
    /// # Errors
    ///
    /// The first child that could not be started; the others are left running.
    pub async fn start(&self, cx: &Context) -> Result<(), PoolError> {
        for index in 0..self.0.slots.len() {
            let taken = {
                let mut state = self.0.state.lock();
                let taken = state.scheduler.take(index, Instant::now());
                taken.then(|| state.children.get_mut(index).and_then(Option::take))
            };
            if let Some(child) = taken {
                Lease::new(Arc::clone(&self.0), index, child).ready(cx).await?;
            }
        }
        Ok(())
    }

    /// The jobs that wait, first in line first, and why.
    pub fn waiting(&self) -> Vec<WaitingJob> {
        let mut waiting = self.0.state.lock().scheduler.explain(Instant::now());
        waiting.iter_mut().for_each(|job| self.0.say_who_holds(job));
        waiting
    }

    /// What was done so far, as numbers.
    pub fn stats(&self) -> PoolStats {
        self.0.state.lock().scheduler.stats()
    }

    /// What each child is bound to, by its name.
    pub fn bindings(&self) -> BTreeMap<String, Binding> {
        let of = |slot: &SlotSpec| {
            let held_by = self.0.gate.as_ref().and_then(|gate| gate.held_elsewhere(slot));
            (slot.name.clone(), Binding { placement: slot.placement.clone(), held_by })
        };
        self.0.slots.iter().map(of).collect()
    }

    /// Lets a slot whose child failed work again at once: one that rests, or one that is not restarted by itself. The
    /// name of a slot with several children stands for all of them. Whether there is such a slot.
    pub fn resume(&self, slot: &str) -> bool {
        let there = self.0.state.lock().scheduler.resume(slot);
        self.0.dispatch();
        there
    }

    /// Other limits from now on, and other numbers for the backlogs that there are: those who wait see them at once, and
    /// what runs goes on, also where there is more of it than may start now. [`Limits::time`] stays as it is.
    ///
    /// # Errors
    ///
    /// The slots could not work under them. Nothing changed then.
    pub fn limit(&self, limits: Limits, backlog: &BTreeMap<TaskKind, Backlog>) -> Result<(), SpecError> {
        limits.check(&self.0.slots)?;
        let limits = Limits { time: self.0.time.clone(), ..limits };
        self.0.state.lock().scheduler.limit(limits, backlog);
        self.0.dispatch();
        Ok(())
    }

    /// A sector was released or aborted: it does not count for [`PoolSpec::backlog`] any more.
    pub fn forget(&self, sector: SectorId) {
        self.0.state.lock().scheduler.forget(sector);
        self.0.dispatch();
    }

    /// Gives up what other programs ask for: stops the jobs that use it, if they may be stopped for that kind of task,
    /// and lets them wait again. Whether it will be given back.
    pub fn give_up(&self, resource: &Resource, wanted_for: &TaskKind) -> bool {
        self.0.give_up(resource, wanted_for)
    }

    fn refused(&self, job: &Job) -> Option<PoolError> {
        let state = self.0.state.lock();
        if state.draining {
            return Some(error(PoolErrorKind::Draining, job));
        }
        let misfits = state.scheduler.misfits(job)?;
        let refused = error(PoolErrorKind::NoProcessor, job);
        let lacks: Vec<String> = misfits.iter().map(ToString::to_string).collect();
        Some(if lacks.is_empty() {
            refused
        } else {
            refused.because(lacks.join("; ")).hint_with("raise the memory limit of a slot for it")
        })
    }
}

pub(super) fn error(kind: PoolErrorKind, job: &Job) -> PoolError {
    Error::new(kind, "run job").with("kind", &job.kind).with("job", job.id)
}

pub(super) fn report(job: &Job, cx: &Context, what: JobEvent) {
    cx.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
}

#[async_trait]
impl ProcessorPool for LocalPool {
    async fn run(&self, job: Job, cx: &Context) -> Result<Bytes, PoolError> {
        if let Some(refused) = self.refused(&job) {
            return Err(refused);
        }
        if cx.cancel.is_cancelled() {
            return Err(error(PoolErrorKind::Cancelled, &job));
        }
        let mut line = self.0.queue(&job)?;
        loop {
            let lease = self.0.acquire(line, &job, cx).await?;
            line = match lease.carry_out(&job, cx).await {
                Carried::Over(result) => return result,
                Carried::Stopped => self.0.queue(&job)?,
                Carried::Back(line) => line,
            };
        }
    }

    fn capacity(&self, kind: &TaskKind) -> Capacity {
        self.0.state.lock().scheduler.capacity(kind)
    }

    fn slots(&self) -> Vec<SlotReport> {
        self.0.state.lock().scheduler.reports(Instant::now())
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
                if state.scheduler.idle() {
                    break;
                }
                state.scheduler.jobless()
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
    /// Whoever waits for what another program holds is told who that is now.
    fn say_who_holds(&self, job: &mut WaitingJob) {
        let (Some(gate), Wait::Claiming { slot, held, .. }) = (&self.gate, &mut job.wait) else { return };
        *held = self.slots.iter().find(|of| of.name == *slot).and_then(|slot| gate.held_elsewhere(slot));
        job.reason = job.wait.to_string();
    }

    /// Waits for a slot.
    async fn acquire(self: &Arc<Self>, line: InLine, job: &Job, cx: &Context) -> Result<Lease, PoolError> {
        let InLine { waiting, mut granted } = line;
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
            let (wait, wakes_at) = {
                let state = self.state.lock();
                let wait = state.grants.get(&waiting.ticket.number()).map(|waiter| waiter.wait.clone());
                (wait.unwrap_or(Wait::Nothing), state.scheduler.wakes_at(Instant::now()))
            };
            // The seconds in a reason run: a reason is told again only when it is another one.
            let kind_of_reason = std::mem::discriminant(&wait);
            if told != Some(kind_of_reason) {
                told = Some(kind_of_reason);
                report(job, cx, JobEvent::Queued { reason: wait.to_string() });
            }
            // It wants the card of a job that may be done again: that is stopped, once the wait for it is known.
            if self.preempt
                && let Wait::Gpu { gpu, .. } = &wait
            {
                self.give_up(&Resource::Gpu(gpu.clone()), &job.kind);
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
    pub(super) fn dispatch(self: &Arc<Self>) {
        let mut leases = Vec::new();
        // Files are read before the lock is taken. What they say may be over by then: the gate decides.
        let elsewhere = self.held_elsewhere();
        {
            let mut state = self.state.lock();
            let now = Instant::now();
            for (index, held) in elsewhere {
                state.scheduler.elsewhere(index, held);
            }
            let granted = if state.draining { Vec::new() } else { state.scheduler.grant(now) };
            for granted in granted {
                let child = state.children.get_mut(granted.place).and_then(Option::take);
                let lease = Lease::new(Arc::clone(self), granted.place, child);
                leases.push((state.grants.remove(&granted.ticket.number()), lease));
            }
            for recall in state.scheduler.recalled().into_iter().filter_map(|index| state.recalls.get(index)?.as_ref())
            {
                recall.cancel();
            }
            for (ticket, wait) in state.scheduler.reasons(now) {
                if let Some(waiter) = state.grants.get_mut(&ticket.number()) {
                    waiter.wait = wait;
                }
            }
        }
        for (waiter, lease) in leases {
            // A lease that nobody waits for any more is dropped, which gives the slot back.
            if let Some(waiter) = waiter {
                let _ = waiter.grant.send(lease);
            }
        }
        self.changed.notify_waiters();
    }

    /// The slots with GPUs, and whether another program seems to hold one of these.
    fn held_elsewhere(&self) -> Vec<(usize, bool)> {
        let Some(gate) = &self.gate else { return Vec::new() };
        let with_gpus = self.slots.iter().enumerate().filter(|(_, slot)| !slot.placement.gpus.is_empty());
        with_gpus.map(|(index, slot)| (index, gate.held_elsewhere(slot).is_some())).collect()
    }

    /// The job in this slot can be stopped by this until it ends.
    pub(super) fn may_stop(&self, index: usize, stop: Option<CancellationToken>) {
        if let Some(place) = self.state.lock().stops.get_mut(index) {
            *place = stop;
        }
    }

    /// Stops the jobs that use something, if they yield it to that kind of task. Whether one of them does.
    fn give_up(&self, resource: &Resource, wanted_for: &TaskKind) -> bool {
        let state = self.state.lock();
        let users = state.scheduler.using(|slot| resources_of(slot).contains(resource));
        let stops = users.iter().filter(|(_, kind)| may_yield(kind, wanted_for));
        let stops: Vec<_> = stops.filter_map(|(index, _)| state.stops.get(*index)?.clone()).collect();
        for stop in &stops {
            stop.cancel();
        }
        !stops.is_empty()
    }

    /// The job in this slot really begins: those that are kept apart from it know their time now.
    pub(super) fn began(self: &Arc<Self>, index: usize) {
        self.state.lock().scheduler.began(index, Instant::now());
        self.dispatch();
    }

    /// Nothing is left of the process in this slot.
    pub(super) fn process_ended(self: &Arc<Self>, index: usize, pid: u32) {
        let pass = {
            let mut state = self.state.lock();
            if state.scheduler.left_ended(index, pid) {
                return;
            }
            let draining = state.draining;
            let free = state.scheduler.ended(index, draining, Instant::now());
            if free { state.passes.get_mut(index).and_then(Option::take) } else { None }
        };
        drop(pass);
        self.dispatch();
    }
}
