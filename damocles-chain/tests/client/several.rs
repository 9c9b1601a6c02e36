//! Several endpoints: which of them is asked, and what happens when they fail or disagree.

use crate::{
    node::FakeNode,
    server::{Reply, Server},
    setup::{Home, cid, client_of_all, tipset},
};
use damocles_chain::{
    LotusClient,
    rpc::{Endpoint, HealthState, RpcClient, RpcError, RpcOptions},
};
use damocles_core::{
    Epoch,
    chain::{ChainClient as _, ChainErrorKind, HeadChange, TipsetKey, TipsetRef},
};
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};

fn rpc_of(nodes: &[&FakeNode]) -> RpcClient {
    let endpoints: Vec<Endpoint> = nodes.iter().map(|n| n.server.url.parse().unwrap()).collect();
    let options = RpcOptions { check_every: Duration::from_secs(3600), ..RpcOptions::default() };
    RpcClient::with_endpoints(endpoints, options).unwrap()
}

fn states(rpc: &RpcClient) -> Vec<HealthState> {
    rpc.endpoints().iter().map(|e| e.state).collect()
}

async fn balance(rpc: &RpcClient) -> Result<String, damocles_core::chain::ChainError> {
    rpc.call("WalletBalance", json!(["t01000"])).await
}

#[tokio::test]
async fn a_read_goes_to_the_next_endpoint_when_one_fails_and_back_is_not_sooner_than_looked_at() {
    let (one, two) = (FakeNode::at(100).await, FakeNode::at(101).await);
    let rpc = rpc_of(&[&one, &two]);
    assert_eq!(balance(&rpc).await.unwrap(), "100");
    assert_eq!(two.calls("WalletBalance"), 0);
    one.change(|s| s.down = true);
    assert_eq!(balance(&rpc).await.unwrap(), "101");
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Away, HealthState::Ok]);
    let health = rpc.endpoints();
    assert!(health[1].preferred && !health[0].preferred);
    assert_eq!(health[1].head.as_ref().unwrap().epoch, Epoch(101));
    assert!(health[0].last_error.as_ref().unwrap().contains("<html>"), "{:?}", health[0]);
    assert_eq!(rpc.endpoint().to_string(), two.server.url);
    let asked = one.server.called.lock().len();
    balance(&rpc).await.unwrap();
    assert_eq!(one.server.called.lock().len(), asked, "who is away is not asked");
    one.change(|s| s.down = false);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Ok]);
    assert_eq!(balance(&rpc).await.unwrap(), "101", "whoever is relied on is kept");
    // What operators are shown can be stored and sent.
    let text = serde_json::to_string(&health).unwrap();
    assert_eq!(serde_json::from_str::<Vec<damocles_chain::rpc::EndpointHealth>>(&text).unwrap(), health);
}

#[tokio::test]
async fn a_refusal_is_final_and_a_missing_tipset_is_asked_for_elsewhere() {
    let (one, two) = (FakeNode::at(100).await, FakeNode::at(100).await);
    let rpc = rpc_of(&[&one, &two]);
    one.change(|s| s.refuses = vec![("WalletBalance", 1, "not enough funds")]);
    let error = balance(&rpc).await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Rejected);
    one.change(|s| s.refuses = vec![("WalletBalance", 11, "actor not found")]);
    assert_eq!(balance(&rpc).await.unwrap_err().kind(), ChainErrorKind::NotFound);
    assert_eq!(two.calls("WalletBalance"), 0);
    // The first one was restored from a snapshot.
    one.change(|s| s.oldest = 90);
    let version = async |height| rpc.call::<u32>("StateNetworkVersion", json!([[{"/": cid(height, 0)}]])).await;
    assert_eq!(version(50).await.unwrap(), 28);
    assert_eq!((one.calls("StateNetworkVersion"), two.calls("StateNetworkVersion")), (1, 1));
    assert_eq!(version(95).await.unwrap(), 28);
    assert_eq!(two.calls("StateNetworkVersion"), 1);
    let error = version(5000).await.unwrap_err();
    assert!(RpcError::of(&error).is_some_and(|e| e.message.contains("failed to load tipset")), "{}", error.chain());
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Ok], "they are well all the same");
}

#[tokio::test]
async fn a_node_that_lags_is_not_used_for_decisions() {
    let (one, two) = (FakeNode::at(80).await, FakeNode::at(100).await);
    let rpc = rpc_of(&[&one, &two]);
    assert_eq!(balance(&rpc).await.unwrap(), "100");
    assert_eq!(states(&rpc), [HealthState::Lagging, HealthState::Ok]);
    assert!(rpc.endpoints()[0].reason.as_ref().unwrap().contains("20 epochs behind"));
    assert_eq!(one.calls("WalletBalance"), 0);
    // It is not even the last resort.
    two.change(|s| s.refuses = vec![("WalletBalance", 1, "node is syncing")]);
    assert_eq!(balance(&rpc).await.unwrap_err().kind(), ChainErrorKind::Unavailable);
    assert_eq!(one.calls("WalletBalance"), 0);
    one.change(|s| s.head = 98);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Ok]);
    assert_eq!(balance(&rpc).await.unwrap(), "98", "now it is");
}

#[tokio::test]
async fn of_forks_the_majority_is_used_and_without_one_the_heavier() {
    let nodes = [FakeNode::at(2000).await, FakeNode::at(100).await, FakeNode::at(101).await];
    nodes[0].change(|s| (s.fork, s.weight) = ((7, 50), 9_000_000));
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    assert_eq!(balance(&rpc).await.unwrap(), "100");
    assert_eq!(states(&rpc), [HealthState::Forked, HealthState::Ok, HealthState::Ok]);
    assert!(nodes.iter().all(|n| n.calls("ChainTipSetWeight") == 0), "a majority needs no weights");

    let (light, heavy) = (FakeNode::at(100).await, FakeNode::at(100).await);
    heavy.change(|s| (s.fork, s.weight) = ((7, 50), 101));
    let rpc = rpc_of(&[&light, &heavy]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Forked, HealthState::Ok]);
    let reason = rpc.endpoints()[0].reason.clone().unwrap();
    assert!(reason.contains("without a majority") && reason.contains("heavier"), "{reason}");
    // Near the tip they may differ.
    heavy.change(|s| s.fork = (7, 95));
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Ok]);
}

#[tokio::test]
async fn another_network_is_refused_by_name_and_by_genesis() {
    let nodes = [FakeNode::at(100).await, FakeNode::at(100).await, FakeNode::at(100).await];
    nodes[1].change(|s| s.network = "mainnet");
    nodes[2].change(|s| s.genesis = 3);
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Refused, HealthState::Refused]);
    let reason = |i: usize| rpc.endpoints()[i].reason.clone().unwrap();
    assert!(reason(1).contains("`mainnet`") && reason(1).contains("`devnet-test`"), "{}", reason(1));
    assert!(reason(2).contains("genesis"), "{}", reason(2));
    // Not even when there is nobody else.
    nodes[0].change(|s| s.down = true);
    rpc.check_endpoints().await;
    let error = balance(&rpc).await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("is away") && text.contains("is refused") && error.hint().is_some(), "{text}");
    assert!(nodes[1..].iter().all(|n| n.calls("WalletBalance") == 0));
    // A node is looked at again after it was away: it may have come back as something else.
    nodes[0].change(|s| (s.down, s.network) = (false, "calibrationnet"));
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc)[0], HealthState::Refused);
}

#[tokio::test]
async fn a_first_endpoint_that_told_another_network_once_refuses_nobody_for_ever() {
    let nodes = [FakeNode::at(100).await, FakeNode::at(100).await, FakeNode::at(100).await];
    nodes[0].change(|s| s.network = "mainnet");
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Refused, HealthState::Ok, HealthState::Ok], "the majority is right");
    let rpc = rpc_of(&[&nodes[0], &nodes[1]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Refused], "of two, the first");
    nodes[0].change(|s| s.network = "devnet-test");
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Ok]);
}

#[tokio::test]
async fn that_one_endpoint_lacks_a_tipset_says_nothing_of_another_that_does_not_answer() {
    let (one, two) = (FakeNode::at(101).await, FakeNode::at(100).await);
    let rpc = rpc_of(&[&one, &two]);
    rpc.check_endpoints().await;
    one.change(|s| s.down = true);
    let error = rpc.call::<Value>("ChainGetTipSet", json!([[{"/": cid(101, 0)}]])).await.unwrap_err();
    assert_ne!(error.kind(), ChainErrorKind::NotFound, "{}", error.chain());
    assert_eq!(two.calls("ChainGetTipSet"), 1);
}

#[tokio::test]
async fn messages_go_to_all_that_can_be_relied_on() {
    let nodes = [FakeNode::at(100).await, FakeNode::at(100).await, FakeNode::at(10).await];
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    let push = async || rpc.call::<Value>("MpoolPush", json!([{"Message": 1}])).await;
    push().await.unwrap();
    let pushed = || nodes.iter().map(|n| n.calls("MpoolPush")).collect::<Vec<_>>();
    assert_eq!(pushed(), [1, 1, 0], "the one that lags has no say in it");
    // The first one's word counts, as its pool and nonces do.
    nodes[0].change(|s| s.refuses = vec![("MpoolPush", 1, "minimum expected nonce is 7")]);
    let error = push().await.unwrap_err();
    assert!(error.chain().contains("minimum expected nonce"), "{}", error.chain());
    nodes[0].change(|s| s.down = true);
    push().await.unwrap();
    assert_eq!(pushed(), [3, 3, 0]);
    // What could be done twice goes to one alone.
    let nodes = [FakeNode::at(100).await, FakeNode::at(100).await];
    let rpc = rpc_of(&[&nodes[0], &nodes[1]]);
    rpc.check_endpoints().await;
    nodes[0].change(|s| s.down = true);
    rpc.call::<Value>("MpoolPushMessage", json!([{}, null])).await.unwrap_err();
    assert_eq!(nodes[1].calls("MpoolPushMessage"), 0);
}

#[tokio::test]
async fn forks_are_told_apart_beside_a_node_that_lags() {
    let nodes = [FakeNode::at(1000).await, FakeNode::at(100).await, FakeNode::at(1000).await];
    nodes[2].change(|s| (s.fork, s.weight) = ((7, 500), 999));
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Lagging, HealthState::Forked]);
    assert_eq!(nodes[1].calls("ChainGetTipSetByHeight"), 0, "its chain decides nothing");
    nodes[2].change(|s| s.weight = 1001);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Forked, HealthState::Lagging, HealthState::Ok]);
    assert_eq!(balance(&rpc).await.unwrap(), "1000");
}

#[tokio::test]
async fn a_node_that_syncs_from_the_genesis_takes_nobody_out() {
    let nodes = [FakeNode::at(100).await, FakeNode::at(1000).await, FakeNode::at(999).await];
    // The others were restored from a snapshot and know nothing of its epochs.
    nodes[1..].iter().for_each(|node| node.change(|s| s.oldest = 900));
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    assert_eq!(balance(&rpc).await.unwrap(), "1000");
    assert_eq!(states(&rpc), [HealthState::Lagging, HealthState::Ok, HealthState::Ok]);
    let rpc = rpc_of(&[&nodes[0], &nodes[1]]);
    assert_eq!(balance(&rpc).await.unwrap(), "1000");
    assert_eq!(states(&rpc), [HealthState::Lagging, HealthState::Ok]);
}

#[tokio::test]
async fn a_head_that_nobody_bears_out_makes_nobody_lag() {
    let nodes = [FakeNode::at(1000).await, FakeNode::at(1000).await, FakeNode::at(999).await];
    nodes[0].change(|s| s.says = vec![("ChainHead", tipset(1_000_000_000, 0, (999_999_999, 0)))]);
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Forked, HealthState::Ok, HealthState::Ok]);
    assert!(rpc.endpoints()[0].reason.as_ref().unwrap().contains("ahead"));
    let rpc = rpc_of(&[&nodes[0], &nodes[1]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Forked, HealthState::Ok]);
    assert!(rpc.endpoints()[0].reason.as_ref().unwrap().contains("does not show the chain"));
    assert!(rpc.endpoints()[1].preferred);
}

#[tokio::test]
async fn a_head_told_between_two_comparisons_makes_nothing_final() {
    let (one, two) = (FakeNode::at(1000).await, FakeNode::at(1000).await);
    let rpc = rpc_of(&[&one, &two]);
    rpc.check_endpoints().await;
    one.change(|s| s.says = vec![("ChainHead", tipset(1_000_000_000, 0, (999_999_999, 0)))]);
    rpc.call::<Value>("ChainHead", json!([])).await.unwrap();
    for height in [104, 106] {
        rpc.call::<Value>("ChainGetTipSet", json!([[{"/": cid(height, 0)}]])).await.unwrap();
    }
    let version = async |height| rpc.call::<u32>("StateNetworkVersion", json!([[{"/": cid(height, 0)}]])).await;
    for _ in 0..2 {
        version(106).await.unwrap();
    }
    assert_eq!(one.calls("StateNetworkVersion"), 2, "not final for what both agree on");
    for _ in 0..2 {
        version(104).await.unwrap();
    }
    assert_eq!(one.calls("StateNetworkVersion"), 3);
}

#[tokio::test]
async fn who_lacks_what_is_compared_is_not_away_and_takes_nobody_along() {
    let nodes = [FakeNode::at(100).await, FakeNode::at(100).await, FakeNode::at(101).await];
    nodes[0].change(|s| s.refuses = vec![("ChainGetTipSetByHeight", 1, "tipset at epoch 80 not found")]);
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Forked, HealthState::Ok, HealthState::Ok]);
    assert!(rpc.endpoints()[0].reason.as_ref().unwrap().contains("does not tell"));
    nodes[2].change(|s| s.fork = (7, 50));
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc)[0], HealthState::Forked, "it is no majority with anybody");
    assert_eq!(states(&rpc).iter().filter(|s| **s == HealthState::Ok).count(), 1);
}

#[tokio::test]
async fn what_a_node_serves_is_asked_for_every_time() {
    let nodes = [FakeNode::at(100).await, FakeNode::at(100).await, FakeNode::at(100).await];
    nodes[0].change(|s| s.refuses = vec![("ChainGetGenesis", 1, "no genesis here")]);
    nodes[2].change(|s| s.genesis = 3);
    let rpc = rpc_of(&[&nodes[0], &nodes[1], &nodes[2]]);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Ok, HealthState::Refused], "the genesis was learned late");
    nodes[1].change(|s| s.network = "calibrationnet");
    nodes[2].change(|s| s.genesis = 0);
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok, HealthState::Refused, HealthState::Ok]);
    nodes[1].change(|s| s.network = "devnet-test");
    rpc.check_endpoints().await;
    assert_eq!(states(&rpc), [HealthState::Ok; 3]);
}

#[tokio::test]
async fn what_one_endpoint_does_not_offer_is_asked_of_the_next() {
    let (one, two) = (FakeNode::at(100).await, FakeNode::at(101).await);
    let rpc = rpc_of(&[&one, &two]);
    for (code, words) in [(-32601, "method not found"), (1, "missing permission to invoke 'x' (need 'write')")] {
        one.change(|s| s.refuses = vec![("WalletBalance", code, words), ("MpoolPush", code, words)]);
        assert_eq!(balance(&rpc).await.unwrap(), "101", "{words}");
        let pushed = two.calls("MpoolPush");
        rpc.call::<Value>("MpoolPush", json!([{"Message": 1}])).await.unwrap();
        assert_eq!(two.calls("MpoolPush"), pushed + 1);
    }
    // What is refused for good is what is told.
    two.change(|s| s.refuses = vec![("WalletBalance", 1, "not enough funds")]);
    let error = balance(&rpc).await.unwrap_err();
    assert!(error.chain().contains("not enough funds"), "{}", error.chain());
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_kept() {
    let node = FakeNode::at(1000).await;
    let rpc = rpc_of(&[&node]);
    rpc.call::<Value>("ChainHead", json!([])).await.unwrap();
    rpc.call::<Value>("ChainGetTipSet", json!([[{"/": cid(50, 0)}]])).await.unwrap();
    let params = || json!([[{"/": cid(50, 0)}]]);
    let version = async || rpc.call::<u32>("StateNetworkVersion", params()).await;
    node.change(|s| s.says = vec![("StateNetworkVersion", json!("<html>"))]);
    assert_eq!(version().await.unwrap_err().kind(), ChainErrorKind::Malformed);
    // Who asks for an answer as it is gets it as it is.
    rpc.raw("Filecoin.StateNetworkVersion", params()).await.unwrap();
    assert_eq!(version().await.unwrap_err().kind(), ChainErrorKind::Malformed);
    node.change(|s| s.says.clear());
    for _ in 0..3 {
        assert_eq!(version().await.unwrap(), 28);
    }
    assert_eq!(node.calls("StateNetworkVersion"), 3, "and what can be read is");
}

/// What a subscriber was told, as signs and epochs.
async fn told(
    client: &LotusClient,
    until: impl Fn(&[(char, i64)]) -> bool,
    mut step: impl FnMut(usize),
) -> Vec<(char, i64)> {
    let mut changes = client.head_changes();
    let mut told = Vec::new();
    while !until(&told) {
        told.push(match changes.next().await.unwrap() {
            HeadChange::Apply(t) => ('+', t.epoch.0),
            HeadChange::Revert(t) => ('-', t.epoch.0),
        });
        step(told.len());
    }
    told
}

#[tokio::test]
async fn heads_move_to_another_endpoint_and_none_is_lost_or_told_twice() {
    let home = Home::new();
    let (one, two) = (FakeNode::at(100).await, FakeNode::at(99).await);
    let client = client_of_all(&home, &[&one.server.url, &two.server.url]).await;
    let told = told(
        &client,
        |told| told.last() == Some(&('+', 103)),
        |n| match n {
            1 => one.change(|s| s.head = 102),
            // It dies with two tipsets that the other has yet to see, and the other goes on.
            3 => {
                one.change(|s| s.down = true);
                two.change(|s| s.head = 101);
            }
            _ => {}
        },
    );
    let on = async {
        // The other one is followed, and nothing is told of it being behind.
        while two.calls("ChainHead") < 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        two.change(|s| s.head = 103);
    };
    let (told, ()) = tokio::join!(told, on);
    assert_eq!(told, [('+', 100), ('+', 101), ('+', 102), ('+', 103)]);
}

#[tokio::test]
async fn an_old_answer_of_the_same_node_is_doubted_and_believed_when_repeated() {
    let home = Home::new();
    let answers = Mutex::new(VecDeque::from([100, 101, 100, 101, 102, 101, 103, 102, 104, 101]));
    let server = Server::scripted(move |method, params| match method {
        "ChainHead" => {
            let mut answers = answers.lock();
            let head = *answers.front().unwrap();
            if answers.len() > 1 {
                answers.pop_front();
            }
            Reply::result(tipset(head, 0, (head - 1, 0)))
        }
        "ChainGetTipSet" => {
            let known = (90..105).map(|height| tipset(height, 0, (height - 1, 0)));
            let found = known.into_iter().find(|t| t["Cids"] == params[0]);
            found.map_or_else(|| Reply::error(1, "not found"), Reply::result)
        }
        other => Reply::error(-32601, other),
    })
    .await;
    let client = home.client(&server.url).await;
    let told = told(&client, |told| told.last() == Some(&('-', 102)), |_| {}).await;
    let (up, down): (Vec<_>, Vec<_>) = told.into_iter().partition(|(sign, _)| *sign == '+');
    assert_eq!(up.last(), Some(&('+', 104)));
    assert_eq!(down, [('-', 104), ('-', 103), ('-', 102)], "set back for good");
}

fn at(epoch: i64) -> TipsetRef {
    TipsetRef { epoch: Epoch(epoch), key: TipsetKey(vec![cid(epoch, 0).parse().unwrap()]) }
}

#[tokio::test]
async fn only_final_answers_are_remembered_and_a_reorganised_one_is_never_given() {
    let home = Home::new();
    let node = FakeNode::at(1000).await;
    let client = home.client(&node.server.url).await;
    let by_height = async |epoch: i64, key: Value| {
        let tipset = client.raw("Filecoin.ChainGetTipSetByHeight", json!([epoch, key])).await.unwrap();
        tipset["Cids"][0]["/"].as_str().unwrap().to_owned()
    };
    let calls = || node.calls("ChainGetTipSetByHeight");
    client.head().await.unwrap();
    // At the head, whatever the epoch: each is asked for, and each is another one after a reorganisation.
    assert_eq!(by_height(50, json!([])).await, cid(50, 0));
    assert_eq!(by_height(950, json!([])).await, cid(950, 0));
    assert_eq!(calls(), 2);
    node.change(|s| s.fork = (7, 40));
    assert_eq!(by_height(50, json!([])).await, cid(50, 7));
    assert_eq!(by_height(950, json!([])).await, cid(950, 7));
    node.change(|s| s.fork = (0, 0));
    // Under a name: as long as it is not final it is asked for.
    for epoch in [100, 101] {
        client.tipset(&at(epoch).key).await.unwrap();
    }
    let asked = calls();
    for _ in 0..3 {
        by_height(60, json!([{"/": cid(101, 0)}])).await;
    }
    assert_eq!(calls(), asked + 3, "one epoch above what is final");
    for _ in 0..3 {
        assert_eq!(by_height(60, json!([{"/": cid(100, 0)}])).await, cid(60, 0));
    }
    assert_eq!(calls(), asked + 4);
    assert_eq!(client.metrics().cached.get("Filecoin.ChainGetTipSetByHeight"), Some(&2));
    // The head falls back, and with it what is final. What was kept is not given any more, and the node is asked.
    node.change(|s| (s.head, s.fork) = (999, (7, 90)));
    client.head().await.unwrap();
    let error = client.raw("Filecoin.ChainGetTipSetByHeight", json!([60, [{"/": cid(100, 0)}]])).await.unwrap_err();
    assert!(error.chain().contains("failed to load tipset"), "{}", error.chain());
    assert_eq!(calls(), asked + 5);
}

#[tokio::test]
async fn calls_are_counted() {
    let home = Home::new();
    let (one, two) = (FakeNode::at(100).await, FakeNode::at(100).await);
    let client = client_of_all(&home, &[&one.server.url, &two.server.url]).await;
    client.head().await.unwrap();
    one.change(|s| s.refuses = vec![("WalletBalance", 11, "actor not found")]);
    client.balance(&home.owner).await.unwrap_err();
    one.change(|s| s.down = true);
    client.balance(&home.owner).await.unwrap();
    let metrics = client.metrics();
    let [first, second] = metrics.endpoints.as_slice() else { panic!("two endpoints") };
    assert_eq!((&first.endpoint, &second.endpoint), (&one.server.url, &two.server.url));
    let balance = &first.methods["Filecoin.WalletBalance"];
    assert_eq!(balance.calls, 2);
    assert_eq!(
        balance.errors.iter().map(|(k, n)| (k.as_str(), *n)).collect::<Vec<_>>(),
        [("malformed", 1), ("not found", 1)]
    );
    let balance = &second.methods["Filecoin.WalletBalance"];
    assert_eq!((balance.calls, balance.errors.len()), (1, 0));
    assert!(balance.bytes > 20 && balance.total_micros >= balance.longest_micros);
    assert!(first.methods["Filecoin.ChainHead"].calls >= 2, "the comparison counts as well");
    let text = serde_json::to_string(&metrics).unwrap();
    assert_eq!(serde_json::from_str::<damocles_chain::rpc::RpcMetrics>(&text).unwrap(), metrics);
}

#[tokio::test]
async fn a_client_wants_an_endpoint_and_shows_no_token() {
    let error = RpcClient::with_endpoints(Vec::new(), RpcOptions::default()).unwrap_err();
    assert!(error.hint().is_some());
    let node = FakeNode::at(100).await;
    let list = format!("s3cret.one:{},s3cret.two:http://127.0.0.1:1", node.server.url);
    let rpc = RpcClient::with_endpoints(Endpoint::parse_list(&list).unwrap(), RpcOptions::default()).unwrap();
    balance(&rpc).await.unwrap();
    let shown = format!("{rpc:?} {:?} {:?}", rpc.endpoints(), rpc.metrics());
    assert!(!shown.contains("s3cret"), "{shown}");
    assert_eq!(node.server.tokens.lock()[0], "Bearer s3cret.one");
}
