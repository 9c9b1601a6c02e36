//! Pre-commits.

use super::{
    ManagerService,
    expiration::{EPOCHS_PER_DAY, expiration},
    intent,
    intent::{End, EndState, Intent, NewIntent},
};
use crate::{
    sector_state::{AttemptKind, DbError, json_of, pieces, to_db},
    service::{
        CommitState, PieceTerms, PreCommitRequest, Seed, SeedAnswer, ServiceError, ServiceErrorKind, SubmitAnswer,
        comm_d_of,
    },
};
use damocles_core::{
    Epoch, Error, PieceInfo, Recovery, SectorId,
    allocator::SectorLease,
    chain::{Call, MessageState, OnChain, PreCommit, PreCommitBatch, RandomnessKind, Receipt, SubmitKey, TipsetRef},
    pipeline::Wake,
    zero_comm_d,
};

/// The actor takes tickets from the last day and the chain's finality.
const TICKET_LIFE_BEYOND_LOOKBACK: i64 = 2880;

/// The actor's bound on the time between a pre-commit and its proof, beyond the challenge delay.
const MOST_PROVE_COMMIT_EPOCHS: i64 = 30 * EPOCHS_PER_DAY;

/// Exit codes of failures that may pass: no funds in the message or the actor, or not enough gas.
const PASSING_EXIT_CODES: [i64; 3] = [6, 7, 19];

const EXPIRED: &str = "the pre-commit expired, or the sector was terminated";

/// What a submission is, in the light of those before it.
pub(super) enum Judged {
    /// The same as the last one, which stands.
    Repeat(Box<Intent>),
    /// Not to be accepted.
    Answer(SubmitAnswer),
    /// To be checked and recorded as this attempt.
    New(u64),
}

pub(super) fn judge(before: Option<Intent>, content: &str) -> Judged {
    let Some(before) = before else {
        return Judged::New(1);
    };
    let same = before.content == content;
    let next = before.attempt.saturating_add(1);
    match before.end.as_ref().map(|e| e.state) {
        None | Some(EndState::Landed) if same => Judged::Repeat(Box::new(before)),
        None | Some(EndState::Landed) => Judged::Answer(SubmitAnswer::Mismatched {
            reason: format!("`{}` was submitted with another content", before.key),
        }),
        Some(EndState::Refused) if same => Judged::Answer(SubmitAnswer::Rejected {
            reason: before.end.and_then(|e| e.reason).unwrap_or_else(|| "the actor refused it".to_owned()),
        }),
        Some(EndState::Failed | EndState::Dropped | EndState::Refused) => Judged::New(next),
    }
}

impl ManagerService {
    pub(super) async fn do_submit_pre_commit(
        &self,
        lease: &SectorLease,
        request: &PreCommitRequest,
    ) -> Result<SubmitAnswer, ServiceError> {
        const OP: &str = "submit pre-commit";
        let sector = lease.sector;
        self.check(OP, lease).await?;
        let at = |e: DbError| Self::of_db(OP, e).with("sector", sector);
        let content = json_of("pre-commit", request).map_err(at)?;
        let attempt = match judge(self.latest(OP, sector, AttemptKind::PreCommit).await?, &content) {
            Judged::Repeat(intent) => return self.repeat(*intent).await,
            Judged::Answer(answer) => return self.declined(OP, lease, answer).await,
            Judged::New(attempt) => attempt,
        };
        let given = if request.comm_d == zero_comm_d(lease.proof_type.sector_size()) {
            // It was sealed without data: one that waited for pieces, or never asked, must get none from here on.
            self.do_pieces(lease, PieceTerms::NONE).await?
        } else {
            pieces(&self.db, sector).await.map_err(at)?
        };
        let given: Vec<PieceInfo> = given.iter().map(|p| p.piece).collect();
        let head = self.head(OP).await?;
        if let Some(answer) = self.pre_commit_objection(&head, lease, request, &given).await? {
            return self.declined(OP, lease, answer).await;
        }
        let on_chain = self.chain.sector(&head, sector).await.map_err(|e| Self::of_chain(OP, e))?;
        let end = match self.adopt_pre_commit(&head, sector, &on_chain, request)? {
            Ok(end) => end,
            Err(answer) => return self.declined(OP, lease, answer).await,
        };
        let delay = self.network(&head).await?.pre_commit_challenge_delay;
        let call = Call::PreCommit(PreCommitBatch {
            miner: sector.miner,
            sectors: vec![PreCommit {
                number: sector.number,
                proof_type: lease.proof_type,
                comm_r: request.comm_r,
                comm_d: (!given.is_empty()).then_some(request.comm_d),
                ticket_epoch: request.ticket.epoch,
                expiration: expiration(head.epoch, delay, self.config.lifetime_days),
            }],
        });
        let key = SubmitKey(format!("precommit/{}/{}/{}/{attempt}", sector.miner, sector.number, request.ticket.epoch));
        let new =
            NewIntent { key: &key, sector, kind: AttemptKind::PreCommit, attempt, content: &content, call: &call };
        self.decide(OP, lease, &new, end).await
    }

    /// Why the request can never be right, if it cannot.
    async fn pre_commit_objection(
        &self,
        head: &TipsetRef,
        lease: &SectorLease,
        request: &PreCommitRequest,
        given: &[PieceInfo],
    ) -> Result<Option<SubmitAnswer>, ServiceError> {
        match comm_d_of(given, lease.proof_type.sector_size()) {
            Ok(expected) if expected == request.comm_d => {}
            Ok(expected) => {
                let reason = format!("the data commitment is {}, its pieces make {expected}", request.comm_d);
                return Ok(Some(SubmitAnswer::Mismatched { reason }));
            }
            Err(e) => return Ok(Some(SubmitAnswer::Rejected { reason: e.to_string() })),
        }
        let ticket = request.ticket;
        let lookback = self.network(head).await?.ticket_lookback;
        let oldest = head.epoch - lookback - TICKET_LIFE_BEYOND_LOOKBACK;
        if ticket.epoch < oldest || ticket.epoch > head.epoch {
            let reason = format!("the ticket of epoch {} is not within {oldest} and {}", ticket.epoch, head.epoch);
            return Ok(Some(SubmitAnswer::Rejected { reason }));
        }
        let drawn = self.chain.randomness(head, RandomnessKind::SealTicket, ticket.epoch, lease.sector.miner).await;
        let drawn = drawn.map_err(|e| Self::of_chain("draw ticket", e).with("epoch", ticket.epoch))?;
        Ok((drawn != ticket.randomness).then(|| SubmitAnswer::Rejected {
            reason: format!("the chain's ticket of epoch {} is another", ticket.epoch),
        }))
    }

    /// What the chain already knows: nothing, this very pre-commit, or something that stands in its way.
    fn adopt_pre_commit(
        &self,
        head: &TipsetRef,
        sector: SectorId,
        on_chain: &OnChain,
        request: &PreCommitRequest,
    ) -> Result<Result<Option<End>, SubmitAnswer>, ServiceError> {
        let reason = match on_chain {
            OnChain::Absent => return Ok(Ok(None)),
            OnChain::PreCommitted { comm_r, ticket_epoch, epoch, .. }
                if *comm_r == request.comm_r && *ticket_epoch == request.ticket.epoch =>
            {
                return self.adopted(head, sector, *epoch).map(|end| Ok(Some(end)));
            }
            OnChain::PreCommitted { comm_r, .. } => format!("the chain holds a pre-commit to {comm_r}"),
            OnChain::Active(_) => "the chain holds the sector as proven".to_owned(),
            _ => "the number is used up on chain".to_owned(),
        };
        Ok(Err(SubmitAnswer::Rejected { reason }))
    }

    /// The end of a message that landed without our knowing, once it cannot be reverted.
    pub(super) fn adopted(&self, head: &TipsetRef, sector: SectorId, epoch: Epoch) -> Result<End, ServiceError> {
        if head.epoch < epoch + self.config.confidence {
            return Err(Error::new(ServiceErrorKind::Unavailable, "adopt message")
                .with("sector", sector)
                .with("landed at", epoch)
                .with("head", head.epoch));
        }
        Ok(End { state: EndState::Landed, reason: None, epoch: Some(epoch), exit_code: Some(0), cid: None })
    }

    /// Records a decision under the fence, then sends it. From the record on, the submission is accepted: what cannot
    /// be sent now is sent by [`ManagerService::run`].
    pub(super) async fn decide(
        &self,
        op: &'static str,
        lease: &SectorLease,
        new: &NewIntent<'_>,
        end: Option<End>,
    ) -> Result<SubmitAnswer, ServiceError> {
        let now = self.clock.now();
        let mut tx = self.fenced(op, lease).await?;
        let recorded = async {
            // From here on its content is fixed, even if it never asked for pieces.
            sqlx::query("UPDATE seal_sectors SET kind = 'cc' WHERE miner = $1 AND number = $2 AND kind IS NULL")
                .bind(to_db("miner", new.sector.miner.0)?)
                .bind(to_db("sector number", new.sector.number.0)?)
                .execute(&mut *tx)
                .await?;
            intent::record(&mut tx, new, now).await?;
            if let Some(end) = &end {
                intent::end(&mut tx, new.sector, new.key, end, now).await?;
            }
            Ok::<(), DbError>(tx.commit().await?)
        };
        recorded.await.map_err(|e| Self::of_db(op, e).with("sector", lease.sector))?;
        match self.latest(op, lease.sector, new.kind).await? {
            Some(intent) if intent.end.is_none() => self.repeat(intent).await,
            _ => Ok(SubmitAnswer::Accepted),
        }
    }

    /// Accepts what is recorded, and sends it if that was not done.
    pub(super) async fn repeat(&self, intent: Intent) -> Result<SubmitAnswer, ServiceError> {
        if intent.message.is_none()
            && intent.end.is_none()
            && let Err(error) = self.send(&intent).await
        {
            tracing::warn!(sector = %intent.sector, key = %intent.key, error = %error.chain(), "recorded, not sent yet");
        }
        self.nudge();
        Ok(SubmitAnswer::Accepted)
    }

    /// How a message ended; none while it has not.
    pub(super) async fn follow(&self, op: &'static str, intent: &Intent) -> Result<Option<End>, ServiceError> {
        if intent.end.is_some() {
            return Ok(intent.end.clone());
        }
        let message = match &intent.message {
            Some(message) => message.clone(),
            None => match self.send(intent).await {
                Ok(Ok(message)) => message,
                Ok(Err(end)) => return Ok(Some(end)),
                Err(e) if matches!(e.recovery(), Recovery::Retry { .. }) => return Ok(None),
                Err(e) => return Err(e),
            },
        };
        let state = self.chain.message(&message, self.config.confidence).await;
        let state = state.map_err(|e| Self::of_chain(op, e).with("message", &message));
        let trouble = match &state {
            Ok(MessageState::Pending { trouble }) => trouble.clone(),
            Ok(_) => None,
            Err(e) => Some(e.chain()),
        };
        self.note_trouble(intent, trouble.as_deref()).await;
        let end = match state? {
            MessageState::Landed(receipt) => of_receipt(&receipt),
            MessageState::Dropped { reason } => End::dropped(reason),
            _ => return Ok(None),
        };
        self.record_end(op, intent, &end).await?;
        Ok(Some(end))
    }

    /// Whether reads at `head` must show what a message of `epoch` did. A node that is behind the one that told of it
    /// knows nothing of it, and the tipset that holds it is built on the state before it.
    pub(super) fn shows(&self, head: &TipsetRef, epoch: Epoch) -> bool {
        head.epoch >= epoch + self.config.confidence.max(1)
    }

    /// Whether a pre-commit that landed at `landed` is over for certain. A node that is behind, or another one that took
    /// over, denies what it has not seen; only once no proof could be accepted any more is its word enough.
    pub(super) async fn is_over(
        &self,
        head: &TipsetRef,
        landed: Epoch,
        on_chain: &OnChain,
    ) -> Result<bool, ServiceError> {
        let delay = self.network(head).await?.pre_commit_challenge_delay;
        Ok(*on_chain == OnChain::Gone && head.epoch > landed + MOST_PROVE_COMMIT_EPOCHS + delay)
    }

    /// What to do about a chain that denies what it accepted before: wait, as a replica cannot be made again.
    pub(super) fn doubted(&self, sector: SectorId, head: &TipsetRef, landed: Epoch, on_chain: &OnChain) -> CommitState {
        tracing::warn!(%sector, head = %head.epoch, %landed, ?on_chain, "a message landed, the chain does not show it");
        self.pending()
    }

    pub(super) fn pending(&self) -> CommitState {
        CommitState::Pending { until: Wake::After(self.config.poll) }
    }

    pub(super) async fn do_pre_commit_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        const OP: &str = "read pre-commit";
        self.check(OP, lease).await?;
        let Some(intent) = self.latest(OP, lease.sector, AttemptKind::PreCommit).await? else {
            return Ok(CommitState::NotFound);
        };
        let Some(end) = self.follow(OP, &intent).await? else {
            return Ok(self.pending());
        };
        let epoch = match landed_at(end) {
            Ok(epoch) => epoch,
            Err(state) => return Ok(state),
        };
        let head = self.head(OP).await?;
        if !self.shows(&head, epoch) {
            return Ok(self.pending());
        }
        match self.chain.sector(&head, lease.sector).await.map_err(|e| Self::of_chain(OP, e))? {
            OnChain::PreCommitted { .. } | OnChain::Active(_) => Ok(CommitState::Landed { epoch }),
            other if self.is_over(&head, epoch, &other).await? => {
                Ok(CommitState::ShouldAbort { reason: EXPIRED.to_owned() })
            }
            other => Ok(self.doubted(lease.sector, &head, epoch, &other)),
        }
    }

    pub(super) async fn do_seed(&self, lease: &SectorLease) -> Result<SeedAnswer, ServiceError> {
        const OP: &str = "draw seed";
        self.check(OP, lease).await?;
        let refused = || Error::new(ServiceErrorKind::Refused, OP).with("sector", lease.sector);
        let intent = self.latest(OP, lease.sector, AttemptKind::PreCommit).await?;
        let Some(intent) = intent else {
            return Err(refused().with("reason", "nothing was pre-committed"));
        };
        let Some(end) = self.follow(OP, &intent).await? else {
            return Ok(SeedAnswer::Wait(Wake::After(self.config.poll)));
        };
        let Ok(landed) = landed_at(end) else {
            return Err(refused().with("reason", "the pre-commit did not land"));
        };
        let head = self.head(OP).await?;
        if !self.shows(&head, landed) {
            return Ok(SeedAnswer::Wait(Wake::After(self.config.poll)));
        }
        let epoch = match self.chain.sector(&head, lease.sector).await.map_err(|e| Self::of_chain(OP, e))? {
            OnChain::PreCommitted { epoch, .. } => epoch,
            OnChain::Active(_) => landed,
            other if self.is_over(&head, landed, &other).await? => {
                return Err(expired(OP, lease.sector));
            }
            other => {
                self.doubted(lease.sector, &head, landed, &other);
                return Ok(SeedAnswer::Wait(Wake::After(self.config.poll)));
            }
        };
        let epoch = epoch + self.network(&head).await?.pre_commit_challenge_delay;
        let ready = epoch + self.config.seed_confidence;
        if head.epoch < ready {
            return Ok(SeedAnswer::Wait(Wake::Epoch(ready)));
        }
        let drawn = self.chain.randomness(&head, RandomnessKind::InteractiveSeed, epoch, lease.sector.miner).await;
        let randomness = drawn.map_err(|e| Self::of_chain(OP, e).with("epoch", epoch))?;
        let seed = Seed { randomness, epoch };
        self.record_seed(lease, seed).await?;
        Ok(SeedAnswer::Ready(seed))
    }
}

/// Nothing that the sector could still do would be accepted.
pub(super) fn expired(op: &'static str, sector: SectorId) -> ServiceError {
    Error::new(ServiceErrorKind::Refused, op)
        .with("sector", sector)
        .with("reason", EXPIRED)
        .recover_by(Recovery::Abandon)
}

/// The epoch at which a message landed, or what else became of it.
pub(super) fn landed_at(end: End) -> Result<Epoch, CommitState> {
    let reason = end.reason.unwrap_or_else(|| "no reason was given".to_owned());
    match (end.state, end.epoch) {
        (EndState::Landed, Some(epoch)) => Ok(epoch),
        (EndState::Refused, _) => Err(CommitState::Refused { reason }),
        _ => Err(CommitState::Failed { reason }),
    }
}

fn of_receipt(receipt: &Receipt) -> End {
    let state = match receipt.exit_code {
        0 => EndState::Landed,
        code if PASSING_EXIT_CODES.contains(&code) => EndState::Failed,
        _ => EndState::Refused,
    };
    let said = receipt.error.as_deref().map(|e| format!(": {e}")).unwrap_or_default();
    End {
        state,
        reason: (state != EndState::Landed).then(|| format!("exit code {}{said}", receipt.exit_code)),
        epoch: Some(receipt.epoch),
        exit_code: Some(receipt.exit_code),
        cid: Some(receipt.message.clone()),
    }
}
