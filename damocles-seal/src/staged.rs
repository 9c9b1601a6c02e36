//! The default pipeline: a plan over a journal.

use crate::{
    journal::{EntryFault, Journal, NewEntry, SectorRecord},
    plan::Plan,
    service::{Report, ReportAnswer, SealingService},
    stage::{Stage, StageOutcome},
    telling::{REPORT_LIMIT, Teller, note},
};
use async_trait::async_trait;
use damocles_core::{
    CancellationToken, Context, Error, Event, Recovery, SectorId, StageEvent,
    allocator::SectorLease,
    pipeline::{SealError, SealErrorKind, SealingPipeline, SectorProgress, StageId, Step, Wake},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// After so many rewinds to one stage since the sector was opened, it waits for an operator.
const MAX_REWINDS: usize = 8;

/// Moves sectors through a [`Plan`] and keeps what came of it in a [`Journal`].
///
/// There is one commit point a step: the output of a stage goes into the journal and is synced before anything else
/// happens, before any report to the manager too.
#[derive(Debug)]
pub struct StagedPipeline {
    plan: Plan,
    journal: Arc<dyn Journal>,
    service: Option<Arc<dyn SealingService>>,
    open: Mutex<BTreeMap<SectorId, Arc<tokio::sync::Mutex<OpenSector>>>>,
}

#[derive(Debug)]
struct OpenSector {
    lease: SectorLease,
    /// The stage whose start is journalled and that has not failed since: a stage that waits is asked again without
    /// another start.
    started: Option<StageId>,
    /// The output of a stage that ended when the journal could not be written. It may have cost hours, so that it is
    /// recorded by the next step that can, instead of being made again.
    unrecorded: Option<(StageId, Value)>,
    /// What the manager made of the sector behind our back.
    ended: Option<Ended>,
    closed: bool,
}

#[derive(Debug)]
enum Ended {
    /// It holds it to be finished.
    Finalized,
    /// It gave it up.
    Aborted(String),
}

impl Ended {
    fn error(&self, op: &'static str, id: SectorId) -> SealError {
        match self {
            Self::Finalized => Error::new(SealErrorKind::Refused, op)
                .with("sector", id)
                .hint_with("the manager holds this sector to be finished; see `damocles-manager sectors show`"),
            // The manager's word is the confirmation without which nothing may be removed.
            Self::Aborted(reason) => {
                Error::new(SealErrorKind::Expired, op).with("sector", id).with("the manager gave it up", reason)
            }
        }
    }
}

impl StagedPipeline {
    /// A pipeline that follows `plan` and records in `journal`.
    pub fn new(plan: Plan, journal: Arc<dyn Journal>) -> Self {
        Self { plan, journal, service: None, open: Mutex::default() }
    }

    /// Tells `service` of every step, after it is recorded. What it could not be told waits in the journal, and is told
    /// with the next step, during a long one, or after a restart.
    #[must_use]
    pub fn reporting_to(mut self, service: Arc<dyn SealingService>) -> Self {
        self.service = Some(service);
        self
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn sector(&self, op: &'static str, id: SectorId) -> Result<Arc<tokio::sync::Mutex<OpenSector>>, SealError> {
        self.open.lock().get(&id).cloned().ok_or_else(|| unknown(op, id))
    }

    async fn load(&self, open: &OpenSector) -> Result<SectorRecord, SealError> {
        let mut record = self.journal.load(open.lease.sector).await?;
        record.set_lease(open.lease.clone());
        for stage in self.plan.stages() {
            if let Some(fact) = record.fact(&stage.id())
                && fact.version > stage.version()
            {
                return Err(Error::new(SealErrorKind::CorruptJournal, "read the output of a stage")
                    .with("sector", record.sector())
                    .with("stage", &fact.stage)
                    .with("version", fact.version)
                    .because(EntryFault::Range { what: "version" })
                    .hint_with("a newer version of damocles-worker sealed this sector so far; use that one"));
            }
        }
        Ok(record)
    }

    async fn start(&self, open: &mut OpenSector, stage: &StageId, cx: &Context) -> Result<(), SealError> {
        if open.started.as_ref() == Some(stage) {
            return Ok(());
        }
        let started = NewEntry::started(stage.clone());
        self.journal.append(open.lease.sector, open.lease.fence, started).await?;
        open.started = Some(stage.clone());
        emit(cx, open.lease.sector, stage, StageEvent::Started);
        Ok(())
    }

    /// Starts a stage and runs it to its end: the pool must see the cancellation, so that the future is never dropped for
    /// it. A stage whose output could not be recorded is not run again. What the manager has not heard of yet is told
    /// meanwhile.
    async fn run(
        &self,
        open: &mut OpenSector,
        record: &SectorRecord,
        stage: &dyn Stage,
        cx: &Context,
    ) -> Result<StageOutcome, SealError> {
        let name = stage.id();
        if let Some((of, output)) = open.unrecorded.take()
            && of == name
        {
            return Ok(StageOutcome::Done(output));
        }
        self.start(open, &name, cx).await?;
        let Some(teller) = self.teller() else { return stage.run(record, cx).await };
        let over = CancellationToken::new();
        let work = async {
            let outcome = stage.run(record, cx).await;
            over.cancel();
            outcome
        };
        let OpenSector { lease, ended, .. } = open;
        let telling = teller.keep_telling(lease, cx, &over, |report, answer| *ended = ended_by(report, answer));
        tokio::join!(work, telling).0
    }

    /// The stage that comes after one that has just ended.
    fn after(&self, record: &SectorRecord, ended: &StageId) -> Option<StageId> {
        let at = self.plan.stages().iter().position(|s| s.id() == *ended);
        let later = self.plan.stages().iter().skip(at.map_or(0, |i| i + 1));
        later.map(|s| s.id()).find(|s| record.fact(s).is_none())
    }

    async fn record(
        &self,
        open: &mut OpenSector,
        record: &SectorRecord,
        stage: &dyn Stage,
        outcome: StageOutcome,
        cx: &Context,
    ) -> Result<Step, SealError> {
        let (id, fence) = (open.lease.sector, open.lease.fence);
        let name = stage.id();
        match outcome {
            StageOutcome::Wait(until) => {
                emit(cx, id, &name, StageEvent::Waiting { until });
                Ok(Step::Waiting { stage: name, until })
            }
            StageOutcome::Done(output) => {
                let mut done = NewEntry::done(name.clone(), stage.version(), output.clone());
                if self.service.is_some() {
                    done = done.telling(Report::Moved { done: Some(name.clone()), next: self.after(record, &name) });
                }
                if let Err(error) = self.journal.append(id, fence, done).await {
                    open.unrecorded = Some((name, output));
                    return Err(error);
                }
                open.started = None;
                emit(cx, id, &name, StageEvent::Advanced);
                self.tell(open, cx).await;
                Ok(Step::Advanced { stage: name })
            }
            StageOutcome::Rewind { to, reason } => {
                if record.rewinds(&to) >= MAX_REWINDS {
                    return Err(reason.recover_by(Recovery::Park));
                }
                let Some(dropped) = self.plan.dropped(record, &to) else {
                    return Err(reason);
                };
                let text = reason.chain();
                let mut rewound = NewEntry::rewound(to.clone(), &dropped, &text);
                if self.service.is_some() {
                    let stage = name.clone();
                    rewound = rewound.telling(Report::Failed { stage, error: text.clone(), recovery: Recovery::RETRY });
                }
                self.journal.append(id, fence, rewound).await?;
                open.started = None;
                emit(cx, id, &name, StageEvent::Failed { error: text, recovery: Recovery::RETRY });
                self.tell(open, cx).await;
                Ok(Step::Waiting { stage: to, until: Wake::After(Duration::ZERO) })
            }
        }
    }

    /// Records a failure for the manager and tells it, after what it has not heard of yet.
    async fn report_failure(&self, open: &mut OpenSector, report: Report, cx: &Context) {
        let Some(service) = &self.service else { return };
        let (id, fence) = (open.lease.sector, open.lease.fence);
        let Err(error) = self.journal.tell(id, fence, &report).await else {
            return self.tell(open, cx).await;
        };
        // A full disk takes no record of itself: the manager hears it now or not at all.
        note(cx, format!("{id}: report not recorded: {}", error.chain()));
        self.tell(open, cx).await;
        if let Ok(Ok(answer)) = tokio::time::timeout(REPORT_LIMIT, service.report(&open.lease, &report)).await {
            open.ended = ended_by(&report, answer);
        }
    }

    fn teller(&self) -> Option<Teller> {
        let service = Arc::clone(self.service.as_ref()?);
        Some(Teller { journal: Arc::clone(&self.journal), service })
    }

    /// Tells the manager what it has not heard of yet. One that is away is told later.
    async fn tell(&self, open: &mut OpenSector, cx: &Context) {
        let Some(teller) = self.teller() else { return };
        let OpenSector { lease, ended, .. } = open;
        if let Err(error) = teller.tell(lease, cx, |report, answer| *ended = ended_by(report, answer)).await {
            note(cx, format!("{}: report not delivered: {}", lease.sector, error.chain()));
        }
    }
}

/// What a manager's answer says of the sector. The last step ends it for us too.
fn ended_by(report: &Report, answer: ReportAnswer) -> Option<Ended> {
    if matches!(report, Report::Moved { next: None, .. }) {
        return None;
    }
    let finalized = answer.finalized.then_some(Ended::Finalized);
    answer.abort_reason.map(Ended::Aborted).or(finalized)
}

fn unknown(op: &'static str, id: SectorId) -> SealError {
    Error::new(SealErrorKind::UnknownSector, op).with("sector", id)
}

fn emit(cx: &Context, sector: SectorId, stage: &StageId, what: StageEvent) {
    cx.emit(Event::Stage { sector, stage: stage.clone(), what });
}

#[async_trait]
impl SealingPipeline for StagedPipeline {
    async fn open(&self, lease: SectorLease) -> Result<SectorId, SealError> {
        let id = lease.sector;
        let fresh = OpenSector { lease: lease.clone(), started: None, unrecorded: None, ended: None, closed: false };
        let known = self.open.lock().get(&id).cloned();
        if let Some(known) = known {
            // A running step goes on under its own lease; the new one counts from the next step on.
            let mut open = known.lock().await;
            if !open.closed {
                self.journal.open(&lease).await?;
                let unrecorded = open.unrecorded.take();
                *open = OpenSector { unrecorded, ..fresh };
                return Ok(id);
            }
        }
        self.journal.open(&lease).await?;
        self.open.lock().insert(id, Arc::new(tokio::sync::Mutex::new(fresh)));
        Ok(id)
    }

    async fn step(&self, id: SectorId, cx: &Context) -> Result<Step, SealError> {
        let op = "step sector";
        let sector = self.sector(op, id)?;
        let mut open = tokio::select! {
            biased;
            () = cx.cancel.cancelled() => return Err(Error::new(SealErrorKind::Cancelled, op).with("sector", id)),
            open = sector.lock() => open,
        };
        if open.closed {
            return Err(unknown(op, id));
        }
        if let Some(ended) = &open.ended {
            return Err(ended.error(op, id));
        }
        let record = self.load(&open).await?;
        let Some(stage) = self.plan.next(&record) else {
            return Ok(Step::Finished);
        };
        let name = stage.id();
        let outcome = self.run(&mut open, &record, &**stage, cx).await;
        let step = match outcome {
            Ok(outcome) => self.record(&mut open, &record, &**stage, outcome, cx).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &step {
            // What waits for a manager that is away or for room is repeated without end: the same start goes on.
            if !matches!(error.kind(), SealErrorKind::Service | SealErrorKind::DiskFull) {
                open.started = None;
            }
            let recovery = error.recovery();
            let text = error.chain();
            emit(cx, id, &name, StageEvent::Failed { error: text.clone(), recovery });
            let told = [SealErrorKind::Service, SealErrorKind::Cancelled, SealErrorKind::Fenced];
            if !told.contains(&error.kind()) {
                self.report_failure(&mut open, Report::Failed { stage: name, error: text, recovery }, cx).await;
            }
        }
        step
    }

    async fn rewind(&self, id: SectorId, stage: &StageId) -> Result<(), SealError> {
        let op = "rewind sector";
        let sector = self.sector(op, id)?;
        let mut open = sector.lock().await;
        if open.closed {
            return Err(unknown(op, id));
        }
        let record = self.load(&open).await?;
        let dropped = self.plan.dropped(&record, stage).ok_or_else(|| {
            Error::new(SealErrorKind::Stage, op)
                .with("sector", id)
                .with("unknown stage", stage)
                .recover_by(Recovery::Park)
        })?;
        let entry = NewEntry::rewound(stage.clone(), &dropped, "asked for by an operator");
        self.journal.append(id, open.lease.fence, entry).await?;
        open.started = None;
        open.unrecorded = None;
        Ok(())
    }

    async fn close(&self, id: SectorId) -> Result<SectorLease, SealError> {
        let sector = self.sector("close sector", id)?;
        let mut open = sector.lock().await;
        if open.closed {
            return Err(unknown("close sector", id));
        }
        open.closed = true;
        self.open.lock().remove(&id);
        Ok(open.lease.clone())
    }

    async fn progress(&self) -> Result<Vec<SectorProgress>, SealError> {
        let sectors: Vec<_> = self.open.lock().keys().copied().collect();
        let mut progress = Vec::with_capacity(sectors.len());
        for id in sectors {
            // A sector whose journal is damaged is listed all the same, and does not hide the others.
            match self.journal.load(id).await {
                Ok(record) => progress.push(SectorProgress {
                    lease: record.lease().clone(),
                    done: record.facts().iter().map(|f| f.stage.clone()).collect(),
                    next: self.plan.next(&record).map(|s| s.id()),
                }),
                Err(error) if error.kind() == SealErrorKind::CorruptJournal => {
                    let known = self.open.lock().get(&id).cloned();
                    if let Some(open) = known.as_ref().and_then(|open| open.try_lock().ok()) {
                        progress.push(SectorProgress { lease: open.lease.clone(), done: Vec::new(), next: None });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(progress)
    }
}
