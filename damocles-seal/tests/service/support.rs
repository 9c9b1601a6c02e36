//! A manager over a chain in memory and a database in a temporary directory.

use async_trait::async_trait;
use damocles_core::{
    ActorId, CancellationToken, Clock, Epoch, RequestId, SealProofType, SectorId, SectorSize, StoreId, Timestamp,
    allocator::{AllocateRequest, SectorAllocator, SectorLease},
    chain::{
        BoxStream, Call, ChainClient, ChainError, ChainErrorKind, DeadlineInfo, DeadlineState, HeadChange, MessageId,
        MessageState, MinerInfo, NetworkInfo, OnChain, RandomnessKind, SectorInfo, SubmitKey, TipsetRef,
    },
    testing::{FakeClock, InMemoryChain, fake_proof::FakeVerifier},
    verify::Randomness,
};
use damocles_seal::{
    allocator::{MinerPolicy, SqlAllocator},
    sector_state::SealDb,
    service::{DealPiece, ManagerConfig, ManagerParts, ManagerService, PieceDirs, ReplicaStores, conformance::World},
};
use parking_lot::{Condvar, Mutex};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

pub(crate) const MINER: ActorId = ActorId(1000);
pub(crate) const TTL: Duration = Duration::from_secs(60);

pub(crate) fn proof_type() -> SealProofType {
    SealProofType::of(SectorSize::KiB2)
}

pub(crate) async fn open_db(dir: &Path) -> SealDb {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite://{}?mode=rwc", dir.join("manager.db").display());
    SealDb::open(sqlx::AnyPool::connect(&url).await.unwrap()).await.unwrap()
}

/// Persist stores whose replicas are shown or hidden.
#[derive(Debug, Default)]
pub(crate) struct FakeStores {
    pub(crate) hidden: Mutex<bool>,
    /// Nothing may be written to the large one.
    pub(crate) read_only: Mutex<bool>,
    /// The large one answers nothing.
    hung: Mutex<bool>,
    mended: Condvar,
    /// How often the large one was asked.
    pub(crate) asked: Mutex<usize>,
}

impl FakeStores {
    fn answer(&self, store: &str) {
        if store == "persist" {
            *self.asked.lock() += 1;
            self.mended.wait_while(&mut self.hung.lock(), |hung| *hung);
        }
    }

    /// From now on the large one answers nothing, or again.
    pub(crate) fn hang(&self, hung: bool) {
        *self.hung.lock() = hung;
        self.mended.notify_all();
    }
}

impl ReplicaStores for FakeStores {
    fn names(&self) -> Vec<String> {
        vec!["persist".to_owned(), "small".to_owned()]
    }

    fn has_all_files(&self, store: &str, _: SectorId, _: SealProofType) -> io::Result<bool> {
        self.answer(store);
        if store == "persist" { Ok(!*self.hidden.lock()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn free_bytes(&self, store: &str) -> io::Result<u64> {
        self.answer(store);
        let large = if *self.read_only.lock() { 0 } else { 1 << 20 };
        Ok(if store == "persist" { large } else { 100 })
    }

    fn path(&self, store: &str) -> Option<PathBuf> {
        (store == "persist").then(|| PathBuf::from("/persist"))
    }
}

/// What a chain client does with the next submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trip {
    /// It fails before anything is recorded.
    Before,
    /// It fails after the message was taken: the answer is lost.
    After,
    /// It refuses the message for good.
    Refused,
}

/// The chain in memory, behind a line that breaks when told to.
#[derive(Debug)]
pub(crate) struct TrippingChain {
    pub(crate) inner: InMemoryChain,
    pub(crate) trips: Mutex<Vec<Trip>>,
    /// Done when a sector is read next: what another process does meanwhile.
    pub(crate) meanwhile: Mutex<Option<Meanwhile>>,
}

/// Something that another process does.
pub(crate) struct Meanwhile(pub(crate) futures::future::BoxFuture<'static, ()>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl ChainClient for TrippingChain {
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$out, ChainError> {
                self.inner.$name($($arg),*).await
            })*

            async fn sector(&self, at: &TipsetRef, id: SectorId) -> Result<OnChain, ChainError> {
                let meanwhile = self.meanwhile.lock().take();
                if let Some(Meanwhile(work)) = meanwhile {
                    work.await;
                }
                self.inner.sector(at, id).await
            }

            fn head_changes(&self) -> BoxStream<HeadChange> {
                self.inner.head_changes()
            }

            async fn submit(&self, key: &SubmitKey, call: &Call) -> Result<MessageId, ChainError> {
                let trip = self.trips.lock().pop();
                let lost = || ChainError::new(ChainErrorKind::Unavailable, "submit");
                match trip {
                    Some(Trip::Before) => Err(lost()),
                    Some(Trip::Refused) => Err(ChainError::new(ChainErrorKind::Rejected, "submit")),
                    Some(Trip::After) => {
                        self.inner.submit(key, call).await?;
                        Err(lost())
                    }
                    None => self.inner.submit(key, call).await,
                }
            }
        }
    };
}

forward! {
    head() -> TipsetRef;
    network(at: &TipsetRef) -> NetworkInfo;
    miner(at: &TipsetRef, miner: ActorId) -> MinerInfo;
    randomness(at: &TipsetRef, kind: RandomnessKind, epoch: Epoch, miner: ActorId) -> Randomness;
    sectors(at: &TipsetRef, miner: ActorId, numbers: &damocles_core::SectorSet) -> Vec<SectorInfo>;
    deadline(at: &TipsetRef, miner: ActorId) -> DeadlineInfo;
    partitions(at: &TipsetRef, miner: ActorId, deadline: damocles_core::DeadlineIndex) -> DeadlineState;
    message(id: &MessageId, confidence: i64) -> MessageState;
}

/// A manager that can be restarted: everything but its service outlives it.
#[derive(Debug)]
pub(crate) struct Manager {
    pub(crate) dir: TempDir,
    pub(crate) chain: Arc<TrippingChain>,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) stores: Arc<FakeStores>,
    pub(crate) service: Arc<ManagerService>,
    pub(crate) cancel: CancellationToken,
    policy: MinerPolicy,
    store_timeout: Duration,
    requests: Mutex<u64>,
}

impl Manager {
    pub(crate) async fn start() -> Self {
        Self::with_policy(MinerPolicy::new(MINER, proof_type())).await
    }

    pub(crate) async fn with_policy(policy: MinerPolicy) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let chain = Arc::new(TrippingChain {
            inner: InMemoryChain::new(MINER),
            trips: Mutex::default(),
            meanwhile: Mutex::default(),
        });
        let clock = Arc::new(FakeClock::at(Timestamp(1_000_000)));
        let stores = Arc::new(FakeStores::default());
        std::fs::create_dir(dir.path().join("pieces")).unwrap();
        let store_timeout = ManagerConfig::default().store_timeout;
        let service = build(&dir, &chain, &clock, &stores, &policy, store_timeout).await;
        let cancel = CancellationToken::new();
        Self { dir, chain, clock, stores, service, cancel, policy, store_timeout, requests: Mutex::default() }
    }

    /// A manager that waits for persist stores only so long.
    pub(crate) async fn impatient(store_timeout: Duration) -> Self {
        let mut manager = Self::start().await;
        manager.store_timeout = store_timeout;
        manager.restart().await;
        manager
    }

    /// A file that may be queued.
    pub(crate) fn piece_file(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("pieces").join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::canonicalize(path).unwrap()
    }

    /// Runs the service's loop, as the manager does.
    pub(crate) fn spawn(&self) {
        let (service, cancel) = (self.service.clone(), self.cancel.clone());
        tokio::spawn(async move { service.run(cancel).await });
    }

    /// Another service over the same database and chain; the old one is gone with everything that it knew.
    pub(crate) async fn restart(&mut self) {
        self.cancel.cancel();
        self.cancel = CancellationToken::new();
        self.service = build(&self.dir, &self.chain, &self.clock, &self.stores, &self.policy, self.store_timeout).await;
    }

    pub(crate) fn allocator(&self) -> &SqlAllocator {
        self.service.allocator()
    }

    pub(crate) fn want(&self, store: &str) -> AllocateRequest {
        let mut requests = self.requests.lock();
        *requests += 1;
        want(&format!("request-{requests}"), store)
    }

    pub(crate) fn tick(&self, epochs: i64) {
        self.chain.inner.tick(epochs);
    }
}

async fn build(
    dir: &TempDir,
    chain: &Arc<TrippingChain>,
    clock: &Arc<FakeClock>,
    stores: &Arc<FakeStores>,
    policy: &MinerPolicy,
    store_timeout: Duration,
) -> Arc<ManagerService> {
    let db = open_db(dir.path()).await;
    let (chain, clock): (Arc<dyn ChainClient>, Arc<dyn Clock>) = (chain.clone(), clock.clone());
    let allocator = Arc::new(SqlAllocator::new(db.clone(), chain.clone(), vec![policy.clone()], clock.clone()));
    let parts = ManagerParts { db, chain, allocator, verifier: Arc::new(FakeVerifier), stores: stores.clone(), clock };
    let piece_dirs = PieceDirs::new([dir.path().join("pieces")]);
    let config = ManagerConfig { confidence: 3, piece_dirs, store_timeout, ..ManagerConfig::default() };
    Arc::new(ManagerService::new(parts, config))
}

pub(crate) fn want(request: &str, store: &str) -> AllocateRequest {
    AllocateRequest {
        request: RequestId::new(request),
        store: StoreId::new(store),
        worker: "worker".to_owned(),
        miners: Vec::new(),
        proof_types: Vec::new(),
        ttl: TTL,
    }
}

#[async_trait]
impl World for Manager {
    async fn lease(&self) -> SectorLease {
        self.allocator().allocate(&self.want("store")).await.unwrap().unwrap()
    }

    async fn lease_again(&self, lease: &SectorLease) -> SectorLease {
        self.allocator().take_up(&lease.store, lease.sector, TTL).await.unwrap()
    }

    async fn tick(&self) {
        Self::tick(self, 1);
    }

    fn store(&self) -> String {
        "persist".to_owned()
    }

    async fn add_piece(&self, piece: DealPiece) {
        let file = self.piece_file("piece");
        self.service.add_piece(piece.piece, piece.payload_size, &file).await.unwrap();
    }

    fn show_replicas(&self, shown: bool) {
        *self.stores.hidden.lock() = !shown;
    }

    fn refuse_pre_commit(&self, _: &SectorLease) {
        self.chain.inner.next_exit_code(16);
    }
}
