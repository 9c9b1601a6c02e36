//! Makes the client call what it can, and notes the requests.

use super::answers::{CASES, WITH_NULL, key};
use crate::{
    server::{Reply, Server},
    setup::{Home, client_of_all},
};
use damocles_chain::{
    LotusClient, LotusConfig, Senders,
    rpc::RpcClient,
    signer::{NodeWallet, Purpose, SignRequest, Signer as _},
};
use damocles_core::{
    ActorId, CancellationToken, CommR, DeadlineIndex, Epoch, SealProofType, SectorId, SectorNumber, SectorSize,
    chain::{
        Call, ChainClient as _, CreateMiner, PreCommit, PreCommitBatch, ProveCommit, RandomnessKind, SectorProof,
        SubmitKey, TipsetKey, TipsetRef,
    },
};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

const MINER: ActorId = ActorId(1000);
/// Sectors: one that is proven, one that is pre-committed, one that is not there.
const PROVEN: SectorNumber = SectorNumber(1);
const PRE_COMMITTED: SectorNumber = SectorNumber(2);
const ABSENT: SectorNumber = SectorNumber(3);

type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// Hides what differs from run to run: keys, signatures, and what depends on them.
fn settle(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > 40 && (text.starts_with("t1") || text.starts_with("t3")) => {
            "<key>".clone_into(text);
        }
        Value::Array(items) => items.iter_mut().for_each(settle),
        Value::Object(map) => {
            for (name, inner) in map {
                match name.as_str() {
                    "CID" | "GasLimit" | "GasFeeCap" | "GasPremium" => *inner = json!(format!("<{name}>")),
                    "Data" => *inner = json!("<signature>"),
                    _ => settle(inner),
                }
            }
        }
        _ => {}
    }
}

/// What a sector's methods answer depends on the sector.
fn answer(method: &str, params: &Value) -> Reply {
    let sector = params[1].as_u64().unwrap_or_default();
    let is_there = match method {
        "StateSectorGetInfo" => sector == PROVEN.0,
        "StateSectorPreCommitInfo" => sector == PRE_COMMITTED.0,
        _ => true,
    };
    match CASES.iter().find(|case| case.method == method) {
        Some(case) if is_there && !WITH_NULL.contains(&method) => Reply::result((case.answer)()),
        Some(_) => Reply::result(Value::Null),
        None => Reply::error(-32601, method),
    }
}

fn at() -> TipsetRef {
    TipsetRef { epoch: Epoch(2000), key: TipsetKey(vec![key().parse().unwrap()]) }
}

async fn reads(client: &LotusClient, home: &Home) {
    let at = at();
    client.head().await.unwrap();
    client.tipset(&at.key).await.unwrap();
    // The one tipset of these answers lies above that epoch.
    client.tipset_at(&at, Epoch(1990)).await.unwrap_err();
    client.network(&at).await.unwrap();
    client.version().await.unwrap();
    client.miner(&at, MINER).await.unwrap();
    client.deadline(&at, MINER).await.unwrap();
    client.partitions(&at, MINER, DeadlineIndex(1)).await.unwrap();
    for kind in [RandomnessKind::SealTicket, RandomnessKind::InteractiveSeed] {
        client.randomness(&at, kind, Epoch(1100), MINER).await.unwrap();
    }
    for sector in [PROVEN, PRE_COMMITTED, ABSENT] {
        client.sector(&at, SectorId::new(MINER, sector)).await.unwrap();
    }
    client.sectors(&at, MINER, &[PROVEN, PRE_COMMITTED].into_iter().collect()).await.unwrap();
    client.balance(&"t01001".parse().unwrap()).await.unwrap();
    client.available_balance(&at, MINER).await.unwrap();
    client.miner_power(&at, MINER).await.unwrap();
    client.lookup_id(&at, &home.worker).await.unwrap();
    client.head_changes().next().await.unwrap();
}

fn calls(home: &Home) -> Vec<Call> {
    let seal = SealProofType::of(SectorSize::KiB2);
    let pre_commit = PreCommit {
        number: ABSENT,
        proof_type: seal,
        comm_r: CommR([7; 32]),
        comm_d: None,
        ticket_epoch: Epoch(1100),
        expiration: Epoch(1_000_000),
    };
    let proof = SectorProof { number: PRE_COMMITTED, proof: vec![7; 192], pieces: Vec::new() };
    vec![
        Call::PreCommit(PreCommitBatch { miner: MINER, sectors: vec![pre_commit] }),
        Call::ProveCommit(ProveCommit { miner: MINER, sectors: vec![proof], all_or_nothing: false }),
        Call::CreateMiner(CreateMiner::new(home.owner.clone(), home.worker.clone(), SectorSize::KiB2)),
    ]
}

/// Sends until all that it takes has been asked.
async fn sends(client: &Arc<LotusClient>, home: &Home, requests: &Requests) {
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let (client, cancel) = (Arc::clone(client), cancel.clone());
        async move { client.run(cancel).await }
    });
    let due = [
        "StateMinerPreCommitDepositForPower",
        "StateMinerInitialPledgeForSector",
        "StateMinerCreationDeposit",
        "GasEstimateMessageGas",
        "MpoolPush",
    ];
    let asked = |method: &str| requests.lock().iter().any(|(name, _)| name == method);
    let all = async {
        for (i, call) in calls(home).into_iter().enumerate() {
            client.submit(&SubmitKey(format!("call/{i}")), &call).await.unwrap();
            // Those that are signed together are pushed together, by another method.
            while !asked("MpoolPush") {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        while !due.iter().all(|method| asked(method)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), all).await.is_err() {
        let missing: Vec<_> = due.iter().filter(|method| !asked(method)).collect();
        panic!("not asked: {missing:?}; {:?}", client.outbox().await);
    }
    cancel.cancel();
    running.await.unwrap();
}

async fn wallet(server: &Server, home: &Home) {
    let wallet = NodeWallet::new(Arc::new(RpcClient::new(server.url.parse().unwrap()).unwrap()));
    wallet.addresses().await.unwrap();
    assert!(wallet.has(&home.worker).await.unwrap());
    // The signatures are not the key's, and are refused for that.
    let message = damocles_chain::lotus_json::from_core(&home.worker).map(|from| fvm_shared::message::Message {
        version: 0,
        from,
        to: fvm_shared::address::Address::new_id(1000),
        sequence: 3,
        value: fvm_shared::econ::TokenAmount::from_atto(7),
        method_num: 0,
        params: fvm_ipld_encoding::RawBytes::default(),
        gas_limit: 1000,
        gas_fee_cap: fvm_shared::econ::TokenAmount::from_atto(200),
        gas_premium: fvm_shared::econ::TokenAmount::from_atto(100),
    });
    wallet.sign(&home.worker, &SignRequest::message(message.unwrap())).await.unwrap_err();
    wallet.sign(&home.worker, &SignRequest::bytes(Purpose::VERIFY_ADDRESS, b"probe")).await.unwrap_err();
}

/// The first request of each method, as parameters.
pub(super) async fn all(home: &Home) -> BTreeMap<String, Value> {
    let requests: Requests = Arc::default();
    let (noted, worker) = (Arc::clone(&requests), home.worker.clone());
    let server = Server::scripted(move |method, params| {
        let mut settled = params.clone();
        settle(&mut settled);
        noted.lock().push((method.to_owned(), settled));
        if method == "StateAccountKey" {
            return Reply::result(json!(worker));
        }
        answer(method, params)
    })
    .await;
    // A sender by its ID, whose key is looked up.
    let mut config = LotusConfig::new(server.url.parse().unwrap(), Senders::all("t0101".parse().unwrap()));
    config.poll_every = Duration::from_millis(5);
    let client = LotusClient::connect(config, Arc::new(home.keys.clone()), home.database().await).await.unwrap();
    reads(&client, home).await;
    sends(&client, home, &requests).await;
    wallet(&server, home).await;
    // The same node at two places: they are compared.
    let other = format!("{}/rpc/v0", server.url);
    client_of_all(home, &[&server.url, &other]).await.check_endpoints().await;
    let mut first = BTreeMap::new();
    for (method, params) in requests.lock().drain(..).filter(|(_, params)| is_the_one(params)) {
        first.entry(method).or_insert(params);
    }
    first
}

/// Of the messages, which are sent by several lanes at once, the pre-commit is shown.
fn is_the_one(params: &Value) -> bool {
    let sent = [&params[0]["Method"], &params[0]["Message"]["Method"]].into_iter().find_map(Value::as_u64);
    sent.is_none_or(|method| method == 28)
}
