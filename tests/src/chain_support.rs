//! A devnet in this process behind the real server, and clients of it with keys that are the same in every run.

use crate::proxy::Proxy;
use async_trait::async_trait;
use damocles_chain::{
    LotusClient, LotusConfig, Senders,
    devnet::{Devnet, DevnetConfig, DevnetRpc},
    lotus_json::from_core,
    signer::{KeyKind, Keystore, PrivateKey},
};
use damocles_cli::server::{RequestHeaders, RpcHandler, Server, WsHandler, WsIncoming, WsOutgoing};
use damocles_core::{
    ActorId, Address, CancellationToken, Context, Event, EventSink, MessageEvent, RequestId, SealProofType, SectorId,
    SectorSize, StoreId, Timestamp,
    allocator::{AllocateRequest, SectorAllocator as _, SectorLease},
    chain::{Call, ChainClient, ChainClientExt as _, CreateMiner, Receipt, SubmitKey},
    testing::FakeClock,
    verify::ProofVerifier,
};
use damocles_seal::{
    allocator::{MinerPolicy, SqlAllocator},
    sector_state::SealDb,
    service::{ManagerConfig, ManagerParts, ManagerService, ReplicaStores},
};
use fvm_shared::econ::TokenAmount;
use serde_json::{Value, json};
use sqlx::{AnyPool, Executor as _, any::AnyPoolOptions};
use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::DropGuard;

/// What both accounts own at genesis, in FIL.
const FUNDS: u64 = 1_000_000;

/// How a client can reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Requests by POST and subscriptions by WebSocket.
    HttpAndWs,
    /// Requests by POST and nothing else.
    HttpOnly,
}

/// The directory of an operator: a keystore with two funded keys, a database, a devnet's file.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    /// The keys.
    pub keystore: Keystore,
    /// The owner, secp256k1.
    pub owner: Address,
    /// The worker, BLS.
    pub worker: Address,
}

/// The key of an account of these tests; anybody can know it.
pub fn test_key(kind: KeyKind, number: u8) -> PrivateKey {
    let mut bytes = [0; 32];
    match kind {
        KeyKind::Secp256k1 => bytes = [number; 32],
        // Little-endian, and below the order of the group.
        KeyKind::Bls => bytes.iter_mut().take(31).for_each(|b| *b = number),
    }
    PrivateKey::from_bytes(kind, &bytes).expect("these bytes are a key")
}

impl Home {
    /// A home with the keys of number 1 and 2.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let keystore = Keystore::open(dir.path().join("keystore")).expect("a keystore");
        let import = |kind, number| {
            let key = hex::encode(test_key(kind, number).to_lotus().as_slice());
            keystore.import(&key).expect("a key that is not there yet")
        };
        let (owner, worker) = (import(KeyKind::Secp256k1, 1), import(KeyKind::Bls, 2));
        Self { dir, keystore, owner, worker }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The database, opened as the manager opens it.
    pub async fn database(&self) -> AnyPool {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().max_connections(4).after_connect(|connection, _| {
            Box::pin(async move {
                for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 10000"]
                {
                    connection.execute(pragma).await?;
                }
                Ok(())
            })
        });
        let url = format!("sqlite://{}?mode=rwc", self.path().join("manager.db").display());
        pool.connect(&url).await.expect("a database")
    }

    /// What a devnet of this name is made from, with both accounts funded.
    pub fn config(&self, network: &str, epoch: Duration) -> DevnetConfig {
        let fund = [&self.owner, &self.worker]
            .map(|a| (from_core(a).expect("an address of a key"), TokenAmount::from_whole(FUNDS)));
        DevnetConfig {
            network_name: network.to_owned(),
            epoch_duration: epoch,
            fund: fund.to_vec(),
            ..DevnetConfig::default()
        }
    }

    /// The devnet in this home, as it was left.
    pub fn devnet(&self, config: DevnetConfig, verifier: Arc<dyn ProofVerifier>) -> Arc<Devnet> {
        Devnet::open(config, verifier, &self.path().join("devnet")).expect("a devnet")
    }

    /// A client of the node at this address that sends what is in its outbox until it is dropped.
    pub async fn client(&self, address: SocketAddr) -> Client {
        let pushed = Arc::new(Pushed::default());
        let endpoint = format!("http://{address}/rpc/v1").parse().expect("an endpoint");
        let mut config = LotusConfig::new(endpoint, Senders::all(self.worker.clone()));
        config.poll_every = Duration::from_millis(10);
        config.events = pushed.clone();
        let database = self.database().await;
        let chain = LotusClient::connect(config, Arc::new(self.keystore.clone()), database).await;
        let chain = chain.expect("every sender has a key");
        let cancel = CancellationToken::new();
        let (running, token) = (Arc::clone(&chain), cancel.clone());
        tokio::spawn(async move { running.run(token).await });
        Client { chain, pushed, _running: cancel.drop_guard() }
    }

    /// The manager's service over a chain, with the database of this home and a store that has every replica.
    pub async fn manager(
        &self,
        chain: Arc<dyn ChainClient>,
        miner: ActorId,
        verifier: Arc<dyn ProofVerifier>,
    ) -> ManagerService {
        let db = SealDb::open(self.database().await).await.expect("the tables of sectors");
        let clock = Arc::new(FakeClock::at(Timestamp(1_000_000)));
        let policy = MinerPolicy::new(miner, SealProofType::of(SectorSize::KiB2));
        let allocator = SqlAllocator::new(db.clone(), Arc::clone(&chain), vec![policy], clock.clone());
        let (allocator, stores) = (Arc::new(allocator), Arc::new(FakeFullStore));
        let parts = ManagerParts { db, chain, allocator, verifier, stores, clock };
        // The least there is: what is still waited for is what the chain's own rules ask for.
        ManagerService::new(parts, ManagerConfig { confidence: 0, seed_confidence: 0, ..ManagerConfig::default() })
    }

    /// The call that makes a miner of 2 KiB sectors.
    pub fn create_miner(&self) -> Call {
        let (owner, worker) = (self.owner.clone(), self.worker.clone());
        Call::CreateMiner(CreateMiner::new(owner, worker, SectorSize::KiB2))
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// A lease of a manager's next sector.
pub async fn lease(manager: &ManagerService) -> SectorLease {
    let want = AllocateRequest {
        request: RequestId::new("request-1"),
        store: StoreId::new("sealing"),
        worker: "worker".to_owned(),
        miners: Vec::new(),
        proof_types: Vec::new(),
        ttl: Duration::from_secs(60),
    };
    let allocated = manager.allocator().allocate(&want).await;
    allocated.expect("an allocator that answers").expect("a miner with numbers left")
}

/// A store, `persist`, that has every replica.
#[derive(Clone, Copy, Debug)]
struct FakeFullStore;

impl ReplicaStores for FakeFullStore {
    fn names(&self) -> Vec<String> {
        vec!["persist".to_owned()]
    }

    fn has_all_files(&self, _: &str, _: SectorId, _: SealProofType) -> io::Result<bool> {
        Ok(true)
    }

    fn free_bytes(&self, _: &str) -> io::Result<u64> {
        Ok(1 << 20)
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }
}

/// A client, and which of its messages the node has taken.
#[derive(Debug)]
pub struct Client {
    /// The client.
    pub chain: Arc<LotusClient>,
    pushed: Arc<Pushed>,
    _running: DropGuard,
}

impl Client {
    /// Waits until the node has a message in its pool.
    pub async fn pushed(&self, key: &SubmitKey) {
        let mut keys = self.pushed.keys.subscribe();
        // The sender lives in `self`.
        keys.wait_for(|keys| keys.contains(&key.0)).await.expect("the sender lives");
    }

    /// A method of the devnet itself.
    pub async fn devnet(&self, method: &str, params: Value) -> Value {
        self.chain.raw(&format!("Devnet.{method}"), params).await.expect("the devnet answers")
    }

    /// Mines tipsets; the epoch of the head after.
    pub async fn mine(&self, tipsets: u64) -> i64 {
        self.devnet("Mine", json!([tipsets])).await.as_i64().expect("an epoch")
    }

    /// On a chain that stands still: sends a call, mines the tipset that takes it and the one with its receipt.
    pub async fn land(&self, key: &str, call: &Call) -> Receipt {
        let key = SubmitKey(key.to_owned());
        let id = self.chain.submit(&key, call).await.expect("the outbox takes it");
        self.pushed(&key).await;
        self.mine(2).await;
        self.chain.landed(&id, 1, &Context::detached()).await.expect("what is in the pool lands")
    }

    /// Makes a miner on a chain that stands still.
    pub async fn create_miner(&self, home: &Home) -> ActorId {
        let receipt = self.land("create-miner", &home.create_miner()).await;
        assert!(receipt.is_success(), "{receipt:?}");
        receipt.created.expect("a miner")
    }

    /// The messages that landed at an actor, oldest first.
    pub async fn landed_at(&self, miner: ActorId) -> Vec<Value> {
        let all = self.devnet("Messages", json!([Address::from_actor(miner)])).await;
        all.as_array().cloned().expect("a list")
    }
}

/// Remembers which messages the node took.
#[derive(Debug, Default)]
struct Pushed {
    keys: watch::Sender<BTreeSet<String>>,
}

impl EventSink for Pushed {
    fn emit(&self, event: Event) {
        if let Event::Message { key, what: MessageEvent::Pushed { .. } } = event {
            self.keys.send_if_modified(|keys| keys.insert(key.0));
        }
    }
}

/// A devnet behind the server on a free loopback port.
#[derive(Debug)]
pub struct Node {
    /// The devnet.
    pub devnet: Arc<Devnet>,
    address: SocketAddr,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    /// Serves a devnet; its clock stands still until [`Self::start_clock`].
    pub async fn serve(devnet: Arc<Devnet>, transport: Transport) -> Self {
        let mut server = Server::bind(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = server.address();
        let rpc = Arc::new(DevnetServer(DevnetRpc::new(Arc::clone(&devnet))));
        for path in ["/rpc/v0", "/rpc/v1"] {
            server = server.route_rpc(path, rpc.clone());
            if transport == Transport::HttpAndWs {
                server = server.route_ws(path, rpc.clone());
            }
        }
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let ending = cancel.clone();
        tasks.spawn(async move { server.serve(ending).await.expect("a server that ends when it is told to") });
        Self { devnet, address, cancel, tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the devnet's clock.
    pub fn start_clock(&mut self) {
        let (devnet, cancel) = (Arc::clone(&self.devnet), self.cancel.clone());
        self.tasks.spawn(async move { devnet.run(cancel).await.expect("a chain that can be recorded") });
    }

    /// Ends the node as the end of its process would; what it recorded can be opened again when this returns.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no part of a node panics");
        }
        let left: Weak<Devnet> = Arc::downgrade(&self.devnet);
        drop(self);
        // Connections that are just closing still hold it.
        for _ in 0..1000 {
            if left.strong_count() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("somebody holds on to a devnet that was stopped");
    }

    /// A stable address for this node and those that come after it.
    pub async fn proxy(&self) -> Proxy {
        Proxy::start(self.address).await.expect("a free port")
    }
}

/// The devnet's RPC behind the server.
struct DevnetServer(DevnetRpc);

#[async_trait]
impl RpcHandler for DevnetServer {
    async fn handle(&self, _: &RequestHeaders, body: String) -> Option<String> {
        self.0.handle(&body).await
    }
}

#[async_trait]
impl WsHandler for DevnetServer {
    async fn serve(&self, _: RequestHeaders, incoming: WsIncoming, outgoing: WsOutgoing, cancel: CancellationToken) {
        // A peer that went away is no failure of ours.
        let _ = cancel.run_until_cancelled(self.0.serve_ws(incoming, outgoing)).await;
    }
}
