//! The outbox against a node in memory, crashed at every await.

mod cancel;
mod doubt;
mod fake;
mod gas;
mod lanes;
mod listed;
mod lost;
mod migrate;
mod money;
mod replace;

use super::{CheckedSenders, FINALITY, Fees, Limits, Node, Outbox, OutboxState, Search, Store};
use crate::{
    lotus_json::from_core,
    signer::{KeyKind, Keystore},
};
use damocles_core::{
    ActorId, CommR, DeadlineIndex, Epoch, NullSink, PartitionIndex, SealProofType, SectorNumber, SectorSize,
    chain::{
        Call, ChainErrorKind, DeclareFaultsRecovered, MessageId, MessageState, PartitionSectors, PreCommit,
        PreCommitBatch, SubmitKey,
    },
};
use fake::FakeNode;
use fvm_shared::{address::Address, econ::TokenAmount};
use sqlx::{AnyPool, any::AnyPoolOptions};
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Poll},
};
use tempfile::TempDir;
use tokio::task::yield_now;

struct Bench {
    dir: TempDir,
    keys: Keystore,
    sender: Address,
}

impl Bench {
    fn new() -> Self {
        sqlx::any::install_default_drivers();
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::open(dir.path().join("keystore")).unwrap();
        let sender = from_core(&keys.create(KeyKind::Secp256k1).unwrap()).unwrap();
        Self { dir, keys, sender }
    }

    /// Another home with the same keys.
    fn like(&self) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), keys: self.keys.clone(), sender: self.sender }
    }

    async fn pool(&self) -> AnyPool {
        let url = format!("sqlite://{}?mode=rwc", self.dir.path().join("outbox.db").display());
        AnyPoolOptions::new().max_connections(2).connect(&url).await.unwrap()
    }

    async fn outbox(&self, node: &Arc<FakeNode>) -> Outbox {
        self.outbox_with(node, Fees::default()).await
    }

    async fn outbox_with(&self, node: &Arc<FakeNode>, fees: Fees) -> Outbox {
        self.outbox_of(node, fees, CheckedSenders::unchecked(self.sender)).await
    }

    async fn outbox_of(&self, node: &Arc<FakeNode>, fees: Fees, senders: CheckedSenders) -> Outbox {
        let store = Store::open(self.pool().await).await.unwrap();
        let node = Arc::clone(node) as Arc<dyn Node>;
        let limits = Limits { fees, post_reserve: damocles_core::TokenAmount::from_fil(2), ..Limits::default() };
        Outbox::new(store, node, Arc::new(self.keys.clone()), senders, &limits, Arc::new(NullSink))
    }
}

fn call(n: u64) -> Call {
    let part = PartitionSectors {
        deadline: DeadlineIndex(0),
        partition: PartitionIndex(0),
        sectors: [SectorNumber(n)].into_iter().collect(),
    };
    Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner: ActorId(1000), recoveries: vec![part] })
}

fn pre_commit(n: u64) -> Call {
    let sector = PreCommit {
        number: SectorNumber(n),
        proof_type: SealProofType::of(SectorSize::KiB2),
        comm_r: CommR([7; 32]),
        comm_d: None,
        ticket_epoch: Epoch(50),
        expiration: Epoch(1_000_000),
    };
    Call::PreCommit(PreCommitBatch { miner: ActorId(1000), sectors: vec![sector] })
}

fn key(n: u64) -> SubmitKey {
    SubmitKey(format!("recover/1000/{n}"))
}

/// Drops a future after it was polled so often: a crash at the await where it was.
struct Crash<'a, T> {
    inner: Pin<&'a mut (dyn Future<Output = T> + Send)>,
    polls: usize,
}

impl<T> Future for Crash<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<T>> {
        if self.polls == 0 {
            return Poll::Ready(None);
        }
        self.polls -= 1;
        self.inner.as_mut().poll(cx).map(Some)
    }
}

async fn settle_all(node: &FakeNode, outbox: &Outbox, keys: &[SubmitKey]) {
    for _ in 0..40 {
        outbox.pass(&node.head()).await;
        node.mine(1);
    }
    for key in keys {
        let state = outbox.state(&MessageId::new(&key.0), 2, &node.head()).await.unwrap();
        assert!(matches!(state, MessageState::Landed(_)), "{key}: {state:?}");
    }
}

#[tokio::test]
async fn a_crash_at_any_await_lands_each_key_once() {
    let mut finished = false;
    for polls in 1..400 {
        let bench = Bench::new();
        let node = FakeNode::new();
        let keys = [key(1), key(2)];
        {
            let outbox = bench.outbox(&node).await;
            let work = async {
                for n in [1, 2] {
                    outbox.submit(&key(n), &call(n)).await.unwrap();
                }
                outbox.pass(&node.head()).await
            };
            let mut work = pin!(work);
            finished = Crash { inner: work.as_mut(), polls }.await.is_some();
        }
        // The next process, whose caller submits again because it never heard an answer. The node's pool survived.
        let outbox = bench.outbox(&node).await;
        for n in [1, 2] {
            outbox.submit(&key(n), &call(n)).await.unwrap();
        }
        settle_all(&node, &outbox, &keys).await;
        assert_eq!(node.landed(), [0, 1], "crash after {polls} polls");
        if finished {
            break;
        }
    }
    assert!(finished, "the crashes did not reach the end of the work");
}

#[tokio::test]
async fn a_pool_that_is_lost_is_filled_again() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    assert_eq!(node.chain.lock().pool.len(), 1);
    node.chain.lock().pool.clear();
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0]);
}

#[tokio::test]
async fn a_reverted_message_lands_again() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    settle_all(&node, &outbox, &[key(1)]).await;
    node.chain.lock().revert(1000);
    for lane in &outbox.lanes {
        lane.reverted(1001);
    }
    assert_eq!(outbox.state(&id, 2, &node.head()).await.unwrap(), MessageState::Pending { trouble: None });
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0]);
}

#[tokio::test]
async fn a_refusal_is_noted_and_tried_again() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    node.chain.lock().refuse = Some("not enough funds");
    for n in [1, 2] {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    assert!(!outbox.pass(&node.head()).await);
    let entries = outbox.entries().await.unwrap();
    assert_eq!(
        entries.iter().map(|e| (e.state, e.nonce)).collect::<Vec<_>>(),
        [(OutboxState::Signed, Some(0)), (OutboxState::Signed, Some(1))]
    );
    assert!(entries[0].error.as_ref().unwrap().contains("not enough funds"), "{entries:?}");
    node.chain.lock().refuse = None;
    settle_all(&node, &outbox, &[key(1), key(2)]).await;
    assert_eq!(node.landed(), [0, 1]);
    assert_eq!(outbox.entries().await.unwrap()[0].error, None);
}

/// Somebody else with the same key is faster: the outbox's first message meets a nonce that another one has.
async fn overtaken(bench: &Bench, node: &FakeNode, outbox: &Outbox) {
    node.chain.lock().refuse = Some("away");
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    let store = Store::open(bench.pool().await).await.unwrap();
    let mut foreign = store.get(&key(1).0).await.unwrap().unwrap().version.unwrap().signed;
    foreign.message.value = TokenAmount::from_whole(5);
    {
        let mut chain = node.chain.lock();
        chain.refuse = None;
        chain.pool.insert(0, foreign);
    }
    node.mine(10);
}

#[tokio::test]
async fn a_nonce_that_was_taken_is_replaced_when_that_is_final() {
    for known in [false, true] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let outbox = bench.outbox(&node).await;
        overtaken(&bench, &node, &outbox).await;
        if known {
            // The node has seen ours as well, in a pool where it was replaced.
            let cid = outbox.entries().await.unwrap()[0].cid.as_ref().unwrap().parse().unwrap();
            node.chain.lock().known.insert(cid);
        }
        outbox.pass(&node.head()).await;
        let id = MessageId::new(&key(1).0);
        assert_eq!(outbox.entries().await.unwrap()[0].nonce, Some(0), "not final yet");
        assert_eq!(
            outbox.state(&id, 0, &node.head()).await.unwrap(),
            MessageState::Pending { trouble: None },
            "it never ran"
        );
        node.mine(FINALITY);
        settle_all(&node, &outbox, &[key(1)]).await;
        assert_eq!(node.landed(), [0, 1]);
    }
}

#[tokio::test]
async fn a_nonce_that_was_used_before_the_nodes_history_is_no_reason_to_send_twice() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    overtaken(&bench, &node, &outbox).await;
    node.mine(2 * FINALITY);
    assert!(!outbox.pass(&node.head()).await);
    let entry = outbox.entries().await.unwrap().remove(0);
    assert_eq!((entry.state, entry.nonce), (OutboxState::Signed, Some(0)));
    assert!(entry.error.unwrap().contains("look for message"));
    assert_eq!(node.landed(), [0]);
}

#[tokio::test]
async fn a_push_that_failed_is_done_again_though_the_node_never_saw_the_message() {
    for cannot_search in [false, true] {
        let (bench, node) = (Bench::new(), FakeNode::new());
        let outbox = bench.outbox(&node).await;
        node.chain.lock().refuse = Some("away");
        outbox.submit(&key(1), &call(1)).await.unwrap();
        assert!(!outbox.pass(&node.head()).await);
        {
            let mut chain = node.chain.lock();
            chain.refuse = None;
            chain.cannot_search = cannot_search;
        }
        assert!(outbox.pass(&node.head()).await);
        assert_eq!(node.chain.lock().pool.len(), 1, "search fails: {cannot_search}");
        // A search that fails says nothing about a nonce that is used, however long ago.
        node.mine(2 * FINALITY);
        assert_eq!(outbox.pass(&node.head()).await, !cannot_search);
        assert_eq!(outbox.entries().await.unwrap()[0].nonce, Some(0));
        node.chain.lock().cannot_search = false;
        settle_all(&node, &outbox, &[key(1)]).await;
        assert_eq!(node.landed(), [0]);
    }
}

#[tokio::test]
async fn what_is_known_to_have_landed_is_not_pushed_because_a_search_fails() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    settle_all(&node, &outbox, &[key(1)]).await;
    let pushes = node.chain.lock().pushes.len();
    node.chain.lock().cannot_search = true;
    node.mine(100);
    assert!(!outbox.pass(&node.head()).await);
    assert_eq!(node.chain.lock().pushes.len(), pushes);
}

#[tokio::test]
async fn a_damaged_row_stops_no_other() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    for n in 1..=3 {
        outbox.submit(&key(n), &call(n)).await.unwrap();
    }
    let damage = "UPDATE chain_messages SET call = '{' WHERE submit_key = $1";
    sqlx::query(damage).bind(key(1).0).execute(&bench.pool().await).await.unwrap();
    settle_all(&node, &outbox, &[key(2), key(3)]).await;
    assert_eq!(node.landed(), [0, 1]);
    let keys: Vec<SubmitKey> = outbox.entries().await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, [key(2), key(3)]);
    // Its own caller is told, and its key is not free for another call.
    for error in [
        outbox.state(&MessageId::new(&key(1).0), 0, &node.head()).await.unwrap_err(),
        outbox.submit(&key(1), &call(1)).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ChainErrorKind::Outbox);
        assert!(error.chain().contains(&key(1).0), "{}", error.chain());
    }
}

#[tokio::test]
async fn proofs_of_spacetime_are_signed_and_pushed_first() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    {
        let outbox = bench.outbox(&node).await;
        outbox.submit(&key(1), &pre_commit(1)).await.unwrap();
        outbox.pass(&node.head()).await;
        outbox.submit(&key(2), &pre_commit(2)).await.unwrap();
        outbox.submit(&key(3), &call(3)).await.unwrap();
        outbox.pass(&node.head()).await;
        let nonces: Vec<_> = outbox.entries().await.unwrap().into_iter().map(|e| e.nonce).collect();
        assert_eq!(nonces, [Some(0), Some(2), Some(1)], "signed first");
    }
    // The next process finds all of them signed, and a new proof.
    node.chain.lock().pushes.clear();
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(4), &call(4)).await.unwrap();
    outbox.pass(&node.head()).await;
    assert_eq!(node.chain.lock().pushes, [3, 1, 0, 2]);
}

#[tokio::test]
async fn what_is_final_is_kept_without_the_node() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    settle_all(&node, &outbox, &[key(1)]).await;
    let landed = outbox.state(&id, 2, &node.head()).await.unwrap();
    node.mine(FINALITY);
    outbox.pass(&node.head()).await;
    assert_eq!(outbox.entries().await.unwrap()[0].state, OutboxState::Settled);
    node.chain.lock().landed.clear();
    assert_eq!(outbox.state(&id, 2, &node.head()).await.unwrap(), landed);
    assert_eq!(outbox.state(&id, 100_000, &node.head()).await.unwrap(), MessageState::Pending { trouble: None });
}

#[tokio::test]
async fn a_key_names_one_call_and_unknown_names_are_errors() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    let id = outbox.submit(&key(1), &call(1)).await.unwrap();
    assert_eq!(outbox.submit(&key(1), &call(7)).await.unwrap(), id);
    assert_eq!(outbox.entries().await.unwrap().len(), 1);
    let unknown = outbox.state(&MessageId::new("other"), 1, &node.head()).await.unwrap_err();
    assert_eq!(unknown.kind(), ChainErrorKind::NotFound);
}

#[tokio::test]
async fn plain_text_keys_sign_nothing_on_a_public_network() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    node.chain.lock().name = "mainnet";
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    assert!(!outbox.pass(&node.head()).await);
    assert!(node.chain.lock().pool.is_empty());
    let entry = outbox.entries().await.unwrap().remove(0);
    assert_eq!((entry.state, entry.nonce), (OutboxState::Recorded, None));
    assert!(entry.error.unwrap().contains("plain text"));
}

#[tokio::test]
async fn a_search_that_finds_nobody_is_no_reason_to_send_twice() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    // It lands while nobody looks, and the node denies that long after.
    node.mine(2 * FINALITY);
    node.chain.lock().found = Some(Search::Absent);
    for _ in 0..3 {
        outbox.pass(&node.head()).await;
        node.mine(10);
    }
    let entry = outbox.entries().await.unwrap().remove(0);
    assert_eq!((entry.state, entry.nonce), (OutboxState::Signed, Some(0)));
    assert!(entry.error.unwrap().contains("look for message"));
    node.chain.lock().found = None;
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0]);
}
