//! Keys, a database and a devnet.

use crate::server::{Server, Watch};
use damocles_chain::{
    Fees, Limits, LotusClient, LotusConfig, Senders,
    devnet::{Devnet, DevnetConfig, DevnetRpc},
    lotus_json::from_core,
    signer::{KeyKind, Keystore},
};
use damocles_core::{Address, chain::ChainError, testing::FakeVerifier};
use fvm_shared::econ::TokenAmount;
use sqlx::{AnyPool, Executor as _, any::AnyPoolOptions};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

pub(crate) struct Home {
    dir: TempDir,
    pub(crate) keys: Keystore,
    pub(crate) senders: Vec<Address>,
    pub(crate) devnet: Arc<Devnet>,
    pub(crate) server: Server,
    pub(crate) fees: Fees,
}

impl Home {
    pub(crate) async fn new(senders: usize, base_fee: i64, fees: Fees, watch: Watch) -> Self {
        sqlx::any::install_default_drivers();
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::open(dir.path().join("keystore")).unwrap();
        let senders: Vec<Address> = (0..senders).map(|_| keys.create(KeyKind::Secp256k1).unwrap()).collect();
        let fund = senders.iter().map(|a| (from_core(a).unwrap(), TokenAmount::from_whole(100_000))).collect();
        let config = DevnetConfig {
            network_name: "devnet-fake-outbox".into(),
            initial_base_fee: TokenAmount::from_atto(base_fee),
            fund,
            ..DevnetConfig::default()
        };
        let devnet = Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap();
        let server = Server::start(DevnetRpc::new(Arc::clone(&devnet)), watch).await;
        Self { dir, keys, senders, devnet, server, fees }
    }

    /// The database as the manager opens it.
    pub(crate) async fn database(&self) -> AnyPool {
        let url = format!("sqlite://{}?mode=rwc", self.dir.path().join("manager.db").display());
        let options = AnyPoolOptions::new().max_connections(4).after_connect(|connection, _| {
            Box::pin(async move {
                for pragma in ["journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 10000"]
                {
                    connection.execute(sqlx::AssertSqlSafe(format!("PRAGMA {pragma}"))).await?;
                }
                Ok(())
            })
        });
        options.connect(&url).await.unwrap()
    }

    pub(crate) async fn client(&self, database: &AnyPool) -> Result<Arc<LotusClient>, ChainError> {
        self.client_of(database, Senders::all(self.senders[0].clone())).await
    }

    pub(crate) async fn client_of(&self, database: &AnyPool, senders: Senders) -> Result<Arc<LotusClient>, ChainError> {
        let mut config = LotusConfig::new(self.server.url.parse().unwrap(), senders);
        config.poll_every = Duration::from_millis(20);
        config.silence = Duration::from_millis(500);
        config.limits = Limits { fees: self.fees.clone(), ..Limits::default() };
        LotusClient::connect(config, Arc::new(self.keys.clone()), database.clone()).await
    }
}
