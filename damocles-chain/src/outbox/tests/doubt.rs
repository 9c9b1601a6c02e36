//! Answers of a node that are wrong for once, and what must not be decided by them.

use super::{money::post, *};
use crate::outbox::FeePolicy;
use damocles_core::chain::TipsetRef;

/// The node's head with a height of its own choice.
fn wrong(node: &FakeNode) -> TipsetRef {
    TipsetRef { epoch: Epoch(10_000_000), ..node.head() }
}

async fn states(outbox: &Outbox) -> Vec<OutboxState> {
    outbox.entries().await.unwrap().into_iter().map(|e| e.state).collect()
}

#[tokio::test]
async fn a_head_that_its_chain_does_not_bear_out_settles_nothing() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    settle_all(&node, &outbox, &[key(1)]).await;
    assert!(!outbox.pass(&wrong(&node)).await);
    assert_eq!(states(&outbox).await, [OutboxState::Signed]);
    assert_eq!(outbox.state(&id, 900, &wrong(&node)).await.unwrap_err().kind(), ChainErrorKind::Malformed);
    node.mine(FINALITY);
    assert!(outbox.pass(&node.head()).await);
    assert_eq!(states(&outbox).await, [OutboxState::Settled]);
}

#[tokio::test]
async fn a_proof_is_given_up_when_several_heads_say_that_its_window_has_closed() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &post(0, 990)).await.unwrap();
    // However often it is told, no chain bears it out.
    for _ in 0..5 {
        outbox.pass(&wrong(&node)).await;
        node.mine(1);
    }
    assert_eq!(states(&outbox).await, [OutboxState::Recorded]);
    assert!(outbox.entries().await.unwrap()[0].error.is_some());
    outbox.pass(&node.head()).await;
    assert_eq!(states(&outbox).await, [OutboxState::Signed]);
    // One whose window has closed indeed.
    node.mine(200);
    outbox.submit(&key(2), &post(1, 990)).await.unwrap();
    for state in [OutboxState::Recorded, OutboxState::Recorded, OutboxState::Dropped] {
        outbox.pass(&node.head()).await;
        outbox.pass(&node.head()).await;
        assert_eq!(states(&outbox).await[1], state);
        node.mine(1);
    }
}

#[tokio::test]
async fn what_was_final_and_is_not_on_chain_is_sent_again() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    settle_all(&node, &outbox, &[key(1)]).await;
    let cid = outbox.entry(&id).await.unwrap().cid;
    node.mine(FINALITY);
    outbox.pass(&node.head()).await;
    assert_eq!(states(&outbox).await, [OutboxState::Settled]);
    // The chain was another one than the network's: a node that was alone, say.
    node.chain.lock().revert(1000);
    outbox.submit(&key(2), &call(2)).await.unwrap();
    outbox.pass(&node.head()).await;
    assert_eq!(node.chain.lock().pool.keys().copied().collect::<Vec<_>>(), [1], "its nonce is held");
    for _ in 0..2 {
        node.chain.lock().height += 6;
        assert!(!outbox.pass(&node.head()).await);
        assert_eq!(states(&outbox).await, [OutboxState::Settled, OutboxState::Signed], "it may be the node's answer");
    }
    node.chain.lock().height += 6;
    outbox.pass(&node.head()).await;
    let entry = outbox.entry(&id).await.unwrap();
    assert_eq!((entry.state, &entry.cid), (OutboxState::Signed, &cid), "the same bytes");
    assert!(entry.error.unwrap().contains("sent again"));
    settle_all(&node, &outbox, &[key(1), key(2)]).await;
    assert_eq!(node.landed(), [0, 1]);
}

#[tokio::test]
async fn the_pool_is_looked_at_though_the_first_message_is_replaced_all_the_time() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let hurried = FeePolicy { replace_after: 1, ..Fees::default().post };
    let outbox = bench.outbox_with(&node, Fees { post: hurried, ..Fees::default() }).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    node.chain.lock().pool.remove(&1).unwrap();
    for _ in 0..8 {
        node.chain.lock().height += 1;
        outbox.pass(&node.head()).await;
    }
    assert!(outbox.entries().await.unwrap()[0].versions.len() > 5, "it was replaced");
    assert!(node.chain.lock().pool.contains_key(&1), "what the pool lost is there again");
}

#[tokio::test]
async fn a_backlog_gives_way_to_proofs_on_their_way_when_a_newer_head_is_there() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    for n in 2..=5 {
        outbox.submit(&key(n), &pre_commit(n)).await.unwrap();
    }
    let (old, signed) =
        (node.head(), async || states(&outbox).await.into_iter().filter(|state| *state == OutboxState::Signed).count());
    node.chain.lock().height += 1;
    for lane in &outbox.lanes {
        lane.head_is(&node.head().key);
    }
    for passes in 1..=2 {
        outbox.pass(&old).await;
        assert_eq!(signed().await, 1 + passes, "one in each pass, and what is on its way between them");
    }
    outbox.pass(&node.head()).await;
    assert_eq!(signed().await, 5);
}
