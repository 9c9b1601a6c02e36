//! The client's contract, and what messages cost and are called.

use crate::setup::{Net, key, recover, run};
use damocles_chain::{
    Lanes,
    venus::{FeesByClass, MessageFees, VenusClient, VenusState, message_uid, messager::MessagerState},
};
use damocles_core::{
    Address, Epoch, PartitionIndex, PoStProofType, SectorSet, SectorSize, TokenAmount,
    chain::{Call, ChainClient as _, ChainErrorKind, MessageId, MessageState, PoStPartition, SubmitWindowedPoSt},
    conformance,
    verify::Randomness,
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    let net = Net::new().await;
    let running = net.client().await;
    let miner = net.create_miner(&running.client).await;
    let landed = async || net.on_chain(&Address::from_actor(miner));
    conformance::chain::all(running.client.as_ref(), miner, || drop(net.devnet.mine(1).unwrap()), landed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_actor_is_a_receipt_though_no_messager_would_estimate_it() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let miner = net.create_miner(client).await;
    let id = client.submit(&key("recover"), &recover(miner, 5)).await.unwrap();
    let receipt = net.landed(client, &id, 1).await;
    assert_ne!(receipt.exit_code, 0);
    assert!(receipt.error.is_some_and(|e| !e.is_empty()));
    let limits: Vec<u64> =
        net.messager.called("PushMessageWithId").iter().map(|p| p[1]["GasLimit"].as_u64().unwrap()).collect();
    assert_eq!(limits[0], 0, "what passes is estimated by the messager");
    assert!(limits[1] > 0, "what would be refused has a limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_calls_with_two_keys_are_two_messages_and_one_key_is_one() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let (first, second) = (key("pay/1"), key("pay/2"));
    let ids = [client.submit(&first, &net.pay(1)).await.unwrap(), client.submit(&second, &net.pay(1)).await.unwrap()];
    assert_eq!(client.submit(&first, &net.pay(7)).await.unwrap(), ids[0]);
    for id in &ids {
        assert!(net.landed(client, id, 1).await.is_success());
    }
    assert_eq!(net.on_chain(&net.owner), 2);
    let entries = client.entries().await.unwrap();
    let names: Vec<_> = entries.iter().map(|entry| entry.uid.clone()).collect();
    assert_eq!(names, [message_uid(&first), message_uid(&second)]);
    assert_eq!(entries.iter().map(|entry| entry.nonce).collect::<Vec<_>>(), [Some(0), Some(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_or_cannot_be_is_refused_before_anything_leaves() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let unknown = client.message(&MessageId::new("nothing"), 0).await.unwrap_err();
    assert_eq!(unknown.kind(), ChainErrorKind::NotFound);
    let bad = net.pay(-1);
    assert_eq!(client.submit(&key("bad"), &bad).await.unwrap_err().kind(), ChainErrorKind::Rejected);
    let mut config = net.config();
    config.fees.post.gas_over_premium = f64::NAN;
    let refused = VenusClient::connect(config, net.database().await).await.unwrap_err();
    assert_eq!(refused.kind(), ChainErrorKind::Rejected);
    assert!(client.entries().await.unwrap().is_empty() && net.messager.records().is_empty());
}

fn post(commit_epoch: Epoch) -> Call {
    Call::SubmitWindowedPoSt(SubmitWindowedPoSt {
        miner: damocles_core::ActorId(1000),
        deadline: damocles_core::DeadlineIndex(1),
        partitions: vec![PoStPartition { index: PartitionIndex(0), skipped: SectorSet::default() }],
        proof_type: PoStProofType::window(SectorSize::KiB2),
        proof: vec![9; 192],
        commit_epoch,
        commit_randomness: Randomness([1; 32]),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_class_has_its_price_and_a_proof_expires() {
    let net = Net::new().await;
    let mut config = net.config();
    config.fees = FeesByClass {
        post: MessageFees { gas_over_estimation: 1.5, gas_over_premium: 2.0, max_fee: TokenAmount::from_fil(3) },
        other: MessageFees::up_to(TokenAmount::from_fil(1)),
        ..FeesByClass::default()
    };
    let running = run(VenusClient::connect(config, net.database().await).await.unwrap());
    let client = &running.client;
    net.messager.idle(true);
    let epoch = client.head().await.unwrap().epoch;
    client.submit(&key("post"), &post(epoch)).await.unwrap();
    client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    net.mine_until(net.until(async || net.messager.records().len() == 2)).await;
    let specs = net.messager.called("PushMessageWithId");
    let spec = |key_text: &str| {
        let uid = message_uid(&key(key_text));
        specs.iter().find(|params| params[0] == json!(uid)).unwrap()[2].clone()
    };
    let posted = json!({
        "expireEpoch": epoch.0 + 80, "gasOverEstimation": 1.5, "maxFee": "3000000000000000000", "gasOverPremium": 2.0
    });
    assert_eq!(spec("post"), posted);
    assert_eq!(spec("pay")["maxFee"], "1000000000000000000");
    assert_eq!(spec("pay")["expireEpoch"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_whose_window_has_closed_is_not_sent() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let epoch = client.head().await.unwrap().epoch;
    let id = client.submit(&key("post"), &post(epoch - 80)).await.unwrap();
    let dropped = net.state(client, &id, |state| matches!(state, MessageState::Dropped { .. })).await;
    assert!(format!("{dropped:?}").contains("window had closed"), "{dropped:?}");
    assert!(net.messager.called("PushMessageWithId").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_landed_and_is_final_needs_no_messager() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let id = client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    let receipt = net.landed(client, &id, 1).await;
    net.mine(950).await;
    net.until(async || client.entries().await.unwrap()[0].state == VenusState::Settled).await;
    net.messager.forget();
    assert_eq!(client.message(&id, 1).await.unwrap(), MessageState::Landed(receipt));
    assert_eq!(client.message(&id, 100_000).await.unwrap(), MessageState::Pending { trouble: None });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_a_fork_throws_out_is_tracked_until_it_is_back() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let id = client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    let first = net.landed(client, &id, 1).await;
    net.messager.idle(true);
    let head = client.head().await.unwrap();
    let plan = damocles_chain::devnet::ForkPlan {
        depth: u64::try_from(head.epoch - first.epoch).unwrap() + 1,
        extend: 1,
        fate: damocles_chain::devnet::MessageFate::Drop,
        ..Default::default()
    };
    net.devnet.fork(&plan).unwrap();
    let gone = client.message(&id, 0).await.unwrap();
    assert!(matches!(gone, MessageState::Pending { .. }), "{gone:?}");
    net.messager.idle(false);
    let again = net.landed(client, &id, 1).await;
    assert_eq!(again.message, first.message, "the same message, once");
    assert!(again.epoch > first.epoch);
    assert_eq!(net.on_chain(&net.owner), 1);
    let on_chain = || net.messager.records()[0].status.state == MessagerState::OnChain;
    net.mine_until(net.until(async || on_chain())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_senders_share_a_role_and_a_key_keeps_its_own() {
    let net = Net::new().await;
    let with_post = |post: Vec<Address>| {
        let mut config = net.config();
        config.senders.post = Some(Lanes::new(post).unwrap());
        config
    };
    let miner = damocles_core::ActorId(1000);
    let (name, mut chosen) = (|n: u64| key(&format!("recover/{n}")), Vec::new());
    let first = VenusClient::connect(with_post(vec![net.owner.clone(), net.worker.clone()]), net.database().await);
    let first = first.await.unwrap();
    for n in 0..200 {
        first.submit(&name(n), &recover(miner, n)).await.unwrap();
        chosen.push(first.sender_of(&name(n), &recover(miner, n)).await.unwrap());
    }
    let of_owner = chosen.iter().filter(|sender| **sender == net.owner).count();
    assert!((70..=130).contains(&of_owner), "{of_owner}");
    drop(first);
    // The next process has another list: what it hands in is of those who were chosen before.
    let running = run(VenusClient::connect(with_post(vec![net.worker.clone()]), net.database().await).await.unwrap());
    net.messager.idle(true);
    net.mine_until(net.until(async || net.messager.records().len() == 200)).await;
    let handed = net.messager.called("PushMessageWithId");
    for n in 0..200 {
        let sender = running.client.sender_of(&name(n), &recover(miner, n)).await.unwrap();
        assert_eq!(sender, chosen[usize::try_from(n).unwrap()]);
        let uid = message_uid(&name(n));
        let of: Vec<_> = handed.iter().filter(|params| params[0] == json!(uid)).collect();
        assert!(of.iter().all(|params| params[1]["From"] == sender.as_str()) && !of.is_empty(), "{of:?}");
    }
}
