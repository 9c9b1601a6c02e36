//! Which calls are listed.

use super::*;
use crate::{lotus_json::to_core, outbox::OutboxFilter};

#[tokio::test]
async fn a_list_is_chosen_by_state_and_sender_and_ends_with_the_newest() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    settle_all(&node, &outbox, &[key(1), key(2)]).await;
    for n in [3, 4, 5] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.ask_to_cancel(&MessageId::new(&key(4).0)).await.unwrap();
    let stranger = "f1wcuzrs736zqzbbjjdgl2wvyyufuk4pefbymzf2i".parse().unwrap();
    let all = outbox.entries().await.unwrap();
    let (any, own) = (OutboxFilter::default(), Some(to_core(&bench.sender)));
    for (filter, expected) in [
        (any.clone(), vec![1, 2, 3, 4, 5]),
        (OutboxFilter { limit: Some(2), ..any.clone() }, vec![4, 5]),
        (OutboxFilter { states: vec![OutboxState::Recorded], ..any.clone() }, vec![3, 5]),
        (OutboxFilter { states: vec![OutboxState::Recorded], limit: Some(1), ..any.clone() }, vec![5]),
        (OutboxFilter { states: vec![OutboxState::Dropped, OutboxState::Signed], ..any.clone() }, vec![1, 2, 4]),
        (OutboxFilter { from: Some(stranger), ..any.clone() }, vec![]),
        (OutboxFilter { from: own, limit: Some(3), ..any.clone() }, vec![3, 4, 5]),
    ] {
        let expected: Vec<SubmitKey> = expected.into_iter().map(key).collect();
        let found = outbox.store.some(&filter).await.unwrap();
        assert_eq!(found.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), expected, "{filter:?}");
        assert!(found.iter().all(|row| all.contains(&row.entry())), "with all that was signed for them");
        if filter.from.is_none() {
            let left = filter.of(all.clone(), |entry| entry);
            assert_eq!(left.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), expected, "{filter:?}");
        }
    }
}
