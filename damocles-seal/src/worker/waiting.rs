//! Every wait of a sealing thread: each ends when the thread is to end, and when an operator wants something.

use super::{
    ThreadConfig, ThreadState,
    backoff::wait_before,
    control::{Drain, Wanted},
    exit::Exit,
    run::Run,
};
use damocles_core::{
    Context, Error, Recovery,
    pipeline::{SealError, SealErrorKind},
};
use futures::future::BoxFuture;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};

impl Run<'_> {
    /// Runs a step to its end, cancelled when an operator cannot wait for it. The future is never dropped: what is
    /// finished by then is kept.
    pub(super) async fn interruptible<T>(&self, cx: &Context, step: impl Future<Output = T>) -> T {
        let mut wanted = self.thread.shared.wanted.subscribe();
        tokio::pin!(step);
        tokio::select! {
            biased;
            done = &mut step => return done,
            _ = wanted.wait_for(Wanted::interrupts) => cx.cancel.cancel(),
        }
        step.await
    }

    /// Waits for as long as the settings say, those of now or later ones, but not longer than an operator wants.
    pub(super) async fn wait(&self, time: impl Fn(&ThreadConfig) -> Duration + Send + Sync) -> Result<(), Exit> {
        self.wait_unless(time, std::future::pending()).await
    }

    /// As [`Self::wait`], but not longer than until something happens.
    async fn wait_unless(
        &self,
        time: impl Fn(&ThreadConfig) -> Duration + Send + Sync,
        happens: impl Future<Output = ()>,
    ) -> Result<(), Exit> {
        let over = async {
            tokio::select! {
                biased;
                () = self.passes(|config| Some(time(config))) => {}
                () = happens => {}
            }
        };
        let waited = self.unless_asked(over).await;
        self.show_wake(None);
        waited
    }

    /// Resolves when so much time has passed from now on as the settings say, which may change meanwhile; never while
    /// they say none. Shows when that will be.
    async fn passes(&self, time: impl Fn(&ThreadConfig) -> Option<Duration> + Send + Sync) {
        let began = Instant::now();
        let mut settings = self.thread.shared.config.subscribe();
        loop {
            let left = time(&settings.borrow_and_update()).map(|time| time.saturating_sub(began.elapsed()));
            self.show_wake(left);
            let over = async {
                match left {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = over => return,
                // The thread itself keeps the other end.
                _ = settings.changed() => {}
            }
        }
    }

    /// Waits for `what`, but no longer than this, nor than these settings hold, nor than an operator wants.
    pub(super) async fn wait_under(
        &self,
        settings: &Arc<ThreadConfig>,
        at_most: Duration,
        what: impl Future<Output = ()> + Send,
    ) -> Result<(), Exit> {
        let mut current = self.thread.shared.config.subscribe();
        self.show_wake(Some(at_most));
        let waited = self.unless_asked(async {
            tokio::select! {
                biased;
                _ = tokio::time::timeout(at_most, what) => {}
                _ = current.wait_for(|current| !Arc::ptr_eq(current, settings)) => {}
            }
        });
        let waited = waited.await;
        self.show_wake(None);
        waited
    }

    /// Waits for `what`, for an operator, or ends because it was asked to.
    pub(super) async fn unless_asked(&self, what: impl Future<Output = ()>) -> Result<(), Exit> {
        let mut wanted = self.thread.shared.wanted.subscribe();
        let resumes = wanted.borrow().resumes;
        let idle = self.thread.shared.status.lock().has_nothing_to_end();
        let drained = move |w: &Wanted| ends(w, idle);
        tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => Err(Exit::Asked),
            () = self.drained() => Err(Exit::Asked),
            w = wanted.wait_for(|w| w.resumes != resumes || w.disturbs() || drained(w)) => {
                if w.is_ok_and(|w| drained(&w)) { Err(Exit::Asked) } else { Ok(()) }
            }
            () = what => Ok(()),
        }
    }

    /// Waits for an operator, or, if what is wrong may pass, until the time is over after which a sector goes on by
    /// itself.
    pub(super) async fn await_operator(&self, may_pass: bool) -> Result<(), Exit> {
        let mut wanted: watch::Receiver<Wanted> = self.thread.shared.wanted.subscribe();
        // Whoever sees that it is parked may resume it at once.
        let before = wanted.borrow().resumes;
        let after = |config: &ThreadConfig| config.auto_resume.filter(|_| may_pass);
        self.show_wake(after(&self.config()));
        self.show(ThreadState::Parked);
        // A parked sector has nothing that could end: any drain is over.
        let drained = |w: &Wanted| w.drain.is_some() && w.abort.is_none();
        let waited = tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => Err(Exit::Asked),
            () = self.drained() => Err(Exit::Asked),
            w = wanted.wait_for(|w| w.resumes != before || w.abort.is_some() || drained(w)) => {
                if w.is_ok_and(|w| drained(&w)) { Err(Exit::Asked) } else { Ok(()) }
            }
            () = self.passes(after) => Ok(()),
        };
        self.show_wake(None);
        waited
    }

    /// Lets nothing through while the thread is paused, unless its sector is to be given up.
    pub(super) async fn gate(&self) -> Result<(), Exit> {
        self.asked_to_stop()?;
        let mut wanted = self.thread.shared.wanted.subscribe();
        let holds = |w: &Wanted| w.stands() && w.abort.is_none();
        if !holds(&wanted.borrow_and_update()) {
            return Ok(());
        }
        let (before, idle) = {
            let status = self.thread.shared.status.lock();
            (status.state, status.has_nothing_to_end())
        };
        self.show(ThreadState::Paused);
        tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => return Err(Exit::Asked),
            () = self.drained() => return Err(Exit::Asked),
            _ = wanted.wait_for(|w| !holds(w) || ends(w, idle)) => {}
        }
        self.show(before);
        self.asked_to_stop()
    }

    /// Waits in a drained thread until it is resumed, or is to end.
    pub(super) async fn stay_drained(&self) -> Result<(), Exit> {
        if self.cx.cancel.is_cancelled() || self.drain.is_cancelled() || self.thread.shared.wanted.borrow().ends {
            return Err(Exit::Asked);
        }
        let mut wanted = self.thread.shared.wanted.subscribe();
        let before = wanted.borrow().resumes;
        self.show(ThreadState::Drained);
        tokio::select! {
            biased;
            () = self.cx.cancel.cancelled() => Err(Exit::Asked),
            () = self.drain.cancelled() => Err(Exit::Asked),
            // One that was resumed and drained again may have to finish its sector first.
            // Nor is a sector kept that is to be given up.
            w = wanted.wait_for(|w| w.drain.is_none() || w.resumes != before || w.ends || w.abort.is_some()) => {
                if w.is_ok_and(|w| !w.ends) { Ok(()) } else { Err(Exit::Asked) }
            }
        }
    }

    pub(super) fn asked_to_stop(&self) -> Result<(), Exit> {
        let idle = self.thread.shared.status.lock().has_nothing_to_end();
        let wanted = self.thread.shared.wanted.borrow();
        let drained = self.drain.is_cancelled() && wanted.abort.is_none();
        if ends(&wanted, idle) || drained || self.cx.cancel.is_cancelled() { Err(Exit::Asked) } else { Ok(()) }
    }

    /// Over when the whole worker drains. An operator who was told that a sector is given up finds it given up, so that
    /// this is recorded first.
    async fn drained(&self) {
        self.drain.cancelled().await;
        let mut wanted = self.thread.shared.wanted.subscribe();
        drop(wanted.wait_for(|w| w.abort.is_none()).await);
    }

    /// Why the sector is to be given up, if an operator said so. Asked once.
    pub(super) fn take_abort(&self) -> Option<String> {
        let mut reason = None;
        self.thread.shared.wanted.send_if_modified(|wanted| {
            reason = wanted.abort.take();
            reason.is_some()
        });
        reason
    }

    /// Repeats a call for as long as its errors say so, and returns the first other result.
    pub(super) async fn patiently<'f, T>(
        &self,
        what: &'static str,
        call: impl Fn() -> BoxFuture<'f, Result<T, SealError>> + Send,
    ) -> Result<Result<T, SealError>, Exit> {
        let mut count = 0_u32;
        loop {
            self.gate().await?;
            if count > 0 && self.thread.shared.wanted.borrow().abort.is_some() {
                return Err(Exit::Anew);
            }
            // Counts from here on: space that is released while it is asked for is not missed.
            let released = self.thread.parts.store.ledger().released();
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
                    self.show_failures(count);
                    self.show(ThreadState::Waiting);
                    let wait = |config: &ThreadConfig| wait_before(config, count, after);
                    match error.kind() {
                        SealErrorKind::DiskFull => self.wait_unless(wait, released).await?,
                        _ => self.wait(wait).await?,
                    }
                }
                Recovery::Halt => return Err(Exit::Halted(error)),
                _ => return Ok(Err(error)),
            }
        }
    }

    /// One call to the manager, within its limit.
    pub(super) async fn limited<T>(&self, op: &'static str, call: impl Future<Output = T>) -> Result<T, SealError> {
        let limit = self.config().call_limit;
        tokio::time::timeout(limit, call)
            .await
            .map_err(|_| Error::new(SealErrorKind::Service, op).with("no answer within seconds", limit.as_secs()))
    }
}

/// Whether a drain ends the thread here. A sector that is to be given up is not left to the next start.
fn ends(wanted: &Wanted, idle: bool) -> bool {
    wanted.abort.is_none() && (wanted.drain == Some(Drain::Step) || (idle && wanted.drain.is_some()))
}
