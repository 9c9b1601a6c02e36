//! The chain as it stands: tipsets, messages, and the actors at the head.

use super::{
    actors::Actors,
    block::{Executed, Tipset},
    config::{NETWORK_VERSION, PoolLimits},
    mempool::Mempool,
    signed::SignedMessage,
};
use cid::Cid;
use fvm_ipld_encoding::strict_bytes;
use fvm_shared::{ActorID, clock::ChainEpoch, econ::TokenAmount};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// How many epochs below the head a fork may begin: a chain is final after that, as on public networks.
pub(super) const FINALITY: ChainEpoch = 900;

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
        /// What else it was made with; empty in records of a devnet that had no parameters.
        #[serde(default)]
        parameters: String,
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
    /// The chain was given up down to a tipset and went on from there another way.
    Fork(Fork),
    /// The base fee of the next tipsets.
    BaseFee(Spike),
    /// Nothing but blocks.
    Blocks,
    /// Another network version.
    Upgrade(Upgrade),
}

/// A fork of the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Fork {
    /// The height of the last tipset that stayed.
    pub(super) base: ChainEpoch,
    /// What becomes of each message that was on the chain above it.
    pub(super) fates: Vec<(Cid, Fate)>,
    /// What is there instead.
    pub(super) tipsets: Vec<Tipset>,
}

/// What becomes of a message that a fork throws out of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fate {
    /// It is back in the pool, and no block takes it before this epoch.
    NotBefore(ChainEpoch),
    /// It is lost; whoever sent it has to push it again.
    Lost,
}

/// A base fee that does not follow from the chain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Spike {
    pub(super) base_fee: TokenAmount,
    /// For so many tipsets more.
    pub(super) left: u64,
}

/// The network version from an epoch on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Upgrade {
    pub(super) version: u32,
    pub(super) height: ChainEpoch,
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
    /// All tipsets that ever were, those that were reverted too.
    known: HashMap<Cid, Arc<Tipset>>,
    messages: HashMap<Cid, (ChainEpoch, usize)>,
    by_nonce: HashMap<(ActorID, u64), Cid>,
    /// All messages that were ever taken, by either CID, to find what replaced one.
    pushed: HashMap<Cid, Pushed>,
    /// The messages that a fork can give back: the chain does not keep the signatures of BLS messages.
    signed: HashMap<Cid, SignedMessage>,
    /// Up to here nothing can be given back.
    settled: ChainEpoch,
    pub(super) pool: Mempool,
    /// The actors in the head's state.
    pub(super) actors: Arc<Actors>,
    pub(super) funded: Vec<String>,
    /// The last tipset whose state was replaced: no fork begins below it.
    pub(super) floor: ChainEpoch,
    pub(super) spike: Option<Spike>,
    /// In the order in which they were asked for.
    pub(super) upgrades: Vec<Upgrade>,
    /// Those of the configuration, by epoch.
    pub(super) scheduled: BTreeMap<ChainEpoch, u32>,
    /// The number of branches that there were.
    pub(super) branches: u64,
}

impl Chain {
    pub(super) fn new(genesis: Tipset, funded: Vec<String>) -> Self {
        let mut chain = Self {
            tipsets: BTreeMap::new(),
            known: HashMap::new(),
            messages: HashMap::new(),
            by_nonce: HashMap::new(),
            pushed: HashMap::new(),
            signed: HashMap::new(),
            settled: 0,
            pool: Mempool::default(),
            actors: Arc::default(),
            funded,
            floor: 0,
            spike: None,
            upgrades: Vec::new(),
            scheduled: BTreeMap::new(),
            branches: 0,
        };
        chain.grow(genesis);
        chain
    }

    /// Puts a tipset on top.
    pub(super) fn grow(&mut self, mut tipset: Tipset) {
        if tipset.parent_key.is_none() {
            tipset.parent_key = self.tipsets.last_key_value().map(|(_, t)| t.cid);
        }
        for (index, message) in tipset.messages.iter().enumerate() {
            self.messages.insert(message.cid, (tipset.height, index));
            self.messages.insert(message.unsigned, (tipset.height, index));
            self.by_nonce.insert((message.from, message.nonce), message.cid);
        }
        self.pool.prune(&tipset.messages);
        self.spike = self.spike.take().filter(|s| s.left > 1).map(|s| Spike { left: s.left - 1, ..s });
        self.branches = self.branches.max(tipset.branch);
        let tipset = Arc::new(tipset);
        self.settle(tipset.height - FINALITY);
        self.known.insert(tipset.cid, Arc::clone(&tipset));
        self.tipsets.insert(tipset.height, tipset);
    }

    fn settle(&mut self, to: ChainEpoch) {
        if to <= self.settled {
            return;
        }
        for tipset in self.tipsets.range(self.settled..to).map(|(_, t)| t) {
            for message in &tipset.messages {
                self.signed.remove(&message.cid);
            }
        }
        self.settled = to;
    }

    /// Goes another way from a tipset on.
    pub(super) fn fork(&mut self, fork: Fork) {
        self.revert(fork.base, &fork.fates.into_iter().collect());
        for tipset in fork.tipsets {
            self.grow(tipset);
        }
    }

    fn revert(&mut self, base: ChainEpoch, fates: &HashMap<Cid, Fate>) {
        for (_, tipset) in self.tipsets.split_off(&(base + 1)) {
            for message in &tipset.messages {
                self.messages.remove(&message.cid);
                self.messages.remove(&message.unsigned);
                self.by_nonce.remove(&(message.from, message.nonce));
            }
            for (from, message, not_before) in self.returned(&tipset, fates) {
                self.pool.give_back(from, message, not_before);
            }
        }
    }

    /// The messages of a tipset that go back into the pool when it is reverted, each with its sender and the epoch from
    /// which it may land again.
    pub(super) fn returned(
        &self,
        tipset: &Tipset,
        fates: &HashMap<Cid, Fate>,
    ) -> Vec<(ActorID, SignedMessage, ChainEpoch)> {
        let of = |message: &Executed| match fates.get(&message.cid)? {
            Fate::NotBefore(epoch) => Some((message.from, self.signed.get(&message.cid)?.clone(), *epoch)),
            Fate::Lost => None,
        };
        tipset.messages.iter().filter_map(of).collect()
    }

    /// Replaces the state after the head.
    pub(super) fn replace_head_state(&mut self, state: Cid) {
        if let Some(mut last) = self.tipsets.last_entry() {
            Arc::make_mut(last.get_mut()).state = state;
            self.known.insert(last.get().cid, Arc::clone(last.get()));
            self.floor = *last.key();
        }
    }

    /// Takes a message into the pool.
    pub(super) fn push(&mut self, from: ActorID, message: SignedMessage, unsigned: Cid, limits: &PoolLimits) -> Cid {
        let cid = message.cid();
        let pushed = Pushed { cid, from, nonce: message.message.sequence };
        self.pushed.insert(unsigned, pushed);
        self.pushed.insert(cid, pushed);
        self.signed.insert(cid, message.clone());
        self.pool.insert(from, message, limits);
        cid
    }

    /// The network version at an epoch: what was asked for last counts, and then what the configuration says.
    pub(super) fn version_at(&self, epoch: ChainEpoch) -> u32 {
        let asked = self.upgrades.iter().rev().find(|u| u.height <= epoch).map(|u| u.version);
        let scheduled = || self.scheduled.range(..=epoch).next_back().map(|(_, version)| *version);
        asked.or_else(scheduled).unwrap_or(NETWORK_VERSION)
    }

    /// The base fee of the next tipset.
    pub(super) fn next_base_fee(&self) -> TokenAmount {
        self.spike.as_ref().map_or_else(|| self.head().next_base_fee(), |s| s.base_fee.clone())
    }

    /// A message that was ever taken, by either CID.
    pub(super) fn pushed(&self, cid: &Cid) -> Option<Pushed> {
        self.pushed.get(cid).copied()
    }

    pub(super) fn head(&self) -> Arc<Tipset> {
        self.tipsets.last_key_value().map(|(_, t)| Arc::clone(t)).expect("a chain has a genesis")
    }

    /// A tipset that is or was on the chain.
    pub(super) fn by_cid(&self, cid: &Cid) -> Option<Arc<Tipset>> {
        self.known.get(cid).cloned()
    }

    /// Whether a tipset is on the chain.
    pub(super) fn holds(&self, tipset: &Tipset) -> bool {
        self.tipsets.get(&tipset.height).is_some_and(|t| t.cid == tipset.cid)
    }

    fn parent(&self, tipset: &Tipset) -> Option<Arc<Tipset>> {
        self.known.get(tipset.parent_key.as_ref()?).cloned()
    }

    /// The last tipset at or before an epoch.
    pub(super) fn at_or_before(&self, epoch: ChainEpoch) -> Option<Arc<Tipset>> {
        self.tipsets.range(..=epoch).next_back().map(|(_, t)| Arc::clone(t))
    }

    /// The first tipset at or after an epoch.
    pub(super) fn at_or_after(&self, epoch: ChainEpoch) -> Option<Arc<Tipset>> {
        self.tipsets.range(epoch..).next().map(|(_, t)| Arc::clone(t))
    }

    /// The tipsets of the branch that ends in `top` which are not on the chain, the highest first.
    pub(super) fn reverted(&self, top: &Arc<Tipset>) -> Vec<Arc<Tipset>> {
        let mut out = Vec::new();
        let mut at = Some(Arc::clone(top));
        while let Some(tipset) = at.take().filter(|t| !self.holds(t)) {
            at = self.parent(&tipset);
            out.push(tipset);
        }
        out
    }

    /// The last tipset at or before an epoch, on the branch that ends in `top`.
    pub(super) fn ancestor(&self, top: &Arc<Tipset>, epoch: ChainEpoch) -> Option<Arc<Tipset>> {
        let reverted = self.reverted(top);
        let above = reverted.last().map_or(top.height, |lowest| lowest.parent);
        reverted.into_iter().find(|t| t.height <= epoch).or_else(|| self.at_or_before(epoch.min(above)))
    }

    /// The first tipset at or after an epoch, on the branch that ends in `top`.
    pub(super) fn descendant(&self, top: &Arc<Tipset>, epoch: ChainEpoch) -> Option<Arc<Tipset>> {
        let reverted = self.reverted(top);
        let above = reverted.last().map_or(top.height, |lowest| lowest.parent);
        let found = self.at_or_after(epoch).filter(|t| t.height <= above);
        found.or_else(|| reverted.into_iter().rev().find(|t| t.height >= epoch))
    }

    /// What happened between a tipset that was the head once and the head: reverted, the highest first, and applied.
    pub(super) fn way(&self, from: &Arc<Tipset>) -> (Vec<Arc<Tipset>>, Vec<Arc<Tipset>>) {
        let reverted = self.reverted(from);
        let common = reverted.last().map_or(from.height, |lowest| lowest.parent);
        (reverted, self.tipsets.range(common + 1..).map(|(_, t)| Arc::clone(t)).collect())
    }

    /// All tipsets, oldest first.
    pub(super) fn tipsets(&self) -> impl DoubleEndedIterator<Item = &Arc<Tipset>> {
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
