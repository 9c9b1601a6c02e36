//! The chain as it stands: tipsets, messages, and the actors at the head.

use super::{
    actors::Actors,
    block::{Executed, Tipset},
    mempool::Mempool,
};
use cid::Cid;
use fvm_ipld_encoding::strict_bytes;
use fvm_shared::{ActorID, clock::ChainEpoch};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// What is recorded, besides blocks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Entry {
    /// The first entry.
    Genesis {
        network: String,
        #[serde(with = "strict_bytes")]
        seed: Vec<u8>,
        funded: Vec<String>,
        tipset: Tipset,
    },
    /// The head grew.
    Tipset(Tipset),
    /// A message was taken: the CBOR of a signed message.
    Push {
        from: ActorID,
        #[serde(with = "strict_bytes")]
        message: Vec<u8>,
    },
    /// More accounts got funds, and the head's state is another one.
    Fund { funded: Vec<String>, state: Cid },
}

/// A message that was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pushed {
    /// By which the chain would know it.
    pub(super) cid: Cid,
    pub(super) from: ActorID,
    pub(super) nonce: u64,
}

/// The chain as it stands.
#[derive(Debug)]
pub(super) struct Chain {
    tipsets: BTreeMap<ChainEpoch, Arc<Tipset>>,
    by_cid: HashMap<Cid, ChainEpoch>,
    messages: HashMap<Cid, (ChainEpoch, usize)>,
    by_nonce: HashMap<(ActorID, u64), Cid>,
    /// All messages that were ever taken, by either CID, to find what replaced one.
    pushed: HashMap<Cid, Pushed>,
    pub(super) pool: Mempool,
    /// The actors in the head's state.
    pub(super) actors: Arc<Actors>,
    pub(super) funded: Vec<String>,
}

impl Chain {
    pub(super) fn new(genesis: Tipset, funded: Vec<String>) -> Self {
        let mut chain = Self {
            tipsets: BTreeMap::new(),
            by_cid: HashMap::new(),
            messages: HashMap::new(),
            by_nonce: HashMap::new(),
            pushed: HashMap::new(),
            pool: Mempool::default(),
            actors: Arc::default(),
            funded,
        };
        chain.grow(genesis);
        chain
    }

    /// Puts a tipset on top.
    pub(super) fn grow(&mut self, tipset: Tipset) {
        for (index, message) in tipset.messages.iter().enumerate() {
            self.messages.insert(message.cid, (tipset.height, index));
            self.messages.insert(message.unsigned, (tipset.height, index));
            self.by_nonce.insert((message.from, message.nonce), message.cid);
        }
        self.pool.prune(&tipset.messages);
        self.by_cid.insert(tipset.cid, tipset.height);
        self.tipsets.insert(tipset.height, Arc::new(tipset));
    }

    /// Replaces the state after the head.
    pub(super) fn replace_head_state(&mut self, state: Cid) {
        if let Some(mut last) = self.tipsets.last_entry() {
            Arc::make_mut(last.get_mut()).state = state;
        }
    }

    pub(super) fn remember_push(&mut self, unsigned: Cid, pushed: Pushed) {
        self.pushed.insert(unsigned, pushed);
        self.pushed.insert(pushed.cid, pushed);
    }

    /// A message that was ever taken, by either CID.
    pub(super) fn pushed(&self, cid: &Cid) -> Option<Pushed> {
        self.pushed.get(cid).copied()
    }

    pub(super) fn head(&self) -> Arc<Tipset> {
        self.tipsets.last_key_value().map(|(_, t)| Arc::clone(t)).expect("a chain has a genesis")
    }

    pub(super) fn by_cid(&self, cid: &Cid) -> Option<Arc<Tipset>> {
        self.tipsets.get(self.by_cid.get(cid)?).cloned()
    }

    /// The last tipset at or before an epoch.
    pub(super) fn at_or_before(&self, epoch: ChainEpoch) -> Option<Arc<Tipset>> {
        self.tipsets.range(..=epoch).next_back().map(|(_, t)| Arc::clone(t))
    }

    /// The first tipset at or after an epoch.
    pub(super) fn at_or_after(&self, epoch: ChainEpoch) -> Option<Arc<Tipset>> {
        self.tipsets.range(epoch..).next().map(|(_, t)| Arc::clone(t))
    }

    /// The tipset after another.
    pub(super) fn child(&self, height: ChainEpoch) -> Option<Arc<Tipset>> {
        self.at_or_after(height + 1)
    }

    /// All tipsets, oldest first.
    pub(super) fn tipsets(&self) -> impl Iterator<Item = &Arc<Tipset>> {
        self.tipsets.values()
    }

    /// A message that is on chain, by either CID: the tipset and the place in it.
    pub(super) fn message(&self, cid: &Cid) -> Option<(Arc<Tipset>, Executed)> {
        let (height, index) = self.messages.get(cid)?;
        let tipset = self.tipsets.get(height)?;
        Some((Arc::clone(tipset), tipset.messages.get(*index)?.clone()))
    }

    /// The message on chain that has the nonce of one that was taken.
    pub(super) fn in_place_of(&self, pushed: &Pushed) -> Option<(Arc<Tipset>, Executed)> {
        self.message(self.by_nonce.get(&(pushed.from, pushed.nonce))?)
    }
}
