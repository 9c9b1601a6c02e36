//! The end of the work on a sector.

use super::{
    ThreadState,
    exit::{Exit, of_alloc},
    run::Run,
};
use crate::{journal::NewEntry, service::Report};
use damocles_core::{
    Error, Recovery,
    allocator::{Outcome, SectorLease},
    pipeline::{SealError, SealErrorKind},
};
use std::sync::Arc;

/// Two processes that take a sector from each other again and again need an operator.
const MOST_TAKEN: u32 = 3;

impl Run<'_> {
    /// Records that the work is over, then tells everybody. From here on the sector takes no step.
    pub(super) async fn finish(&self, lease: &SectorLease, outcome: Outcome, reason: Option<&str>) -> Result<(), Exit> {
        let journal = &self.thread.parts.journal;
        let ending = NewEntry::ending(outcome, reason);
        let recorded = self
            .patiently("record the end", || {
                Box::pin(async { journal.append(lease.sector, lease.fence, ending.clone()).await.map(drop) })
            })
            .await?;
        if let Err(error) = recorded {
            return self.park(Some(lease), &error).await;
        }
        self.end(lease, outcome, reason).await
    }

    /// Tells the manager how the sector ended and only then removes what is left of it. May be repeated.
    pub(super) async fn end(&self, lease: &SectorLease, outcome: Outcome, reason: Option<&str>) -> Result<(), Exit> {
        self.show_sector(Some(lease.sector));
        self.show_ending(true);
        // It ends in any case: what else was wanted of it is void.
        drop(self.take_abort());
        self.show(ThreadState::Running);
        if let Err(error) = self.tell_all(lease, outcome, reason).await? {
            self.show_error(Some((&error).into()));
            // The entry that says that it ends stays the last one, so that the same is tried again after the wait.
            return self.await_operator(true).await;
        }
        // It may never have been open in this process.
        drop(self.thread.parts.pipeline.close(lease.sector).await);
        if let Some(backlog) = &self.thread.parts.backlog {
            backlog.forget(lease.sector);
        }
        self.show_ending(false);
        self.show_sector(None);
        self.show_error(None);
        self.show(ThreadState::Idle);
        self.wait(|config| config.seal_interval).await
    }

    /// Tells everybody, under a newer lease of the same store if this one was taken over: the end is recorded, and the
    /// store is ours.
    async fn tell_all(
        &self,
        lease: &SectorLease,
        outcome: Outcome,
        reason: Option<&str>,
    ) -> Result<Result<(), SealError>, Exit> {
        let journal = &self.thread.parts.journal;
        let mut lease = lease.clone();
        let mut taken = 0;
        loop {
            let told =
                self.patiently("end sector", || Box::pin(async { self.tell(&lease, outcome, reason).await })).await?;
            match told {
                Err(error) if error.kind() == SealErrorKind::Fenced && taken < MOST_TAKEN => {
                    taken += 1;
                    self.note(format!("{}: taken up again to end it: {}", lease.sector, error.chain()));
                }
                told => return Ok(told),
            }
            lease = match self.lease_again(lease.sector).await? {
                Ok(lease) => lease,
                // The manager knows already.
                Err(error) if outcome == Outcome::Abandoned && error.recovery() == Recovery::Abandon => {
                    let op = "end sector";
                    return self.patiently(op, || Box::pin(async { self.forget(&lease, outcome).await })).await;
                }
                Err(error) => return Ok(Err(error)),
            };
            let opened = self.patiently("open sector", || Box::pin(async { journal.open(&lease).await })).await?;
            if let Err(error) = opened {
                return Ok(Err(error));
            }
        }
    }

    async fn tell(&self, lease: &SectorLease, outcome: Outcome, reason: Option<&str>) -> Result<(), SealError> {
        let op = "end sector";
        let parts = &self.thread.parts;
        let report = match outcome {
            Outcome::Abandoned => Report::Aborted { reason: reason.unwrap_or("no reason recorded").to_owned() },
            _ => Report::Finalized,
        };
        let reported = self.limited(op, parts.service.report(lease, &report)).await?;
        reported.map_err(|e| crate::stage::of_service(op, e).with("sector", lease.sector))?;
        let released = self.limited(op, parts.allocator.release(lease, outcome)).await?;
        released.map_err(|e| of_alloc(op, e).with("sector", lease.sector))?;
        self.forget(lease, outcome).await
    }

    /// Removes what is left of a sector of whose end everybody knows.
    async fn forget(&self, lease: &SectorLease, outcome: Outcome) -> Result<(), SealError> {
        let (op, parts) = ("end sector", &self.thread.parts);
        if outcome == Outcome::Abandoned {
            let (store, sector) = (Arc::clone(&parts.store), lease.sector);
            let wiped = tokio::task::spawn_blocking(move || store.wipe(sector)).await;
            wiped
                .map_err(|e| Error::new(SealErrorKind::Stage, op).because(e))?
                .map_err(|e| crate::stage::of_store(op, e))?;
        }
        parts.journal.append(lease.sector, lease.fence, NewEntry::ended(outcome)).await.map(drop)
    }
}
