//! Several senders of one role.

use super::{money::post, *};
use std::collections::BTreeMap;

/// Keys beside the first one.
fn more_keys<const N: usize>(bench: &Bench) -> [Address; N] {
    [(); N].map(|()| from_core(&bench.keys.create(KeyKind::Secp256k1).unwrap()).unwrap())
}

/// Who sends each key, as the table says.
async fn lanes(bench: &Bench) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT submit_key, lane FROM chain_messages").fetch_all(&bench.pool().await).await.unwrap();
    rows.into_iter().collect()
}

fn load(lanes: &BTreeMap<String, String>, sender: &Address) -> usize {
    lanes.values().filter(|lane| **lane == crate::lotus_json::text_of(sender)).count()
}

#[tokio::test]
async fn two_lanes_share_the_load_and_keep_what_is_theirs_whatever_is_configured_since() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let [a, b, c] = more_keys(&bench);
    let senders = CheckedSenders::unchecked(bench.sender).with_post(&[a, b]);
    let before = {
        let outbox = bench.outbox_of(&node, Fees::default(), senders.clone()).await;
        for n in 0..400 {
            outbox.submit(&key(n), &call(n)).await.unwrap();
        }
        lanes(&bench).await
    };
    assert_eq!(load(&before, &a) + load(&before, &b), 400);
    assert!((160..=240).contains(&load(&before, &a)), "{}", load(&before, &a));
    // The next process has another list, and its caller submits again because it heard no answer.
    let outbox = bench.outbox_of(&node, Fees::default(), senders.clone().with_post(&[c])).await;
    outbox.put_in_lanes().await.unwrap();
    for n in 0..400 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
        let sender = outbox.sender_of(&key(n), &call(n)).await.unwrap();
        assert_eq!(crate::lotus_json::text_of(&sender), before[&key(n).0]);
    }
    assert_eq!(lanes(&bench).await, before);
    // A new key goes by the new list.
    outbox.submit(&key(400), &call(400)).await.unwrap();
    assert_eq!(load(&lanes(&bench).await, &c), 1);
    // What is sent is sent by the one that was chosen first.
    let lane = outbox.lanes.iter().find(|lane| lane.sender == Some(a)).unwrap();
    assert!(outbox.pass_of(lane, &node.head()).await);
    let entries = outbox.entries().await.unwrap();
    let signed = entries.iter().filter(|entry| entry.sender.is_some());
    assert_eq!(signed.clone().count(), load(&before, &a));
    assert!(signed.clone().all(|entry| entry.sender.as_ref() == before.get(&entry.key.0)));
}

#[tokio::test]
async fn a_key_has_one_sender_wherever_its_submission_was_broken_off() {
    let mut finished = false;
    for polls in 1..200 {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let [a, b, c] = more_keys(&bench);
        let senders = CheckedSenders::unchecked(bench.sender).with_post(&[a, b]);
        {
            let outbox = bench.outbox_of(&node, Fees::default(), senders.clone()).await;
            let work = async { outbox.submit(&key(1), &call(1)).await.unwrap() };
            finished = Crash { inner: pin!(work).as_mut(), polls }.await.is_some();
        }
        let before = lanes(&bench).await;
        let outbox = bench.outbox_of(&node, Fees::default(), senders.with_post(&[c])).await;
        outbox.submit(&key(1), &call(1)).await.unwrap();
        let after = lanes(&bench).await;
        let kept = before.get(&key(1).0).cloned().unwrap_or_else(|| crate::lotus_json::text_of(&c));
        assert_eq!(after[&key(1).0], kept, "{polls}");
        assert!(!finished || !before.is_empty());
        if finished {
            break;
        }
    }
    assert!(finished);
}

#[tokio::test]
async fn a_lane_that_is_known_to_be_starved_or_stuck_is_passed_over_while_there_are_others() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let [a, b] = more_keys(&bench);
    let senders = CheckedSenders::unchecked(bench.sender).with_post(&[a, b]);
    // What comes and goes here is no sign of how long the rest lasts.
    let outbox = bench.outbox_of(&node, Fees { runway_alert: 1, ..Fees::default() }, senders).await;
    let submit = async |keys: std::ops::Range<u64>| {
        for n in keys {
            outbox.submit(&key(n), &call(n)).await.unwrap();
        }
        let lanes = lanes(&bench).await;
        [load(&lanes, &a), load(&lanes, &b)]
    };
    node.chain.lock().poor.insert(a);
    outbox.look_at_funds(&node.head()).await;
    assert_eq!(submit(0..50).await, [0, 50]);
    // Both are: the lot falls as ever.
    node.chain.lock().poor.insert(b);
    node.chain.lock().height += 20;
    outbox.look_at_funds(&node.head()).await;
    let [of_a, of_b] = submit(50..150).await;
    assert!(of_a > 20 && of_b > 70, "{of_a} {of_b}");
    node.chain.lock().poor.clear();
    node.chain.lock().height += 20;
    outbox.look_at_funds(&node.head()).await;
    let lane = outbox.lanes.iter().find(|lane| lane.sender == Some(b)).unwrap();
    lane.missing_since(0, 0, 1040);
    assert_eq!(submit(150..200).await, [of_a + 50, of_b]);
    lane.no_gap();
    let [more_of_a, more_of_b] = submit(200..300).await;
    assert!(more_of_a > of_a + 50 && more_of_b > of_b);
}

#[tokio::test]
async fn commitment_keeps_out_of_the_lanes_of_proofs_where_it_can() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let [a, b, c] = more_keys(&bench);
    for (commit, expected) in [(vec![b, c], vec![c]), (vec![b], vec![b]), (vec![a, b], vec![a, b])] {
        let senders = CheckedSenders::unchecked(bench.sender).with_post(&[a, b]).with_commit(&commit);
        let outbox = bench.outbox_of(&node, Fees::default(), senders).await;
        let mut used = Vec::new();
        for n in 0..60 {
            let sender = outbox.sender_of(&key(n), &pre_commit(n)).await.unwrap();
            assert!(expected.contains(&sender), "{commit:?}");
            used.push(sender);
            assert!([a, b].contains(&outbox.sender_of(&key(n), &post(n, 990)).await.unwrap()));
        }
        assert!(expected.iter().all(|sender| used.contains(sender)));
        assert!([a, b].iter().all(|sender| outbox.senders.proves(sender)), "each leaves its reserve to proofs");
    }
}
