//! What must not cost money twice, stop a sender, or come too late.

use super::*;
use damocles_core::{
    CancellationToken, PoStProofType,
    chain::{HeadChange, PoStPartition, SubmitWindowedPoSt},
    verify::Randomness,
};
use futures::StreamExt as _;

pub(super) fn post(n: u64, commit_epoch: i64) -> Call {
    Call::SubmitWindowedPoSt(SubmitWindowedPoSt {
        miner: ActorId(1000),
        deadline: DeadlineIndex(n),
        partitions: vec![PoStPartition { index: PartitionIndex(0), skipped: Default::default() }],
        proof_type: PoStProofType::window(SectorSize::KiB2),
        proof: vec![7; 192],
        commit_epoch: Epoch(commit_epoch),
        commit_randomness: Randomness([7; 32]),
    })
}

#[tokio::test]
async fn what_landed_is_not_sent_twice_by_a_node_that_forgot_it() {
    for answer in [Some(Search::Unknown), Some(Search::Absent), None] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        {
            let outbox = bench.outbox(&node).await;
            outbox.submit(&key(1), &call(1)).await.unwrap();
            settle_all(&node, &outbox, &[key(1)]).await;
        }
        // The next process meets a node that was restored from a snapshot.
        let outbox = bench.outbox(&node).await;
        node.chain.lock().cannot_search = answer.is_none();
        node.chain.lock().found = answer.clone();
        node.chain.lock().branch = (1000, 1);
        for _ in 0..4 {
            node.mine(FINALITY);
            outbox.pass(&node.head()).await;
        }
        let entry = outbox.entries().await.unwrap().remove(0);
        assert_eq!((entry.state, entry.nonce), (OutboxState::Signed, Some(0)), "{answer:?}");
        assert_eq!(entry.error.is_some(), answer.is_some(), "{answer:?}");
        assert_eq!(node.landed(), [0]);
    }
}

#[tokio::test]
async fn what_landed_is_searched_for_a_few_times_until_it_is_final() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    for _ in 0..FINALITY + 20 {
        assert!(outbox.pass(&node.head()).await);
        node.mine(1);
    }
    assert_eq!(outbox.entries().await.unwrap()[0].state, OutboxState::Settled);
    let searches = node.chain.lock().searches;
    assert!(searches < 15, "{searches}");
}

#[tokio::test]
async fn a_proof_does_not_wait_for_a_call_that_hangs() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = Arc::new(bench.outbox(&node).await);
    node.chain.lock().hangs = Some(bench.sender);
    outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
    let cancel = CancellationToken::new();
    let heads = futures::stream::iter([HeadChange::Apply(node.head())]).chain(futures::stream::pending());
    let running = tokio::spawn({
        let (outbox, cancel) = (Arc::clone(&outbox), cancel.clone());
        async move { outbox.run(Box::pin(heads), cancel).await }
    });
    while !node.chain.lock().hanging {
        yield_now().await;
    }
    assert!(node.chain.lock().pushes.is_empty());
    node.chain.lock().hangs = None;
    outbox.submit(&key(2), &post(0, 990)).await.unwrap();
    while node.chain.lock().pushes.len() < 2 {
        yield_now().await;
    }
    cancel.cancel();
    running.await.unwrap();
    let nonces: Vec<_> = outbox.entries().await.unwrap().into_iter().map(|e| e.nonce).collect();
    assert_eq!(nonces, [Some(1), Some(0)], "the proof came first");
}

#[tokio::test]
async fn a_lane_that_hangs_holds_up_no_other() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let prover = from_core(&bench.keys.create(KeyKind::Secp256k1).unwrap()).unwrap();
    let store = Store::open(bench.pool().await).await.unwrap();
    let outbox = Arc::new(Outbox::new(
        store,
        Arc::clone(&node) as Arc<dyn Node>,
        Arc::new(bench.keys.clone()),
        CheckedSenders::unchecked(bench.sender).with_post(&[prover]),
        &Limits { post_reserve: damocles_core::TokenAmount::ZERO, ..Limits::default() },
        Arc::new(NullSink),
    ));
    // The proof itself hangs: it is its own lane that waits.
    node.chain.lock().hangs = Some(prover);
    outbox.submit(&key(1), &post(0, 990)).await.unwrap();
    outbox.submit(&key(2), &pre_commit(1)).await.unwrap();
    let cancel = CancellationToken::new();
    let heads = futures::stream::iter([HeadChange::Apply(node.head())]).chain(futures::stream::pending());
    let running = tokio::spawn({
        let (outbox, cancel) = (Arc::clone(&outbox), cancel.clone());
        async move { outbox.run(Box::pin(heads), cancel).await }
    });
    while node.chain.lock().pushes.is_empty() {
        yield_now().await;
    }
    cancel.cancel();
    running.await.unwrap();
    let states: Vec<_> = outbox.entries().await.unwrap().into_iter().map(|e| e.state).collect();
    assert_eq!(states, [OutboxState::Recorded, OutboxState::Signed]);
}

#[tokio::test]
async fn a_node_that_is_away_is_asked_once_a_pass() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    for n in 1..=3 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    settle_all(&node, &outbox, &[key(1), key(2), key(3)]).await;
    node.chain.lock().cannot_search = true;
    node.mine(FINALITY);
    for pass in 1..=3 {
        node.chain.lock().searches = 0;
        assert!(!outbox.pass(&node.head()).await);
        assert_eq!(node.chain.lock().searches, 1, "pass {pass}");
    }
}

#[tokio::test]
async fn a_nonce_that_nobody_explains_is_refused() {
    for told in [1, 7, u64::MAX] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let outbox = bench.outbox(&node).await;
        node.chain.lock().next_nonce = Some(told);
        outbox.submit(&key(1), &call(1)).await.unwrap();
        assert!(!outbox.pass(&node.head()).await);
        let entry = outbox.entries().await.unwrap().remove(0);
        assert_eq!((entry.state, entry.nonce), (OutboxState::Recorded, None), "{told}");
        assert!(entry.error.unwrap().contains("read nonce"), "{told}");
        node.chain.lock().next_nonce = None;
        settle_all(&node, &outbox, &[key(1)]).await;
        assert_eq!(node.landed(), [0]);
    }
}

#[tokio::test]
async fn what_cannot_be_paid_gets_no_nonce() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    node.chain.lock().balance = TokenAmount::from_whole(1);
    outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
    assert!(!outbox.pass(&node.head()).await);
    let entry = outbox.entries().await.unwrap().remove(0);
    assert_eq!((entry.state, entry.nonce), (OutboxState::Recorded, None), "the reserve is for proofs");
    assert!(entry.error.unwrap().contains("pay for message"));
    // A proof may use the reserve, and takes the first nonce.
    outbox.submit(&key(2), &post(0, 990)).await.unwrap();
    outbox.pass(&node.head()).await;
    let nonces: Vec<_> = outbox.entries().await.unwrap().into_iter().map(|e| e.nonce).collect();
    assert_eq!(nonces, [None, Some(0)]);
    node.chain.lock().balance = TokenAmount::from_whole(3);
    settle_all(&node, &outbox, &[key(1), key(2)]).await;
}

#[tokio::test]
async fn what_is_in_flight_is_paid_first() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    // Each costs one attoFIL.
    node.chain.lock().balance = TokenAmount::from_atto(1);
    for n in [1, 2] {
        outbox.submit(&key(n), &post(n, 990)).await.unwrap();
    }
    assert!(!outbox.pass(&node.head()).await);
    let nonces: Vec<_> = outbox.entries().await.unwrap().into_iter().map(|e| e.nonce).collect();
    assert_eq!(nonces, [Some(0), None]);
    settle_all(&node, &outbox, &[key(1), key(2)]).await;
}

#[tokio::test]
async fn a_proof_whose_window_is_gone_is_dropped() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let late = outbox.submit(&key(1), &post(0, 920)).await.unwrap();
    outbox.submit(&key(2), &post(1, 921)).await.unwrap();
    for _ in 0..3 {
        assert!(outbox.pass(&node.head()).await);
        node.mine(1);
    }
    let state = outbox.state(&late, 0, &node.head()).await.unwrap();
    assert!(matches!(state, MessageState::Dropped { .. }), "{state:?}");
    assert_eq!(node.chain.lock().pushes, [0], "the other one is in time");
}

#[tokio::test]
async fn a_nonce_whose_call_is_damaged_is_filled() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    node.chain.lock().refuse = Some("away");
    for n in [1, 2] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    let damage = "UPDATE chain_messages SET call = '{' WHERE submit_key = $1";
    sqlx::query(damage).bind(key(1).0).execute(&bench.pool().await).await.unwrap();
    node.chain.lock().refuse = None;
    settle_all(&node, &outbox, &[key(2)]).await;
    assert_eq!(node.landed(), [0, 1]);
}
