//! Prove-commits.

use super::{
    ManagerService,
    intent::{End, NewIntent},
    pre_commit::{Judged, expired, judge, landed_at},
};
use crate::{
    sector_state::{AttemptKind, DbError, SectorEvent, append, json_of, of_json, pieces, to_db},
    service::{CommitState, PreCommitRequest, Seed, ServiceError, ServiceErrorKind, SubmitAnswer},
};
use damocles_core::{
    Epoch, Error, Recovery,
    allocator::SectorLease,
    chain::{Call, OnChain, PieceActivation, ProveCommit, RandomnessKind, SectorProof, SubmitKey, TipsetRef},
    verify::SealStatement,
};

/// More than the largest proof that any sector size has.
const LONGEST_PROOF: usize = 16 << 10;

/// What the chain holds against a proof, or for it.
enum Target {
    PreCommitted(Epoch),
    Done(End),
    Never(&'static str),
}

impl ManagerService {
    pub(super) async fn do_submit_proof(
        &self,
        lease: &SectorLease,
        proof: &[u8],
    ) -> Result<SubmitAnswer, ServiceError> {
        const OP: &str = "submit proof";
        let sector = lease.sector;
        self.check(OP, lease).await?;
        let at = |e: DbError| Self::of_db(OP, e).with("sector", sector);
        let rejected = |reason: &str| SubmitAnswer::Rejected { reason: reason.to_owned() };
        if proof.is_empty() || proof.len() > LONGEST_PROOF {
            return self.declined(OP, lease, rejected("no proof has this length")).await;
        }
        let content = hex::encode(proof);
        let attempt = match judge(self.latest(OP, sector, AttemptKind::ProveCommit).await?, &content) {
            Judged::Repeat(intent) => return self.repeat(*intent).await,
            Judged::Answer(answer) => return self.declined(OP, lease, answer).await,
            Judged::New(attempt) => attempt,
        };
        if self.locate(sector).await?.is_none() {
            let reason = "no persist store is known to hold the replica".to_owned();
            return self.declined(OP, lease, SubmitAnswer::FilesMissed { reason }).await;
        }
        let Some(pre_commit) = self.latest(OP, sector, AttemptKind::PreCommit).await? else {
            return self.declined(OP, lease, rejected("nothing was pre-committed")).await;
        };
        let request: PreCommitRequest = of_json("pre-commit", &pre_commit.content).map_err(at)?;
        let head = self.head(OP).await?;
        let landed = pre_commit.end.and_then(|end| landed_at(end).ok());
        if let Some(landed) = landed.filter(|e| !self.shows(&head, *e)) {
            return Err(Error::new(ServiceErrorKind::Unavailable, OP)
                .with("sector", sector)
                .with("pre-commit landed at", landed)
                .with("head", head.epoch));
        }
        let (epoch, end) = match self.proof_target(OP, &head, lease, &request, landed).await? {
            Target::PreCommitted(epoch) => (epoch, None),
            Target::Done(end) => (end.epoch.unwrap_or(head.epoch), Some(end)),
            Target::Never(reason) => return self.declined(OP, lease, rejected(reason)).await,
        };
        if end.is_none() && !self.proves(&head, lease, &request, epoch, proof).await? {
            return self.declined(OP, lease, rejected("the proof does not verify")).await;
        }
        let given = pieces(&self.db, sector).await.map_err(at)?;
        let call = Call::ProveCommit(ProveCommit {
            miner: sector.miner,
            sectors: vec![SectorProof {
                number: sector.number,
                proof: proof.to_vec(),
                pieces: given.iter().map(|p| PieceActivation::of(p.piece)).collect(),
            }],
            all_or_nothing: true,
        });
        let key = SubmitKey(format!("provecommit/{}/{}/{epoch}/{attempt}", sector.miner, sector.number));
        let new =
            NewIntent { key: &key, sector, kind: AttemptKind::ProveCommit, attempt, content: &content, call: &call };
        self.decide(OP, lease, &new, end).await
    }

    async fn proof_target(
        &self,
        op: &'static str,
        head: &TipsetRef,
        lease: &SectorLease,
        request: &PreCommitRequest,
        landed: Option<Epoch>,
    ) -> Result<Target, ServiceError> {
        let on_chain = self.chain.sector(head, lease.sector).await.map_err(|e| Self::of_chain(op, e))?;
        if let (Some(landed), OnChain::Absent | OnChain::Gone) = (landed, &on_chain) {
            if self.is_over(head, landed, &on_chain).await? {
                return Err(expired(op, lease.sector));
            }
            self.doubted(lease.sector, head, landed, &on_chain);
            return Err(Error::new(ServiceErrorKind::Unavailable, op)
                .with("sector", lease.sector)
                .with("pre-commit landed at", landed)
                .with("head", head.epoch)
                .hint_with("the node does not show the pre-commit; check that it follows the chain"));
        }
        Ok(match on_chain {
            OnChain::PreCommitted { comm_r, epoch, .. } if comm_r == request.comm_r => Target::PreCommitted(epoch),
            OnChain::PreCommitted { .. } => Target::Never("the chain holds a pre-commit to another replica"),
            OnChain::Active(info) if info.comm_r == request.comm_r => {
                Target::Done(self.adopted(head, lease.sector, info.activation)?)
            }
            OnChain::Active(_) => Target::Never("the chain holds the sector with another replica"),
            OnChain::Absent => Target::Never("the chain does not hold the pre-commit"),
            _ => Target::Never("the pre-commit expired, or the sector was terminated"),
        })
    }

    /// Whether the proof is one, for the seed that the chain draws.
    async fn proves(
        &self,
        head: &TipsetRef,
        lease: &SectorLease,
        request: &PreCommitRequest,
        pre_commit: Epoch,
        proof: &[u8],
    ) -> Result<bool, ServiceError> {
        const OP: &str = "verify proof";
        let epoch = pre_commit + self.network(head).await?.pre_commit_challenge_delay;
        if epoch > head.epoch {
            return Err(Error::new(ServiceErrorKind::Unavailable, OP).with("seed is drawn at epoch", epoch));
        }
        let seed = self.chain.randomness(head, RandomnessKind::InteractiveSeed, epoch, lease.sector.miner).await;
        let statement = SealStatement {
            sector: lease.sector,
            proof_type: lease.proof_type,
            comm_r: request.comm_r,
            comm_d: request.comm_d,
            ticket: request.ticket.randomness,
            seed: seed.map_err(|e| Self::of_chain(OP, e).with("epoch", epoch))?,
        };
        let (verifier, proof) = (self.verifier.clone(), proof.to_vec());
        let verified = tokio::task::spawn_blocking(move || verifier.verify_seal(&statement, &proof)).await;
        match verified {
            Ok(Ok(proves)) => Ok(proves),
            Ok(Err(e)) => {
                let kind = match e.recovery() {
                    Recovery::Retry { .. } => ServiceErrorKind::Unavailable,
                    _ => ServiceErrorKind::Refused,
                };
                Err(Error::new(kind, OP).with("sector", lease.sector).because(e))
            }
            // A verifier that panics on a proof gives no answer about it.
            Err(e) => Err(Error::new(ServiceErrorKind::Unavailable, OP).with("sector", lease.sector).because(e)),
        }
    }

    pub(super) async fn do_proof_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        const OP: &str = "read proof";
        self.check(OP, lease).await?;
        let Some(intent) = self.latest(OP, lease.sector, AttemptKind::ProveCommit).await? else {
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
            OnChain::Active(_) => Ok(CommitState::Landed { epoch }),
            OnChain::PreCommitted { .. } => {
                Ok(CommitState::Refused { reason: "the proof landed, but the sector is not active".to_owned() })
            }
            // The proof was accepted: the replica is worth keeping whatever one node says now.
            other => Ok(self.doubted(lease.sector, &head, epoch, &other)),
        }
    }

    /// Records a seed once.
    pub(super) async fn record_seed(&self, lease: &SectorLease, seed: Seed) -> Result<(), ServiceError> {
        const OP: &str = "record seed";
        let mut tx = self.fenced(OP, lease).await?;
        let recorded = async {
            let event = SectorEvent::Seed { seed };
            let known = sqlx::query(
                "SELECT seq FROM seal_sector_events WHERE miner = $1 AND number = $2 AND detail = $3 LIMIT 1",
            )
            .bind(to_db("miner", lease.sector.miner.0)?)
            .bind(to_db("sector number", lease.sector.number.0)?)
            .bind(json_of("sector event", &event)?)
            .fetch_optional(&mut *tx)
            .await?;
            if known.is_none() {
                append(&mut tx, lease.sector, self.clock.now(), &event).await?;
            }
            Ok::<(), DbError>(tx.commit().await?)
        };
        recorded.await.map_err(|e| Self::of_db(OP, e).with("sector", lease.sector))
    }
}
