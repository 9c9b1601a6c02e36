//! One run of a sealing thread.

use super::{
    SealingThread, ThreadConfig, ThreadError, ThreadState,
    backoff::{Failures, decide, may_pass, wait_before},
    exit::Exit,
    keeper::LeaseKeeper,
};
use crate::journal::NewEntry;
use damocles_core::{
    CancellationToken, Context, Event, Recovery, SectorId,
    allocator::{Outcome, SectorLease},
    pipeline::{SealError, SealErrorKind, StageId, Step, Wake},
};
use std::{sync::Arc, time::Duration};

/// A manager that always says that something changed is not asked faster than this.
pub(super) const LEAST_WAIT: Duration = Duration::from_millis(20);

/// The longest wait that is asked of a manager in one call.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// One run of a sealing thread.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) thread: &'a SealingThread,
    pub(super) cx: &'a Context,
    pub(super) drain: &'a CancellationToken,
}

impl<'a> Run<'a> {
    pub(super) fn new(thread: &'a SealingThread, cx: &'a Context, drain: &'a CancellationToken) -> Self {
        Self { thread, cx, drain }
    }

    /// Steps an open sector until it ends, has to be taken up anew, or the thread is asked to end.
    pub(super) async fn seal(&self, lease: SectorLease) -> Result<(), Exit> {
        let pipeline = &self.thread.parts.pipeline;
        let lease_cx = self.cx.child();
        let keeper = self.keeper(&lease, lease_cx.clone());
        let mut failures = Failures::default();
        loop {
            self.gate().await?;
            if let Some(reason) = self.take_abort() {
                return self.finish(&lease, Outcome::Abandoned, Some(&reason)).await;
            }
            self.show_next(lease.sector).await;
            self.show(ThreadState::Running);
            let step_cx = lease_cx.child();
            let step = self.interruptible(&step_cx, pipeline.step(lease.sector, &step_cx)).await;
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
                // An operator did not wait for it.
                Err(error) if error.kind() == SealErrorKind::Cancelled && self.is_interrupted() => {}
                Err(error) => {
                    self.asked_to_stop()?;
                    let count = failures.add(error.kind());
                    self.show_error(Some((&error).into()));
                    self.show_failures(failures.total());
                    match decide(&self.config(), &error, count) {
                        Recovery::Retry { after } => {
                            self.show(ThreadState::Waiting);
                            self.wait(|config| wait_before(config, count, after)).await?;
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
            let mut parked = NewEntry::parked(stage, &shown.error, shown.hint.as_deref());
            if may_pass(error) {
                parked = parked.may_pass();
            }
            // Whoever holds a newer fence has the sector and records for it.
            if let Err(error) = self.thread.parts.journal.append(lease.sector, lease.fence, parked).await {
                self.note(format!("{}: that it is parked is not recorded: {}", lease.sector, error.chain()));
            }
        }
        self.show_error(Some(shown));
        let _keeper = lease.map(|lease| self.keeper(lease, self.cx.child()));
        self.await_operator(may_pass(error)).await?;
        match lease {
            Some(lease) => self.resumed(lease).await,
            None => Ok(()),
        }
    }

    /// An operator let the sector go on: it will be taken up anew, which forgets what its last holder counted.
    pub(super) async fn resumed(&self, lease: &SectorLease) -> Result<(), Exit> {
        let parts = &self.thread.parts;
        if self.thread.shared.wanted.borrow().abort.is_some() {
            // It ends instead, as it is taken up.
            return Ok(());
        }
        if let Err(error) = parts.journal.append(lease.sector, lease.fence, NewEntry::resumed()).await {
            self.note(format!("{}: that it was resumed is not recorded: {}", lease.sector, error.chain()));
        }
        drop(parts.pipeline.close(lease.sector).await);
        self.show_error(None);
        Ok(())
    }

    /// Waits until the manager speaks up or it is time to look again.
    async fn await_change(&self, lease: &SectorLease, until: Wake) -> Result<(), Exit> {
        let config = self.config();
        let (at_most, epoch) = match until {
            Wake::After(wait) => (wait, None),
            Wake::Epoch(epoch) => (config.poll_interval, Some(epoch)),
            _ => (config.poll_interval, None),
        };
        if at_most.is_zero() {
            return Ok(());
        }
        self.thread.shared.status.lock().epoch = epoch;
        self.show(ThreadState::Waiting);
        let at_most = at_most.min(LONGEST_POLL);
        let changed = async {
            if self.thread.parts.service.changed(lease, at_most).await.is_err() {
                // A manager that is away cannot speak up.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LEAST_WAIT).await;
        };
        let waited = self.wait_under(&config, at_most, changed).await;
        self.thread.shared.status.lock().epoch = None;
        waited
    }

    fn is_interrupted(&self) -> bool {
        let asked = self.thread.shared.wanted.borrow().interrupts();
        asked && !self.cx.cancel.is_cancelled()
    }

    pub(super) fn keeper(&self, lease: &SectorLease, step: Context) -> LeaseKeeper {
        let config = self.config();
        let allocator = Arc::clone(&self.thread.parts.allocator);
        LeaseKeeper::spawn(allocator, lease.clone(), config.ttl, config.call_limit, step)
    }

    /// How the thread behaves at this moment.
    pub(super) fn config(&self) -> Arc<ThreadConfig> {
        Arc::clone(&self.thread.shared.config.borrow())
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

    /// When it looks up again, if nothing happens before.
    pub(super) fn show_wake(&self, after: Option<Duration>) {
        let at = after.map(|after| self.thread.parts.clock.now().plus(after));
        self.thread.shared.status.lock().wakes_at = at;
    }

    pub(super) fn show_ending(&self, ending: bool) {
        self.thread.shared.status.lock().ending = ending;
    }

    pub(super) fn show_failures(&self, failures: u32) {
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
