//! The node's pool over HTTP: it refuses nonces that are used up, with Lotus' words, and keeps those that come too early.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use damocles_chain::{
    devnet::{SignedMessage, message_cid},
    lotus_json::{self, from_core},
    signer::{KeyKind, PrivateKey},
};
use damocles_core::testing::FakeVerifier;
use damocles_tests::chain_support::{Home, Node, Transport, test_key};
use fvm_shared::{econ::TokenAmount, message::Message};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A transfer from the owner to the worker, as a wallet would send it.
fn transfer(home: &Home, nonce: u64, premium: u64) -> Value {
    let message = Message {
        version: 0,
        from: from_core(&home.owner).unwrap(),
        to: from_core(&home.worker).unwrap(),
        sequence: nonce,
        value: TokenAmount::from_whole(1),
        method_num: 0,
        params: Default::default(),
        gas_limit: 10_000_000,
        gas_fee_cap: TokenAmount::from_atto(1_000_000),
        gas_premium: TokenAmount::from_atto(premium),
    };
    let key: PrivateKey = test_key(KeyKind::Secp256k1, 1);
    let signature = key.sign(&message_cid(&message).to_bytes());
    serde_json::to_value(lotus_json::SignedMessage::from(SignedMessage { message, signature })).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn used_nonces_are_refused_and_gaps_wait() {
    let home = Home::new();
    let config = home.config("devnet-fake-pool", Duration::from_millis(20));
    let node = Node::serve(home.devnet(config, Arc::new(FakeVerifier)), Transport::HttpAndWs).await;
    let client = home.client(node.address()).await;
    let push = async |message: &Value| client.chain.raw("Filecoin.MpoolPush", json!([message])).await;
    let executed =
        async |cid: &Value| client.chain.raw("Filecoin.StateSearchMsg", json!([[], cid, -1, true])).await.unwrap();

    let first = transfer(&home, 0, 100_000);
    let cid = push(&first).await.unwrap();
    client.mine(2).await;
    assert_eq!(executed(&cid).await["Receipt"]["ExitCode"], 0);
    for used in [first, transfer(&home, 0, 200_000)] {
        let refused = push(&used).await.unwrap_err().chain();
        assert!(refused.contains("minimum expected nonce is 1: message nonce too low"), "{refused}");
    }

    let (second, third) = (transfer(&home, 1, 100_000), transfer(&home, 2, 100_000));
    let waiting = push(&third).await.unwrap();
    client.mine(3).await;
    assert!(executed(&waiting).await.is_null(), "a message after a gap waits");
    let pool = client.chain.raw("Filecoin.MpoolPending", json!([[]])).await.unwrap();
    assert_eq!(pool.as_array().unwrap().len(), 1, "{pool}");
    let filling = push(&second).await.unwrap();
    client.mine(2).await;
    for cid in [filling, waiting] {
        assert_eq!(executed(&cid).await["Receipt"]["ExitCode"], 0, "{cid}");
    }
}
