//! How the chain grows: the next tipset from its parent, the messages that it takes, and cron.

use super::{
    actors::Actors,
    block::{Draft, Tipset},
    chain::{Chain, Entry},
    error::DevnetError,
    node::{Devnet, encode, state_error},
    randomness::TicketId,
    reward,
    select::Account,
    signed::SignedMessage,
    store::Overlay,
    vm,
};
use damocles_core::chain::TipsetRef;
use fvm_shared::{ActorID, clock::ChainEpoch, crypto::signature::SignatureType, econ::TokenAmount};
use std::sync::Arc;

/// Where a tipset is to grow.
pub(super) struct Site<'a> {
    pub(super) parent: &'a Tipset,
    /// The actors in the parent's state.
    pub(super) actors: &'a Actors,
    pub(super) ticket: TicketId,
    pub(super) base_fee: TokenAmount,
    /// The ticket of the last tipset at or before an epoch that is not above the parent.
    pub(super) ticket_at: &'a dyn Fn(ChainEpoch) -> TicketId,
}

/// A tipset that is stored nowhere yet.
pub(super) struct Grown {
    pub(super) tipset: Tipset,
    pub(super) actors: Actors,
    pub(super) failures: Vec<String>,
}

/// Messages with their senders, and what a block picks from them.
pub(super) type Choice<'a> =
    &'a dyn Fn(&TokenAmount, &dyn Fn(ActorID) -> Option<Account>) -> Vec<(SignedMessage, ActorID)>;

impl Devnet {
    /// Mines `n` tipsets, one per epoch.
    ///
    /// # Errors
    ///
    /// If they cannot be recorded; the head is then the last one that could.
    pub fn mine(&self, n: u64) -> Result<TipsetRef, DevnetError> {
        for _ in 0..n {
            let _growing = self.growing.lock();
            self.grow(self.height() + 1)?;
        }
        self.start_clock_anew();
        Ok(self.head())
    }

    /// Mines one tipset at `height`; the epochs before it are null rounds, with cron in each.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded.
    pub fn grow_to(&self, height: ChainEpoch) -> Result<TipsetRef, DevnetError> {
        let _growing = self.growing.lock();
        self.grow(height)?;
        Ok(self.head())
    }

    /// Lets epochs pass, unless the clock is paused: the last ones with a tipset each, at most so many, those before as null
    /// rounds.
    pub(super) fn pass(&self, epochs: u64, tipsets: u64) -> Result<(), DevnetError> {
        for left in (0..epochs.min(tipsets)).rev() {
            let _growing = self.growing.lock();
            // Looked at under the lock: once `pause` has returned and a growth has ended, no tick moves the head.
            if self.is_paused() {
                return Ok(());
            }
            let skipped = if left + 1 == epochs.min(tipsets) { epochs.saturating_sub(tipsets) } else { 0 };
            self.grow(self.height() + 1 + ChainEpoch::try_from(skipped).unwrap_or_default())?;
        }
        Ok(())
    }

    pub(super) fn height(&self) -> ChainEpoch {
        self.chain.read().head().height
    }

    /// Mines one tipset at `height`. The caller holds `growing`.
    pub(super) fn grow(&self, height: ChainEpoch) -> Result<(), DevnetError> {
        let (head, actors) = self.tip();
        if height <= head.height {
            return Ok(());
        }
        let overlay = Overlay::new(&self.store);
        let site = Site {
            parent: &head,
            actors: &actors,
            ticket: TicketId { height, branch: head.branch },
            base_fee: self.chain.read().next_base_fee(),
            ticket_at: &|epoch| self.ticket_at(epoch),
        };
        let choose: Choice<'_> = &|base_fee, account| self.chain.read().pool.select(height, base_fee, account);
        let Grown { tipset, actors, failures } = self.build(&overlay, &site, choose)?;
        let blocks = overlay.reachable([tipset.cid, tipset.state, tipset.receipts]);
        let entry = encode(&Entry::Tipset(tipset.clone()))?;
        self.commit(&entry, blocks, actors, |chain| chain.grow(tipset))?;
        self.failures.lock().extend(failures);
        Ok(())
    }

    /// Records what happens to the chain, lets it happen, and tells it.
    pub(super) fn commit(
        &self,
        entry: &[u8],
        blocks: super::store::Blocks,
        actors: Actors,
        change: impl FnOnce(&mut Chain),
    ) -> Result<(), DevnetError> {
        let head = {
            // Under the lock, so that the records are in the order in which things happened.
            let mut chain = self.chain.write();
            self.store.append(entry, blocks)?;
            change(&mut chain);
            chain.actors = Arc::new(actors);
            chain.head()
        };
        // Nobody may be listening.
        let _ = self.heads.send(head);
        Ok(())
    }

    /// The ticket of the last tipset of the chain at or before an epoch.
    pub(super) fn ticket_at(&self, epoch: ChainEpoch) -> TicketId {
        self.chain.read().at_or_before(epoch).map(|t| t.ticket()).unwrap_or_default()
    }

    /// Makes a tipset on top of its parent: cron for the null rounds between them, then the messages, then cron.
    pub(super) fn build(
        &self,
        overlay: &Overlay<'_>,
        site: &Site<'_>,
        choose: Choice<'_>,
    ) -> Result<Grown, DevnetError> {
        let height = site.ticket.height;
        let ticket_at = |epoch| if epoch >= height { site.ticket } else { (site.ticket_at)(epoch) };
        let mut world = self.world(overlay, &ticket_at, height, site.actors);
        for null in site.parent.height + 1..height {
            world.epoch = null;
            vm::cron(&mut world).map_err(state_error)?;
        }
        world.epoch = height;
        let account = |id: ActorID| world.actors.get(&id).map(Account::of);
        let mut chosen = choose(&site.base_fee, &account);
        // A block holds its BLS messages first, and is executed in the order in which it holds them.
        chosen.sort_by_key(|(message, _)| message.signature.sig_type != SignatureType::BLS);
        let mut messages = Vec::with_capacity(chosen.len());
        for (message, from) in chosen {
            match vm::apply(&mut world, &message.message, from, &site.base_fee) {
                Ok(applied) => messages.push((message, from, applied)),
                // An earlier message of this block took the funds that this one counted on: it waits for the next.
                Err(e) => tracing::debug!(error = %e, height, "a message was left out"),
            }
        }
        let winner = if self.config.policy.block_rewards {
            reward::winner(&world, &self.oracle.ticket_digest(site.ticket)).map_err(state_error)?
        } else {
            None
        };
        if let Some(winner) = winner {
            let tips = messages.iter().map(|(_, _, applied)| &applied.gas.miner_tip).sum();
            reward::award(&mut world, winner, &tips).map_err(state_error)?;
        }
        vm::cron(&mut world).map_err(state_error)?;
        let state = world.flush(Some((&site.parent.state, site.actors))).map_err(state_error)?;
        let draft = Draft {
            oracle: &self.oracle,
            parent: Some(site.parent),
            ticket: site.ticket,
            base_fee: site.base_fee.clone(),
            parent_state: site.parent.state,
            state,
            messages,
            winner,
        };
        let tipset = draft.seal(overlay).map_err(state_error)?;
        Ok(Grown { tipset, actors: world.actors, failures: world.failures })
    }
}
