//! Tipsets and what came before them.

use crate::lotus_json::TipSet;
use damocles_core::chain::{TipsetKey, TipsetRef};
use std::collections::{HashMap, VecDeque};

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
}

/// A head, and which of several nodes told it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) link: Link,
    pub(crate) from: usize,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) links: HashMap<TipsetKey, Link>,
    pub(super) order: VecDeque<TipsetKey>,
}

impl Kept {
    pub(super) fn get(&self, key: &TipsetKey) -> Option<Link> {
        self.links.get(key).cloned()
    }

    pub(super) fn insert(&mut self, link: Link) {
        let key = link.at.key.clone();
        if self.links.insert(key.clone(), link).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > KEPT {
            if let Some(old) = self.order.pop_front() {
                self.links.remove(&old);
            }
        }
    }
}
