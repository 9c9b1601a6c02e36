//! The messages of one sender, whose nonces come one after another.

use super::{
    Outbox, OutboxState,
    run::{Notes, Went},
};
use crate::lotus_json::text_of;
use damocles_core::chain::{SubmitKey, TipsetRef};
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

/// A lane. What a node does with the messages of one lane holds up no other.
#[derive(Debug)]
pub(super) struct Lane {
    /// None: the lane of what has no sender here, or no longer.
    pub(super) sender: Option<Address>,
    pub(super) wake: Notify,
    /// A proof of spacetime came.
    pub(super) urgent: Notify,
    /// The call at which the last pass ended because the node was away: others come first in the next.
    pub(super) late: Mutex<Option<SubmitKey>>,
    looks: Mutex<Looks>,
    /// Tipsets were reverted: the pool is looked through.
    shaken: AtomicBool,
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
        }
    }

    /// A tipset is gone: what was there or above is looked at again.
    pub(super) fn reverted(&self, epoch: i64) {
        let mut looks = self.looks.lock();
        looks.tipsets.retain(|_, (at, _)| *at < epoch);
        looks.searched.clear();
        self.shaken.store(true, Ordering::Release);
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

    /// Puts the call at which the node went away last to the end.
    pub(super) fn late_last<T>(&self, rows: &mut [T], key: impl Fn(&T) -> &SubmitKey) {
        let late = self.late.lock().clone();
        rows.sort_by_key(|row| late.as_ref() == Some(key(row)));
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
            if proofs == Went::Away {
                return false;
            }
            // Work can be dropped at any point, as at the end of the process.
            let rest = tokio::select! {
                biased;
                () = lane.urgent.notified() => continue,
                rest = self.rest(lane, head) => rest,
            };
            return proofs.max(rest) == Went::Well;
        }
    }

    async fn rest(&self, lane: &Lane, head: &TipsetRef) -> Went {
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
        *lane.late.lock() = None;
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
        let rows = match self.store.recorded(None, false, i64::MAX).await {
            Ok(rows) => rows,
            Err(_) => return Went::Badly,
        };
        for row in rows {
            if let Err(e) = self.senders.of(&row.call) {
                notes.take(&row.key, OutboxState::Recorded, row.error.as_deref(), Some(&e));
                went = Went::Badly;
            }
        }
        self.note(notes).await;
        went
    }
}

/// A sender as the tables have it.
fn parse(text: &str) -> Option<Address> {
    let address = damocles_core::Address::from_str(text).ok()?;
    crate::lotus_json::from_core(&address).ok()
}
