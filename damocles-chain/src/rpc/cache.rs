//! Answers that can never change: those about tipsets that are final.
//!
//! An answer is kept only if it is bound to a tipset by its key and that tipset is at least [`FINALITY`] epochs below
//! the agreed head. Both are looked at again when it is given out: if the head falls back, what was final is not any
//! more. Answers about the head, and about tipsets that may still be reorganised away, are always asked for.

use damocles_core::chain::TipsetKey;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Epochs below the head from which on a tipset is final.
pub(super) const FINALITY: i64 = 900;
/// Tipsets whose epoch is remembered.
const KNOWN: usize = 8192;
/// Bytes of all answers together, and of the largest that is kept.
const MAX_BYTES: usize = 32 << 20;
const MAX_ANSWER: usize = 1 << 20;

type Question = (String, String);

#[derive(Debug)]
struct Kept {
    epoch: i64,
    answer: Value,
    bytes: usize,
    used: u64,
}

/// Answers by question, the least recently used forgotten first.
#[derive(Debug)]
pub(super) struct Cache {
    capacity: usize,
    head: Option<i64>,
    highest: Option<i64>,
    epochs: HashMap<TipsetKey, i64>,
    order: VecDeque<TipsetKey>,
    kept: HashMap<Question, Kept>,
    by_use: BTreeMap<u64, Question>,
    bytes: usize,
    clock: u64,
    hits: BTreeMap<String, u64>,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            head: None,
            highest: None,
            epochs: HashMap::new(),
            order: VecDeque::new(),
            kept: HashMap::new(),
            by_use: BTreeMap::new(),
            bytes: 0,
            clock: 0,
            hits: BTreeMap::new(),
        }
    }

    /// Takes note of the head.
    pub(super) fn head_is(&mut self, epoch: i64) {
        self.head = Some(epoch);
    }

    /// Takes note of a tipset's epoch.
    pub(super) fn learn(&mut self, key: TipsetKey, epoch: i64) {
        if self.epochs.insert(key.clone(), epoch).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > KNOWN {
            if let Some(old) = self.order.pop_front() {
                self.epochs.remove(&old);
            }
        }
    }

    /// Takes note of the highest head that can be believed.
    pub(super) fn head_at_most(&mut self, epoch: i64) {
        self.highest = Some(epoch);
    }

    fn is_final(&self, epoch: i64) -> bool {
        let head = self.head.map(|head| self.highest.map_or(head, |highest| head.min(highest)));
        head.is_some_and(|head| epoch <= head.saturating_sub(FINALITY))
    }

    /// Forgets an answer.
    pub(super) fn forget(&mut self, method: &str, params: &Value) {
        if let Some(old) = self.kept.remove(&(method.to_owned(), params.to_string())) {
            self.by_use.remove(&old.used);
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
    }

    pub(super) fn get(&mut self, method: &str, params: &Value) -> Option<Value> {
        let question = (method.to_owned(), params.to_string());
        let epoch = self.kept.get(&question)?.epoch;
        if !self.is_final(epoch) {
            return None;
        }
        self.clock = self.clock.saturating_add(1);
        let kept = self.kept.get_mut(&question)?;
        self.by_use.remove(&kept.used);
        kept.used = self.clock;
        self.by_use.insert(self.clock, question);
        let hits = self.hits.entry(method.to_owned()).or_default();
        *hits = hits.saturating_add(1);
        Some(kept.answer.clone())
    }

    /// Keeps an answer, if the tipset that it is bound to is final. A null is never kept: a node may have answered so
    /// for want of history.
    pub(super) fn put(&mut self, method: &str, params: &Value, bound_to: &TipsetKey, answer: &Value, bytes: usize) {
        let Some(epoch) = self.epochs.get(bound_to).copied() else { return };
        if self.capacity == 0 || answer.is_null() || bytes > MAX_ANSWER || !self.is_final(epoch) {
            return;
        }
        self.clock = self.clock.saturating_add(1);
        let question = (method.to_owned(), params.to_string());
        self.by_use.insert(self.clock, question.clone());
        let kept = Kept { epoch, answer: answer.clone(), bytes, used: self.clock };
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(old) = self.kept.insert(question, kept) {
            self.by_use.remove(&old.used);
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
        while self.kept.len() > self.capacity || self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some(old) = self.kept.remove(&oldest) {
                self.bytes = self.bytes.saturating_sub(old.bytes);
            }
        }
    }

    /// Answers that were given from here, by method.
    pub(super) fn hits(&self) -> BTreeMap<String, u64> {
        self.hits.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::CommP;
    use serde_json::json;

    fn key(n: u64) -> TipsetKey {
        let mut digest = [3; 32];
        digest[..8].copy_from_slice(&n.to_le_bytes());
        TipsetKey(vec![CommP(digest).cid()])
    }

    #[test]
    fn only_what_is_final_is_kept_and_given() {
        let mut cache = Cache::new(10);
        let keep = |cache: &mut Cache, n: u64| cache.put("m", &json!([n]), &key(n), &json!(n), 10);
        keep(&mut cache, 100);
        assert_eq!(cache.get("m", &json!([100])), None, "its epoch is not known");
        cache.learn(key(100), 100);
        keep(&mut cache, 100);
        assert_eq!(cache.get("m", &json!([100])), None, "the head is not known");
        cache.head_is(999);
        keep(&mut cache, 100);
        assert_eq!(cache.get("m", &json!([100])), None, "not final yet");
        cache.head_is(1000);
        keep(&mut cache, 100);
        assert_eq!(cache.get("m", &json!([100])), Some(json!(100)));
        assert_eq!(cache.get("other", &json!([100])), None);
        cache.head_is(990);
        assert_eq!(cache.get("m", &json!([100])), None, "the head fell back");
        cache.head_is(1001);
        assert_eq!(cache.get("m", &json!([100])), Some(json!(100)));
        cache.head_at_most(999);
        assert_eq!(cache.get("m", &json!([100])), None, "a head that nobody else bears out");
        cache.head_at_most(1000);
        cache.put("null", &json!([100]), &key(100), &Value::Null, 4);
        assert_eq!(cache.get("null", &json!([100])), None);
        assert_eq!(cache.hits(), BTreeMap::from([("m".to_owned(), 2)]));
        cache.forget("m", &json!([100]));
        assert_eq!((cache.get("m", &json!([100])), cache.bytes, cache.by_use.len()), (None, 0, 0));
    }

    #[test]
    fn the_least_recently_used_goes_first_and_sizes_are_bounded() {
        let mut cache = Cache::new(3);
        cache.head_is(10_000);
        let put = |cache: &mut Cache, n: u64, bytes| {
            cache.learn(key(n), 5);
            cache.put("m", &json!([n]), &key(n), &json!(n), bytes);
        };
        for n in 0..3 {
            put(&mut cache, n, 10);
        }
        assert!(cache.get("m", &json!([0])).is_some());
        put(&mut cache, 3, 10);
        let held: Vec<bool> = (0..4).map(|n| cache.get("m", &json!([n])).is_some()).collect();
        assert_eq!(held, [true, false, true, true]);
        put(&mut cache, 4, MAX_ANSWER + 1);
        assert!(cache.get("m", &json!([4])).is_none());
        let mut wide = Cache::new(1000);
        wide.head_is(10_000);
        for n in 0..100 {
            put(&mut wide, n, MAX_ANSWER);
        }
        assert!(wide.bytes <= MAX_BYTES && wide.kept.len() == wide.by_use.len() && !wide.kept.is_empty());
        for n in 0..(u64::try_from(KNOWN).unwrap() + 10) {
            wide.learn(key(n), 5);
        }
        assert_eq!((wide.epochs.len(), wide.order.len()), (KNOWN, KNOWN));
    }
}
