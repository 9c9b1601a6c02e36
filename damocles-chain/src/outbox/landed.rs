//! From a message on chain to one that is final there. Messages are looked at by the tipset that holds them.

use super::{
    FINALITY, Outbox,
    lane::{Lane, PUSH_AGAIN},
    run::Went,
};
use damocles_core::chain::{ChainError, TipsetRef};
use fvm_shared::address::Address;
use tracing::warn;

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
