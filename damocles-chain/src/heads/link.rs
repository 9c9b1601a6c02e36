//! Tipsets and what came before them.

use crate::lotus_json::TipSet;
use damocles_core::chain::{TipsetKey, TipsetRef};
use std::collections::{HashMap, VecDeque, hash_map::Entry};

/// Tipsets that are kept, so that a walk rarely asks the node.
pub(super) const KEPT: usize = 4096;

/// A tipset and what came before it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Link {
    pub(crate) at: TipsetRef,
    pub(crate) parents: Option<TipsetKey>,
}

impl Link {
    pub(crate) fn of(tipset: &TipSet) -> Self {
        Self { at: tipset.to_ref(), parents: tipset.parents().filter(|key| !key.0.is_empty()) }
    }

    /// Whether another one may be its parent.
    pub(super) fn is_above(&self, parent: &Self) -> bool {
        parent.at.epoch < self.at.epoch && self.parents.as_ref() == Some(&parent.at.key)
    }
}

/// A head, and which of several nodes told it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) link: Link,
    pub(crate) from: usize,
}

/// Links whose parents were seen below them: no node's word on a height is worth more than what contradicts it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) links: HashMap<TipsetKey, Link>,
    pub(super) order: VecDeque<TipsetKey>,
}

impl Kept {
    pub(super) fn get(&self, key: &TipsetKey) -> Option<Link> {
        self.links.get(key).cloned()
    }

    /// Keeps a link that fits what came before it. Nothing that is kept is overwritten.
    pub(super) fn insert(&mut self, link: Link) {
        let key = link.at.key.clone();
        if let Entry::Vacant(place) = self.links.entry(key.clone()) {
            place.insert(link);
            self.order.push_back(key);
        }
        while self.order.len() > KEPT {
            if let Some(old) = self.order.pop_front() {
                self.links.remove(&old);
            }
        }
    }

    /// Keeps what was told by the way, if what came before it is kept and lies below it.
    pub(super) fn learn(&mut self, link: Link) {
        let fits = link.parents.as_ref().and_then(|key| self.links.get(key)).is_some_and(|p| link.is_above(p));
        if fits {
            self.insert(link);
        }
    }

    /// Forgets what contradicts something else.
    pub(super) fn remove(&mut self, key: &TipsetKey) {
        if self.links.remove(key).is_some() {
            self.order.retain(|kept| kept != key);
        }
    }
}
