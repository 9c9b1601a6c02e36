//! The outbox against a node in memory, crashed at every await.

use super::{CheckedSenders, FINALITY, Found, Node, Outbox, OutboxState, Push, Store};
use crate::{
    lotus_json::{SignedMessage, from_core, signed_message_cid},
    signer::{KeyKind, Keystore},
};
use async_trait::async_trait;
use cid::Cid;
use damocles_core::{
    ActorId, CommP, DeadlineIndex, Epoch, NullSink, PartitionIndex, Recovery, SectorNumber,
    chain::{
        Call, ChainError, ChainErrorKind, DeclareFaultsRecovered, MessageId, MessageState, PartitionSectors, SubmitKey,
        TipsetKey, TipsetRef,
    },
};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use sqlx::{AnyPool, any::AnyPoolOptions};
use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Poll},
};
use tempfile::TempDir;
use tokio::task::yield_now;

#[derive(Debug, Default)]
struct Chain {
    height: i64,
    nonce: u64,
    pool: BTreeMap<u64, SignedMessage>,
    landed: Vec<(i64, SignedMessage)>,
    refuse: Option<&'static str>,
    name: &'static str,
}

/// A node with one account, that yields before and after everything it does.
#[derive(Debug, Default)]
struct FakeNode {
    chain: Mutex<Chain>,
}

impl FakeNode {
    fn new() -> Arc<Self> {
        let chain = Chain { height: 1000, name: "devnet-test", ..Chain::default() };
        Arc::new(Self { chain: Mutex::new(chain) })
    }

    fn head(&self) -> TipsetRef {
        let height = self.chain.lock().height;
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&height.to_le_bytes());
        TipsetRef { epoch: Epoch(height), key: TipsetKey(vec![CommP(digest).cid()]) }
    }

    fn mine(&self, epochs: i64) {
        for _ in 0..epochs {
            let mut chain = self.chain.lock();
            chain.height += 1;
            let nonce = chain.nonce;
            if let Some(message) = chain.pool.remove(&nonce) {
                chain.nonce += 1;
                let height = chain.height;
                chain.landed.push((height, message));
            }
        }
    }

    fn landed(&self) -> Vec<u64> {
        self.chain.lock().landed.iter().map(|(_, m)| m.message.sequence).collect()
    }
}

#[async_trait]
impl Node for FakeNode {
    async fn network_name(&self) -> Result<String, ChainError> {
        Ok(self.chain.lock().name.to_owned())
    }

    async fn next_nonce(&self, _: &Address) -> Result<u64, ChainError> {
        yield_now().await;
        let chain = self.chain.lock();
        let mut next = chain.nonce;
        while chain.pool.contains_key(&next) {
            next += 1;
        }
        Ok(next)
    }

    async fn final_nonce(&self, head: &TipsetRef, _: &Address) -> Result<Option<u64>, ChainError> {
        let chain = self.chain.lock();
        let old = head.epoch.0 - FINALITY;
        let after = chain.landed.iter().filter(|(h, _)| *h <= old).map(|(_, m)| m.message.sequence + 1).max();
        Ok(Some(after.unwrap_or(0)))
    }

    async fn value(&self, _: &TipsetRef, _: &Call) -> Result<TokenAmount, ChainError> {
        yield_now().await;
        Ok(TokenAmount::from_atto(1))
    }

    async fn price(&self, _: &TipsetRef, _: &Call, mut message: Message) -> Result<Message, ChainError> {
        yield_now().await;
        message.gas_limit = 1000;
        Ok(message)
    }

    async fn push(&self, message: &SignedMessage) -> Result<Push, ChainError> {
        yield_now().await;
        let pushed = {
            let mut chain = self.chain.lock();
            if let Some(reason) = chain.refuse {
                return Err(ChainError::new(ChainErrorKind::Rejected, "push")
                    .recover_by(Recovery::RETRY)
                    .because(reason));
            }
            if message.message.sequence < chain.nonce {
                Push::NonceUsed
            } else {
                let there = chain.pool.entry(message.message.sequence).or_insert_with(|| message.clone());
                assert_eq!(there, message, "two messages of one nonce");
                Push::Accepted
            }
        };
        yield_now().await;
        Ok(pushed)
    }

    async fn search(&self, head: &TipsetRef, cid: &Cid) -> Result<Option<Found>, ChainError> {
        yield_now().await;
        let chain = self.chain.lock();
        let mut landed = chain.landed.iter().filter(|(h, _)| *h < head.epoch.0);
        let found = landed.find(|(_, m)| signed_message_cid(m) == *cid);
        Ok(found.map(|(epoch, _)| Found { message: *cid, exit_code: 0, returned: Vec::new(), epoch: *epoch }))
    }

    async fn said(&self, _: &Cid) -> Option<String> {
        None
    }
}

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

    async fn pool(&self) -> AnyPool {
        let url = format!("sqlite://{}?mode=rwc", self.dir.path().join("outbox.db").display());
        AnyPoolOptions::new().max_connections(2).connect(&url).await.unwrap()
    }

    async fn outbox(&self, node: &Arc<FakeNode>) -> Outbox {
        let store = Store::open(self.pool().await).await.unwrap();
        let node = Arc::clone(node) as Arc<dyn Node>;
        let senders = CheckedSenders::unchecked(self.sender);
        Outbox::new(store, node, Arc::new(self.keys.clone()), senders, Arc::new(NullSink))
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
    {
        let mut chain = node.chain.lock();
        chain.landed.clear();
        chain.nonce = 0;
    }
    assert_eq!(outbox.state(&id, 2, &node.head()).await.unwrap(), MessageState::Pending);
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

#[tokio::test]
async fn a_nonce_that_was_taken_is_replaced_when_that_is_final() {
    let (bench, node) = (Bench::new(), FakeNode::new());
    let outbox = bench.outbox(&node).await;
    node.chain.lock().refuse = Some("away");
    outbox.submit(&key(1), &call(1)).await.unwrap();
    outbox.pass(&node.head()).await;
    // Somebody else with the same key was faster.
    let foreign = {
        let store = Store::open(bench.pool().await).await.unwrap();
        let row = store.get(&key(1).0).await.unwrap().unwrap();
        let mut foreign = row.signed.unwrap();
        foreign.message.value = TokenAmount::from_whole(5);
        foreign
    };
    {
        let mut chain = node.chain.lock();
        chain.refuse = None;
        chain.pool.insert(0, foreign);
    }
    node.mine(10);
    outbox.pass(&node.head()).await;
    let id = MessageId::new(&key(1).0);
    assert_eq!(outbox.entries().await.unwrap()[0].nonce, Some(0), "not final yet");
    assert_eq!(outbox.state(&id, 0, &node.head()).await.unwrap(), MessageState::Pending);
    node.mine(FINALITY);
    settle_all(&node, &outbox, &[key(1)]).await;
    assert_eq!(node.landed(), [0, 1]);
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
    assert_eq!(outbox.state(&id, 100_000, &node.head()).await.unwrap(), MessageState::Pending);
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
