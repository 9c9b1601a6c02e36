//! The contract of a chain client, kept by the client of a Lotus-compatible node over each transport.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use damocles_core::{
    Context,
    chain::{ChainClient as _, ChainClientExt as _, SubmitKey},
    conformance,
    testing::FakeVerifier,
};
use damocles_tests::chain_support::{Home, Node, Transport};
use std::{sync::Arc, time::Duration};

async fn the_contract_holds_over(transport: Transport) {
    let home = Home::new();
    let config = home.config("devnet-fake-conformance", Duration::from_millis(20));
    let mut node = Node::serve(home.devnet(config, Arc::new(FakeVerifier)), transport).await;
    node.start_clock();
    let client = home.client(node.address()).await;
    let id = client.chain.submit(&SubmitKey("create-miner".to_owned()), &home.create_miner()).await.unwrap();
    let receipt = client.chain.landed(&id, 1, &Context::detached()).await.unwrap();
    let miner = receipt.created.expect("a miner was made");
    let landed = async || client.landed_at(miner).await.len();
    conformance::chain::all(client.chain.as_ref(), miner, || (), landed).await;
    drop(client);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_and_websocket() {
    the_contract_holds_over(Transport::HttpAndWs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_alone_the_head_is_polled() {
    the_contract_holds_over(Transport::HttpOnly).await;
}
