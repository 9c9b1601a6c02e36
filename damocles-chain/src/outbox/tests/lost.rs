//! What gets lost, and answers that are wrong or never come.

use super::{money::post, *};
use crate::{lotus_json::to_core, outbox::FeePolicy};
use damocles_core::{TokenAmount as Amount, chain::Transfer};
use futures::future::join_all;

impl Bench {
    fn send(&self, n: u64) -> Call {
        let own = to_core(&self.sender);
        Call::Send(Transfer { from: own.clone(), to: own, amount: Amount::from_atto(n.into()) })
    }
}

async fn nonces(outbox: &Outbox) -> Vec<Option<u64>> {
    outbox.entries().await.unwrap().into_iter().map(|e| e.nonce).collect()
}

#[tokio::test]
async fn nonces_that_nobody_fills_are_named_and_then_filled() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    // Three messages of somebody else with this key, two of which then go away.
    let foreign = {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let outbox = bench.outbox(&node).await;
        outbox.submit(&key(9), &call(9)).await.unwrap();
        outbox.pass(&node.head()).await;
        node.chain.lock().pool.remove(&0).unwrap()
    };
    let with_nonce = |nonce| {
        let mut foreign = foreign.clone();
        foreign.message.sequence = nonce;
        (nonce, foreign)
    };
    node.chain.lock().pool.extend((0..3).map(with_nonce));
    outbox.submit(&key(1), &call(1)).await.unwrap();
    assert!(outbox.pass(&node.head()).await);
    assert_eq!(nonces(&outbox).await, [Some(3)]);
    node.chain.lock().pool.retain(|nonce, _| *nonce != 1 && *nonce != 0);
    node.chain.lock().height += 6;
    assert!(!outbox.pass(&node.head()).await);
    let error = outbox.entries().await.unwrap().remove(0).error.unwrap();
    assert!(error.contains("wait for nonces before") && error.contains("missing"), "{error}");
    // It is still said while the message rests, and somebody else has time to fill them.
    node.chain.lock().height += 9;
    outbox.pass(&node.head()).await;
    assert_eq!(outbox.entries().await.unwrap().remove(0).error, Some(error));
    assert_eq!(nonces(&outbox).await, [Some(3)]);
    node.chain.lock().height += 6;
    assert!(!outbox.pass(&node.head()).await);
    assert_eq!(nonces(&outbox).await, [Some(3), Some(0), Some(1)], "recorded before they leave");
    assert!(!node.chain.lock().pool.contains_key(&0));
    assert!(outbox.pass(&node.head()).await);
    for nonce in [0, 1] {
        let filler = node.chain.lock().pool[&nonce].message.clone();
        assert_eq!((filler.to, filler.method_num, &filler.value), (bench.sender, 0, &TokenAmount::default()));
    }
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0, 1, 2, 3]);
    node.mine(FINALITY);
    outbox.pass(&node.head()).await;
    let states: Vec<_> = outbox.entries().await.unwrap().into_iter().map(|e| e.state).collect();
    assert_eq!(states, [OutboxState::Settled, OutboxState::Dropped, OutboxState::Dropped]);
}

#[tokio::test]
async fn somebody_who_fills_a_gap_in_time_is_let_do_so() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    for n in [1, 2] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    let first = node.chain.lock().pool[&0].clone();
    // Another process has the first one.
    sqlx::query("DELETE FROM chain_messages WHERE nonce = 0").execute(&bench.pool().await).await.unwrap();
    node.chain.lock().pool.remove(&0);
    let later = async |clean: bool| {
        node.chain.lock().height += 6;
        assert_eq!(outbox.pass(&node.head()).await, clean);
        assert_eq!(nonces(&outbox).await, [Some(1)]);
    };
    later(false).await;
    later(false).await;
    node.chain.lock().pool.insert(0, first);
    later(true).await;
    // It goes away again, and the time begins anew.
    node.chain.lock().pool.remove(&0);
    later(false).await;
    later(false).await;
}

#[tokio::test]
async fn one_wrong_nonce_of_the_account_stops_no_sender() {
    for wrong in [5, 1 << 40, u64::MAX] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let outbox = bench.outbox(&node).await;
        node.chain.lock().account_nonce = Some(wrong);
        outbox.submit(&key(1), &call(1)).await.unwrap();
        assert!(!outbox.pass(&node.head()).await);
        assert_eq!(nonces(&outbox).await, [None], "{wrong}");
        node.chain.lock().account_nonce = None;
        settle_all(&node, &outbox, &[key(1)]).await;
        assert_eq!(node.landed(), [0]);
    }
}

#[tokio::test]
async fn a_pool_that_is_not_shown_is_filled_from_the_nonce_that_the_node_names() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let patient = FeePolicy { replace_after: 100, ..Fees::default().post };
    let outbox = bench.outbox_with(&node, Fees { post: patient, ..Fees::default() }).await;
    let keys: Vec<_> = (1..=10).map(key).collect();
    for n in 1..=10 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    {
        let mut chain = node.chain.lock();
        chain.hides_pool = true;
        chain.pool.retain(|nonce, _| *nonce < 4);
        chain.pushes.clear();
        chain.height += 6;
    }
    assert!(outbox.pass(&node.head()).await);
    assert_eq!(node.chain.lock().pushes, [4, 5, 6, 7, 8, 9]);
    settle_all(&node, &outbox, &keys).await;
}

#[tokio::test]
async fn a_call_without_price_is_tried_after_all_others_in_every_pass() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    node.chain.lock().slow = Some(pre_commit(1));
    for n in 1..=3 {
        outbox.submit(&key(n), &pre_commit(n)).await.unwrap();
    }
    assert!(!outbox.pass(&node.head()).await);
    assert_eq!(nonces(&outbox).await, [None, None, None], "it is asked for first");
    assert!(!outbox.pass(&node.head()).await);
    assert_eq!(nonces(&outbox).await, [None, Some(0), Some(1)]);
    outbox.submit(&key(4), &pre_commit(4)).await.unwrap();
    assert!(!outbox.pass(&node.head()).await);
    assert_eq!(nonces(&outbox).await, [None, Some(0), Some(1), Some(2)]);
    node.chain.lock().slow = None;
    settle_all(&node, &outbox, &[key(1), key(4)]).await;
}

#[tokio::test]
async fn a_proof_without_price_keeps_no_signed_message_from_the_pool() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    node.chain.lock().slow = Some(post(0, 990));
    outbox.submit(&key(2), &post(0, 990)).await.unwrap();
    node.chain.lock().pool.clear();
    node.chain.lock().height += 6;
    assert!(!outbox.pass(&node.head()).await);
    assert_eq!(node.chain.lock().pool.len(), 1);
}

#[tokio::test]
async fn hundreds_of_calls_that_wait_hide_no_later_one() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let cheap = FeePolicy { max_fee: Amount::from_atto(1), ..Fees::default().pre_commit };
    let outbox = bench.outbox_with(&node, Fees { pre_commit: cheap, ..Fees::default() }).await;
    node.chain.lock().base_fee = TokenAmount::from_atto(100);
    let waiting: Vec<_> = (1..=600).map(|n| (key(n), pre_commit(n))).collect();
    for done in join_all(waiting.iter().map(|(key, call)| outbox.submit(key, call))).await {
        done.unwrap();
    }
    outbox.submit(&key(601), &bench.send(7)).await.unwrap();
    outbox.pass(&node.head()).await;
    let nonces = nonces(&outbox).await;
    assert_eq!(nonces.iter().flatten().collect::<Vec<_>>(), [&0]);
    assert_eq!(nonces[600], Some(0));
}

#[tokio::test]
async fn what_has_the_nonce_of_a_filler_may_be_the_call() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    let original = node.chain.lock().pool[&0].clone();
    outbox.ask_to_cancel(&id).await.unwrap();
    outbox.pass(&node.head()).await;
    let cid = outbox.entry(&id).await.unwrap().versions[0].cid.parse().unwrap();
    {
        let mut chain = node.chain.lock();
        chain.pool.insert(0, original);
        // The filler's nonce has another message, and the node does not find that it is the call.
        chain.denied.insert(cid);
    }
    node.mine(FINALITY + 2);
    assert!(!outbox.pass(&node.head()).await);
    let entry = outbox.entry(&id).await.unwrap();
    assert_eq!((entry.state, entry.nonce), (OutboxState::Signed, Some(0)));
    assert!(entry.error.unwrap().contains("look for message"));
    node.chain.lock().denied.clear();
    settle_all(&node, &outbox, &[key(1)]).await;
}

#[tokio::test]
async fn what_was_reverted_and_then_overtaken_for_good_is_sent_again() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    settle_all(&node, &outbox, &[key(1)]).await;
    {
        let mut chain = node.chain.lock();
        let mut foreign = chain.landed[0].1.clone();
        foreign.message.value = TokenAmount::from_whole(5);
        chain.revert(1000);
        let height = chain.height;
        chain.landed.push((height, foreign));
        chain.nonce = 1;
    }
    for lane in &outbox.lanes {
        lane.reverted(1001);
    }
    settle(&node, &outbox).await;
    assert_eq!(nonces(&outbox).await, [Some(0)], "not final yet");
    node.mine(FINALITY);
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0, 1]);
}

/// Passes without a look at what comes out.
async fn settle(node: &FakeNode, outbox: &Outbox) {
    settle_all(node, outbox, &[]).await;
}

#[tokio::test]
async fn a_long_way_that_is_lost_at_once_is_noticed_at_once() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let keys = [key(1), key(2), key(3)];
    for n in 1..=3 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    settle_all(&node, &outbox, &keys).await;
    let head = node.head().epoch.0;
    node.chain.lock().revert(1000);
    // Only the highest tipset is said to be gone.
    for lane in &outbox.lanes {
        lane.reverted(head);
    }
    assert!(outbox.pass(&node.head()).await);
    assert_eq!(node.chain.lock().pool.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    settle_all(&node, &outbox, &keys).await;
    assert_eq!(node.landed(), [0, 1, 2]);
}

#[tokio::test]
async fn the_call_of_a_key_that_is_gone_is_sent_by_another() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let prover = from_core(&bench.keys.create(KeyKind::Secp256k1).unwrap()).unwrap();
    let senders = CheckedSenders::unchecked(bench.sender);
    {
        let outbox = bench.outbox_of(&node, Fees::default(), senders.clone().with_post(&[prover])).await;
        overtaken(&bench, &node, &outbox).await;
        assert_eq!(outbox.entries().await.unwrap()[0].sender, Some(crate::lotus_json::text_of(&prover)));
    }
    let outbox = bench.outbox_of(&node, Fees::default(), senders).await;
    node.mine(FINALITY);
    settle_all(&node, &outbox, &[key(1)]).await;
    let entry = outbox.entries().await.unwrap().remove(0);
    assert_eq!(entry.sender, Some(crate::lotus_json::text_of(&bench.sender)));
}

/// How often something was written about a key that was not there before, in passes at new heads.
async fn news(node: &FakeNode, outbox: &Outbox, n: u64, passes: usize) -> Vec<Option<String>> {
    let mut said: Vec<Option<String>> = Vec::new();
    for _ in 0..passes {
        node.chain.lock().height += 1;
        outbox.pass(&node.head()).await;
        let now = outbox.entry(&MessageId::new(&key(n).0)).await.unwrap().error;
        if said.last() != Some(&now) {
            said.push(now);
        }
    }
    said
}

#[tokio::test]
async fn a_pool_that_is_not_shown_is_said_once_and_hides_no_gap() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let patient = FeePolicy { replace_after: 1000, ..Fees::default().post };
    let outbox = bench.outbox_with(&node, Fees { post: patient.clone(), other: patient, ..Fees::default() }).await;
    for n in 1..=4 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    // The node loses all but the first message, and shows nothing.
    {
        let mut chain = node.chain.lock();
        chain.hides_pool = true;
        chain.pool.retain(|nonce, _| *nonce < 1);
    }
    let said = news(&node, &outbox, 4, 30).await;
    // It is no trouble any more once the nonce that the node names says that all is there.
    let [None, Some(text), None] = said.as_slice() else { panic!("{said:?}") };
    assert!(text.contains("look into the node's pool"), "{text}");
    for n in 1..=3 {
        assert_eq!(outbox.entry(&MessageId::new(&key(n).0)).await.unwrap().error, None, "once for all");
    }
    assert_eq!(node.chain.lock().pool.len(), 4, "what was lost is there again");
    // It is shown again.
    {
        let mut chain = node.chain.lock();
        chain.hides_pool = false;
    }
    assert_eq!(news(&node, &outbox, 4, 10).await.last(), Some(&None));

    // A nonce is missing whose call is damaged: it is named and filled though the pool is not shown.
    node.chain.lock().refuse = Some("away");
    for n in 5..=6 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    outbox.pass(&node.head()).await;
    let gone = "DELETE FROM chain_messages WHERE submit_key = $1";
    sqlx::query(gone).bind(key(5).0).execute(&bench.pool().await).await.unwrap();
    {
        let mut chain = node.chain.lock();
        (chain.refuse, chain.hides_pool) = (None, true);
    }
    let said = news(&node, &outbox, 6, 9).await;
    assert!(said.iter().flatten().any(|text| text.contains("missing: 4")), "{said:?}");
    settle_all(&node, &outbox, &[key(6)]).await;
    assert_eq!(node.landed(), [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn trouble_with_money_is_news_once_though_its_numbers_move_with_every_head() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
    let mut said: Vec<Option<String>> = Vec::new();
    for n in 0..20 {
        {
            let mut chain = node.chain.lock();
            chain.balance = TokenAmount::from_atto(1_000 + n);
            chain.base_fee = TokenAmount::from_atto(100 + n);
        }
        said.extend(news(&node, &outbox, 1, 1).await);
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].as_ref().unwrap().contains("pay for message"), "{said:?}");
    node.chain.lock().balance = TokenAmount::from_whole(100);
    settle_all(&node, &outbox, &[key(1)]).await;
}
