//! A service without a manager, a chain or a database.

use super::{
    CommitState, DealPiece, Hello, KeyTable, PieceTerms, PreCommitRequest, Report, ReportAnswer, SealingService, Seed,
    SeedAnswer, ServiceError, ServiceErrorKind, StoreChoice, SubmitAnswer, Ticket, comm_d_of, terms::Filling,
};
use async_trait::async_trait;
use damocles_core::{
    Epoch, Error, Fence, PieceInfo, Recovery, SectorId,
    allocator::SectorLease,
    pipeline::Wake,
    testing::fake_proof::FakeVerifier,
    verify::{ProofVerifier, Randomness, SealStatement},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// A scripted service in memory: everything lands after a given number of questions, or at once.
#[derive(Debug)]
pub struct InMemoryService {
    verifier: Arc<dyn ProofVerifier>,
    state: Mutex<State>,
    moved: watch::Sender<u64>,
}

/// A call that an [`InMemoryService`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceCall {
    /// [`SealingService::hello`].
    Hello,
    /// [`SealingService::pieces`].
    Pieces,
    /// [`SealingService::ticket`].
    Ticket,
    /// [`SealingService::submit_pre_commit`].
    SubmitPreCommit,
    /// [`SealingService::pre_commit_state`].
    PreCommitState,
    /// [`SealingService::reserve`].
    Reserve,
    /// [`SealingService::persisted`].
    Persisted,
    /// [`SealingService::seed`].
    Seed,
    /// [`SealingService::submit_proof`].
    SubmitProof,
    /// [`SealingService::proof_state`].
    ProofState,
    /// [`SealingService::report`].
    Report,
    /// [`SealingService::changed`].
    Changed,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<(ServiceCall, Option<SectorId>)>,
    reports: Vec<(SectorId, Report)>,
    failures: Vec<(ServiceCall, ServiceErrorKind)>,
    queue: VecDeque<DealPiece>,
    land_after: u32,
    hidden: bool,
    stores: Vec<String>,
    ticket_epoch: i64,
    sectors: BTreeMap<SectorId, Sector>,
}

#[derive(Debug, Default)]
struct Sector {
    fence: u64,
    pieces: Option<Vec<DealPiece>>,
    pre_commit: Option<(PreCommitRequest, Commit)>,
    proof: Option<(Vec<u8>, Commit)>,
    store: Option<String>,
    persisted: bool,
    seed_polls: u32,
    aborted: Option<String>,
    answer: ReportAnswer,
}

#[derive(Clone, Debug, Default)]
struct Commit {
    polls: u32,
    scripted: Option<CommitState>,
}

const PRE_COMMIT_EPOCH: Epoch = Epoch(1010);
const SEED_EPOCH: Epoch = Epoch(1020);
const PROOF_EPOCH: Epoch = Epoch(1030);
const PATIENCE: Duration = Duration::from_millis(10);

impl Default for InMemoryService {
    fn default() -> Self {
        Self::new()
    }
}

impl InMemoryService {
    /// A service with one persist store, `persist`, no pieces, that accepts fake proofs, and where everything lands
    /// at the first question.
    pub fn new() -> Self {
        let state = State { stores: vec!["persist".to_owned()], ticket_epoch: 100, ..State::default() };
        Self { verifier: Arc::new(FakeVerifier), state: Mutex::new(state), moved: watch::Sender::new(0) }
    }

    /// Checks proofs with this verifier.
    #[must_use]
    pub fn with_verifier(mut self, verifier: Arc<dyn ProofVerifier>) -> Self {
        self.verifier = verifier;
        self
    }

    /// Knows these persist stores; the first is reserved unless the caller wants another.
    #[must_use]
    pub fn with_stores(self, stores: &[&str]) -> Self {
        self.state.lock().stores = stores.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// Answers this many questions after a commitment or a seed with "not yet".
    #[must_use]
    pub fn land_after(self, polls: u32) -> Self {
        self.state.lock().land_after = polls;
        self
    }

    /// Queues a piece for the next sector that asks.
    pub fn add_piece(&self, piece: DealPiece) {
        self.state.lock().queue.push_back(piece);
        self.nudge();
    }

    /// Makes the next call of this kind fail; may be called more than once.
    pub fn fail_next(&self, call: ServiceCall, kind: ServiceErrorKind) {
        self.state.lock().failures.push((call, kind));
    }

    /// From now on no replica is found in a store, or again.
    pub fn hide_replicas(&self, hidden: bool) {
        self.state.lock().hidden = hidden;
    }

    /// Makes the pre-commit of a sector stand like this from now on; a failed one may be submitted again.
    pub fn set_pre_commit_state(&self, sector: SectorId, state: CommitState) {
        if let Some((_, commit)) = &mut self.state.lock().sectors.entry(sector).or_default().pre_commit {
            commit.scripted = Some(state);
        }
        self.nudge();
    }

    /// Makes the proof of a sector stand like this from now on; a failed one may be submitted again.
    pub fn set_proof_state(&self, sector: SectorId, state: CommitState) {
        if let Some((_, commit)) = &mut self.state.lock().sectors.entry(sector).or_default().proof {
            commit.scripted = Some(state);
        }
        self.nudge();
    }

    /// The answer to all later reports about a sector.
    pub fn set_report_answer(&self, sector: SectorId, answer: ReportAnswer) {
        self.state.lock().sectors.entry(sector).or_default().answer = answer;
    }

    /// Wakes those who wait.
    pub fn nudge(&self) {
        self.moved.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Everything that was asked, in order.
    pub fn calls(&self) -> Vec<(ServiceCall, Option<SectorId>)> {
        self.state.lock().calls.clone()
    }

    /// How often this was asked.
    pub fn count(&self, call: ServiceCall) -> usize {
        self.state.lock().calls.iter().filter(|(c, _)| *c == call).count()
    }

    /// Everything that was reported, in order.
    pub fn reports(&self) -> Vec<(SectorId, Report)> {
        self.state.lock().reports.clone()
    }

    /// The pre-commit that stands for a sector.
    pub fn pre_commit_of(&self, sector: SectorId) -> Option<PreCommitRequest> {
        self.state.lock().sectors.get(&sector).and_then(|s| s.pre_commit.as_ref()).map(|(r, _)| r.clone())
    }

    /// The proof that stands for a sector.
    pub fn proof_of(&self, sector: SectorId) -> Option<Vec<u8>> {
        self.state.lock().sectors.get(&sector).and_then(|s| s.proof.as_ref()).map(|(p, _)| p.clone())
    }

    fn call<T>(
        &self,
        call: ServiceCall,
        lease: &SectorLease,
        act: impl FnOnce(&mut State, SectorId) -> T,
    ) -> Result<T, ServiceError> {
        let mut state = self.state.lock();
        state.calls.push((call, Some(lease.sector)));
        state.fail(call)?;
        let sector = state.sectors.entry(lease.sector).or_default();
        if lease.fence < Fence(sector.fence) {
            return Err(Error::new(ServiceErrorKind::Fenced, "ask in-memory service").with("sector", lease.sector));
        }
        sector.fence = lease.fence.0;
        if let Some(reason) =
            sector.aborted.as_ref().filter(|_| call != ServiceCall::Report && call != ServiceCall::Changed)
        {
            return Err(Error::new(ServiceErrorKind::Refused, "ask in-memory service")
                .with("sector", lease.sector)
                .with("the sector was given up", reason)
                .recover_by(Recovery::Abandon));
        }
        Ok(act(&mut state, lease.sector))
    }
}

impl State {
    fn fail(&mut self, call: ServiceCall) -> Result<(), ServiceError> {
        match self.failures.iter().position(|(c, _)| *c == call) {
            Some(at) => Err(Error::new(self.failures.remove(at).1, "ask in-memory service")),
            None => Ok(()),
        }
    }

    /// Takes the pieces for a sector from the queue, the largest first; none if they are not enough.
    fn fill(&mut self, mut filling: Filling) -> Vec<DealPiece> {
        let fits = |piece: &DealPiece| {
            let size = piece.piece.size.bytes();
            let fits = filling.room().is_some_and(|room| size <= room);
            if fits {
                filling.take(size);
            }
            fits
        };
        let (mut given, left): (Vec<_>, Vec<_>) = self.queue.iter().cloned().partition(fits);
        if !filling.is_enough() {
            return Vec::new();
        }
        self.queue = left.into();
        given.sort_by_key(|piece| std::cmp::Reverse(piece.piece.size.bytes()));
        given
    }

    fn sector(&mut self, id: SectorId) -> &mut Sector {
        self.sectors.entry(id).or_default()
    }
}

fn randomness(kind: u8, id: SectorId, epoch: Epoch) -> Randomness {
    let mut bytes = [kind; 32];
    for (slot, byte) in bytes
        .iter_mut()
        .skip(1)
        .zip(id.miner.0.to_le_bytes().into_iter().chain(id.number.0.to_le_bytes()).chain(epoch.0.to_le_bytes()))
    {
        *slot = byte;
    }
    Randomness(bytes)
}

fn stands<T: PartialEq>(before: Option<&(T, Commit)>, content: &T) -> Option<SubmitAnswer> {
    let (recorded, commit) = before?;
    match (&commit.scripted, recorded == content) {
        (Some(CommitState::Failed { .. }), _) | (Some(CommitState::Refused { .. }), false) => None,
        (Some(CommitState::Refused { reason }), true) => Some(SubmitAnswer::Rejected { reason: reason.clone() }),
        (_, true) => Some(SubmitAnswer::Accepted),
        (_, false) => Some(SubmitAnswer::Mismatched { reason: "something else was submitted".to_owned() }),
    }
}

/// Whether a submission may be on chain, now or later.
fn stands_on_chain<T>(before: Option<&(T, Commit)>) -> bool {
    use CommitState::{Failed, Refused, ShouldAbort};
    before.is_some_and(|(_, c)| !matches!(c.scripted, Some(Failed { .. } | Refused { .. } | ShouldAbort { .. })))
}

fn poll(commit: Option<&mut Commit>, land_after: u32, epoch: Epoch) -> CommitState {
    let Some(commit) = commit else {
        return CommitState::NotFound;
    };
    if let Some(state) = &commit.scripted {
        return state.clone();
    }
    if commit.polls < land_after {
        commit.polls += 1;
        return CommitState::Pending { until: Wake::After(PATIENCE) };
    }
    CommitState::Landed { epoch }
}

#[async_trait]
impl SealingService for InMemoryService {
    async fn hello(&self) -> Result<Hello, ServiceError> {
        let mut state = self.state.lock();
        state.calls.push((ServiceCall::Hello, None));
        state.fail(ServiceCall::Hello)?;
        Ok(Hello {
            version: "in-memory".to_owned(),
            capabilities: vec!["leases".to_owned(), "events".to_owned()],
            network: Some("devnet-fake-memory".to_owned()),
            keys: KeyTable::new(),
        })
    }

    async fn pieces(&self, lease: &SectorLease, terms: PieceTerms) -> Result<Vec<DealPiece>, ServiceError> {
        let size = lease.proof_type.sector_size();
        self.call(ServiceCall::Pieces, lease, |state, id| {
            if let Some(given) = &state.sector(id).pieces {
                return given.clone();
            }
            let given = state.fill(Filling::new(size, &terms));
            if terms.settles || !given.is_empty() {
                state.sector(id).pieces = Some(given.clone());
            }
            given
        })
    }

    async fn ticket(&self, lease: &SectorLease) -> Result<Ticket, ServiceError> {
        self.call(ServiceCall::Ticket, lease, |state, id| {
            let before = state.sector(id).pre_commit.as_ref();
            if let Some((request, _)) = before.filter(|before| stands_on_chain(Some(*before))) {
                return request.ticket;
            }
            state.ticket_epoch += 1;
            let epoch = Epoch(state.ticket_epoch);
            Ticket { randomness: randomness(5, id, epoch), epoch }
        })
    }

    async fn submit_pre_commit(
        &self,
        lease: &SectorLease,
        request: &PreCommitRequest,
    ) -> Result<SubmitAnswer, ServiceError> {
        let size = lease.proof_type.sector_size();
        self.call(ServiceCall::SubmitPreCommit, lease, |state, id| {
            let sector = state.sector(id);
            if let Some(answer) = stands(sector.pre_commit.as_ref(), request) {
                return answer;
            }
            let pieces: Vec<PieceInfo> = sector.pieces.iter().flatten().map(|p| p.piece).collect();
            if comm_d_of(&pieces, size) != Ok(request.comm_d) {
                return SubmitAnswer::Mismatched { reason: "the data commitment is not that of the pieces".to_owned() };
            }
            sector.pieces.get_or_insert_default();
            sector.pre_commit = Some((request.clone(), Commit::default()));
            SubmitAnswer::Accepted
        })
    }

    async fn pre_commit_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        self.call(ServiceCall::PreCommitState, lease, |state, id| {
            let land_after = state.land_after;
            poll(state.sector(id).pre_commit.as_mut().map(|(_, c)| c), land_after, PRE_COMMIT_EPOCH)
        })
    }

    async fn reserve(
        &self,
        lease: &SectorLease,
        _: u64,
        candidates: &[String],
    ) -> Result<Option<StoreChoice>, ServiceError> {
        self.call(ServiceCall::Reserve, lease, |state, id| {
            let fits = |s: &&String| candidates.is_empty() || candidates.contains(s);
            let first = state.stores.iter().find(fits).cloned();
            let sector = state.sector(id);
            sector.store = sector.store.take().filter(|s| fits(&s)).or(first);
            sector.store.clone().map(|name| StoreChoice { name })
        })
    }

    async fn persisted(&self, lease: &SectorLease, store: &str) -> Result<bool, ServiceError> {
        self.call(ServiceCall::Persisted, lease, |state, id| {
            let found = !state.hidden && state.stores.iter().any(|s| s == store);
            state.sector(id).persisted |= found;
            found
        })
    }

    async fn seed(&self, lease: &SectorLease) -> Result<SeedAnswer, ServiceError> {
        self.call(ServiceCall::Seed, lease, |state, id| {
            let land_after = state.land_after;
            let sector = state.sector(id);
            if sector.pre_commit.is_none() {
                return Err(Error::new(ServiceErrorKind::Refused, "draw seed").with("sector", id));
            }
            if sector.seed_polls < land_after {
                sector.seed_polls += 1;
                return Ok(SeedAnswer::Wait(Wake::After(PATIENCE)));
            }
            Ok(SeedAnswer::Ready(Seed { randomness: randomness(6, id, SEED_EPOCH), epoch: SEED_EPOCH }))
        })?
    }

    async fn submit_proof(&self, lease: &SectorLease, proof: &[u8]) -> Result<SubmitAnswer, ServiceError> {
        let proof_type = lease.proof_type;
        let verifier = self.verifier.clone();
        let rejected = |reason: &str| SubmitAnswer::Rejected { reason: reason.to_owned() };
        self.call(ServiceCall::SubmitProof, lease, |state, id| {
            let sector = state.sector(id);
            if let Some(answer) = stands(sector.proof.as_ref(), &proof.to_vec()) {
                return answer;
            }
            if !sector.persisted {
                return SubmitAnswer::FilesMissed { reason: "the replica is in no persist store".to_owned() };
            }
            let Some((request, _)) = &sector.pre_commit else {
                return rejected("nothing was pre-committed");
            };
            let statement = SealStatement {
                sector: id,
                proof_type,
                comm_r: request.comm_r,
                comm_d: request.comm_d,
                ticket: request.ticket.randomness,
                seed: randomness(6, id, SEED_EPOCH),
            };
            if !matches!(verifier.verify_seal(&statement, proof), Ok(true)) {
                return rejected("the proof does not verify");
            }
            sector.proof = Some((proof.to_vec(), Commit::default()));
            SubmitAnswer::Accepted
        })
    }

    async fn proof_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        self.call(ServiceCall::ProofState, lease, |state, id| {
            let land_after = state.land_after;
            poll(state.sector(id).proof.as_mut().map(|(_, c)| c), land_after, PROOF_EPOCH)
        })
    }

    async fn report(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError> {
        self.call(ServiceCall::Report, lease, |state, id| {
            let sector = state.sector(id);
            let over = sector.answer.finalized || sector.answer.abort_reason.is_some();
            if matches!(report, Report::Aborted { .. }) && !over && stands_on_chain(sector.proof.as_ref()) {
                return Err(Error::new(ServiceErrorKind::Refused, "abort sector").with("sector", id));
            }
            state.reports.push((id, report.clone()));
            let answer = &mut state.sector(id).answer;
            match report {
                Report::Finalized => answer.finalized = true,
                Report::Aborted { reason } => answer.abort_reason = Some(reason.clone()),
                _ => {}
            }
            let answer = answer.clone();
            if let Report::Aborted { reason } = report {
                state.sector(id).aborted = Some(reason.clone());
            }
            Ok(answer)
        })?
    }

    async fn changed(&self, lease: &SectorLease, at_most: Duration) -> Result<(), ServiceError> {
        let mut moved = self.moved.subscribe();
        self.call(ServiceCall::Changed, lease, |_, _| ())?;
        let _ = tokio::time::timeout(at_most, moved.changed()).await;
        Ok(())
    }
}
