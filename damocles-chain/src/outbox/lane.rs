//! The messages of one sender, whose nonces come one after another.

use super::{
    Outbox, OutboxState,
    run::{Notes, Went},
};
use crate::lotus_json::text_of;
use damocles_core::chain::{SubmitKey, TipsetKey, TipsetRef};
use fvm_shared::address::Address;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    str::FromStr as _,
    sync::atomic::{AtomicBool, Ordering},
};
use tokio::sync::Notify;
use tracing::warn;

/// A node forgets its pool when it restarts, so a message that does not land is looked for and pushed again after so
/// many epochs.
pub(super) const PUSH_AGAIN: i64 = 5;
/// A transfer of nothing but money needs the same gas however often it is made.
const ASK_AGAIN: i64 = 120;
const MOST_RECEIVERS: usize = 1000;
const MOST_LATE: usize = 1000;
/// A proof is given up when its window has closed at so many heads.
const CLOSED: u32 = 3;

/// A lane. What a node does with the messages of one lane holds up no other.
#[derive(Debug)]
pub(super) struct Lane {
    /// None: the lane of what has no sender here, or no longer.
    pub(super) sender: Option<Address>,
    pub(super) wake: Notify,
    /// A proof of spacetime came.
    pub(super) urgent: Notify,
    late: Mutex<Late>,
    looks: Mutex<Looks>,
    /// Tipsets were reverted: the pool is looked through.
    shaken: AtomicBool,
    /// Tipsets were reverted: the nonce on chain says whether more of them were than is known.
    jumped: AtomicBool,
    gap: Mutex<Option<Gap>>,
    /// The newest head that was told.
    newest: Mutex<Option<TipsetKey>>,
    /// Proofs of spacetime are on their way.
    proofs: AtomicBool,
    /// The proofs without nonce whose windows seem to have closed, with the last head and the number of heads at which
    /// they did.
    closed: Mutex<HashMap<SubmitKey, (TipsetKey, u32)>>,
    /// What transfers to a receiver need, and the epoch at which that was asked.
    transfers: Mutex<HashMap<Address, (i64, u64)>>,
}

/// The calls at which passes ended because the node was away, each with a number that is the higher the later that
/// was: others come first in the next pass, and then the one that has waited longest.
#[derive(Debug, Default)]
struct Late {
    keys: HashMap<SubmitKey, u64>,
    last: u64,
}

/// A nonce that nobody fills, and the epoch since which it is known with the same nonce on chain.
#[derive(Clone, Copy, Debug)]
struct Gap {
    on_chain: u64,
    missing: u64,
    since: i64,
}

/// When messages are looked at again; what is lost with the process is only done again.
#[derive(Debug, Default)]
struct Looks {
    /// The epochs at which messages were pushed, or seen in the pool.
    pooled: HashMap<SubmitKey, i64>,
    /// The epochs from which on messages are searched for again.
    searched: HashMap<SubmitKey, i64>,
    /// Tipsets that hold messages: their epoch, and that at which they are looked at again.
    tipsets: HashMap<String, (i64, i64)>,
}

impl Lane {
    pub(super) fn of(sender: Option<Address>) -> Self {
        Self {
            sender,
            wake: Notify::new(),
            urgent: Notify::new(),
            late: Mutex::default(),
            looks: Mutex::default(),
            shaken: AtomicBool::new(false),
            jumped: AtomicBool::new(false),
            gap: Mutex::default(),
            newest: Mutex::default(),
            proofs: AtomicBool::new(false),
            closed: Mutex::default(),
            transfers: Mutex::default(),
        }
    }

    /// The gas limit of a transfer to a receiver, if that was asked for lately.
    pub(super) fn transfer_limit(&self, to: &Address, head: i64) -> Option<u64> {
        let transfers = self.transfers.lock();
        let (at, limit) = transfers.get(to)?;
        (*at..at.saturating_add(ASK_AGAIN)).contains(&head).then_some(*limit)
    }

    pub(super) fn transfers_need(&self, to: Address, head: i64, limit: u64) {
        let mut transfers = self.transfers.lock();
        if transfers.len() >= MOST_RECEIVERS {
            transfers.clear();
        }
        transfers.insert(to, (head, limit));
    }

    pub(super) fn head_is(&self, head: &TipsetKey) {
        *self.newest.lock() = Some(head.clone());
    }

    pub(super) fn waits_for_proofs(&self, are_there: bool) {
        self.proofs.store(are_there, Ordering::Release);
    }

    /// Whether what is done at a head may wait: another one is there, and with it the fees of proofs that are on their
    /// way may have to rise.
    pub(super) fn gives_way(&self, head: &TipsetRef) -> bool {
        self.proofs.load(Ordering::Acquire) && self.newest.lock().as_ref().is_some_and(|newest| *newest != head.key)
    }

    /// Takes note of whether the window of a proof seems to have closed at a head. Whether it did at so many heads in a row
    /// that no single answer says so.
    pub(super) fn has_closed(&self, key: &SubmitKey, at: Option<&TipsetKey>) -> bool {
        let mut closed = self.closed.lock();
        let Some(head) = at else {
            closed.remove(key);
            return false;
        };
        if closed.len() >= MOST_LATE {
            closed.clear();
        }
        let (last, times) = closed.entry(key.clone()).or_insert_with(|| (head.clone(), 1));
        if last != head {
            (*last, *times) = (head.clone(), times.saturating_add(1));
        }
        let has = *times >= CLOSED;
        if has {
            closed.remove(key);
        }
        has
    }

    /// A tipset is gone: what was there or above is looked at again.
    pub(super) fn reverted(&self, epoch: i64) {
        let mut looks = self.looks.lock();
        looks.tipsets.retain(|_, (at, _)| *at < epoch);
        looks.searched.clear();
        // A receiver that was made there is not there any more, and making it costs more.
        self.transfers.lock().clear();
        self.shaken.store(true, Ordering::Release);
        self.jumped.store(true, Ordering::Release);
    }

    /// Whether tipsets were reverted since the nonce on chain was compared last.
    pub(super) fn may_have_jumped(&self) -> bool {
        self.jumped.load(Ordering::Acquire)
    }

    pub(super) fn compared(&self) {
        self.jumped.store(false, Ordering::Release);
    }

    /// The epoch since which a nonce is known to be missing while the nonce on chain stands still.
    pub(super) fn missing_since(&self, on_chain: u64, missing: u64, head: i64) -> i64 {
        let mut gap = self.gap.lock();
        let known = gap.filter(|gap| gap.on_chain == on_chain && gap.missing == missing && gap.since <= head);
        let known = known.unwrap_or(Gap { on_chain, missing, since: head });
        *gap = Some(known);
        known.since
    }

    pub(super) fn no_gap(&self) {
        *self.gap.lock() = None;
    }

    /// Whether its messages wait for a nonce that nobody fills.
    pub(super) fn is_stuck(&self) -> bool {
        self.gap.lock().is_some()
    }

    /// Whether tipsets were reverted since this was asked last.
    pub(super) fn was_shaken(&self) -> bool {
        self.shaken.swap(false, Ordering::AcqRel)
    }

    /// Whether this process has seen a message in the pool.
    pub(super) fn knows(&self, key: &SubmitKey) -> bool {
        self.looks.lock().pooled.contains_key(key)
    }

    /// Whether a message was last seen in the pool so long ago that it is looked for there.
    pub(super) fn pooled_long_ago(&self, key: &SubmitKey, head: i64) -> bool {
        let looks = self.looks.lock();
        looks.pooled.get(key).is_some_and(|at| !(*at..at.saturating_add(PUSH_AGAIN)).contains(&head))
    }

    pub(super) fn pooled(&self, key: &SubmitKey, head: i64) {
        self.looks.lock().pooled.insert(key.clone(), head);
    }

    /// Whether a search for a message just now was in vain.
    pub(super) fn rests(&self, key: &SubmitKey, head: i64) -> bool {
        let looks = self.looks.lock();
        looks.searched.get(key).is_some_and(|next| (next - PUSH_AGAIN..*next).contains(&head))
    }

    pub(super) fn searched(&self, key: &SubmitKey, head: i64) {
        self.looks.lock().searched.insert(key.clone(), head.saturating_add(PUSH_AGAIN));
    }

    /// The next message that is seen of a call is another one.
    pub(super) fn forget(&self, key: &SubmitKey) {
        let mut looks = self.looks.lock();
        looks.pooled.remove(key);
        looks.searched.remove(key);
    }

    /// Whether a tipset is to be looked at.
    pub(super) fn is_due(&self, tipset: &str, head: i64) -> bool {
        self.looks.lock().tipsets.get(tipset).is_none_or(|(at, next)| !(*at..*next).contains(&head))
    }

    pub(super) fn looked_at(&self, tipset: &str, epoch: i64, next: i64) {
        self.looks.lock().tipsets.insert(tipset.to_owned(), (epoch, next));
    }

    pub(super) fn forget_tipset(&self, tipset: &str) {
        self.looks.lock().tipsets.remove(tipset);
    }

    /// The node went away at a call.
    pub(super) fn was_late(&self, key: &SubmitKey) {
        let mut late = self.late.lock();
        if late.keys.len() >= MOST_LATE {
            late.keys.clear();
        }
        late.last = late.last.saturating_add(1);
        let last = late.last;
        late.keys.insert(key.clone(), last);
    }

    /// The node answered for a call.
    pub(super) fn in_time(&self, key: &SubmitKey) {
        self.late.lock().keys.remove(key);
    }

    /// Puts the calls at which the node went away to the end.
    pub(super) fn late_last<T>(&self, rows: &mut [T], key: impl Fn(&T) -> &SubmitKey) {
        let late = self.late.lock();
        if !late.keys.is_empty() {
            rows.sort_by_key(|row| late.keys.get(key(row)).copied().unwrap_or_default());
        }
    }
}

impl Outbox {
    /// Moves the calls of a lane as far as they go. Whether all went well.
    pub(super) async fn pass_of(&self, lane: &Lane, head: &TipsetRef) -> bool {
        if let Err(e) = self.put_in_lanes().await {
            warn!(error = e.chain(), "the outbox cannot be read");
            return false;
        }
        loop {
            // Proofs of spacetime have a deadline: no other message, nor a slow search for one, may stand before a new
            // one.
            let proofs = self.sign_recorded(lane, head, true).await;
            // Work can be dropped at any point, as at the end of the process.
            let rest = tokio::select! {
                biased;
                () = lane.urgent.notified() => continue,
                rest = self.rest(lane, head, proofs) => rest,
            };
            return proofs.max(rest) == Went::Well;
        }
    }

    async fn rest(&self, lane: &Lane, head: &TipsetRef, proofs: Went) -> Went {
        let senders = match self.senders_of(lane).await {
            Ok(senders) => senders,
            Err(e) => {
                warn!(error = e.chain(), "the outbox cannot be read");
                return Went::Badly;
            }
        };
        let mut went = Went::Well;
        for sender in senders {
            went = went.max(self.look_at_landed(lane, head, &sender).await);
            if went != Went::Away {
                went = went.max(self.deliver(lane, head, &sender).await);
            }
            if went == Went::Away {
                return went;
            }
        }
        // One proof that the node has no price for keeps no signed message from the pool, but new ones it does.
        if proofs == Went::Away {
            return went;
        }
        went.max(self.sign_recorded(lane, head, false).await)
    }

    /// Whose messages are in a lane: those of its sender, or of all who have no lane.
    async fn senders_of(&self, lane: &Lane) -> Result<Vec<Address>, damocles_core::chain::ChainError> {
        if let Some(sender) = lane.sender {
            return Ok(vec![sender]);
        }
        let ours: Vec<String> = self.senders.keys().map(|key| text_of(&key)).collect();
        let strangers = self.store.senders().await?.into_iter().filter(|sender| !ours.contains(sender));
        Ok(strangers.filter_map(|text| parse(&text)).collect())
    }

    /// Notes on every call without sender that it has none.
    pub(super) async fn note_without_sender(&self) -> Went {
        let (mut went, mut notes) = (Went::Well, Notes::default());
        let rows = match self.store.recorded(None, false, i64::MIN, i64::MAX).await {
            Ok(page) => page.rows,
            Err(_) => return Went::Badly,
        };
        for row in rows {
            if let Err(e) = self.choose(&row.key, &row.call, None) {
                notes.take(&row.key, OutboxState::Recorded, row.error.as_deref(), Some(&e));
                went = Went::Badly;
            }
        }
        self.note(notes).await;
        went
    }
}

/// A sender as the tables have it.
pub(super) fn parse(text: &str) -> Option<Address> {
    let address = damocles_core::Address::from_str(text).ok()?;
    crate::lotus_json::from_core(&address).ok()
}
