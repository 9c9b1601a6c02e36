//! One run of a sealing thread.

use super::{
    SealingThread, ThreadError, ThreadState,
    backoff::{Failures, decide, wait_before},
    control::Wanted,
    exit::Exit,
    keeper::LeaseKeeper,
};
use crate::journal::NewEntry;
use damocles_core::{
    CancellationToken, Context, Error, Event, Recovery, SectorId,
    allocator::{Outcome, SectorLease},
    pipeline::{SealError, SealErrorKind, StageId, Step, Wake},
};
use futures::future::BoxFuture;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;

/// A manager that always says that something changed is not asked faster than this.
const LEAST_WAIT: Duration = Duration::from_millis(20);

/// The longest wait that is asked of a manager in one call.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// One run of a sealing thread.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) thread: &'a SealingThread,
    pub(super) cx: &'a Context,
    drain: &'a CancellationToken,
}

impl<'a> Run<'a> {
    pub(super) fn new(thread: &'a SealingThread, cx: &'a Context, drain: &'a CancellationToken) -> Self {
        Self { thread, cx, drain }
    }

    /// Steps an open sector until it ends, has to be taken up anew, or the thread is asked to end.
    pub(super) async fn seal(&self, lease: SectorLease) -> Result<(), Exit> {
        let pipeline = &self.thread.parts.pipeline;
        let step_cx = self.cx.child();
        let keeper = self.keeper(&lease, step_cx.clone());
        let mut failures = Failures::default();
        loop {
            self.gate().await?;
            self.show_next(lease.sector).await;
            self.show(ThreadState::Running);
            let step = pipeline.step(lease.sector, &step_cx).await;
            let step = match keeper.lost() {
                Some(lost) if step.is_err() => Err(lost),
                Some(lost) => {
                    // The result is recorded already, but there must be no further one.
                    return self.park(Some(&lease), &lost).await;
                }
                None => step,
            };
            match step {
                Ok(Step::Advanced { .. }) => {
                    failures.clear();
                    self.show_error(None);
                }
                Ok(Step::Waiting { stage, until }) => {
                    self.show_stage(Some(stage));
                    self.await_change(&lease, until).await?;
                }
                Ok(Step::Finished) => return self.finish(&lease, Outcome::Sealed, None).await,
                Ok(_) => {}
                Err(error) => {
                    self.asked_to_stop()?;
                    let count = failures.add(error.kind());
                    self.show_error(Some((&error).into()));
                    self.show_failures(failures.total());
                    match decide(&self.thread.config, &error, count) {
                        Recovery::Retry { after } => {
                            self.show(ThreadState::Waiting);
                            self.wait(wait_before(&self.thread.config, count, after)).await?;
                        }
                        Recovery::Abandon => {
                            return self.finish(&lease, Outcome::Abandoned, Some(&error.chain())).await;
                        }
                        Recovery::Halt => return Err(Exit::Halted(error)),
                        _ => return self.park(Some(&lease), &error).await,
                    }
                }
            }
        }
    }

    /// Leaves a sector, or the store without one, until an operator acts. A sector is taken up anew after that.
    pub(super) async fn park(&self, lease: Option<&SectorLease>, error: &SealError) -> Result<(), Exit> {
        let shown = ThreadError::from(error);
        if let Some(lease) = lease {
            let stage = self.thread.shared.status.lock().stage.clone();
            let parked = NewEntry::parked(stage, &shown.error, shown.hint.as_deref());
            // Whoever holds a newer fence has the sector and records for it.
            if let Err(error) = self.thread.parts.journal.append(lease.sector, lease.fence, parked).await {
                self.note(format!("{}: that it is parked is not recorded: {}", lease.sector, error.chain()));
            }
        }
        self.show_error(Some(shown));
        let _keeper = lease.map(|lease| self.keeper(lease, self.cx.child()));
        self.await_operator().await?;
        match lease {
            Some(lease) => self.resumed(lease).await,
            None => Ok(()),
        }
    }

    /// An operator let the sector go on: it will be taken up anew, which forgets what its last holder counted.
    pub(super) async fn resumed(&self, lease: &SectorLease) -> Result<(), Exit> {
        let parts = &self.thread.parts;
        if let Err(error) = parts.journal.append(lease.sector, lease.fence, NewEntry::resumed()).await {
            self.note(format!("{}: that it was resumed is not recorded: {}", lease.sector, error.chain()));
        }
        drop(parts.pipeline.close(lease.sector).await);
        self.show_error(None);
        Ok(())
    }

    /// Waits until the manager speaks up or it is time to look again.
    async fn await_change(&self, lease: &SectorLease, until: Wake) -> Result<(), Exit> {
        let at_most = match until {
            Wake::After(wait) => wait,
            _ => self.thread.config.poll_interval,
        };
        if at_most.is_zero() {
            return Ok(());
        }
        self.show(ThreadState::Waiting);
        let at_most = at_most.min(LONGEST_POLL);
        let changed = async {
            if self.thread.parts.service.changed(lease, at_most).await.is_err() {
                // A manager that is away cannot speak up.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LEAST_WAIT).await;
        };
        self.unless_asked(async { drop(tokio::time::timeout(at_most, changed).await) }).await
    }

    /// Waits, but not longer than an operator wants.
    pub(super) async fn wait(&self, time: Duration) -> Result<(), Exit> {
        self.unless_asked(tokio::time::sleep(time)).await
    }

    /// Waits for `what`, for an operator's resume, or ends because it was asked to.
    async fn unless_asked(&self, what: impl Future<Output = ()>) -> Result<(), Exit> {
        let wanted = self.thread.shared.wanted.subscribe();
        let resumes = wanted.borrow().resumes;
        self.unless_resumed(wanted, resumes, what).await
    }

    /// As [`Self::unless_asked`], for a resume since there were so many.
    async fn unless_resumed(
        &self,
        mut wanted: watch::Receiver<Wanted>,
        resumes: u64,
        what: impl Future<Output = ()>,
    ) -> Result<(), Exit> {
        tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => Err(Exit::Asked),
            () = self.drain.cancelled() => Err(Exit::Asked),
            _ = wanted.wait_for(|w| w.resumes != resumes) => Ok(()),
            () = what => Ok(()),
        }
    }

    /// Waits for an operator's resume.
    pub(super) async fn await_operator(&self) -> Result<(), Exit> {
        let wanted = self.thread.shared.wanted.subscribe();
        // Whoever sees that it is parked may resume it at once.
        let before = wanted.borrow().resumes;
        self.show(ThreadState::Parked);
        self.unless_resumed(wanted, before, std::future::pending()).await
    }

    /// Lets nothing through while the thread is paused.
    pub(super) async fn gate(&self) -> Result<(), Exit> {
        self.asked_to_stop()?;
        let mut wanted = self.thread.shared.wanted.subscribe();
        if !wanted.borrow_and_update().paused {
            return Ok(());
        }
        self.show(ThreadState::Paused);
        tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => Err(Exit::Asked),
            () = self.drain.cancelled() => Err(Exit::Asked),
            _ = wanted.wait_for(|w| !w.paused) => Ok(()),
        }
    }

    fn asked_to_stop(&self) -> Result<(), Exit> {
        if self.cx.cancel.is_cancelled() || self.drain.is_cancelled() { Err(Exit::Asked) } else { Ok(()) }
    }

    /// Repeats a call for as long as its errors say so, and returns the first other result.
    pub(super) async fn patiently<'f, T>(
        &self,
        what: &'static str,
        call: impl Fn() -> BoxFuture<'f, Result<T, SealError>> + Send,
    ) -> Result<Result<T, SealError>, Exit> {
        let mut count = 0_u32;
        loop {
            self.asked_to_stop()?;
            let result = tokio::select! {
                biased;
                () = self.cx.cancel.cancelled() => return Err(Exit::Asked),
                result = call() => result,
            };
            let error = match result {
                Ok(value) => {
                    if count > 0 {
                        self.show_error(None);
                    }
                    return Ok(Ok(value));
                }
                Err(error) => error,
            };
            match error.recovery() {
                Recovery::Retry { after } => {
                    count = count.saturating_add(1);
                    if count == 1 {
                        self.note(format!("{what} failed and will be repeated: {}", error.chain()));
                    }
                    self.show_error(Some((&error).into()));
                    self.show(ThreadState::Waiting);
                    self.wait(wait_before(&self.thread.config, count, after)).await?;
                }
                Recovery::Halt => return Err(Exit::Halted(error)),
                _ => return Ok(Err(error)),
            }
        }
    }

    /// One call to the manager, within its limit.
    pub(super) async fn limited<T>(&self, op: &'static str, call: impl Future<Output = T>) -> Result<T, SealError> {
        let limit = self.thread.config.call_limit;
        tokio::time::timeout(limit, call)
            .await
            .map_err(|_| Error::new(SealErrorKind::Service, op).with("no answer within seconds", limit.as_secs()))
    }

    pub(super) fn keeper(&self, lease: &SectorLease, step: Context) -> LeaseKeeper {
        let config = &self.thread.config;
        let allocator = Arc::clone(&self.thread.parts.allocator);
        LeaseKeeper::spawn(allocator, lease.clone(), config.ttl, config.call_limit, step)
    }

    pub(super) fn note(&self, text: String) {
        self.cx.emit(Event::Note { from: "worker".to_owned(), text });
    }

    pub(super) fn show(&self, state: ThreadState) {
        let mut status = self.thread.shared.status.lock();
        if status.state != state {
            status.state = state;
            status.since = self.thread.parts.clock.now();
        }
    }

    pub(super) fn show_sector(&self, sector: Option<SectorId>) {
        let mut status = self.thread.shared.status.lock();
        if status.sector != sector {
            status.sector = sector;
            status.stage = None;
            status.failures = 0;
            status.since = self.thread.parts.clock.now();
        }
    }

    pub(super) fn show_stage(&self, stage: Option<StageId>) {
        let mut status = self.thread.shared.status.lock();
        if status.stage != stage {
            status.stage = stage;
            status.since = self.thread.parts.clock.now();
        }
    }

    pub(super) fn show_error(&self, error: Option<ThreadError>) {
        let mut status = self.thread.shared.status.lock();
        if error.is_none() {
            status.failures = 0;
        }
        status.last_error = error;
    }

    fn show_failures(&self, failures: u32) {
        self.thread.shared.status.lock().failures = failures;
    }

    async fn show_next(&self, sector: SectorId) {
        // Only for people: a journal that cannot be read is the step's business.
        if let Ok(progress) = self.thread.parts.pipeline.progress().await
            && let Some(found) = progress.into_iter().find(|p| p.lease.sector == sector)
        {
            self.show_stage(found.next);
        }
    }
}
