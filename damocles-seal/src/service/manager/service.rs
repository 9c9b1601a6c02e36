//! The manager's own service.

use super::{
    PieceDirs, ReplicaStores, intent,
    intent::{End, Intent},
    probes::Probes,
};
use crate::{
    allocator::{LeaseRecord, SqlAllocator, lease_of},
    sector_state::{
        AttemptKind, DbError, SealDb, SectorDetail, SectorEvent, SectorSummary, append, list, of_json, show, to_db,
    },
    service::{
        CommitState, DealPiece, Hello, PieceTerms, PreCommitRequest, Report, ReportAnswer, SealingService, SeedAnswer,
        ServiceError, ServiceErrorKind, StoreChoice, SubmitAnswer, Ticket,
    },
};
use async_trait::async_trait;
use damocles_core::{
    CancellationToken, Clock, Error, Recovery, SectorId,
    allocator::{Outcome, SectorLease},
    chain::{ChainClient, ChainError, ChainErrorKind, MessageId, NetworkInfo, RandomnessKind, TipsetRef},
    verify::ProofVerifier,
};
use futures::StreamExt;
use sqlx::{Any, Transaction};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::{Mutex, MutexGuard, OnceCell, watch};

/// So many sectors can have a message sent at once; a node that hangs with one keeps few others waiting.
const LANES: usize = 64;

/// The manager's own [`SealingService`], over a chain and a database.
///
/// [`ManagerService::run`] has to run beside it: it watches the chain, wakes those who wait, and sends what a crash
/// kept from being sent.
#[derive(Debug)]
pub struct ManagerService {
    pub(super) db: SealDb,
    pub(super) chain: Arc<dyn ChainClient>,
    pub(super) allocator: Arc<SqlAllocator>,
    pub(super) verifier: Arc<dyn ProofVerifier>,
    pub(super) stores: Arc<dyn ReplicaStores>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: ManagerConfig,
    pub(super) probes: Probes,
    network: OnceCell<NetworkInfo>,
    /// Sectors share these: whoever holds one sends or drops the messages of its sectors, and nobody else.
    sending: [Mutex<()>; LANES],
    moved: watch::Sender<u64>,
}

/// What a [`ManagerService`] is made of.
#[derive(Clone, Debug)]
pub struct ManagerParts {
    /// The database.
    pub db: SealDb,
    /// The chain.
    pub chain: Arc<dyn ChainClient>,
    /// The allocator over the same database: it says who holds which sector.
    pub allocator: Arc<SqlAllocator>,
    /// Checks proofs before they are sent.
    pub verifier: Arc<dyn ProofVerifier>,
    /// The persist stores.
    pub stores: Arc<dyn ReplicaStores>,
    /// The time, for records.
    pub clock: Arc<dyn Clock>,
}

/// How a [`ManagerService`] behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerConfig {
    /// What it calls itself, with its version.
    pub version: String,
    /// The epochs on top of a message before it counts as landed.
    pub confidence: i64,
    /// The epochs on top of a seed before it is given out.
    pub seed_confidence: i64,
    /// How long sectors live.
    pub lifetime_days: u32,
    /// How long a persist store may take to answer; shorter than workers wait for the manager.
    pub store_timeout: Duration,
    /// Where pieces may lie.
    pub piece_dirs: PieceDirs,
    /// When a worker is to ask again if nothing wakes it.
    pub poll: Duration,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            version: concat!("damocles-manager ", env!("CARGO_PKG_VERSION")).to_owned(),
            confidence: 10,
            seed_confidence: 6,
            lifetime_days: 540,
            store_timeout: Duration::from_secs(20),
            piece_dirs: PieceDirs::default(),
            poll: Duration::from_secs(30),
        }
    }
}

impl ManagerService {
    /// A service over these parts.
    pub fn new(parts: ManagerParts, config: ManagerConfig) -> Self {
        let ManagerParts { db, chain, allocator, verifier, stores, clock } = parts;
        Self {
            db,
            chain,
            allocator,
            verifier,
            stores,
            clock,
            config,
            probes: Probes::default(),
            network: OnceCell::new(),
            sending: std::array::from_fn(|_| Mutex::default()),
            moved: watch::Sender::new(0),
        }
    }

    /// The allocator.
    pub fn allocator(&self) -> &Arc<SqlAllocator> {
        &self.allocator
    }

    /// The persist stores.
    pub fn stores(&self) -> &Arc<dyn ReplicaStores> {
        &self.stores
    }

    /// The database.
    pub fn db(&self) -> &SealDb {
        &self.db
    }

    /// Watches the chain until cancelled: wakes those who wait and sends what was decided on and never sent.
    pub async fn run(&self, cancel: CancellationToken) {
        // After a restart nobody knows which submissions reached the client; under their keys all may be repeated.
        let mut repeat_all = true;
        let mut said = String::new();
        let mut heads = self.chain.head_changes();
        while let Some(Some(_)) = cancel.run_until_cancelled(heads.next()).await {
            match self.send_open(repeat_all).await {
                Ok(()) => {
                    repeat_all = false;
                    said.clear();
                }
                // Heads come all the time; the same trouble is told once.
                Err(error) if error.chain() == said => {}
                Err(error) => {
                    said = error.chain();
                    tracing::warn!(error = %said, "decided messages could not be sent");
                }
            }
            self.nudge();
        }
        // Whoever waits now would hold the end of the process up.
        self.nudge();
    }

    /// Every sector in one line.
    ///
    /// # Errors
    ///
    /// The database could not be read.
    pub async fn sectors(&self) -> Result<Vec<SectorSummary>, ServiceError> {
        list(&self.db, self.clock.now()).await.map_err(|e| Self::of_db("list sectors", e))
    }

    /// Everything about one sector.
    ///
    /// # Errors
    ///
    /// The database could not be read.
    pub async fn sector(&self, sector: SectorId) -> Result<Option<SectorDetail>, ServiceError> {
        let shown = show(&self.db, sector, self.clock.now()).await;
        shown.map_err(|e| Self::of_db("show sector", e).with("sector", sector))
    }

    async fn send_open(&self, all: bool) -> Result<(), ServiceError> {
        let open = intent::open(&self.db).await.map_err(|e| Self::of_db("read intents", e))?;
        let mut first_error = None;
        for intent in open.iter().filter(|i| all || i.message.is_none()) {
            match self.send(intent).await {
                Ok(Ok(_)) => {}
                Ok(Err(End { reason, .. })) => {
                    tracing::warn!(sector = %intent.sector, key = %intent.key, ?reason, "a decided message is not sent");
                }
                Err(e) => {
                    first_error.get_or_insert(e);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Hands a decided message to the chain client, or says how it ended already. May be repeated.
    pub(super) async fn send(&self, intent: &Intent) -> Result<Result<MessageId, End>, ServiceError> {
        const OP: &str = "submit message";
        let of_db = |e: DbError| Self::of_db(OP, e).with("key", &intent.key);
        let _held = self.hold(intent.sector).await;
        // It may have been given up since it was read.
        if let Some(end) = intent::ended(&self.db, &intent.key).await.map_err(of_db)? {
            return Ok(Err(end));
        }
        match self.chain.submit(&intent.key, &intent.call).await {
            Ok(message) => {
                intent::sent(&self.db, intent, &message, self.clock.now()).await.map_err(of_db)?;
                Ok(Ok(message))
            }
            // A message that the client took before is its own to follow, whatever it says to a repeat.
            Err(e)
                if intent.message.is_none()
                    && e.kind() == ChainErrorKind::Rejected
                    && e.recovery() == Recovery::Park =>
            {
                let end = End::dropped(e.chain());
                self.record_end(OP, intent, &end).await?;
                Ok(Err(end))
            }
            Err(e) => {
                let error = Self::of_chain(OP, e).with("key", &intent.key);
                self.note_trouble(intent, Some(&error.chain())).await;
                Err(error)
            }
        }
    }

    /// Lets people see in the sector what keeps its message from moving.
    pub(super) async fn note_trouble(&self, intent: &Intent, trouble: Option<&str>) {
        if let Err(error) = intent::trouble(&self.db, intent, trouble).await {
            let error = Self::of_db("note trouble", error);
            tracing::warn!(key = %intent.key, error = %error.chain(), "what keeps a message from moving is not recorded");
        }
    }

    pub(super) async fn record_end(&self, op: &'static str, intent: &Intent, end: &End) -> Result<(), ServiceError> {
        let recorded = async {
            let mut tx = self.db.write().await?;
            intent::end(&mut tx, intent.sector, &intent.key, end, self.clock.now()).await?;
            Ok::<(), DbError>(tx.commit().await?)
        };
        recorded.await.map_err(|e| Self::of_db(op, e).with("sector", intent.sector))
    }

    /// Waits until nobody else sends or drops a message of the sector, and keeps it so until the guard is dropped.
    pub(super) async fn hold(&self, sector: SectorId) -> Option<MutexGuard<'_, ()>> {
        let lane = usize::try_from(sector.number.0 % LANES as u64).ok().and_then(|lane| self.sending.get(lane))?;
        Some(lane.lock().await)
    }

    /// Wakes those who wait.
    pub(super) fn nudge(&self) {
        self.moved.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(super) async fn head(&self, op: &'static str) -> Result<TipsetRef, ServiceError> {
        self.chain.head().await.map_err(|e| Self::of_chain(op, e))
    }

    pub(super) async fn network(&self, at: &TipsetRef) -> Result<&NetworkInfo, ServiceError> {
        let asked = self.network.get_or_try_init(|| self.chain.network(at)).await;
        asked.map_err(|e| Self::of_chain("read network", e))
    }

    pub(super) async fn latest(
        &self,
        op: &'static str,
        sector: SectorId,
        kind: AttemptKind,
    ) -> Result<Option<Intent>, ServiceError> {
        let found = async {
            let mut db = self.db.pool().acquire().await?;
            intent::latest(&mut db, sector, kind).await
        };
        found.await.map_err(|e: DbError| Self::of_db(op, e).with("sector", sector))
    }

    /// Refuses a lease that is not the one that is recorded, and a sector that was given up.
    pub(super) async fn check(&self, op: &'static str, lease: &SectorLease) -> Result<(), ServiceError> {
        goes_on(op, &self.leased(op, lease).await?)
    }

    /// Refuses a lease that is not the one that is recorded.
    pub(super) async fn leased(&self, op: &'static str, lease: &SectorLease) -> Result<LeaseRecord, ServiceError> {
        let found = self.allocator.find(lease.sector).await;
        let found = found.map_err(|e| {
            let kind = match e.recovery() {
                Recovery::Retry { .. } => ServiceErrorKind::Unavailable,
                _ => ServiceErrorKind::Refused,
            };
            Error::new(kind, op).with("sector", lease.sector).because(e)
        })?;
        verdict(op, found, lease)
    }

    /// Begins a transaction in which the lease is the one that is recorded, of a sector that is not over.
    pub(super) async fn fenced(
        &self,
        op: &'static str,
        lease: &SectorLease,
    ) -> Result<Transaction<'static, Any>, ServiceError> {
        let (tx, found) = self.begin_leased(op, lease).await?;
        goes_on(op, &found)?;
        if found.finalized || found.ended.is_some() {
            return Err(Error::new(ServiceErrorKind::Refused, op)
                .with("sector", lease.sector)
                .with("reason", "the sector is done with"));
        }
        Ok(tx)
    }

    /// Begins a transaction in which the lease is the one that is recorded, even if the sector is over.
    pub(super) async fn begin_leased(
        &self,
        op: &'static str,
        lease: &SectorLease,
    ) -> Result<(Transaction<'static, Any>, LeaseRecord), ServiceError> {
        let (tx, found) = self.begin(op, lease.sector).await?;
        Ok((tx, verdict(op, Some(found), lease)?))
    }

    /// Begins a transaction with a sector as it is recorded.
    pub(super) async fn begin(
        &self,
        op: &'static str,
        sector: SectorId,
    ) -> Result<(Transaction<'static, Any>, LeaseRecord), ServiceError> {
        let begun = async {
            // A number that no column holds was never leased.
            let (Ok(miner), Ok(number)) = (to_db("miner", sector.miner.0), to_db("sector number", sector.number.0))
            else {
                return Ok(None);
            };
            let mut tx = self.db.write().await?;
            let row = sqlx::query("SELECT * FROM seal_sectors WHERE miner = $1 AND number = $2")
                .bind(miner)
                .bind(number)
                .fetch_optional(&mut *tx)
                .await?;
            Ok(row.as_ref().map(lease_of).transpose()?.map(|found| (tx, found)))
        };
        let begun = begun.await.map_err(|e: DbError| Self::of_db(op, e).with("sector", sector))?;
        begun.ok_or_else(|| Error::new(ServiceErrorKind::UnknownSector, op).with("sector", sector))
    }

    /// Records why a submission was not accepted, and passes the answer on.
    pub(super) async fn declined(
        &self,
        op: &'static str,
        lease: &SectorLease,
        answer: SubmitAnswer,
    ) -> Result<SubmitAnswer, ServiceError> {
        let (SubmitAnswer::Mismatched { reason }
        | SubmitAnswer::Rejected { reason }
        | SubmitAnswer::FilesMissed { reason }) = &answer
        else {
            return Ok(answer);
        };
        let event = SectorEvent::Declined { reason: reason.clone() };
        let mut tx = self.fenced(op, lease).await?;
        let recorded = async {
            append(&mut tx, lease.sector, self.clock.now(), &event).await?;
            Ok::<(), DbError>(tx.commit().await?)
        };
        recorded.await.map_err(|e| Self::of_db(op, e).with("sector", lease.sector))?;
        Ok(answer)
    }

    pub(super) fn of_db(op: &'static str, cause: DbError) -> ServiceError {
        if cause.stays() {
            // Asking again reads the same row.
            return Error::new(ServiceErrorKind::Refused, op)
                .because(cause)
                .hint_with("a row of the database cannot be read; repair it, or restore the database from a backup");
        }
        Error::new(ServiceErrorKind::Unavailable, op).because(cause)
    }

    pub(super) fn of_chain(op: &'static str, cause: ChainError) -> ServiceError {
        let kind = match cause.recovery() {
            Recovery::Retry { .. } => ServiceErrorKind::Unavailable,
            _ => ServiceErrorKind::Refused,
        };
        let error = Error::new(kind, op).recover_by(cause.recovery());
        match cause.hint().map(str::to_owned) {
            Some(hint) => error.hint_with(hint).because(cause),
            None => error.because(cause),
        }
    }
}

/// What is recorded, if it is this lease.
fn verdict(op: &'static str, found: Option<LeaseRecord>, lease: &SectorLease) -> Result<LeaseRecord, ServiceError> {
    let refused = |kind| Error::new(kind, op).with("sector", lease.sector);
    let found = found.ok_or_else(|| refused(ServiceErrorKind::UnknownSector))?;
    let same = found.lease.fence == lease.fence
        && found.lease.store == lease.store
        && found.lease.proof_type == lease.proof_type
        && found.ended != Some(Outcome::Handed);
    if same { Ok(found) } else { Err(refused(ServiceErrorKind::Fenced)) }
}

/// Tells the holder of a sector that was given up to give it up, too.
fn goes_on(op: &'static str, found: &LeaseRecord) -> Result<(), ServiceError> {
    match found.given_up() {
        None => Ok(()),
        Some(reason) => Err(Error::new(ServiceErrorKind::Refused, op)
            .with("sector", found.lease.sector)
            .with("the sector was given up", reason)
            .recover_by(Recovery::Abandon)),
    }
}

#[async_trait]
impl SealingService for ManagerService {
    async fn hello(&self) -> Result<Hello, ServiceError> {
        // Who it is does not depend on whether its node answers.
        let network = match self.network.get() {
            Some(known) => Some(known),
            None => match self.head("read head").await {
                Ok(head) => self.network(&head).await.ok(),
                Err(_) => None,
            },
        };
        let mut keys = BTreeMap::new();
        for miner in self.allocator.miners() {
            let read = self.verifier.keys(miner.proof_type).map_err(|e| {
                // A worker that heard of no keys would not compare them.
                let error = Error::new(ServiceErrorKind::Unavailable, "read verifying keys");
                error.with("proof type", miner.proof_type).because(e)
            });
            keys.insert(miner.proof_type, read?);
        }
        Ok(Hello {
            version: self.config.version.clone(),
            capabilities: vec!["leases".to_owned(), "events".to_owned()],
            network: network.map(|n| n.name.clone()),
            keys,
        })
    }

    async fn pieces(&self, lease: &SectorLease, terms: PieceTerms) -> Result<Vec<DealPiece>, ServiceError> {
        self.do_pieces(lease, terms).await
    }

    async fn ticket(&self, lease: &SectorLease) -> Result<Ticket, ServiceError> {
        const OP: &str = "draw ticket";
        self.check(OP, lease).await?;
        // A replica that was made again for what is committed must come out the same.
        if let Some(before) = self.latest(OP, lease.sector, AttemptKind::PreCommit).await?.filter(Intent::stands) {
            let request: Result<PreCommitRequest, _> = of_json("pre-commit", &before.content);
            let request = request.map_err(|e| Self::of_db(OP, e.in_row("seal_intents", &before.key)))?;
            return Ok(request.ticket);
        }
        let head = self.head(OP).await?;
        let lookback = self.network(&head).await?.ticket_lookback;
        let epoch = head.epoch - lookback;
        let drawn = self.chain.randomness(&head, RandomnessKind::SealTicket, epoch, lease.sector.miner).await;
        let randomness = drawn.map_err(|e| Self::of_chain(OP, e).with("epoch", epoch))?;
        let ticket = Ticket { randomness, epoch };
        let mut tx = self.fenced(OP, lease).await?;
        let recorded = async {
            append(&mut tx, lease.sector, self.clock.now(), &SectorEvent::Ticket { ticket }).await?;
            Ok::<(), DbError>(tx.commit().await?)
        };
        recorded.await.map_err(|e| Self::of_db(OP, e).with("sector", lease.sector))?;
        Ok(ticket)
    }

    async fn submit_pre_commit(
        &self,
        lease: &SectorLease,
        request: &PreCommitRequest,
    ) -> Result<SubmitAnswer, ServiceError> {
        self.do_submit_pre_commit(lease, request).await
    }

    async fn pre_commit_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        self.do_pre_commit_state(lease).await
    }

    async fn reserve(
        &self,
        lease: &SectorLease,
        bytes: u64,
        candidates: &[String],
    ) -> Result<Option<StoreChoice>, ServiceError> {
        self.do_reserve(lease, bytes, candidates).await
    }

    async fn persisted(&self, lease: &SectorLease, store: &str) -> Result<bool, ServiceError> {
        self.do_persisted(lease, store).await
    }

    async fn seed(&self, lease: &SectorLease) -> Result<SeedAnswer, ServiceError> {
        self.do_seed(lease).await
    }

    async fn submit_proof(&self, lease: &SectorLease, proof: &[u8]) -> Result<SubmitAnswer, ServiceError> {
        self.do_submit_proof(lease, proof).await
    }

    async fn proof_state(&self, lease: &SectorLease) -> Result<CommitState, ServiceError> {
        self.do_proof_state(lease).await
    }

    async fn report(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError> {
        self.do_report(lease, report).await
    }

    async fn changed(&self, lease: &SectorLease, at_most: Duration) -> Result<(), ServiceError> {
        let mut moved = self.moved.subscribe();
        if self.leased("wait for changes", lease).await?.given_up().is_some() {
            return Ok(());
        }
        // Whether it moved or the time is over, the caller looks again.
        let _ = tokio::time::timeout(at_most, moved.changed()).await;
        Ok(())
    }
}
