//! Messages that do not move, and what operators do about them.

use crate::setup::{Net, key};
use damocles_chain::{
    lotus_json::{SignedMessage, from_core},
    signer::{SignRequest, Signer as _},
    venus::{Cancelled, Price, VenusState, messager::MessagerState, testing::Fault},
};
use damocles_core::{
    TokenAmount,
    chain::{ChainClient as _, ChainErrorKind, MessageId, MessageState},
};
use fvm_shared::{econ, message::Message};
use serde_json::json;
use std::time::Duration;

fn in_trouble(words: &'static str) -> impl Fn(&MessageState) -> bool {
    move |state| matches!(state, MessageState::Pending { trouble: Some(trouble) } if trouble.contains(words))
}

/// A message that was signed and handed to the node, and lies in its pool.
async fn pooled(net: &Net, client: &damocles_chain::venus::VenusClient) -> MessageId {
    let id = client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    net.until(async || net.messager.records().len() == 1).await;
    // The messager works at the next head; nothing of that head is in a block yet.
    net.devnet.mine(1).unwrap();
    let in_pool = || net.devnet.call("Filecoin.MpoolPending", json!([[]])).unwrap().as_array().map_or(0, Vec::len);
    net.until(async || in_pool() == 1).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_message_is_in_trouble_and_may_still_land() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let id = pooled(&net, client).await;
    assert_eq!(client.cancel(&id).await.unwrap(), Cancelled::Told);
    assert_eq!(net.messager.records()[0].status.state, MessagerState::Failed);
    let state = client.message(&id, 1).await.unwrap();
    assert!(in_trouble("failed")(&state), "{state:?}");
    // It was in the pool all the time.
    assert!(net.landed(client, &id, 1).await.is_success());
    assert_eq!(net.on_chain(&net.owner), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_messager_takes_up_again_what_it_gave_up() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let id = pooled(&net, client).await;
    client.cancel(&id).await.unwrap();
    let names = client.messager().recover_failed(&net.worker).await.unwrap();
    assert_eq!(names, [client.entries().await.unwrap()[0].uid.clone()]);
    assert!(net.landed(client, &id, 1).await.is_success());
}

/// Sends a message past the messager, with this nonce.
async fn send_past(net: &Net, nonce: u64) {
    let message = Message {
        version: 0,
        from: from_core(&net.worker).unwrap(),
        to: from_core(&net.worker).unwrap(),
        sequence: nonce,
        value: econ::TokenAmount::from_atto(1),
        method_num: 0,
        params: Default::default(),
        gas_limit: 10_000_000,
        gas_fee_cap: econ::TokenAmount::from_nano(50),
        gas_premium: econ::TokenAmount::from_nano(40),
    };
    let signature = net.keys.sign(&net.worker, &SignRequest::message(message.clone())).await.unwrap();
    net.devnet.call("Filecoin.MpoolPush", json!([SignedMessage { message, signature }])).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_of_nonces_is_trouble_until_it_is_final_and_then_the_end() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let id = pooled(&net, client).await;
    send_past(&net, 0).await;
    net.state(client, &id, in_trouble("nonce conflict")).await;
    assert_eq!(
        net.messager.records()[0].status.receipt.as_ref().unwrap().exit_code,
        0,
        "of a message that is not ours"
    );
    net.mine(800).await;
    let state = client.message(&id, 1).await.unwrap();
    assert!(in_trouble("nonce conflict")(&state), "{state:?}");
    net.mine(150).await;
    let dropped = net.state(client, &id, |state| matches!(state, MessageState::Dropped { .. })).await;
    assert!(format!("{dropped:?}").contains("another message"), "{dropped:?}");
    assert_eq!(net.on_chain(&net.owner), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_replaced_at_another_price_and_lands_once() {
    for price in [
        Price::Estimated,
        Price::Given { premium: TokenAmount::from_atto(1 << 37), fee_cap: TokenAmount::from_atto(1 << 38) },
    ] {
        let net = Net::new().await;
        let running = net.client().await;
        let client = &running.client;
        let id = pooled(&net, client).await;
        let before = net.messager.records()[0].status.signed_cid.unwrap().to_string();
        let too_dear = Price::Given { premium: TokenAmount::from_fil(1), fee_cap: TokenAmount::from_fil(1) };
        assert_eq!(client.replace(&id, too_dear).await.unwrap_err().kind(), ChainErrorKind::Rejected);
        let cid = client.replace(&id, price).await.unwrap();
        assert_ne!(cid, before);
        let receipt = net.landed(client, &id, 1).await;
        assert_eq!(receipt.message, cid, "{price:?}");
        assert_eq!(net.on_chain(&net.owner), 1);
        let unknown = client.replace(&MessageId::new("x"), price).await.unwrap_err();
        assert_eq!(unknown.kind(), ChainErrorKind::NotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_the_messager_does_not_know_of_is_ours_all_the_same() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let id = pooled(&net, client).await;
    let record = net.messager.records().remove(0);
    let mut message = record.message;
    message.gas_premium = message.gas_premium * 2u64 + econ::TokenAmount::from_atto(1);
    message.gas_fee_cap *= 3u64;
    let signature = net.keys.sign(&net.worker, &SignRequest::message(message.clone())).await.unwrap();
    let signed = SignedMessage { message, signature };
    net.devnet.call("Filecoin.MpoolPush", json!([signed])).unwrap();
    let receipt = net.landed(client, &id, 1).await;
    assert_ne!(receipt.message, record.status.signed_cid.unwrap().to_string());
    let conflict = || net.messager.records()[0].status.state == MessagerState::NonceConflict;
    net.mine_until(net.until(async || conflict())).await;
    assert!(net.landed(client, &id, 1).await.is_success());
    assert_eq!(net.on_chain(&net.owner), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_left_is_cancelled_at_once() {
    let net = Net::new().await;
    let client = net.idle_client().await;
    let id = client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    assert_eq!(client.cancel(&id).await.unwrap(), Cancelled::Dropped);
    assert_eq!(client.cancel(&id).await.unwrap(), Cancelled::TooLate);
    assert!(matches!(client.message(&id, 0).await.unwrap(), MessageState::Dropped { .. }));
    let _running = net.client().await;
    net.devnet.mine(5).unwrap();
    net.mine_until(net.messager.worked()).await;
    assert!(net.messager.records().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_signed_is_dropped_when_the_messager_is_sure_to_have_given_it_up() {
    let net = Net::new().await;
    net.messager.idle(true);
    let running = net.client().await;
    let client = &running.client;
    let id = client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    net.mine_until(net.until(async || net.messager.records().len() == 1)).await;
    assert_eq!(client.cancel(&id).await.unwrap(), Cancelled::Told);
    let from = client.head().await.unwrap().epoch;
    let state = client.message(&id, 1).await.unwrap();
    assert!(matches!(state, MessageState::Pending { .. }), "{state:?}");
    net.state(client, &id, |state| matches!(state, MessageState::Dropped { .. })).await;
    assert!(client.head().await.unwrap().epoch - from >= 20, "a messager may be about to save it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_messager_has_forgotten_is_not_handed_in_again() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    let id = pooled(&net, client).await;
    client.message(&id, 1).await.unwrap();
    assert_eq!(client.entries().await.unwrap()[0].nonce, Some(0), "what the messager signed is kept here");
    net.messager.forget();
    let state = client.message(&id, 1).await.unwrap();
    assert!(in_trouble("any more")(&state), "{state:?}");
    // What it had signed lands, and is found without it.
    assert!(net.landed(client, &id, 1).await.is_success());
    assert!(net.messager.records().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_messager_that_is_away_or_refuses_is_told_of_and_waited_for() {
    let net = Net::new().await;
    let running = net.client().await;
    let client = &running.client;
    net.messager.strike("PushMessageWithId", &Fault::Refuse("signer address t1 not exists".into()), 2);
    let id = client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    net.state(client, &id, in_trouble("not exists")).await;
    assert!(net.landed(client, &id, 1).await.is_success());
    assert_eq!(client.entries().await.unwrap()[0].error, None, "trouble that is over is forgotten");

    let mut config = net.config();
    config.messager.endpoint = config.messager.endpoint.with_token("wrong");
    let other = damocles_chain::venus::VenusClient::connect(config, net.database().await).await.unwrap();
    let away = crate::setup::run(other);
    let id = away.client.submit(&key("post"), &net.pay(2)).await.unwrap();
    drop(running);
    net.state(&away.client, &id, in_trouble("missing permission")).await;
    assert_eq!(away.client.entries().await.unwrap()[1].state, VenusState::Sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaves_for_a_network_whose_actors_are_not_known() {
    let net = Net::new().await;
    net.version.store(29, std::sync::atomic::Ordering::SeqCst);
    let running = net.client().await;
    let client = &running.client;
    let id = client.submit(&key("pay"), &net.pay(1)).await.unwrap();
    net.state(client, &id, in_trouble("at version 29")).await;
    assert!(net.messager.called("PushMessageWithId").is_empty());
    assert_eq!(client.entries().await.unwrap()[0].state, VenusState::Recorded);
    net.version.store(0, std::sync::atomic::Ordering::SeqCst);
    assert!(net.landed(client, &id, 1).await.is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_an_answer_holds_up_no_other() {
    let net = Net::new().await;
    let mut config = net.config();
    (config.messager.timeout, config.messager.slow_timeout) = (Duration::from_secs(2), Duration::from_secs(2));
    net.messager.strike("PushMessageWithId", &Fault::Delay(Duration::from_secs(3600)), 1);
    let client = damocles_chain::venus::VenusClient::connect(config, net.database().await).await.unwrap();
    client.submit(&key("first"), &net.pay(1)).await.unwrap();
    let second = client.submit(&key("second"), &net.pay(2)).await.unwrap();
    let running = crate::setup::run(client);
    assert!(net.landed(&running.client, &second, 1).await.is_success());
    let uids: Vec<String> = running.client.entries().await.unwrap().into_iter().map(|entry| entry.uid).collect();
    let pushed: Vec<_> = net.messager.called("PushMessageWithId").iter().map(|params| params[0].clone()).collect();
    assert_eq!(json!(pushed[..2]), json!(uids), "the second has its turn before the first is tried again");
}
