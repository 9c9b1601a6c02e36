//! [`WindowScheduler`].

use super::{hunt::StoreDirs, names};
use crate::{
    Options, ProofRecords, RecordError, ReplicaSource, plan,
    record::{Attempt, AttemptEvent, Intent},
    take_view,
    view::ask,
};
use async_trait::async_trait;
use damocles_core::{
    ActorId, Context, Epoch, Error, Event, Recovery,
    chain::{ChainClient, ChainClientExt, ChainError, DeadlineState, MessageId, MessageState, Receipt, TipsetRef},
    pool::ProcessorPool,
    post::{Duty, DutyKind, Fulfilled, PoStError, PoStErrorKind, PoStScheduler, ProvingView},
    verify::ProofVerifier,
};
use parking_lot::Mutex;
use std::{collections::BTreeSet, future::Future, sync::Arc};

/// The [`PoStScheduler`] for WindowPoSt. What it proves, records and sends is told in the crate's documentation.
#[derive(Debug)]
pub struct WindowScheduler {
    pub(super) deps: Deps,
    pub(super) options: Options,
    pub(super) records: ProofRecords,
    /// Stores that did not answer, as long as a reader is stuck.
    pub(super) silent: Mutex<BTreeSet<StoreDirs>>,
}

/// What a [`WindowScheduler`] works with.
#[derive(Clone, Debug)]
pub struct Deps {
    /// The chain.
    pub chain: Arc<dyn ChainClient>,
    /// Where challenges are read and proofs are made. Priorities are the pool's.
    pub pool: Arc<dyn ProcessorPool>,
    /// Checks every proof before it is recorded.
    pub verifier: Arc<dyn ProofVerifier>,
    /// Where replicas lie.
    pub replicas: Arc<dyn ReplicaSource>,
    /// The manager's database.
    pub records: sqlx::AnyPool,
}

/// What there is to send.
enum Made {
    /// A recorded attempt.
    Attempt(Box<Attempt>),
    /// Nothing.
    Nothing(Fulfilled),
}

impl WindowScheduler {
    /// A scheduler, with its tables in place.
    ///
    /// # Errors
    ///
    /// The tables cannot be made or brought up to date.
    pub async fn open(deps: Deps, options: Options) -> Result<Self, RecordError> {
        let records = ProofRecords::open(deps.records.clone()).await?;
        Ok(Self { deps, options, records, silent: Mutex::default() })
    }

    /// The record of all attempts.
    pub fn records(&self) -> &ProofRecords {
        &self.records
    }

    /// Carries on what is recorded, or begins a further attempt, until the chain shows the duty as done.
    async fn attempt(&self, duty: &Duty, cx: &Context) -> Result<Fulfilled, PoStError> {
        let name = names::of(duty);
        loop {
            let last = self.records.last(&name).await.map_err(|e| self.unrecorded(duty, e))?;
            let mut attempt = match last {
                Some(attempt) if attempt.end.is_none() => attempt,
                Some(mut attempt) if attempt.success().is_some() => {
                    if let Some(done) = self.confirm(duty, &mut attempt, cx).await? {
                        return Ok(done);
                    }
                    attempt
                }
                previous => match self.make(&name, duty, previous.as_ref(), cx).await? {
                    Made::Attempt(attempt) => *attempt,
                    Made::Nothing(done) => return Ok(done),
                },
            };
            self.carry(duty, &mut attempt, cx).await?;
        }
    }

    async fn make(&self, name: &str, duty: &Duty, previous: Option<&Attempt>, cx: &Context) -> Result<Made, PoStError> {
        let number = previous.map_or(1, |p| p.number.saturating_add(1));
        if number > self.options.attempts {
            return Err(self
                .failed(PoStErrorKind::Submit, "begin attempt", duty)
                .with("attempts", self.options.attempts)
                .recover_by(Recovery::Park));
        }
        let intent = match &duty.what {
            DutyKind::Prove { partitions } => self.make_proof(duty, partitions, previous, cx).await?,
            DutyKind::Recover { partitions } => self.make_recovery(duty, partitions, cx).await?,
            other => {
                let error = self.failed(PoStErrorKind::Submit, "begin attempt", duty);
                return Err(error.with("what", format!("{other:?}")).recover_by(Recovery::Abandon));
            }
        };
        match intent {
            Err(done) => Ok(Made::Nothing(done)),
            Ok(intent) => {
                let begun = self.records.begin(name, number, duty, intent).await;
                begun.map(|attempt| Made::Attempt(Box::new(attempt))).map_err(|e| self.unrecorded(duty, e))
            }
        }
    }

    /// Whether the chain shows what was accepted; none if the message is no longer on the chain.
    async fn confirm(&self, duty: &Duty, attempt: &mut Attempt, cx: &Context) -> Result<Option<Fulfilled>, PoStError> {
        let Some(receipt) = attempt.success().cloned() else {
            return Ok(None);
        };
        let head = self.ask("read head", cx, self.deps.chain.head()).await?;
        let state = self.deadline_state(duty, &head, cx).await?;
        let shown = match &attempt.intent {
            Intent::Proof(proof) => super::prove::is_shown(proof, duty, &state, head.epoch),
            Intent::Recovery { declaration, .. } => super::recover::is_shown(declaration, &state),
        };
        if shown {
            let skipped = attempt.intent.skipped().to_vec();
            return Ok(Some(Fulfilled { receipts: vec![receipt], skipped }));
        }
        if let Some(message) = &attempt.message
            && self.is_landed(message, &receipt, cx).await?
        {
            // The message stands and its effect is not there: this answer cannot be trusted yet.
            return Err(self
                .failed(PoStErrorKind::Submit, "confirm on chain", duty)
                .with("message", receipt.message)
                .with("epoch", head.epoch));
        }
        self.append(duty, attempt, AttemptEvent::Reverted).await?;
        Ok(None)
    }

    async fn is_landed(&self, message: &MessageId, receipt: &Receipt, cx: &Context) -> Result<bool, PoStError> {
        let state =
            self.ask("read message", cx, self.deps.chain.message(message, self.options.confidence.max(1))).await?;
        Ok(matches!(state, MessageState::Landed(now) if now == *receipt))
    }

    /// Asks the chain something: not for ever, and not when cancelled.
    pub(super) async fn ask<T>(
        &self,
        op: &'static str,
        cx: &Context,
        call: impl Future<Output = Result<T, ChainError>> + Send,
    ) -> Result<T, PoStError> {
        let answer = cx.cancel.run_until_cancelled(ask(op, self.options.chain_timeout, call)).await;
        answer.ok_or_else(|| Error::new(PoStErrorKind::Cancelled, op))?
    }

    pub(super) async fn deadline_state(
        &self,
        duty: &Duty,
        at: &TipsetRef,
        cx: &Context,
    ) -> Result<DeadlineState, PoStError> {
        self.ask("read partitions", cx, self.deps.chain.partitions(at, duty.miner, duty.deadline.index)).await
    }

    /// Waits for an epoch and returns the head then, unless it is too late to send anything.
    pub(super) async fn in_time(&self, epoch: Epoch, duty: &Duty, cx: &Context) -> Result<TipsetRef, PoStError> {
        let waited = self.deps.chain.reached(epoch, cx).await;
        waited.map_err(|e| self.failed(PoStErrorKind::Cancelled, "wait for epoch", duty).because(e))?;
        let head = self.ask("read head", cx, self.deps.chain.head()).await?;
        // What is sent now lands in the next epoch at the earliest.
        if head.epoch >= duty.due { Err(self.overdue(duty, head.epoch)) } else { Ok(head) }
    }

    pub(super) async fn append(
        &self,
        duty: &Duty,
        attempt: &mut Attempt,
        event: AttemptEvent,
    ) -> Result<(), PoStError> {
        self.records.append(attempt, event).await.map_err(|e| self.unrecorded(duty, e))
    }

    pub(super) fn note(&self, cx: &Context, text: String) {
        cx.emit(Event::Note { from: "post".to_owned(), text });
    }

    pub(super) fn failed(&self, kind: PoStErrorKind, op: &'static str, duty: &Duty) -> PoStError {
        Error::new(kind, op).with("miner", duty.miner).with("deadline", duty.deadline.index)
    }

    pub(super) fn overdue(&self, duty: &Duty, now: Epoch) -> PoStError {
        self.failed(PoStErrorKind::Overdue, "fulfil duty", duty).with("due", duty.due).with("epoch", now)
    }

    fn unrecorded(&self, duty: &Duty, error: RecordError) -> PoStError {
        self.failed(PoStErrorKind::Record, "use record of proofs", duty).because(error)
    }
}

#[async_trait]
impl PoStScheduler for WindowScheduler {
    fn plan(&self, view: &ProvingView) -> Vec<Duty> {
        plan(view, &self.options)
    }

    async fn view(&self, miner: ActorId, at: &TipsetRef) -> Result<ProvingView, PoStError> {
        take_view(&*self.deps.chain, miner, at, &self.options).await
    }

    async fn fulfil(&self, duty: &Duty, cx: &Context) -> Result<Fulfilled, PoStError> {
        let head = self.ask("read head", cx, self.deps.chain.head()).await?;
        if head.epoch > duty.due {
            return Err(self.overdue(duty, head.epoch));
        }
        self.attempt(duty, cx).await
    }
}
