//! Calls that are given up.

use super::*;
use crate::outbox::VersionPurpose;

fn id(n: u64) -> MessageId {
    MessageId::new(&key(n).0)
}

async fn state(outbox: &Outbox, node: &FakeNode, n: u64) -> MessageState {
    outbox.state(&id(n), 0, &node.head()).await.unwrap()
}

#[tokio::test]
async fn what_has_no_nonce_is_dropped_at_once() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    let entry = outbox.ask_to_cancel(&id(1)).await.unwrap();
    assert_eq!(entry.state, OutboxState::Dropped);
    assert_eq!(state(&outbox, &node, 1).await, MessageState::Dropped { reason: "cancelled".to_owned() });
    settle_all(&node, &outbox, &[key(2)]).await;
    assert_eq!(node.landed(), [0], "no nonce was lost");
    assert_eq!(outbox.ask_to_cancel(&id(1)).await.unwrap_err().kind(), ChainErrorKind::Rejected);
    assert_eq!(outbox.ask_to_cancel(&id(2)).await.unwrap_err().kind(), ChainErrorKind::Rejected);
    assert_eq!(outbox.ask_to_cancel(&id(9)).await.unwrap_err().kind(), ChainErrorKind::NotFound);
}

#[tokio::test]
async fn the_nonce_of_a_signed_one_is_filled_with_nothing() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    let asked = outbox.ask_to_cancel(&id(1)).await.unwrap();
    assert!(asked.cancelled && asked.state == OutboxState::Signed);
    assert!(outbox.pass(&node.head()).await);
    let filler = node.chain.lock().pool[&0].message.clone();
    assert_eq!((filler.to, filler.method_num, &filler.value), (filler.from, 0, &TokenAmount::default()));
    assert!(filler.params.is_empty());
    settle_all(&node, &outbox, &[key(2)]).await;
    // Both landed, and one of them does nothing. As long as that may be reverted, it is not over.
    assert_eq!(node.landed(), [0, 1]);
    assert!(matches!(state(&outbox, &node, 1).await, MessageState::Pending { trouble: Some(_) }));
    let entry = outbox.entry(&id(1)).await.unwrap();
    let purposes: Vec<_> = entry.versions.iter().map(|v| v.purpose).collect();
    assert_eq!(purposes, [VersionPurpose::Call, VersionPurpose::Cancel]);
    assert_eq!((entry.exit_code, entry.receipt), (None, None), "the call did not run");
    node.mine(FINALITY);
    outbox.pass(&node.head()).await;
    assert_eq!(state(&outbox, &node, 1).await, MessageState::Dropped { reason: "cancelled".to_owned() });
    assert!(matches!(state(&outbox, &node, 2).await, MessageState::Landed(_)));
}

#[tokio::test]
async fn the_chain_decides_which_of_both_landed() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    let original = node.chain.lock().pool[&0].clone();
    outbox.ask_to_cancel(&id(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    // A block's maker had the original only.
    node.chain.lock().pool.insert(0, original.clone());
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0]);
    // A reorganisation brings the other one.
    let filler = {
        let store = Store::open(bench.pool().await).await.unwrap();
        store.get(&key(1).0).await.unwrap().unwrap().version.unwrap().signed
    };
    {
        let mut chain = node.chain.lock();
        chain.revert(1000);
        chain.pool.insert(0, filler);
    }
    for lane in &outbox.lanes {
        lane.reverted(1001);
    }
    for _ in 0..10 {
        node.mine(1);
        outbox.pass(&node.head()).await;
    }
    assert!(matches!(state(&outbox, &node, 1).await, MessageState::Pending { .. }));
    node.mine(FINALITY);
    outbox.pass(&node.head()).await;
    assert!(matches!(state(&outbox, &node, 1).await, MessageState::Dropped { .. }));
}

#[tokio::test]
async fn a_crash_at_any_await_of_a_cancellation_leaves_no_gap() {
    let mut finished = false;
    for polls in 1..300 {
        let (bench, node) = (Bench::new(), FakeNode::new());
        {
            let outbox = bench.outbox(&node).await;
            for n in [1, 2] {
                outbox.submit(&key(n), &call(n)).await.unwrap();
            }
            outbox.pass(&node.head()).await;
            let head = node.head();
            let work = async {
                outbox.ask_to_cancel(&id(1)).await.unwrap();
                outbox.pass(&head).await
            };
            let mut work = pin!(work);
            finished = Crash { inner: work.as_mut(), polls }.await.is_some();
        }
        let outbox = bench.outbox(&node).await;
        settle_all(&node, &outbox, &[key(2)]).await;
        assert_eq!(node.landed(), [0, 1], "crash after {polls} polls");
        node.mine(FINALITY);
        outbox.pass(&node.head()).await;
        let does_nothing = node.chain.lock().landed[0].1.message.value == TokenAmount::default();
        let dropped = matches!(state(&outbox, &node, 1).await, MessageState::Dropped { .. });
        assert_eq!(dropped, does_nothing, "crash after {polls} polls");
        if finished {
            break;
        }
    }
    assert!(finished, "the crashes did not reach the end of the work");
}
