//! Keys, databases and clients.

use damocles_chain::{
    LotusClient, LotusConfig, Senders,
    rpc::Endpoint,
    signer::{KeyKind, Keystore},
};
use damocles_core::{
    ActorId, Address, CommP, DeadlineIndex, PartitionIndex, SectorNumber,
    chain::{Call, ChainError, DeclareFaultsRecovered, PartitionSectors},
};
use serde_json::{Value, json};
use sqlx::{AnyPool, any::AnyPoolOptions};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

pub(crate) struct Home {
    dir: TempDir,
    pub(crate) keys: Keystore,
    pub(crate) owner: Address,
    pub(crate) worker: Address,
}

impl Home {
    pub(crate) fn new() -> Self {
        sqlx::any::install_default_drivers();
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::open(dir.path().join("keystore")).unwrap();
        let owner = keys.create(KeyKind::Secp256k1).unwrap();
        let worker = keys.create(KeyKind::Bls).unwrap();
        Self { dir, keys, owner, worker }
    }

    pub(crate) async fn database(&self) -> AnyPool {
        let url = format!("sqlite://{}?mode=rwc", self.dir.path().join("manager.db").display());
        AnyPoolOptions::new().max_connections(2).connect(&url).await.unwrap()
    }

    pub(crate) async fn client(&self, endpoint: &str) -> Arc<LotusClient> {
        self.client_of(endpoint, Senders::all(self.worker.clone())).await.unwrap()
    }

    pub(crate) async fn client_of(&self, endpoint: &str, senders: Senders) -> Result<Arc<LotusClient>, ChainError> {
        let mut config = LotusConfig::new(endpoint.parse().unwrap(), senders);
        config.poll_every = Duration::from_millis(5);
        LotusClient::connect(config, Arc::new(self.keys.clone()), self.database().await).await
    }
}

/// A client of several endpoints that is asked for health by the test alone.
pub(crate) async fn client_of_all(home: &Home, servers: &[&str]) -> Arc<LotusClient> {
    let endpoints = Endpoint::parse_list(&servers.join(",")).unwrap();
    let mut config = LotusConfig::with_endpoints(endpoints, Senders::all(home.worker.clone()));
    config.poll_every = Duration::from_millis(5);
    config.rpc.check_every = Duration::from_secs(3600);
    LotusClient::connect(config, Arc::new(home.keys.clone()), home.database().await).await.unwrap()
}

pub(crate) fn recover(miner: ActorId, number: u64) -> Call {
    let part = PartitionSectors {
        deadline: DeadlineIndex(0),
        partition: PartitionIndex(0),
        sectors: [SectorNumber(number)].into_iter().collect(),
    };
    Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner, recoveries: vec![part] })
}

/// A CID of its own for each height of each fork.
pub(crate) fn cid(height: i64, fork: u8) -> String {
    let mut digest = [fork; 32];
    digest[..8].copy_from_slice(&height.to_le_bytes());
    CommP(digest).to_string()
}

/// A tipset as a node tells it.
pub(crate) fn tipset(height: i64, fork: u8, parent: (i64, u8)) -> Value {
    let block = json!({"Miner": "t01000", "Parents": [{"/": cid(parent.0, parent.1)}], "Height": height,
        "ParentBaseFee": "100"});
    json!({"Cids": [{"/": cid(height, fork)}], "Blocks": [block], "Height": height})
}
