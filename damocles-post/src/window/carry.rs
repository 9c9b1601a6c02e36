//! From a recorded intent to the end of its message.

use super::WindowScheduler;
use crate::{
    heads::Heads,
    record::{Attempt, AttemptEvent, Intent},
};
use damocles_core::{
    Context, Event, MessageEvent,
    chain::{
        Call, ChainErrorKind, DeclareFaultsRecovered, MessageId, MessageState, RandomnessKind, SubmitWindowedPoSt,
        TipsetRef,
    },
    post::{Duty, PoStError, PoStErrorKind},
};

impl WindowScheduler {
    /// Carries an attempt to its end, from wherever it is.
    pub(super) async fn carry(&self, duty: &Duty, attempt: &mut Attempt, cx: &Context) -> Result<(), PoStError> {
        if attempt.call.is_none() {
            match self.settle(duty, &attempt.intent, cx).await? {
                Ok(call) => self.append(duty, attempt, AttemptEvent::Submitting { call }).await?,
                Err(reason) => {
                    self.note(cx, format!("{} is not sent: {reason}", attempt.key));
                    return self.append(duty, attempt, AttemptEvent::GivenUp { reason }).await;
                }
            }
        }
        if attempt.message.is_none() && attempt.end.is_none() {
            self.hand_over(duty, attempt, cx).await?;
        }
        match attempt.message.clone() {
            Some(message) if attempt.end.is_none() => self.follow(duty, attempt, &message, cx).await,
            _ => Ok(()),
        }
    }

    /// The call as it is sent, once it can be; or why it no longer should be.
    async fn settle(&self, duty: &Duty, intent: &Intent, cx: &Context) -> Result<Result<Call, String>, PoStError> {
        match intent {
            Intent::Recovery { declaration, .. } => {
                let head = self.ask("read head", cx, self.deps.chain.head()).await?;
                if head.epoch >= duty.due {
                    return Err(self.overdue(duty, head.epoch));
                }
                let state = self.deadline_state(duty, &head, cx).await?;
                if !super::recover::is_wanted(declaration, &state) {
                    return Ok(Err("its sectors are no longer faulty".to_owned()));
                }
                let DeclareFaultsRecovered { miner, recoveries } = declaration.clone();
                Ok(Ok(Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries })))
            }
            Intent::Proof(proof) => {
                let open = duty.deadline.open;
                let settled = self.options.submit_confidence.clamp(0, ((duty.due - open) / 2).max(0));
                let head = self.in_time(open + settled, duty, cx).await?;
                if self.challenge(duty, &head, cx).await? != proof.statement.randomness {
                    return Ok(Err("the challenge has changed".to_owned()));
                }
                let state = self.deadline_state(duty, &head, cx).await?;
                if !super::prove::is_wanted(proof, duty, &state, head.epoch) {
                    return Ok(Err("the partitions have changed".to_owned()));
                }
                // The challenge's own epoch is the earliest that the actor takes, so it is the one that is least likely
                // to be reorganised.
                let commit_epoch = duty.deadline.challenge;
                let kind = RandomnessKind::PoStChainCommit;
                let draw = self.deps.chain.randomness(&head, kind, commit_epoch, duty.miner);
                let commit_randomness = self.ask("draw randomness", cx, draw).await?;
                let bytes = hex::decode(&proof.proof)
                    .map_err(|e| self.failed(PoStErrorKind::Record, "decode recorded proof", duty).because(e))?;
                Ok(Ok(Call::SubmitWindowedPoSt(SubmitWindowedPoSt {
                    miner: duty.miner,
                    deadline: duty.deadline.index,
                    partitions: proof.partitions.clone(),
                    proof_type: proof.statement.proof_type,
                    proof: bytes,
                    commit_epoch,
                    commit_randomness,
                })))
            }
        }
    }

    async fn hand_over(&self, duty: &Duty, attempt: &mut Attempt, cx: &Context) -> Result<(), PoStError> {
        let Some(call) = attempt.call.clone() else {
            return Ok(());
        };
        let head = self.ask("read head", cx, self.deps.chain.head()).await?;
        if head.epoch >= duty.due {
            return Err(self.overdue(duty, head.epoch));
        }
        let submit = self.deps.chain.submit(&attempt.key, &call);
        let limited = tokio::time::timeout(self.options.chain_timeout, submit);
        let refused = || self.failed(PoStErrorKind::Submit, "submit", duty).with("key", &attempt.key);
        let cancelled = || self.failed(PoStErrorKind::Cancelled, "submit", duty).with("key", &attempt.key);
        let answer = cx.cancel.run_until_cancelled(limited).await.ok_or_else(cancelled)?;
        match answer.map_err(|e| refused().because(e))? {
            Ok(message) => {
                self.append(duty, attempt, AttemptEvent::Handed { message }).await?;
                cx.emit(Event::Message { key: attempt.key.clone(), what: MessageEvent::Recorded });
                Ok(())
            }
            Err(e) if matches!(e.kind(), ChainErrorKind::Rejected | ChainErrorKind::Dropped) => {
                // This key is used up. The caller decides when a further attempt is made.
                let error = refused();
                let reason = e.chain();
                self.append(duty, attempt, AttemptEvent::GivenUp { reason }).await?;
                Err(error.because(e))
            }
            Err(e) => {
                let recovery = e.recovery();
                Err(refused().recover_by(recovery).because(e))
            }
        }
    }

    /// Waits, head by head, for the end of a message.
    async fn follow(
        &self,
        duty: &Duty,
        attempt: &mut Attempt,
        message: &MessageId,
        cx: &Context,
    ) -> Result<(), PoStError> {
        let mut heads = Heads::of(&*self.deps.chain);
        while let Some(head) = heads.next(cx).await {
            match self.state(message, self.options.confidence.max(1), cx).await? {
                Some(MessageState::Landed(receipt)) => {
                    let what = MessageEvent::Landed { exit_code: receipt.exit_code };
                    cx.emit(Event::Message { key: attempt.key.clone(), what });
                    return self.append(duty, attempt, AttemptEvent::Landed { receipt }).await;
                }
                Some(MessageState::Dropped { reason }) => {
                    return self.append(duty, attempt, AttemptEvent::GivenUp { reason }).await;
                }
                _ => {}
            }
            if head.epoch < duty.due {
                if let Some(reason) = self.outdated(duty, attempt, &head, cx).await? {
                    return self.append(duty, attempt, AttemptEvent::GivenUp { reason }).await;
                }
            } else if head.epoch > duty.due
                && !matches!(self.state(message, 0, cx).await?, Some(MessageState::Landed(_)))
            {
                return Err(self.overdue(duty, head.epoch).with("message", message));
            }
        }
        Err(self.failed(PoStErrorKind::Cancelled, "wait for message", duty).with("message", message))
    }

    /// Where a message stands; none if that cannot be said now.
    async fn state(
        &self,
        message: &MessageId,
        confidence: i64,
        cx: &Context,
    ) -> Result<Option<MessageState>, PoStError> {
        match self.ask("read message", cx, self.deps.chain.message(message, confidence)).await {
            Ok(state) => Ok(Some(state)),
            Err(e) if e.kind() == PoStErrorKind::Cancelled => Err(e),
            Err(_) => Ok(None),
        }
    }

    /// Why a message that is under way cannot succeed any more.
    async fn outdated(
        &self,
        duty: &Duty,
        attempt: &Attempt,
        head: &TipsetRef,
        cx: &Context,
    ) -> Result<Option<String>, PoStError> {
        let Intent::Proof(proof) = &attempt.intent else {
            return Ok(None);
        };
        match self.challenge(duty, head, cx).await {
            Ok(challenge) if challenge != proof.statement.randomness => {
                Ok(Some("the challenge has changed after it was sent".to_owned()))
            }
            Err(e) if e.kind() == PoStErrorKind::Cancelled => Err(e),
            _ => Ok(None),
        }
    }
}
