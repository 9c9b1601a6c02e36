//! Telling a manager what it has not heard of a sector yet, in order and after a crash too.
//!
//! What is to be told is recorded in the journal, in the transaction of the entry that it is about, and forgotten there
//! after the manager has heard it. A crash between the two has it told once more, which changes nothing at a manager:
//! the report is the last one that it heard.

use crate::{
    journal::{Journal, Untold},
    service::{Report, ReportAnswer, SealingService},
    stage::of_service,
};
use damocles_core::{
    CancellationToken, Context, Error, Event, Recovery,
    allocator::SectorLease,
    pipeline::{SealError, SealErrorKind},
};
use std::{sync::Arc, time::Duration};

/// How long the manager may take to hear one report.
pub(crate) const REPORT_LIMIT: Duration = Duration::from_secs(10);

/// The wait before a manager that was away is told again; it doubles from one to the next.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Tells a manager what waits in a journal.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) service: Arc<dyn SealingService>,
}

impl Teller {
    /// Tells all that waits, in order. `hear` gets the answers.
    ///
    /// # Errors
    ///
    /// Something still waits: the manager did not hear it, or the journal failed.
    pub(crate) async fn tell(
        &self,
        lease: &SectorLease,
        cx: &Context,
        mut hear: impl FnMut(&Report, ReportAnswer) + Send,
    ) -> Result<(), SealError> {
        const OP: &str = "tell manager";
        let sector = lease.sector;
        for Untold { number, report } in self.journal.untold(sector).await? {
            let told = tokio::select! {
                biased;
                () = cx.cancel.cancelled() => {
                    return Err(Error::new(SealErrorKind::Cancelled, OP).with("sector", sector));
                }
                told = tokio::time::timeout(REPORT_LIMIT, self.service.report(lease, &report)) => told,
            };
            match told {
                Ok(Ok(answer)) => hear(&report, answer),
                Ok(Err(error)) => {
                    let error = of_service(OP, error).with("sector", sector);
                    // Whoever has the newer lease tells it.
                    let later = error.kind() == SealErrorKind::Fenced;
                    if later || matches!(error.recovery(), Recovery::Retry { .. }) {
                        return Err(error);
                    }
                    note(cx, format!("{sector}: the manager does not take a report: {}", error.chain()));
                }
                Err(_) => {
                    return Err(Error::new(SealErrorKind::Service, OP)
                        .with("sector", sector)
                        .with("no answer within seconds", REPORT_LIMIT.as_secs()));
                }
            }
            self.journal.told(sector, number).await?;
        }
        Ok(())
    }

    /// Tells what waits, again and again while the manager is away, until all is told or `over`. A call under way is
    /// waited for, so that a later report never overtakes it. The first error is noted, and so is the end of it.
    pub(crate) async fn keep_telling(
        &self,
        lease: &SectorLease,
        cx: &Context,
        over: &CancellationToken,
        mut hear: impl FnMut(&Report, ReportAnswer) + Send,
    ) {
        let mut wait = FIRST_WAIT;
        let mut away = false;
        while let Err(error) = self.tell(lease, cx, &mut hear).await {
            if !std::mem::replace(&mut away, true) {
                note(cx, format!("{}: report not delivered, told later: {}", lease.sector, error.chain()));
            }
            tokio::select! {
                biased;
                () = cx.cancel.cancelled() => return,
                () = over.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        if away {
            note(cx, format!("{}: the manager has heard all reports", lease.sector));
        }
    }
}

pub(crate) fn note(cx: &Context, text: String) {
    cx.emit(Event::Note { from: "pipeline".to_owned(), text });
}
