//! What happened in the last tipsets: many messages of ours in one tipset are found with two questions.

use super::{Found, Located, OnChain};
use crate::{
    lotus_json::{Lotus, MessageReceipt, TipSet},
    rpc::RpcClient,
};
use cid::Cid;
use damocles_core::chain::{ChainError, ChainErrorKind, TipsetKey};
use fvm_shared::{address::Address, econ::TokenAmount, message::Message};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
};
use tokio::sync::Mutex;

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
    ours: BTreeSet<Address>,
    headers: parking_lot::Mutex<Bounded<TipsetKey, Header>>,
    /// By the tipset that commits to the receipts. Whoever asks first asks for all.
    ran: Mutex<Bounded<TipsetKey, Arc<Ran>>>,
}

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
            ours,
            headers: parking_lot::Mutex::new(Bounded::new(KEPT_HEADERS)),
            ran: Mutex::new(Bounded::new(KEPT_TIPSETS)),
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
        rpc: &RpcClient,
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
                Err(_) if moved && stumbles < STUMBLES => stumbles += 1,
                Err(e) => {
                    out.broken_off = Some(e);
                    break;
                }
            }
        }
        out
    }

    /// Looks through the tipset below another. Its key and its height.
    async fn look_below(
        &self,
        rpc: &RpcClient,
        at: &TipsetKey,
        sender: &Address,
        nonces: &BTreeSet<u64>,
        out: &mut BTreeMap<u64, OnChain>,
    ) -> Result<Option<(TipsetKey, i64)>, ChainError> {
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

    /// The messages to whose receipts a tipset commits.
    async fn ran(&self, rpc: &RpcClient, child: &TipsetKey) -> Result<Arc<Ran>, ChainError> {
        let mut kept = self.ran.lock().await;
        if let Some(ran) = kept.map.get(child) {
            return Ok(Arc::clone(ran));
        }
        let Some(block) = child.0.first() else { return Ok(Arc::default()) };
        // An empty list is null in Go.
        let messages: Option<Vec<ParentMessage>> = rpc.call("ChainGetParentMessages", json!([Lotus(*block)])).await?;
        let receipts: Option<Vec<MessageReceipt>> = rpc.call("ChainGetParentReceipts", json!([Lotus(*block)])).await?;
        let (messages, receipts) = (messages.unwrap_or_default(), receipts.unwrap_or_default());
        if messages.len() != receipts.len() {
            return Err(ChainError::new(ChainErrorKind::Malformed, "read receipts")
                .with("endpoint", rpc.endpoint())
                .with("tipset", child)
                .with("messages", messages.len())
                .with("receipts", receipts.len()));
        }
        let ours = |(parent, receipt): (ParentMessage, MessageReceipt)| {
            let message = parent.message.0;
            let is_ours = self.ours.contains(&message.from);
            is_ours.then_some(((message.from, message.sequence), (parent.cid.0, message, receipt)))
        };
        let ran: Arc<Ran> = Arc::new(messages.into_iter().zip(receipts).filter_map(ours).collect());
        kept.insert(child.clone(), Arc::clone(&ran));
        Ok(ran)
    }
}
