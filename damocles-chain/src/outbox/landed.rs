//! From a message on chain to one that is final there. Messages are looked at by the tipset that holds them.

use super::{
    FINALITY, Outbox,
    lane::{Lane, PUSH_AGAIN},
    run::Went,
};
use damocles_core::chain::{ChainError, ChainErrorKind, TipsetRef};
use fvm_shared::address::Address;
use tracing::warn;

/// So many epochs without a block are nothing unheard of.
const NULL_ROUNDS: i64 = 20;

impl Outbox {
    /// Looks at the tipsets that hold a sender's messages, until they are final.
    pub(super) async fn look_at_landed(&self, lane: &Lane, head: &TipsetRef, sender: &Address) -> Went {
        let tipsets = match self.store.landed_in(sender).await {
            Ok(tipsets) => tipsets,
            Err(e) => {
                warn!(error = e.chain(), "the outbox cannot be read");
                return Went::Badly;
            }
        };
        for (epoch, tipset) in tipsets {
            if !lane.is_due(&tipset, head.epoch.0) {
                continue;
            }
            if let Err(e) = self.look_at_tipset(lane, head, sender, epoch, &tipset).await {
                warn!(tipset, epoch, error = e.chain(), "a tipset with messages of ours cannot be looked at");
                return Went::of(&e);
            }
        }
        Went::Well
    }

    /// Refuses a head whose height its own chain does not bear out. What is decided by it once and for all would be
    /// decided too early: a height is one answer of one node.
    pub(super) async fn stands(&self, head: &TipsetRef) -> Result<(), ChainError> {
        if head.epoch.0 < 1 || self.stood.lock().as_ref() == Some(head) {
            return Ok(());
        }
        let before = self.node.tipset_at(head, head.epoch.0 - 1).await?;
        let below = head.epoch.0.saturating_sub(before.epoch.0);
        if !(1..=NULL_ROUNDS).contains(&below) {
            return Err(ChainError::new(ChainErrorKind::Malformed, "check head")
                .with("head", head.epoch)
                .with("tipset", &head.key)
                .with("tipset before it", before.epoch)
                .hint_with("nothing that cannot be undone is decided by a head that is so far above its own chain"));
        }
        *self.stood.lock() = Some(head.clone());
        Ok(())
    }

    async fn look_at_tipset(
        &self,
        lane: &Lane,
        head: &TipsetRef,
        sender: &Address,
        epoch: i64,
        tipset: &str,
    ) -> Result<(), ChainError> {
        let depth = head.epoch.0.saturating_sub(epoch);
        // What was seen in a tipset that is the head again is not known to have run.
        let there = depth > 0 && self.node.tipset_at(head, epoch).await?.key.to_string() == tipset;
        if !there {
            self.store.reverted(sender, tipset).await?;
            lane.forget_tipset(tipset);
        } else if depth >= FINALITY {
            self.stands(head).await?;
            self.store.settle(sender, tipset).await?;
            lane.forget_tipset(tipset);
        } else {
            // The deeper it lies, the less often it is looked at, and once more when it is final.
            let next = head.epoch.0.saturating_add(depth.max(PUSH_AGAIN)).min(epoch.saturating_add(FINALITY));
            lane.looked_at(tipset, epoch, next);
        }
        Ok(())
    }
}
