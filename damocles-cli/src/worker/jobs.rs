//! What the sectors' jobs do, put together from what the libraries report.

use super::{control::JobView, metrics::StageTimes};
use crate::logging::LogSink;
use damocles_core::{
    Event, EventSink, JobEvent, SectorId, StageEvent,
    pool::{SlotReport, Task as _},
};
use damocles_seal::task::Transfer;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// The running job of each sector, kept up to date by events, which it passes on to the log.
#[derive(Debug)]
pub(super) struct Jobs {
    jobs: Mutex<BTreeMap<SectorId, JobView>>,
    stages: Arc<StageTimes>,
}

impl Jobs {
    pub(super) fn new(stages: Arc<StageTimes>) -> Self {
        Self { jobs: Mutex::default(), stages }
    }

    /// The job of a sector, with the process that does it.
    pub(super) fn of(&self, sector: SectorId, slots: &[SlotReport]) -> Option<JobView> {
        let mut job = self.jobs.lock().get(&sector).cloned()?;
        job.pid = slots.iter().find(|slot| Some(&slot.name) == job.slot.as_ref()).and_then(|slot| slot.pid);
        Some(job)
    }

    fn follow(&self, event: &Event) {
        match event {
            Event::Job { kind, sector: Some(sector), what, .. } => {
                let mut jobs = self.jobs.lock();
                if matches!(what, JobEvent::Ended { .. }) {
                    jobs.remove(sector);
                    return;
                }
                let job = jobs.entry(*sector).or_default();
                if job.kind != kind.as_str() {
                    *job = JobView { kind: kind.to_string(), ..JobView::default() };
                }
                match what {
                    JobEvent::Queued { reason } => job.waits = Some(reason.clone()),
                    JobEvent::Started { slot } => {
                        *job = JobView { kind: kind.to_string(), slot: Some(slot.clone()), ..JobView::default() };
                    }
                    JobEvent::Progress { done, total } => {
                        if *kind == Transfer::KIND {
                            self.stages.copied(done.saturating_sub(job.done.unwrap_or(0)));
                        }
                        (job.done, job.total) = (Some(*done), *total);
                    }
                    _ => {}
                }
            }
            Event::Stage { sector, stage, what } => {
                // A job that was given up before it had a slot does not say that it ended.
                if !matches!(what, StageEvent::Started) {
                    self.jobs.lock().remove(sector);
                }
                self.stages.follow(*sector, stage, what, tokio::time::Instant::now());
            }
            _ => {}
        }
    }
}

impl EventSink for Jobs {
    fn emit(&self, event: Event) {
        self.follow(&event);
        LogSink.emit(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{ActorId, JobId, SectorNumber, pipeline::StageId, pool::TaskKind};

    #[test]
    fn a_job_is_followed_from_its_queue_to_its_end() {
        let jobs = Jobs::new(Arc::default());
        let sector = SectorId::new(ActorId(1000), SectorNumber(7));
        let (job, kind) = (JobId(1), TaskKind::new("pc1"));
        let says = |what| jobs.follow(&Event::Job { job, kind: kind.clone(), sector: Some(sector), what });
        let mut slot = SlotReport::new("pc1-0", vec![kind.clone()]);
        slot.pid = Some(42);
        let seen = || jobs.of(sector, std::slice::from_ref(&slot)).map(|job| job.short());
        assert_eq!(seen(), None);
        says(JobEvent::Queued { reason: "busy".to_owned() });
        assert_eq!(seen().unwrap(), "pc1 waits");
        says(JobEvent::Started { slot: "pc1-0".to_owned() });
        says(JobEvent::Progress { done: 2, total: Some(11) });
        assert_eq!(seen().unwrap(), "pc1-0 (pid 42) 2/11");
        says(JobEvent::Ended { ok: true });
        assert_eq!(seen(), None);
        says(JobEvent::Queued { reason: "busy".to_owned() });
        let stage = StageId::new("pc1");
        let failed = StageEvent::Failed { error: "cancelled".to_owned(), recovery: damocles_core::Recovery::RETRY };
        jobs.follow(&Event::Stage { sector, stage, what: failed });
        assert_eq!(seen(), None, "it was given up while it waited");
    }
}
