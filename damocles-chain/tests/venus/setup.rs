//! A devnet, a messager that signs for it, and clients.

use damocles_chain::{
    Senders,
    devnet::{Devnet, DevnetConfig, DevnetRpc},
    lotus_json::from_core,
    rpc::Endpoint,
    signer::{KeyKind, Keystore},
    venus::{
        VenusClient, VenusConfig,
        testing::{FakeMessager, FakeServer},
    },
};
use damocles_core::{
    ActorId, Address, CancellationToken, Context, DeadlineIndex, PartitionIndex, SectorNumber, SectorSize,
    chain::{
        Call, ChainClient as _, ChainClientExt as _, CreateMiner, DeclareFaultsRecovered, MessageId, MessageState,
        PartitionSectors, Receipt, SubmitKey, Transfer,
    },
    testing::FakeVerifier,
};
use futures::FutureExt as _;
use fvm_shared::econ::TokenAmount;
use serde_json::json;
use sqlx::{AnyPool, any::AnyPoolOptions};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio_util::sync::DropGuard;

pub(crate) const TOKEN: &str = "sesame";

pub(crate) struct Net {
    pub(crate) devnet: Arc<Devnet>,
    pub(crate) server: FakeServer,
    pub(crate) messager: FakeMessager,
    pub(crate) keys: Keystore,
    pub(crate) owner: Address,
    pub(crate) worker: Address,
    /// What the node says of the network's version instead of the truth, unless it is zero.
    pub(crate) version: Arc<AtomicU32>,
    dir: TempDir,
}

/// A client whose loop ends with this.
pub(crate) struct Running {
    pub(crate) client: Arc<VenusClient>,
    pub(crate) _ends: DropGuard,
}

impl Net {
    pub(crate) async fn new() -> Self {
        sqlx::any::install_default_drivers();
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::open(dir.path().join("keystore")).unwrap();
        let (owner, worker) = (keys.create(KeyKind::Secp256k1).unwrap(), keys.create(KeyKind::Bls).unwrap());
        let fund = [&owner, &worker].map(|a| (from_core(a).unwrap(), TokenAmount::from_whole(10_000)));
        let config =
            DevnetConfig { network_name: "devnet-fake-venus".into(), fund: fund.to_vec(), ..DevnetConfig::default() };
        let devnet = Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap();
        let rpc = DevnetRpc::new(Arc::clone(&devnet));
        let version = Arc::new(AtomicU32::new(0));
        let lies = Arc::clone(&version);
        let answering = move |arrived: damocles_chain::venus::testing::Arrived| {
            let (rpc, lie) = (rpc.clone(), lies.load(Ordering::SeqCst));
            if lie != 0 && arrived.text.contains("Filecoin.StateNetworkVersion") {
                let answer = json!({"jsonrpc": "2.0", "id": 1, "result": lie}).to_string();
                return async move { Some(answer) }.boxed();
            }
            async move { rpc.handle(&arrived.text).await }.boxed()
        };
        let server = FakeServer::without_sockets(Arc::new(answering)).await.unwrap();
        let node: Endpoint = server.url().parse().unwrap();
        let messager = FakeMessager::start(node, Arc::new(keys.clone()), TOKEN).await.unwrap();
        Self { devnet, server, messager, keys, owner, worker, version, dir }
    }

    pub(crate) async fn database(&self) -> AnyPool {
        let url = format!("sqlite://{}?mode=rwc", self.dir.path().join("manager.db").display());
        AnyPoolOptions::new().max_connections(2).connect(&url).await.unwrap()
    }

    pub(crate) fn config(&self) -> VenusConfig {
        let endpoint = |url: String| url.parse::<Endpoint>().unwrap();
        let senders = Senders::all(self.worker.clone());
        let mut config = VenusConfig::new(endpoint(self.server.url()), endpoint(self.messager.url()), senders);
        config.messager.endpoint = config.messager.endpoint.with_token(TOKEN);
        config.poll_every = Duration::from_millis(5);
        config
    }

    /// A client whose loop does not run.
    pub(crate) async fn idle_client(&self) -> Arc<VenusClient> {
        VenusClient::connect(self.config(), self.database().await).await.unwrap()
    }

    pub(crate) async fn client(&self) -> Running {
        run(self.idle_client().await)
    }

    /// Mines while something is waited for.
    pub(crate) async fn mine_until<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        for _ in 0..500 {
            // An epoch is as long as the messager needs for its round.
            let round = tokio::time::timeout(Duration::from_millis(200), self.messager.worked());
            tokio::select! {
                done = &mut work => return done,
                _ = async { tokio::join!(round, tokio::time::sleep(Duration::from_millis(10))) } => {}
            }
            self.devnet.mine(1).unwrap();
        }
        let entries = self.idle_client().await.entries().await;
        panic!("not done after 500 epochs: {entries:#?}, {:#?}", self.messager.records());
    }

    pub(crate) async fn landed(&self, client: &VenusClient, id: &MessageId, confidence: i64) -> Receipt {
        self.mine_until(client.landed(id, confidence, &Context::detached())).await.unwrap()
    }

    /// Waits, mining, until the state of a message is as wanted.
    pub(crate) async fn state(
        &self,
        client: &VenusClient,
        id: &MessageId,
        wanted: impl Fn(&MessageState) -> bool + Send + Sync,
    ) -> MessageState {
        let asking = async {
            loop {
                let state = client.message(id, 1).await.unwrap();
                if wanted(&state) {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        self.mine_until(asking).await
    }

    /// Waits, without mining, until something holds.
    pub(crate) async fn until(&self, holds: impl AsyncFn() -> bool) {
        for _ in 0..2_000 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let entries = self.idle_client().await.entries().await;
        panic!("it never held: {entries:#?}, {:#?}", self.messager.records());
    }

    pub(crate) async fn create_miner(&self, client: &VenusClient) -> ActorId {
        let call = Call::CreateMiner(CreateMiner::new(self.owner.clone(), self.worker.clone(), SectorSize::KiB2));
        let id = client.submit(&key("create"), &call).await.unwrap();
        let receipt = self.landed(client, &id, 2).await;
        assert!(receipt.is_success(), "{receipt:?}");
        receipt.created.unwrap()
    }

    /// A payment from the worker to the owner.
    pub(crate) fn pay(&self, fil: i64) -> Call {
        let amount = damocles_core::TokenAmount::from_fil(fil);
        Call::Send(Transfer { to: self.owner.clone(), from: self.worker.clone(), amount })
    }

    /// Mines, in steps that clients and the messager follow.
    pub(crate) async fn mine(&self, epochs: usize) {
        for _ in 0..epochs.div_ceil(50) {
            self.devnet.mine(50).unwrap();
            let _ = tokio::time::timeout(Duration::from_millis(500), self.messager.worked()).await;
        }
    }

    /// How many messages to an address are on chain.
    pub(crate) fn on_chain(&self, to: &Address) -> usize {
        let all = self.devnet.call("Devnet.Messages", json!([to])).unwrap();
        all.as_array().unwrap().len()
    }
}

pub(crate) fn run(client: Arc<VenusClient>) -> Running {
    let cancel = CancellationToken::new();
    let (running, token) = (Arc::clone(&client), cancel.clone());
    tokio::spawn(async move { running.run(token).await });
    Running { client, _ends: cancel.drop_guard() }
}

pub(crate) fn key(text: &str) -> SubmitKey {
    SubmitKey(text.into())
}

pub(crate) fn recover(miner: ActorId, number: u64) -> Call {
    let part = PartitionSectors {
        deadline: DeadlineIndex(0),
        partition: PartitionIndex(0),
        sectors: [SectorNumber(number)].into_iter().collect(),
    };
    Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries: vec![part] })
}
