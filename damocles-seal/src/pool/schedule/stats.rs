//! What a pool has done, as numbers.

use damocles_core::pool::{PoolErrorKind, TaskKind};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// What a pool has done since it was made. What its slots do and how often they were restarted is in their reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolStats {
    /// By kind of job; every kind that a slot takes is there.
    pub kinds: BTreeMap<TaskKind, KindStats>,
}

/// What became of the jobs of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KindStats {
    /// Jobs that wait now.
    pub waiting: usize,
    /// Jobs that have a slot now.
    pub running: usize,
    /// Jobs that got a slot.
    pub starts: u64,
    /// How long they waited for it, added up.
    pub waited: Duration,
    /// Jobs that were done.
    pub done: u64,
    /// How long those that ended had their slot, added up, done or not.
    pub worked: Duration,
    /// Jobs that failed, by what went wrong, in words such as `out_of_memory`.
    pub failures: BTreeMap<String, u64>,
    /// Jobs that nobody waited for any more.
    pub dropped: u64,
}

impl KindStats {
    pub(super) fn failed(&mut self, kind: PoolErrorKind) {
        *self.failures.entry(label(kind)).or_default() += 1;
    }
}

/// The name of a kind of failure, as metrics have names: `OutOfMemory` is `out_of_memory`.
fn label(kind: PoolErrorKind) -> String {
    let mut label = String::new();
    for letter in format!("{kind:?}").chars() {
        if letter.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(letter.to_ascii_lowercase());
    }
    label
}
