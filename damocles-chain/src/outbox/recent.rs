//! What happened in the last tipsets: many messages of ours in one tipset are found with two questions.

use super::{Found, Located, OnChain};
use crate::{
    lotus_json::{Lotus, MessageReceipt, TipSet},
    rpc::{RpcClient, is_timeout},
};
use cid::Cid;
use damocles_core::chain::{ChainError, ChainErrorKind, TipsetKey};
use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
};

/// The most tipsets that are walked through.
const WALK: usize = 240;
/// Steps that are tried again in one walk: a node that drops one request in ten must not end every long walk.
const STUMBLES: usize = 8;
const KEPT_HEADERS: usize = 2048;
const KEPT_TIPSETS: usize = 480;

/// What is read of a tipset.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) height: i64,
    pub(super) parents: Option<TipsetKey>,
    /// None where a tipset has no blocks, or none that tell.
    pub(super) base_fee: Option<TokenAmount>,
}

/// A map that forgets what came first.
#[derive(Debug)]
struct Bounded<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
    most: usize,
}

impl<K: Clone + Eq + Hash, V: Clone> Bounded<K, V> {
    fn new(most: usize) -> Self {
        Self { map: HashMap::new(), order: VecDeque::new(), most }
    }

    fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.most {
            if let Some(old) = self.order.pop_front() {
                self.map.remove(&old);
            }
        }
    }
}

/// The messages of our senders that ran in one tipset.
type Ran = HashMap<(Address, u64), (Cid, Message, MessageReceipt)>;

/// What was read of the last tipsets. A tipset never changes, so that nothing here gets old.
#[derive(Debug)]
pub(super) struct Recent {
    ours: Arc<BTreeSet<Address>>,
    headers: Mutex<Bounded<TipsetKey, Header>>,
    receipts: Mutex<Receipts>,
}

/// What ran in tipsets, each by the tipset that commits to the receipts.
#[derive(Debug)]
struct Receipts {
    kept: Bounded<TipsetKey, Arc<Ran>>,
    /// What is asked for just now: it goes away with the last one who waits for it.
    asked: HashMap<TipsetKey, WeakShared<BoxFuture<'static, Answer>>>,
}

type Answer = Result<Arc<Ran>, Arc<ChainError>>;
type Asked = Shared<BoxFuture<'static, Answer>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ParentMessage {
    #[serde(bound = "")]
    cid: Lotus<Cid>,
    message: Lotus<Message>,
}

/// How far it pays to walk for so many messages: a step takes up to three questions, a search for one message one.
fn walk_for(messages: usize) -> usize {
    (messages / 2).saturating_add(16).min(WALK)
}

impl Recent {
    pub(super) fn new(ours: BTreeSet<Address>) -> Self {
        Self {
            ours: Arc::new(ours),
            headers: Mutex::new(Bounded::new(KEPT_HEADERS)),
            receipts: Mutex::new(Receipts { kept: Bounded::new(KEPT_TIPSETS), asked: HashMap::new() }),
        }
    }

    /// A tipset.
    pub(super) async fn header(&self, rpc: &RpcClient, key: &TipsetKey) -> Result<Header, ChainError> {
        if let Some(header) = self.headers.lock().map.get(key) {
            return Ok(header.clone());
        }
        let tipset: TipSet = rpc.call("ChainGetTipSet", json!([Lotus(key.0.clone())])).await?;
        if tipset.cids != key.0 {
            return Err(ChainError::new(ChainErrorKind::Malformed, "read tipset")
                .with("endpoint", rpc.endpoint())
                .with("tipset", key)
                .with("answer", TipsetKey(tipset.cids)));
        }
        let header = Header {
            height: tipset.height,
            parents: tipset.parents().filter(|parents| !parents.0.is_empty()),
            base_fee: tipset.blocks.first().map(|block| block.parent_base_fee.clone()),
        };
        self.headers.lock().insert(key.clone(), header.clone());
        Ok(header)
    }

    /// The messages of a sender with these nonces in the tipsets below `head` down to a height.
    pub(super) async fn locate(
        &self,
        rpc: &Arc<RpcClient>,
        head: &TipsetKey,
        since: i64,
        sender: &Address,
        nonces: &BTreeSet<u64>,
    ) -> Located {
        let mut out = Located::default();
        if !self.ours.contains(sender) {
            return out;
        }
        let mut at = head.clone();
        let (mut left, mut stumbles) = (walk_for(nonces.len()), 0);
        // The first step that fails says that the node is away; a later one may be bad luck.
        let mut moved = false;
        while left > 0 {
            match self.look_below(rpc, &at, sender, nonces, &mut out.found).await {
                Ok(Some((parents, height))) if height > since && out.found.len() < nonces.len() => {
                    (at, left, moved) = (parents, left - 1, true);
                }
                Ok(_) => break,
                // One that does not answer in time costs as much with each try, and the next pass goes on from there.
                Err(e) if moved && stumbles < STUMBLES && !is_timeout(&e) => stumbles += 1,
                Err(e) => {
                    out.broken_off = Some(told(e));
                    break;
                }
            }
        }
        out
    }

    /// Looks through the tipset below another. Its key and its height.
    async fn look_below(
        &self,
        rpc: &Arc<RpcClient>,
        at: &TipsetKey,
        sender: &Address,
        nonces: &BTreeSet<u64>,
        out: &mut BTreeMap<u64, OnChain>,
    ) -> Result<Option<(TipsetKey, i64)>, Arc<ChainError>> {
        let Some(parents) = self.header(rpc, at).await?.parents else { return Ok(None) };
        let below = self.header(rpc, &parents).await?;
        let ran = self.ran(rpc, at).await?;
        for nonce in nonces {
            if let Some((cid, message, receipt)) = ran.get(&(*sender, *nonce)) {
                let found = Found {
                    message: *cid,
                    exit_code: receipt.exit_code,
                    returned: receipt.r#return.clone(),
                    epoch: below.height,
                    tipset: parents.clone(),
                };
                out.insert(*nonce, OnChain { found, message: message.clone() });
            }
        }
        Ok(Some((parents, below.height)))
    }

    /// The messages to whose receipts a tipset commits. Whoever asks first asks for all: others wait for the same answer,
    /// get it though the first one goes away, and never wait longer than the node may take for it.
    async fn ran(&self, rpc: &Arc<RpcClient>, child: &TipsetKey) -> Result<Arc<Ran>, Arc<ChainError>> {
        let asked = {
            let mut receipts = self.receipts.lock();
            if let Some(ran) = receipts.kept.map.get(child) {
                return Ok(Arc::clone(ran));
            }
            let asked = receipts.asked.get(child).and_then(WeakShared::upgrade);
            // One that is over and is not kept has failed.
            match asked.filter(|asked| asked.peek().is_none()) {
                Some(asked) => asked,
                None => receipts.ask(rpc, child, &self.ours),
            }
        };
        let answer = asked.await;
        if let Ok(ran) = &answer {
            self.receipts.lock().kept.insert(child.clone(), Arc::clone(ran));
        }
        answer
    }
}

impl Receipts {
    fn ask(&mut self, rpc: &Arc<RpcClient>, child: &TipsetKey, ours: &Arc<BTreeSet<Address>>) -> Asked {
        let (rpc, key, ours) = (Arc::clone(rpc), child.clone(), Arc::clone(ours));
        let asked = async move { read(&rpc, &key, &ours).await.map(Arc::new).map_err(Arc::new) }.boxed().shared();
        self.asked.retain(|_, asked| asked.upgrade().is_some());
        if let Some(weak) = asked.downgrade() {
            self.asked.insert(child.clone(), weak);
        }
        asked
    }
}

/// Asks for the messages to whose receipts a tipset commits.
async fn read(rpc: &RpcClient, child: &TipsetKey, ours: &BTreeSet<Address>) -> Result<Ran, ChainError> {
    let Some(block) = child.0.first() else { return Ok(Ran::default()) };
    // An empty list is null in Go.
    let messages = rpc.call::<Option<Vec<ParentMessage>>>("ChainGetParentMessages", json!([Lotus(*block)]));
    let receipts = rpc.call::<Option<Vec<MessageReceipt>>>("ChainGetParentReceipts", json!([Lotus(*block)]));
    let (messages, receipts) = futures::try_join!(messages, receipts)?;
    let (messages, receipts) = (messages.unwrap_or_default(), receipts.unwrap_or_default());
    if messages.len() != receipts.len() {
        return Err(ChainError::new(ChainErrorKind::Malformed, "read receipts")
            .with("endpoint", rpc.endpoint())
            .with("tipset", child)
            .with("messages", messages.len())
            .with("receipts", receipts.len()));
    }
    let of_ours = |(parent, receipt): (ParentMessage, MessageReceipt)| {
        let message = parent.message.0;
        let is_ours = ours.contains(&message.from);
        is_ours.then_some(((message.from, message.sequence), (parent.cid.0, message, receipt)))
    };
    Ok(messages.into_iter().zip(receipts).filter_map(of_ours).collect())
}

/// An error that others were told as well.
fn told(error: Arc<ChainError>) -> ChainError {
    Arc::try_unwrap(error).unwrap_or_else(|error| {
        ChainError::new(error.kind(), "read receipts").recover_by(error.recovery()).because(error.chain())
    })
}

#[cfg(all(test, feature = "testing"))]
mod tests;
