//! Faults of the RPC on command.

use crate::harness::Net;
use damocles_chain::devnet::DevnetRpc;
use futures::{SinkExt, StreamExt, channel::mpsc};
use fvm_shared::econ::TokenAmount;
use serde_json::{Value, json};
use std::sync::Arc;

async fn ask(rpc: &DevnetRpc, method: &str, params: Value) -> Option<String> {
    rpc.handle(&json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()).await
}

async fn result(rpc: &DevnetRpc, method: &str, params: Value) -> Value {
    serde_json::from_str::<Value>(&ask(rpc, method, params).await.unwrap()).unwrap()["result"].clone()
}

async fn inflict(rpc: &DevnetRpc, rules: Value) {
    let answer = ask(rpc, "Devnet.Faults", json!([{"Seed": 11, "Rules": rules}])).await.unwrap();
    assert!(answer.contains("\"Rules\""), "{answer}");
}

fn push_params(net: &Net, nonce: u64) -> Value {
    let mut message = net.message(&net.owner, net.worker.address(), 0, &(), TokenAmount::from_atto(1));
    message.sequence = nonce;
    let signed = damocles_chain::lotus_json::SignedMessage::from(net.owner.sign(message));
    json!([signed])
}

fn pending(net: &Net) -> usize {
    net.call("MpoolPending", json!([[]])).as_array().unwrap().len()
}

#[tokio::test]
async fn requests_and_answers_are_lost_and_doubled() {
    let net = Net::bare();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    inflict(&rpc, json!([{"Method": "Filecoin.MpoolPush", "Kind": "DropRequest", "Times": 1}])).await;
    assert_eq!(ask(&rpc, "Filecoin.MpoolPush", push_params(&net, 0)).await, None);
    assert_eq!(pending(&net), 0, "it never arrived");
    inflict(&rpc, json!([{"Method": "Filecoin.MpoolPush", "Kind": "DropAnswer", "Times": 1}])).await;
    assert_eq!(ask(&rpc, "Filecoin.MpoolPush", push_params(&net, 0)).await, None);
    assert_eq!(pending(&net), 1, "it arrived all the same");
    let again = ask(&rpc, "Filecoin.MpoolPush", push_params(&net, 0)).await.unwrap();
    assert!(again.contains("already in mpool"), "{again}");
    inflict(&rpc, json!([{"Method": "Filecoin.MpoolPush", "Kind": "DuplicateRequest"}])).await;
    assert!(ask(&rpc, "Filecoin.MpoolPush", push_params(&net, 1)).await.unwrap().contains("result"));
    assert_eq!(pending(&net), 2);
    inflict(&rpc, json!([{"Method": "*", "Kind": {"DelayAnswer": {"Millis": 5, "Jitter": 5}}}])).await;
    assert_eq!(result(&rpc, "Filecoin.StateNetworkVersion", json!([[]])).await, 28);
    inflict(&rpc, json!([])).await;
}

#[tokio::test]
async fn answers_are_stale_wrong_null_and_rubbish() {
    let net = Net::with_miner();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    net.devnet.mine(5).unwrap();
    inflict(&rpc, json!([{"Method": "Filecoin.ChainHead", "Kind": {"Stale": 3}}])).await;
    assert_eq!(result(&rpc, "Filecoin.ChainHead", json!([])).await["Height"], net.epoch() - 3);
    inflict(&rpc, json!([{"Method": "Filecoin.StateMinerProvingDeadline", "Kind": {"Stale": 3}}])).await;
    let stale = result(&rpc, "Filecoin.StateMinerProvingDeadline", json!([net.miner.to_string(), []])).await;
    assert_eq!(stale["CurrentEpoch"], net.epoch() - 3);
    let from = json!([net.owner.address().to_string()]);
    inflict(&rpc, json!([{"Method": "Filecoin.MpoolGetNonce", "Kind": {"Offset": 4}}])).await;
    assert_eq!(result(&rpc, "Filecoin.MpoolGetNonce", from.clone()).await, 5);
    inflict(&rpc, json!([{"Method": "*", "Kind": "Null"}])).await;
    assert!(result(&rpc, "Filecoin.MpoolGetNonce", from.clone()).await.is_null());
    inflict(&rpc, json!([{"Method": "*", "Kind": {"Error": {"Code": 1, "Message": "busy"}}}])).await;
    assert!(ask(&rpc, "Filecoin.MpoolGetNonce", from.clone()).await.unwrap().contains("busy"));
    inflict(&rpc, json!([{"Method": "*", "Kind": {"Garbage": "<html>502</html>"}}])).await;
    assert_eq!(ask(&rpc, "Filecoin.MpoolGetNonce", from.clone()).await.unwrap(), "<html>502</html>");
    let report = result(&rpc, "Devnet.Faults", json!([])).await;
    assert_eq!((report["Seed"].clone(), report["Rules"][0]["Hit"].clone()), (json!(11), json!(1)));
    inflict(&rpc, json!([])).await;
    assert_eq!(result(&rpc, "Filecoin.MpoolGetNonce", from).await, 1);
}

/// The same seed and the same requests meet the same faults; another seed others.
#[tokio::test]
async fn a_seed_repeats_a_run() {
    let run = async |seed: u64| {
        let net = Net::bare();
        let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
        let rules = json!([
            {"Method": "Filecoin.MpoolPush", "Kind": "DropRequest", "PerMille": 300},
            {"Method": "Filecoin.MpoolPush", "Kind": "DropAnswer", "PerMille": 300},
            {"Method": "*", "Kind": "DuplicateRequest", "PerMille": 200},
        ]);
        ask(&rpc, "Devnet.Faults", json!([{"Seed": seed, "Rules": rules}])).await.unwrap();
        let mut answers = Vec::new();
        for nonce in 0..40 {
            answers.push(ask(&rpc, "Filecoin.MpoolPush", push_params(&net, nonce)).await);
            net.devnet.mine(1).unwrap();
        }
        (answers, net.devnet.head())
    };
    let once = run(3).await;
    assert_eq!(once, run(3).await);
    assert_ne!(once.0, run(4).await.0);
}

#[tokio::test]
async fn only_those_at_hand_may_make_it_misbehave() {
    let net = Net::bare();
    let rpc = DevnetRpc::public(Arc::clone(&net.devnet));
    for method in ["Devnet.Faults", "Devnet.Fork", "Devnet.BaseFee", "Devnet.Pace", "Devnet.Snapshot"] {
        let answer = ask(&rpc, method, json!([])).await.unwrap();
        assert!(answer.contains("-32601"), "{method}: {answer}");
    }
    assert!(ask(&rpc, "Devnet.Info", json!([])).await.unwrap().contains("BaseFee"));
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    for (method, params) in [
        ("Devnet.Faults", json!([{"Rules": [{"Method": 4}]}])),
        ("Devnet.Faults", json!([7])),
        ("Devnet.Fork", json!([{"Depth": -1}])),
        ("Devnet.Fork", json!([])),
        ("Devnet.Pace", json!([0])),
        ("Devnet.Pace", json!(["fast"])),
        ("Devnet.Snapshot", json!(["relative"])),
        ("Devnet.Snapshot", json!([5])),
    ] {
        let answer = ask(&rpc, method, params.clone()).await.unwrap();
        assert!(answer.contains("\"error\""), "{method} {params}: {answer}");
    }
    assert_eq!(result(&rpc, "Devnet.Pace", json!([25])).await, 25);
    assert_eq!(result(&rpc, "Devnet.Info", json!([])).await["EpochMillis"], 25);
}

#[tokio::test]
async fn news_of_the_head_come_twice_or_not_at_all() {
    let net = Net::bare();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    let (mut send, incoming) = mpsc::unbounded::<String>();
    let (outgoing, mut receive) = mpsc::unbounded::<String>();
    let serving = rpc.clone();
    tokio::spawn(async move { serving.serve_ws(incoming, outgoing).await });
    send.send(json!({"jsonrpc": "2.0", "id": 5, "method": "Filecoin.ChainNotify", "params": []}).to_string())
        .await
        .unwrap();
    let mut next = async || serde_json::from_str::<Value>(&receive.next().await.unwrap()).unwrap();
    assert_eq!(next().await["result"], 1);
    let first = next().await["params"][1][0]["Val"]["Height"].as_i64().unwrap();
    inflict(
        &rpc,
        json!([
            {"Method": "xrpc.ch.val", "Kind": "DropAnswer", "Times": 1},
            {"Method": "xrpc.ch.val", "Kind": "DuplicateAnswer", "Skip": 1},
        ]),
    )
    .await;
    net.devnet.mine(2).unwrap();
    for _ in 0..2 {
        assert_eq!(next().await["params"][1][0]["Val"]["Height"], first + 2, "the first is lost, the second doubled");
    }
    inflict(&rpc, json!([{"Method": "Filecoin.ChainHead", "Kind": "DuplicateAnswer"}])).await;
    send.send(json!({"jsonrpc": "2.0", "id": 9, "method": "Filecoin.ChainHead", "params": []}).to_string())
        .await
        .unwrap();
    assert_eq!((next().await["id"].clone(), next().await["id"].clone()), (json!(9), json!(9)));
}
