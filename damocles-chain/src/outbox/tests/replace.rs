//! Messages that do not land are replaced by dearer ones.

use super::{money::post, *};
use crate::outbox::{FeePolicy, MessageVersion, Replacement, Simulate, pricing::least_premium};
use damocles_core::TokenAmount as Amount;

pub(super) fn atto(n: i64) -> TokenAmount {
    TokenAmount::from_atto(n)
}

/// Fees of a class that is replaced after three epochs, up to 1,000 attoFIL a unit of gas.
pub(super) fn fees() -> Fees {
    let policy = FeePolicy {
        replace_after: 3,
        max_fee: Amount::from_atto(1_000_000),
        base_fee_growth: 0,
        ..Fees::default().post
    };
    Fees { post: policy.clone(), pre_commit: policy, ..Fees::default() }
}

pub(super) async fn versions(outbox: &Outbox, n: u64) -> Vec<MessageVersion> {
    outbox.entry(&MessageId::new(&key(n).0)).await.unwrap().versions
}

/// Rounds in which the node's chain grows by one epoch.
async fn rounds(node: &FakeNode, outbox: &Outbox, count: usize) {
    for _ in 0..count {
        outbox.pass(&node.head()).await;
        node.mine(1);
    }
}

#[tokio::test]
async fn a_message_that_does_not_land_is_replaced_until_its_ceiling_and_lands_once() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    {
        let mut chain = node.chain.lock();
        (chain.base_fee, chain.premium) = (atto(100), atto(100));
    }
    let outbox = bench.outbox_with(&node, fees()).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    node.chain.lock().base_fee = atto(500);
    rounds(&node, &outbox, 3).await;
    assert_eq!(versions(&outbox, 1).await.len(), 1, "not yet");
    // It has waited three epochs: a quarter more and one, with a cap for the new base fee. That lands.
    rounds(&node, &outbox, 1).await;
    let both = versions(&outbox, 1).await;
    let offers: Vec<_> = both.iter().map(|v| (v.fee_cap.atto(), v.premium.atto(), v.gas_limit)).collect();
    assert_eq!(offers, [(200, 100, 1000), (626, 126, 1000)]);
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0]);
    let entry = outbox.entry(&MessageId::new(&key(1).0)).await.unwrap();
    assert_eq!(entry.receipt.unwrap().message, both[1].cid);

    // Above the ceiling it stays as it is, and says why.
    outbox.submit(&key(2), &call(2)).await.unwrap();
    outbox.pass(&node.head()).await;
    node.chain.lock().base_fee = atto(5000);
    rounds(&node, &outbox, 20).await;
    assert_eq!(versions(&outbox, 2).await.len(), 1);
    let id = MessageId::new(&key(2).0);
    let state = outbox.state(&id, 0, &node.head()).await.unwrap();
    let MessageState::Pending { trouble: Some(trouble) } = state else { panic!("{state:?}") };
    assert!(trouble.contains("replace message") && trouble.contains("most"), "{trouble}");
    // What is new does not even get a nonce.
    outbox.submit(&key(3), &call(3)).await.unwrap();
    outbox.pass(&node.head()).await;
    let entry = outbox.entry(&MessageId::new(&key(3).0)).await.unwrap();
    assert_eq!((entry.state, entry.nonce), (OutboxState::Recorded, None));
    node.chain.lock().base_fee = atto(10);
    settle_all(&node, &outbox, &[key(2), key(3)]).await;
    assert_eq!(node.landed(), [0, 1, 2]);
}

#[tokio::test]
async fn the_ceiling_is_never_passed() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox_with(&node, fees()).await;
    for n in 1..=3 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    for fee in [7, 90, 300, 700, 990, 2000, 999, 20_000, 995] {
        node.chain.lock().base_fee = atto(fee);
        // Nothing is mined: only time passes.
        for _ in 0..8 {
            outbox.pass(&node.head()).await;
            node.chain.lock().height += 1;
        }
    }
    for n in 1..=3 {
        let all = versions(&outbox, n).await;
        assert!(all.len() > 3, "{all:?}");
        for pair in all.windows(2) {
            let least = least_premium(&TokenAmount::from_atto(pair[0].premium.atto()));
            assert!(TokenAmount::from_atto(pair[1].premium.atto()) >= least, "{pair:?}");
            assert!(pair[1].fee_cap >= pair[0].fee_cap);
        }
        assert!(all.iter().all(|v| v.fee_cap.atto() * i128::from(v.gas_limit) <= 1_000_000), "{all:?}");
    }
    node.chain.lock().base_fee = atto(1);
    settle_all(&node, &outbox, &[key(1), key(2), key(3)]).await;
    assert_eq!(node.landed(), [0, 1, 2]);
}

#[tokio::test]
async fn only_what_keeps_the_others_from_landing_is_replaced() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    node.chain.lock().base_fee = atto(100);
    let outbox = bench.outbox_with(&node, fees()).await;
    for n in 1..=3 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    // Time passes and nothing lands, although all fee caps would do.
    node.chain.lock().height += 4;
    outbox.pass(&node.head()).await;
    let mut counts = Vec::new();
    for n in 1..=3 {
        counts.push(versions(&outbox, n).await.len());
    }
    assert_eq!(counts, [2, 1, 1]);
}

#[tokio::test]
async fn what_stands_before_a_proof_is_as_urgent() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    node.chain.lock().base_fee = atto(100);
    let slow = FeePolicy { replace_after: 500, ..Fees::default().pre_commit };
    let outbox = bench.outbox_with(&node, Fees { pre_commit: slow, ..Fees::default() }).await;
    outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    node.chain.lock().height += 6;
    outbox.pass(&node.head()).await;
    assert_eq!(versions(&outbox, 1).await.len(), 1);
    // The window closes at 1,040.
    outbox.submit(&key(2), &post(0, 960)).await.unwrap();
    outbox.pass(&node.head()).await;
    assert_eq!(versions(&outbox, 1).await.len(), 2, "a proof waits for it");
    let mut count = 2;
    let mut epochs = Vec::new();
    while node.head().epoch.0 < 1042 {
        node.chain.lock().height += 1;
        outbox.pass(&node.head()).await;
        let now = versions(&outbox, 1).await.len();
        if now > count {
            epochs.push(node.head().epoch.0);
        }
        count = now;
    }
    // An eighth of the time that is left.
    assert_eq!(epochs[..2], [1009, 1012]);
    assert!(epochs.len() > 8 && epochs.windows(2).rev().skip(1).take(5).all(|e| e[1] - e[0] == 1), "{epochs:?}");
    assert!(*epochs.last().unwrap() < 1041, "after the window there is no hurry: {epochs:?}");
}

#[tokio::test]
async fn a_reorg_may_swap_which_message_of_a_call_is_on_chain() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    node.chain.lock().base_fee = atto(100);
    let outbox = bench.outbox_with(&node, fees()).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    let first = node.chain.lock().pool[&0].clone();
    node.chain.lock().height += 4;
    outbox.pass(&node.head()).await;
    settle_all(&node, &outbox, &[key(1)]).await;
    let entry = outbox.entry(&id).await.unwrap();
    assert_eq!(entry.versions.len(), 2);
    assert_eq!(entry.receipt.unwrap().message, entry.versions[1].cid);
    // The other branch took the first one.
    {
        let mut chain = node.chain.lock();
        chain.revert(1003);
        let height = chain.height;
        chain.landed.push((height - 1, first));
        chain.nonce = 1;
    }
    for lane in &outbox.lanes {
        lane.reverted(1004);
    }
    settle_all(&node, &outbox, &[key(1)]).await;
    let entry = outbox.entry(&id).await.unwrap();
    assert_eq!(entry.receipt.unwrap().message, entry.versions[0].cid);
    assert_eq!(node.landed(), [0]);
}

#[tokio::test]
async fn a_crash_at_any_await_of_a_replacement_lands_each_key_once() {
    let mut finished = false;
    for polls in 1..400 {
        let (bench, node) = (Bench::new(), FakeNode::new());
        node.chain.lock().base_fee = atto(100);
        {
            let outbox = bench.outbox_with(&node, fees()).await;
            for n in [1, 2] {
                outbox.submit(&key(n), &call(n)).await.unwrap();
            }
            outbox.pass(&node.head()).await;
            {
                let mut chain = node.chain.lock();
                chain.height += 4;
                chain.base_fee = atto(900);
            }
            let head = node.head();
            let mut work = pin!(outbox.pass(&head));
            finished = Crash { inner: work.as_mut(), polls }.await.is_some();
        }
        let outbox = bench.outbox_with(&node, fees()).await;
        settle_all(&node, &outbox, &[key(1), key(2)]).await;
        assert_eq!(node.landed(), [0, 1], "crash after {polls} polls");
        let landed: Vec<String> = node
            .chain
            .lock()
            .landed
            .iter()
            .map(|(_, m)| crate::lotus_json::signed_message_cid(m).to_string())
            .collect();
        for (n, cid) in [1, 2].into_iter().zip(landed) {
            assert!(versions(&outbox, n).await.iter().any(|v| v.cid == cid), "every message is known: {polls}");
        }
        if finished {
            break;
        }
    }
    assert!(finished, "the crashes did not reach the end of the work");
}

#[tokio::test]
async fn a_replacement_whose_push_fails_is_pushed_again() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    node.chain.lock().base_fee = atto(100);
    let outbox = bench.outbox_with(&node, fees()).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    let first = node.chain.lock().pool[&0].clone();
    node.chain.lock().height += 4;
    node.chain.lock().refuse = Some("busy");
    assert!(!outbox.pass(&node.head()).await);
    assert_eq!(versions(&outbox, 1).await.len(), 2);
    assert_eq!(node.chain.lock().pool[&0], first);
    node.chain.lock().refuse = None;
    assert!(outbox.pass(&node.head()).await);
    let newest = versions(&outbox, 1).await.pop().unwrap();
    let pooled = crate::lotus_json::signed_message_cid(&node.chain.lock().pool[&0]);
    assert_eq!(pooled.to_string(), newest.cid);
}

#[tokio::test]
async fn what_stands_before_a_proof_may_pay_what_the_proof_may() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    {
        let mut chain = node.chain.lock();
        (chain.base_fee, chain.premium) = (atto(100), atto(10));
    }
    let cheap = FeePolicy { max_fee: Amount::from_atto(300_000), ..fees().pre_commit };
    let outbox = bench.outbox_with(&node, Fees { pre_commit: cheap, post: Fees::default().post, ..fees() }).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &pre_commit(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    {
        let mut chain = node.chain.lock();
        (chain.base_fee, chain.premium) = (atto(5000), atto(400));
        chain.height += 6;
    }
    rounds(&node, &outbox, 3).await;
    assert_eq!(versions(&outbox, 1).await.len(), 1, "above its own ceiling");
    outbox.submit(&key(3), &post(0, 960)).await.unwrap();
    node.chain.lock().height += 1;
    outbox.pass(&node.head()).await;
    for n in [1, 2] {
        let newest = versions(&outbox, n).await.pop().unwrap();
        assert!(newest.fee_cap > Amount::from_atto(5400), "{newest:?}");
    }
    settle_all(&node, &outbox, &[key(1), key(2), key(3)]).await;
    assert_eq!(node.landed(), [0, 1, 2]);
}

#[tokio::test]
async fn a_low_premium_before_a_proof_is_raised_though_it_is_not_the_first() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    {
        let mut chain = node.chain.lock();
        (chain.base_fee, chain.premium) = (atto(100), atto(10));
    }
    let outbox = bench.outbox_with(&node, Fees::default()).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &pre_commit(n)).await.unwrap();
    }
    outbox.submit(&key(3), &post(0, 960)).await.unwrap();
    outbox.pass(&node.head()).await;
    let mut counts = Vec::new();
    for premium in [10, 400] {
        node.chain.lock().premium = atto(premium);
        node.chain.lock().height += 6;
        outbox.pass(&node.head()).await;
        for n in 1..=3 {
            counts.push(versions(&outbox, n).await.len());
        }
    }
    // The proof was signed first, and what comes after it waits for nothing.
    assert_eq!(counts, [1, 1, 2, 1, 1, 3]);
    let (bench, node) = (Bench::new(), FakeNode::new());
    node.chain.lock().base_fee = atto(100);
    let outbox = bench.outbox_with(&node, Fees::default()).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &pre_commit(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    outbox.submit(&key(3), &post(0, 960)).await.unwrap();
    outbox.pass(&node.head()).await;
    node.chain.lock().premium = atto(400);
    node.chain.lock().height += 6;
    outbox.pass(&node.head()).await;
    for n in 1..=3 {
        assert_eq!(versions(&outbox, n).await.len(), 2, "{n}");
    }
}

#[tokio::test]
async fn a_replacement_leaves_the_reserve_to_proofs() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    node.chain.lock().base_fee = atto(100);
    let outbox = bench.outbox_with(&node, fees()).await;
    outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    node.chain.lock().balance = TokenAmount::from_whole(2);
    node.chain.lock().height += 4;
    outbox.pass(&node.head()).await;
    let entry = outbox.entry(&MessageId::new(&key(1).0)).await.unwrap();
    assert_eq!(entry.versions.len(), 1);
    assert!(entry.error.unwrap().contains("reserve"));
    // One that stands before a proof may use it.
    outbox.submit(&key(2), &post(0, 960)).await.unwrap();
    outbox.pass(&node.head()).await;
    assert_eq!(versions(&outbox, 1).await.len(), 2);
}

#[tokio::test]
async fn a_proof_whose_window_has_closed_pays_what_anything_else_may() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let nano = TokenAmount::from_nano;
    node.chain.lock().base_fee = atto(100);
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &post(0, 960)).await.unwrap();
    outbox.pass(&node.head()).await;
    // Others may pay 20 for a unit of gas.
    node.chain.lock().base_fee = nano(100);
    node.chain.lock().height = 1010;
    outbox.pass(&node.head()).await;
    assert_eq!(versions(&outbox, 1).await.len(), 2);
    node.chain.lock().base_fee = nano(1_000_000);
    node.chain.lock().height = 1070;
    outbox.pass(&node.head()).await;
    assert_eq!(versions(&outbox, 1).await.len(), 2, "its window closed at 1,040");
    // Another proof waits for it.
    outbox.submit(&key(2), &post(1, 1000)).await.unwrap();
    outbox.pass(&node.head()).await;
    assert_eq!(versions(&outbox, 1).await.len(), 3);
}

#[tokio::test]
async fn an_operator_replaces_by_hand() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    {
        let mut chain = node.chain.lock();
        (chain.base_fee, chain.premium) = (atto(100), atto(100));
    }
    let outbox = bench.outbox_with(&node, fees()).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    let early = outbox.ask_to_replace(&id, Replacement::default()).await.unwrap_err();
    assert_eq!(early.kind(), ChainErrorKind::Rejected);
    outbox.pass(&node.head()).await;
    // One attoFIL less than a pool takes is refused at once, and what a pool takes is taken.
    let premium = |n| Replacement { premium: Some(Amount::from_atto(n)), ..Replacement::default() };
    let error = outbox.ask_to_replace(&id, premium(110)).await.unwrap_err();
    assert!(error.chain().contains("too low") && error.hint().is_some(), "{}", error.chain());
    outbox.ask_to_replace(&id, premium(111)).await.unwrap();
    assert!(outbox.pass(&node.head()).await);
    assert_eq!(node.chain.lock().pool[&0].message.gas_premium, atto(111));
    // By hand it goes beyond the ceiling of its class.
    let dear = Replacement {
        fee_cap: Some(Amount::from_atto(50_000)),
        premium: Some(Amount::from_atto(20_000)),
        gas_limit: Some(2000),
    };
    outbox.ask_to_replace(&id, dear).await.unwrap();
    outbox.pass(&node.head()).await;
    let newest = node.chain.lock().pool[&0].message.clone();
    assert_eq!((newest.gas_fee_cap, newest.gas_premium, newest.gas_limit), (atto(50_000), atto(20_000), 2000));
    let all = versions(&outbox, 1).await;
    assert_eq!(all.len(), 3);
    let low = Replacement { gas_limit: Some(10), ..premium(30_000) };
    assert!(outbox.ask_to_replace(&id, low).await.is_err(), "less gas than before");
    settle_all(&node, &outbox, &[key(1)]).await;
    assert!(outbox.ask_to_replace(&id, Replacement::default()).await.is_err(), "it is on chain");
    let unknown = outbox.ask_to_replace(&MessageId::new("other"), Replacement::default()).await.unwrap_err();
    assert_eq!(unknown.kind(), ChainErrorKind::NotFound);
}

#[tokio::test]
async fn an_unknown_network_version_sends_nothing() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    for version in [27, 29, 0] {
        node.chain.lock().version = version;
        outbox.submit(&key(1), &call(1)).await.unwrap();
        assert!(!outbox.pass(&node.head()).await);
        let entry = outbox.entries().await.unwrap().remove(0);
        assert_eq!((entry.state, entry.nonce), (OutboxState::Recorded, None));
        let error = entry.error.unwrap();
        assert!(error.contains(&format!("version {version}")) && error.contains("28 (actors v18)"), "{error}");
    }
    node.chain.lock().version = 28;
    outbox.pass(&node.head()).await;
    // The upgrade comes while it is on its way, to a node that has lost its pool: it is not pushed again.
    {
        let mut chain = node.chain.lock();
        chain.version = 29;
        chain.height += 10;
        chain.pool.clear();
        chain.pushes.clear();
    }
    assert!(!outbox.pass(&node.head()).await);
    assert!(node.chain.lock().pushes.is_empty());
    assert!(outbox.entries().await.unwrap()[0].error.as_ref().unwrap().contains("version 29"));
    node.chain.lock().version = 28;
    settle_all(&node, &outbox, &[key(1)]).await;
}

#[tokio::test]
async fn what_would_fail_is_not_sent_where_the_policy_says_so() {
    for (simulate, sent) in [(Simulate::Off, true), (Simulate::Warn, true), (Simulate::Refuse, false)] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let outbox = bench.outbox_with(&node, Fees { simulate, ..Fees::default() }).await;
        node.chain.lock().would_exit = Some(17);
        outbox.submit(&key(1), &call(1)).await.unwrap();
        outbox.pass(&node.head()).await;
        let entry = outbox.entries().await.unwrap().remove(0);
        assert_eq!(entry.nonce.is_some(), sent, "{simulate:?}");
        assert_eq!(
            entry.error.is_some_and(|e| e.contains("17") && e.contains("no such sector")),
            simulate != Simulate::Off
        );
        node.chain.lock().would_exit = Some(0);
        settle_all(&node, &outbox, &[key(1)]).await;
    }
}

#[tokio::test]
async fn what_is_not_urgent_waits_for_a_lower_base_fee_and_not_for_ever() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let patient = FeePolicy { wait_above: Some(Amount::from_atto(500)), wait_most: 10, ..Fees::default().pre_commit };
    let fees = Fees { pre_commit: patient, ..Fees::default() };
    node.chain.lock().base_fee = atto(501);
    let outbox = bench.outbox_with(&node, fees.clone()).await;
    outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
    outbox.submit(&key(2), &call(2)).await.unwrap();
    rounds(&node, &outbox, 5).await;
    assert_eq!(node.landed(), [0], "a proof waits for nothing");
    let entries = outbox.entries().await.unwrap();
    assert!(entries[0].error.as_ref().unwrap().contains("base fee"), "{entries:?}");
    // The time that it waits is counted on in the next process.
    let outbox = bench.outbox_with(&node, fees).await;
    rounds(&node, &outbox, 5).await;
    assert_eq!(node.landed(), [0]);
    rounds(&node, &outbox, 2).await;
    assert_eq!(node.landed(), [0, 1], "ten epochs are enough");
    node.chain.lock().base_fee = atto(500);
    outbox.submit(&key(3), &pre_commit(3)).await.unwrap();
    rounds(&node, &outbox, 2).await;
    assert_eq!(node.landed(), [0, 1, 2], "not above it");
}
