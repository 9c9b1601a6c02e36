//! Lotus' JSON-RPC, as texts.

use crate::harness::Net;
use damocles_chain::{
    devnet::DevnetRpc,
    lotus_json::{HeadChange, HeadChangeKind, InvocResult, MinerInfo, MsgLookup, TipSet},
};
use damocles_core::CancellationToken;
use futures::{SinkExt, StreamExt, channel::mpsc};
use fvm_shared::econ::TokenAmount;
use serde_json::{Value, from_value, json};
use std::sync::Arc;

async fn ask(rpc: &DevnetRpc, method: &str, params: Value) -> Value {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    serde_json::from_str(&rpc.handle(&request.to_string()).await.unwrap()).unwrap()
}

#[tokio::test]
async fn requests_are_answered_in_lotus_form() {
    let net = Net::with_miner();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    let head: TipSet = from_value(ask(&rpc, "Filecoin.ChainHead", json!([])).await["result"].clone()).unwrap();
    assert_eq!(head.to_ref(), net.devnet.head());
    net.devnet.mine(1).unwrap();
    let info: MinerInfo =
        from_value(ask(&rpc, "Filecoin.StateMinerInfo", json!([net.miner.to_string(), null])).await["result"].clone())
            .unwrap();
    assert_eq!((info.sector_size, info.window_post_proof_type), (2048, 10));
    assert_eq!(ask(&rpc, "Filecoin.StateNetworkVersion", json!([[]])).await["result"], 28);
    let params = ask(&rpc, "Filecoin.StateGetNetworkParams", json!([])).await["result"].clone();
    assert_eq!((params["PreCommitChallengeDelay"].clone(), params["BlockDelaySecs"].clone()), (json!(10), json!(1)));

    let unknown = ask(&rpc, "Filecoin.Nonsense", json!([])).await;
    assert_eq!(unknown["error"]["code"], -32601);
    let nobody = ask(&rpc, "Filecoin.StateGetActor", json!(["t09999", []])).await;
    assert_eq!(nobody["error"]["code"], 11);
    assert!(nobody["error"]["message"].as_str().unwrap().contains("actor not found"));
    for rubbish in [json!([{"a": 1}, 3]), json!({"a": 1}), json!([[], [], []]), json!(["t01", -4, "x", 7])] {
        for method in ["Filecoin.StateMinerInfo", "Filecoin.StateGetRandomnessFromTickets", "Filecoin.MpoolPush"] {
            assert!(ask(&rpc, method, rubbish.clone()).await["error"].is_object(), "{method} {rubbish}");
        }
    }
    let broken = rpc.handle("{nonsense").await.unwrap();
    assert!(broken.contains("-32700"), "{broken}");
}

#[tokio::test]
async fn randomness_of_the_future_is_refused_and_null_rounds_have_some() {
    let net = Net::with_miner();
    net.devnet.grow_to(net.epoch() + 40).unwrap();
    let top = net.epoch();
    let draw = |epoch: i64| net.try_call("StateGetRandomnessFromTickets", json!([5, epoch, "AA==", []]));
    let (a, b) = (draw(top - 10).unwrap(), draw(top - 11).unwrap());
    assert_ne!(a, b, "each null round draws its own, from the same ticket");
    let digest = |epoch: i64| net.call("StateGetRandomnessDigestFromTickets", json!([epoch, []]));
    assert_eq!(digest(top - 10), digest(top - 11));
    assert_ne!(digest(top - 10), digest(top));
    let future = draw(top + 1).unwrap_err();
    assert!(future["message"].as_str().unwrap().contains("randomness from the future"));

    let at = |method: &str, epoch: i64| net.call(method, json!([epoch, []]))["Height"].as_i64().unwrap();
    assert_eq!(at("ChainGetTipSetByHeight", top - 10), top - 40);
    assert_eq!(at("ChainGetTipSetAfterHeight", top - 10), top);
}

#[tokio::test]
async fn a_message_is_estimated_pushed_awaited_and_replayed() {
    let net = Net::with_miner();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    let draft = json!({
        "Version": 0, "To": net.miner.to_string(), "From": net.worker.address().to_string(), "Nonce": 0, "Value": "0",
        "GasLimit": 0, "GasFeeCap": "0", "GasPremium": "0", "Method": 0, "Params": null
    });
    let estimated = net.call("GasEstimateMessageGas", json!([draft, null, []]));
    assert!(estimated["GasLimit"].as_u64().unwrap() > 0);
    let mut message = net.message(&net.worker, net.miner, 0, &(), TokenAmount::default());
    // Another method than the one that was estimated.
    message.gas_limit = 2 * estimated["GasLimit"].as_u64().unwrap();
    message.method_num = 77;
    let signed = damocles_chain::lotus_json::SignedMessage::from(net.worker.sign(message));
    let cid = net.call("MpoolPush", json!([serde_json::to_value(&signed).unwrap()]));
    assert_eq!(net.call("MpoolPending", json!([[]])).as_array().unwrap().len(), 1);

    let waiting = {
        let (rpc, cid) = (rpc.clone(), cid.clone());
        tokio::spawn(async move { ask(&rpc, "Filecoin.StateWaitMsg", json!([cid, 1, -1, true])).await })
    };
    net.devnet.mine(1).unwrap();
    assert!(
        net.call("StateSearchMsg", json!([[], cid, -1, true])).is_null(),
        "the head's messages have no receipt yet"
    );
    net.devnet.mine(2).unwrap();
    let found: MsgLookup = from_value(waiting.await.unwrap()["result"].clone()).unwrap();
    assert_eq!(found.receipt.exit_code, 22);
    assert_eq!(found.height, net.epoch() - 1);
    let replayed: InvocResult = from_value(net.call("StateReplay", json!([[], cid]))).unwrap();
    assert!(replayed.error.contains("invalid method: 77"), "{}", replayed.error);
    let block = found.tip_set[0];
    let receipts = net.call("ChainGetParentReceipts", json!([{"/": block.to_string()}]));
    assert_eq!(receipts[0]["ExitCode"], 22);
    let messages = net.call("ChainGetParentMessages", json!([{"/": block.to_string()}]));
    assert_eq!(messages[0]["Cid"], cid);
    let landed = net.devnet.call("Devnet.Messages", json!([net.miner.to_string()])).unwrap();
    assert_eq!((landed[0]["Method"].clone(), landed[0]["ExitCode"].clone()), (json!(77), json!(22)));
}

#[tokio::test]
async fn heads_come_over_a_channel() {
    let net = Net::bare();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    let (mut send, incoming) = mpsc::unbounded::<String>();
    let (outgoing, mut receive) = mpsc::unbounded::<String>();
    let served = {
        let rpc = rpc.clone();
        tokio::spawn(async move { rpc.serve_ws(incoming, outgoing).await })
    };
    send.send(json!({"jsonrpc": "2.0", "id": 5, "method": "Filecoin.ChainNotify", "params": []}).to_string())
        .await
        .unwrap();
    let mut next = async || serde_json::from_str::<Value>(&receive.next().await.unwrap()).unwrap();
    let opened = next().await;
    assert_eq!((opened["id"].clone(), opened["result"].clone()), (json!(5), json!(1)));
    let change = |value: &Value| {
        assert_eq!((value["method"].clone(), value["params"][0].clone()), (json!("xrpc.ch.val"), json!(1)));
        from_value::<HeadChange>(value["params"][1][0].clone()).unwrap()
    };
    let current = change(&next().await);
    assert_eq!(current.kind, HeadChangeKind::Current);
    assert_eq!(current.val.to_ref(), net.devnet.head());
    net.devnet.mine(2).unwrap();
    for ahead in 1..=2 {
        let applied = change(&next().await);
        assert_eq!((applied.kind, applied.val.height), (HeadChangeKind::Apply, current.val.height + ahead));
    }
    send.send(json!({"jsonrpc": "2.0", "id": 6, "method": "Filecoin.ChainHead", "params": []}).to_string())
        .await
        .unwrap();
    assert_eq!(next().await["id"], 6);
    send.send(json!({"jsonrpc": "2.0", "method": "xrpc.cancel", "params": [5]}).to_string()).await.unwrap();
    assert_eq!(next().await, json!({"jsonrpc": "2.0", "method": "xrpc.ch.close", "params": [1]}));
    drop(send);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_clock_mines_until_it_is_paused() {
    let net = Net::bare();
    let rpc = DevnetRpc::new(Arc::clone(&net.devnet));
    let cancel = CancellationToken::new();
    let clock = tokio::spawn(Arc::clone(&net.devnet).run(cancel.clone()));
    let start = net.epoch();
    let send = net.message(&net.owner, net.worker.address(), 0, &(), TokenAmount::from_whole(1));
    let cid = net.push(&net.owner, send).unwrap();
    let waited = ask(&rpc, "Filecoin.StateWaitMsg", json!([{"/": cid.to_string()}, 1, -1, true])).await;
    assert_eq!(waited["result"]["Receipt"]["ExitCode"], 0);
    let paused = ask(&rpc, "Devnet.Pause", json!([])).await["result"].as_i64().unwrap();
    assert!(paused > start);
    assert_eq!(ask(&rpc, "Devnet.Mine", json!([3])).await["result"], paused + 3);
    let info = ask(&rpc, "Devnet.Info", json!([])).await["result"].clone();
    assert_eq!((info["Paused"].clone(), info["Proofs"].clone()), (json!(true), json!("fake")));
    ask(&rpc, "Devnet.Resume", json!([])).await;
    cancel.cancel();
    clock.await.unwrap().unwrap();
}
