//! A node that goes away and comes back: nothing is lost, nothing is sent twice, no head is missed.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use damocles_core::{
    ActorId, Address, Context,
    chain::{ChainClient as _, ChainClientExt as _, HeadChange, SubmitKey},
    testing::FakeVerifier,
};
use damocles_tests::chain_support::{Client, Home, Node, Transport};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const NETWORK: &str = "devnet-fake-restart";

async fn node(home: &Home) -> Node {
    let config = home.config(NETWORK, Duration::from_millis(20));
    Node::serve(home.devnet(config, Arc::new(FakeVerifier)), Transport::HttpAndWs).await
}

/// All messages to the power actor on chain.
async fn made(client: &Client) -> Vec<Value> {
    client.devnet("Messages", json!([Address::from_actor(ActorId(4))])).await.as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_submitted_while_the_node_is_down_lands_once() {
    let home = Home::new();
    let first = node(&home).await;
    let proxy = first.proxy().await;
    let client = home.client(proxy.address()).await;
    let miner = client.create_miner(&home).await;
    let before = client.chain.head().await.unwrap();

    let mut changes = client.chain.head_changes();
    assert_eq!(changes.next().await.unwrap(), HeadChange::Apply(before.clone()));
    first.stop().await;

    // This process only records it; another one, on the same database, sends it once the node is back.
    let key = SubmitKey("create-another".to_owned());
    let id = client.chain.submit(&key, &home.create_miner()).await.unwrap();
    assert_eq!(client.chain.submit(&key, &home.create_miner()).await.unwrap(), id);
    drop(client);
    let client = home.client(proxy.address()).await;

    let mut second = node(&home).await;
    assert_eq!(second.devnet.head(), before, "the chain stood still while it was down");
    proxy.retarget(second.address());
    second.start_clock();
    let receipt = client.chain.landed(&id, 3, &Context::detached()).await.unwrap();
    assert!(receipt.is_success() && receipt.created.is_some_and(|other| other != miner), "{receipt:?}");
    assert_eq!(made(&client).await.len(), 2, "one message for each miner");

    let target = client.chain.head().await.unwrap().epoch;
    let mut expected = before.epoch;
    while expected < target {
        expected = expected + 1;
        match changes.next().await.unwrap() {
            HeadChange::Apply(head) => assert_eq!(head.epoch, expected, "each tipset once and in order"),
            HeadChange::Revert(gone) => panic!("nothing was reverted: {gone:?}"),
        }
    }
    drop((client, changes));
    second.stop().await;
}
