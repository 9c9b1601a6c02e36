//! The running worker as its control RPC and its metrics see it.

use super::{
    control::{Answer, Order, Refusal, STATUS_VERSION, ThreadState, ThreadStatus, WorkerControl, WorkerStatus},
    explain::{self, EXPLANATION_VERSION, Explanation, Known, Why},
    hot::Hot,
    info::{Facts, WorkerInfo},
    jobs::Jobs,
};
use crate::{
    config::{WorkerConfig, worker::SealingSettings},
    signals::Shutdown,
};
use async_trait::async_trait;
use damocles_core::pool::{ProcessorPool as _, SlotReport, TaskKind};
use damocles_seal::{
    claims::Resource,
    pool::{LocalPool, schedule::WaitingJob},
    worker::{self, Drain, Pause, ThreadControl},
};
use std::sync::Arc;

/// The running worker.
#[derive(Debug)]
pub(super) struct Board {
    worker: String,
    endpoint: String,
    threads: Vec<SealingSettings>,
    shutdown: Shutdown,
    /// What the events of the threads tell.
    pub(super) jobs: Arc<Jobs>,
    pub(super) facts: Facts,
    /// What may change while it runs, and what it works with once it does.
    pub(super) hot: Hot,
}

impl Board {
    pub(super) fn new(config: &WorkerConfig, shutdown: &Shutdown, jobs: Arc<Jobs>, facts: Facts, hot: Hot) -> Self {
        Self {
            worker: config.name(),
            endpoint: config.sector_manager.rpc_client.addr.url_or("/"),
            threads: config.threads(),
            shutdown: shutdown.clone(),
            jobs,
            facts,
            hot,
        }
    }

    /// The pool, once there is one.
    pub(super) fn pool(&self) -> Option<&LocalPool> {
        self.hot.work().map(|work| &*work.pool)
    }

    pub(super) fn slots(&self) -> Vec<SlotReport> {
        self.pool().map(|pool| pool.slots()).unwrap_or_default()
    }

    fn control(&self, index: usize) -> Option<&ThreadControl> {
        self.hot.work().and_then(|work| work.controls.get(index))
    }

    fn why(&self, index: usize, settings: &SealingSettings, slots: &[SlotReport], waiting: &[WaitingJob]) -> Why {
        let mut why = Why {
            index,
            location: settings.location.clone(),
            sector: None,
            stage: None,
            works: false,
            reasons: explain::not_begun(&self.endpoint),
            hint: None,
        };
        let Some(control) = self.control(index) else { return why };
        let status = control.status();
        (why.sector, why.stage) = (status.sector, status.stage.as_ref().map(ToString::to_string));
        let job = status.sector.and_then(|sector| self.jobs.of(sector, slots));
        let known = Known {
            status: &status,
            pause: control.paused(),
            drain: control.draining(),
            job: job.map(|job| job.short()),
            waiting: waiting.iter().find(|job| job.sector.is_some() && job.sector == status.sector),
        };
        (why.works, why.reasons, why.hint) = explain::reasons(&known);
        why
    }
}

#[async_trait]
impl WorkerControl for Board {
    fn status(&self) -> WorkerStatus {
        let slots = self.slots();
        let threads = self.threads.iter().enumerate().map(|(index, settings)| {
            let control = self.control(index);
            let status = control.map(ThreadControl::status);
            let last_error = status.as_ref().and_then(|status| status.last_error.clone());
            let draining = control.is_some_and(|control| control.draining().is_some());
            let sector = status.as_ref().and_then(|status| status.sector);
            ThreadStatus {
                index,
                location: settings.location.clone(),
                plan: settings.plan.name().to_owned(),
                state: status.as_ref().map_or(ThreadState::Starting, |status| state_of(status.state, draining)),
                since: status.as_ref().map(|status| status.since),
                sector,
                failures: status.as_ref().map_or(0, |status| status.failures),
                job: sector.and_then(|sector| self.jobs.of(sector, &slots)),
                stage: status.and_then(|status| status.stage).map(|stage| stage.to_string()),
                last_error: last_error.map(|e| match e.hint {
                    Some(hint) => format!("{} (hint: {hint})", e.error),
                    None => e.error,
                }),
                settings_refused: self.hot.refused(index),
            }
        });
        WorkerStatus {
            version: STATUS_VERSION,
            worker: self.worker.clone(),
            threads: threads.collect(),
            reload: self.hot.last_reload(),
        }
    }

    async fn info(&self) -> WorkerInfo {
        self.facts.info(&self.worker, self.slots(), &self.hot).await
    }

    fn explain(&self) -> Explanation {
        let (slots, waiting) = (self.slots(), self.pool().map(LocalPool::waiting).unwrap_or_default());
        let threads = self.threads.iter().enumerate();
        let threads = threads.map(|(index, settings)| self.why(index, settings, &slots, &waiting)).collect();
        Explanation { version: EXPLANATION_VERSION, worker: self.worker.clone(), threads }
    }

    fn yields(&self, resource: &Resource, wanted_for: &TaskKind) -> bool {
        self.pool().is_some_and(|pool| pool.give_up(resource, wanted_for))
    }

    async fn order(&self, index: usize, order: Order) -> Result<Answer, Refusal> {
        let thread = self.control(index).ok_or_else(|| Refusal::no_such_thread(index))?;
        Ok(match order {
            Order::Pause { now, by } => {
                let changed = thread.pause_as(Pause { now, by });
                Answer::new(
                    changed,
                    match (changed, now) {
                        (true, false) => "paused: the running step ends first, and its result is kept",
                        (true, true) => "paused: the running step is given up and repeated after the resume",
                        (false, _) => "was paused already",
                    },
                )
            }
            Order::Resume { state: None } => {
                let changed = thread.resume();
                Answer::new(changed, if changed { "resumed" } else { "was not paused" })
            }
            Order::Resume { state: Some(state) } => {
                let stage = damocles_core::pipeline::StageId::read(state);
                let dropped = thread.resume_at(&stage).await?;
                let names = dropped.iter().map(|stage| stage.as_str()).collect::<Vec<_>>().join(", ");
                Answer::new(
                    true,
                    match dropped.is_empty() {
                        true => format!("resumed at {stage}, where the sector stood"),
                        false => format!("resumed at {stage}: what these stages brought about counts no more: {names}"),
                    },
                )
            }
            Order::Drain { sector } => {
                let changed = thread.drain(if sector { Drain::Sector } else { Drain::Step });
                Answer::new(changed, if changed { drained(sector) } else { "was drained already" })
            }
            Order::Abort { reason } => {
                let changed = thread.abort(&reason)?;
                Answer::new(
                    changed,
                    match changed {
                        true => "the sector is given up; its files are removed after the manager has confirmed it",
                        false => "the sector ends already",
                    },
                )
            }
        })
    }

    async fn reload(&self) -> Result<Answer, Refusal> {
        self.hot.order().await
    }

    fn drain(&self, sector: bool) -> Answer {
        let changed = match self.hot.work().filter(|_| sector) {
            Some(work) => work.controls.iter().filter(|thread| thread.drain(Drain::Sector)).count() > 0,
            // Without a thread at work there is no sector to finish.
            None => !self.shutdown.drain.is_cancelled(),
        };
        if !sector || self.hot.work().is_none() {
            self.shutdown.drain.cancel();
        }
        Answer::new(changed, if changed { drained(sector) } else { "was drained already" })
    }
}

fn drained(sector: bool) -> &'static str {
    if sector {
        "drained: it ends with its sector and takes no other"
    } else {
        "drained: it ends with the running step"
    }
}

fn state_of(state: worker::ThreadState, draining: bool) -> ThreadState {
    use worker::ThreadState as S;
    match state {
        S::Running if draining => ThreadState::Draining,
        S::Running => ThreadState::Running,
        S::Waiting => ThreadState::Waiting,
        S::Paused => ThreadState::Paused,
        S::Parked => ThreadState::Parked,
        S::Stopped => ThreadState::Stopped,
        _ => ThreadState::Idle,
    }
}
