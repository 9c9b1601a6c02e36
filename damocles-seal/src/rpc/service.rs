//! A manager that is somewhere else.

use super::{
    CallError, Caller, Method, RpcClient, damocles,
    venus::{
        self, AcquireDealsSpec, AllocatedSector, Base64, Failure, PollResponse, StateChange, StateReport,
        SubmitResponse, WirePreCommit, WireProof, WireTicket, WireWorker,
    },
};
use crate::service::{
    CommitState, DealPiece, Hello, PieceTerms, PreCommitRequest, Report, ReportAnswer, SealingService, Seed,
    SeedAnswer, ServiceError, ServiceErrorKind, StoreChoice, SubmitAnswer, Ticket,
};
use async_trait::async_trait;
use damocles_core::{
    CommP, Epoch, Error, Fence, PaddedPieceSize, PieceInfo, Recovery, SectorId,
    allocator::SectorLease,
    pipeline::{StageId, Wake},
    verify::Randomness,
};
use parking_lot::Mutex;
use std::{collections::BTreeSet, time::Duration};

/// The manager's service over JSON-RPC: ours, or the incumbent's.
///
/// Against an incumbent there are no fences, waits are plain sleeps, and [`CommitState::Landed`] has epoch 0, as it does
/// not tell the epoch.
#[derive(Debug)]
pub struct RpcService {
    client: RpcClient,
    worker: WorkerIdentity,
    /// Submissions that an incumbent called failed: only then does it take another attempt.
    failed: Mutex<BTreeSet<(SectorId, &'static str)>>,
}

/// Who a worker is to a manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// Its name.
    pub instance: String,
    /// Its sealing store.
    pub location: String,
}

/// When to ask again where a message stands, if nothing tells.
const POLL: Duration = Duration::from_secs(30);

/// Longer waits are cut: the caller looks again.
const LONGEST_DELAY: u64 = 24 * 3600;

const PRE_COMMIT: &str = "pre-commit";
const PROOF: &str = "proof";

impl RpcService {
    /// A service that reports as this worker.
    pub fn new(client: RpcClient, worker: WorkerIdentity) -> Self {
        Self { client, worker, failed: Mutex::default() }
    }

    /// The connection, which an allocator may share.
    pub fn client(&self) -> &RpcClient {
        &self.client
    }

    async fn call<M: Method>(&self, lease: &SectorLease, params: &M::Params) -> Result<M::Output, ServiceError> {
        let fence = (lease.fence > Fence(0)).then_some(lease.fence);
        let called = self.client.call::<M>(Caller { fence, idempotency_key: None }, params).await;
        called.map_err(|e| e.service(M::NAME).with("sector", lease.sector))
    }

    /// Whether the manager can do what an incumbent cannot.
    async fn offers(&self, op: &'static str, capability: &str) -> Result<bool, ServiceError> {
        let greeted = self.client.greet().await.map_err(|e| e.service(op))?;
        Ok(greeted.capabilities.iter().any(|c| c == capability))
    }

    fn commit_state(
        &self,
        lease: &SectorLease,
        what: &'static str,
        answer: PollResponse,
    ) -> Result<CommitState, ServiceError> {
        let reason = || answer.desc.clone().unwrap_or_default();
        Ok(match answer.state {
            1 | 2 => CommitState::Pending { until: Wake::After(POLL) },
            3 => CommitState::Landed { epoch: answer.epoch.unwrap_or(Epoch(0)) },
            4 => CommitState::NotFound,
            5 => {
                self.failed.lock().insert((lease.sector, what));
                CommitState::Failed { reason: reason() }
            }
            6 => CommitState::Refused { reason: reason() },
            7 => CommitState::ShouldAbort { reason: reason() },
            other => return Err(self.malformed("read state", lease, format!("unknown state {other}"))),
        })
    }

    fn submit_answer(
        &self,
        lease: &SectorLease,
        what: &'static str,
        answer: SubmitResponse,
    ) -> Result<SubmitAnswer, ServiceError> {
        let reason = answer.desc.unwrap_or_default();
        Ok(match answer.res {
            1 | 2 => {
                self.failed.lock().remove(&(lease.sector, what));
                SubmitAnswer::Accepted
            }
            3 => SubmitAnswer::Mismatched { reason },
            4 => SubmitAnswer::Rejected { reason },
            5 => SubmitAnswer::FilesMissed { reason },
            other => return Err(self.malformed("submit", lease, format!("unknown result {other}"))),
        })
    }

    fn resubmits(&self, lease: &SectorLease, what: &'static str) -> bool {
        self.failed.lock().contains(&(lease.sector, what))
    }

    fn malformed(&self, op: &'static str, lease: &SectorLease, what: String) -> ServiceError {
        Error::new(ServiceErrorKind::Malformed, op)
            .with("manager", self.client.endpoint())
            .with("sector", lease.sector)
            .with("answer", what)
    }

    fn randomness(&self, op: &'static str, lease: &SectorLease, bytes: &Base64) -> Result<Randomness, ServiceError> {
        let array: Result<[u8; 32], _> = bytes.0.as_slice().try_into();
        array.map(Randomness).map_err(|_| self.malformed(op, lease, format!("{} bytes of randomness", bytes.0.len())))
    }

    fn piece(&self, lease: &SectorLease, wire: &venus::SectorPiece) -> Result<DealPiece, ServiceError> {
        let bad = |what: String| self.malformed("read pieces", lease, what);
        let comm_p: CommP = wire.piece.piece_cid.cid.parse().map_err(|e| bad(format!("{e}")))?;
        let size = PaddedPieceSize::try_from(wire.piece.size).map_err(|e| bad(format!("{e}")))?;
        let payload_size = match &wire.deal_info {
            Some(deal) if deal.deal_id != 0 || deal.allocation_id != 0 => deal.payload_size,
            _ => 0,
        };
        if payload_size > size.unpadded().bytes() {
            return Err(bad(format!("a payload of {payload_size} bytes in a piece of {}", size.bytes())));
        }
        Ok(DealPiece { piece: PieceInfo { comm_p, size }, payload_size })
    }

    async fn report_state(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError> {
        let name = |stage: Option<&StageId>| stage.map_or_else(String::new, |s| s.as_str().to_owned());
        let (prev, next, failure) = match report {
            Report::Moved { done, next } => (name(done.as_ref()), name(next.as_ref()), None),
            Report::Failed { stage, error, recovery } => {
                let failure = Failure { level: level(*recovery).to_owned(), desc: error.clone() };
                (String::new(), name(Some(stage)), Some(failure))
            }
            Report::Finalized => ("finalized".to_owned(), String::new(), None),
            Report::Aborted { .. } => ("aborted".to_owned(), String::new(), None),
        };
        let wire = StateReport {
            worker: WireWorker { instance: self.worker.instance.clone(), location: self.worker.location.clone() },
            state_change: StateChange { prev, next, event: "None".to_owned() },
            failure,
        };
        let answer = self.call::<venus::ReportState>(lease, &(lease.sector.into(), wire)).await?;
        let abort_reason = answer.abort_reason.filter(|reason| !reason.is_empty());
        Ok(ReportAnswer { finalized: answer.finalized, abort_reason })
    }
}

pub(super) fn level(recovery: Recovery) -> &'static str {
    match recovery {
        Recovery::Retry { .. } => "temporary",
        Recovery::Abandon => "abort",
        Recovery::Halt => "critical",
        _ => "permanent",
    }
}

#[async_trait]
impl SealingService for RpcService {
    async fn hello(&self) -> Result<Hello, ServiceError> {
        self.client.hello().await.map(|hello| (*hello).clone())
    }

    async fn pieces(&self, lease: &SectorLease, terms: PieceTerms) -> Result<Vec<DealPiece>, ServiceError> {
        // An incumbent takes a limit of 0 for none.
        if terms.most == Some(0) && !self.offers("ask for pieces", "leases").await? {
            return Ok(Vec::new());
        }
        let params = (lease.sector.into(), AcquireDealsSpec::from(terms));
        let pieces = self.call::<venus::AcquireDeals>(lease, &params).await?.unwrap_or_default();
        pieces.iter().map(|p| self.piece(lease, p)).collect()
    }

    async fn ticket(&self, lease: &SectorLease) -> Result<Ticket, ServiceError> {
        let ticket = self.call::<venus::AssignTicket>(lease, &(lease.sector.into(),)).await?;
        Ok(Ticket { randomness: self.randomness("draw ticket", lease, &ticket.ticket)?, epoch: ticket.epoch })
    }

    async fn submit_pre_commit(
        &self,
        lease: &SectorLease,
        request: &PreCommitRequest,
    ) -> Result<SubmitAnswer, ServiceError> {
        let sector = AllocatedSector { id: lease.sector.into(), proof_type: lease.proof_type.number() };
        let ticket = WireTicket { ticket: Base64(request.ticket.randomness.0.to_vec()), epoch: request.ticket.epoch };
        let wire = WirePreCommit { comm_r: request.comm_r.0, comm_d: request.comm_d.0, ticket };
        let params = (sector, wire, self.resubmits(lease, PRE_COMMIT));
        let answer = self.call::<venus::SubmitPreCommit>(lease, &params).await?;
        self.submit_answer(lease, PRE_COMMIT, answer)
    }

    async fn pre_commit_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        let answer = self.call::<venus::PollPreCommitState>(lease, &(lease.sector.into(),)).await?;
        self.commit_state(lease, PRE_COMMIT, answer)
    }

    async fn reserve(
        &self,
        lease: &SectorLease,
        bytes: u64,
        candidates: &[String],
    ) -> Result<Option<StoreChoice>, ServiceError> {
        let params = (lease.sector.into(), bytes, Some(candidates.to_vec()));
        let store = self.call::<venus::StoreReserveSpace>(lease, &params).await?;
        Ok(store.map(|s| StoreChoice { name: s.name }))
    }

    async fn persisted(&self, lease: &SectorLease, store: &str) -> Result<bool, ServiceError> {
        self.call::<venus::SubmitPersistedEx>(lease, &(lease.sector.into(), store.to_owned(), false)).await
    }

    async fn seed(&self, lease: &SectorLease) -> Result<SeedAnswer, ServiceError> {
        let params = (lease.sector.into(), lease.proof_type.number());
        let answer = self.call::<venus::WaitSeed>(lease, &params).await?;
        match (answer.should_wait, answer.seed, answer.epoch) {
            (false, Some(seed), _) => {
                let randomness = self.randomness("draw seed", lease, &seed.seed)?;
                Ok(SeedAnswer::Ready(Seed { randomness, epoch: seed.epoch }))
            }
            (true, _, Some(epoch)) => Ok(SeedAnswer::Wait(Wake::Epoch(epoch))),
            (true, _, None) => {
                let seconds = u64::try_from(answer.delay).unwrap_or(0).clamp(1, LONGEST_DELAY);
                Ok(SeedAnswer::Wait(Wake::After(Duration::from_secs(seconds))))
            }
            (false, None, _) => Err(self.malformed("draw seed", lease, "neither a seed nor a wait".to_owned())),
        }
    }

    async fn submit_proof(&self, lease: &SectorLease, proof: &[u8]) -> Result<SubmitAnswer, ServiceError> {
        let wire = WireProof { proof: Base64(proof.to_vec()) };
        let params = (lease.sector.into(), wire, self.resubmits(lease, PROOF));
        let answer = self.call::<venus::SubmitProof>(lease, &params).await?;
        self.submit_answer(lease, PROOF, answer)
    }

    async fn proof_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        let answer = self.call::<venus::PollProofState>(lease, &(lease.sector.into(),)).await?;
        self.commit_state(lease, PROOF, answer)
    }

    async fn report(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError> {
        let sector = lease.sector.into();
        match report {
            Report::Finalized => {
                self.call::<venus::ReportFinalized>(lease, &(sector,)).await?;
                Ok(ReportAnswer { finalized: true, abort_reason: None })
            }
            Report::Aborted { reason } => {
                self.call::<venus::ReportAborted>(lease, &(sector, reason.clone())).await?;
                Ok(ReportAnswer { finalized: false, abort_reason: Some(reason.clone()) })
            }
            other => self.report_state(lease, other).await,
        }
    }

    async fn changed(&self, lease: &SectorLease, at_most: Duration) -> Result<(), ServiceError> {
        const OP: &str = "wait for changes";
        if !self.offers(OP, "events").await? {
            tokio::time::sleep(at_most).await;
            return Ok(());
        }
        let wait = at_most.min(damocles::LONGEST_WAIT);
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let fence = (lease.fence > Fence(0)).then_some(lease.fence);
        let caller = Caller { fence, idempotency_key: None };
        let waited: Result<(), CallError> = self.client.call::<damocles::Events>(caller, &(lease.sector, millis)).await;
        waited.map_err(|e| e.service(OP).with("sector", lease.sector))
    }
}
