//! Reorganisations on command.

use super::{
    actors::load_actors,
    block::Tipset,
    chain::{Entry, FINALITY, Fate, Fork},
    error::{DevnetError, DevnetErrorKind},
    grow::{Choice, Grown, Site},
    node::{Devnet, encode, reference, state_error},
    randomness::{TicketId, blake2b},
    store::Overlay,
};
use cid::Cid;
use damocles_core::chain::TipsetRef;
use fvm_shared::clock::ChainEpoch;
use std::{collections::HashMap, sync::Arc};

/// What a fork is to be like.
#[derive(Clone, Debug, Default)]
pub struct ForkPlan {
    /// How many tipsets are reverted.
    pub depth: u64,
    /// How many more tipsets than it reverts the new branch has.
    pub extend: u64,
    /// How many of the first epochs of the new branch have no tipset.
    pub nulls: u64,
    /// What becomes of the messages that were on the chain.
    pub fate: MessageFate,
    /// What becomes of some of them, by the CID by which the chain knows each.
    pub overrides: Vec<(Cid, MessageFate)>,
}

/// What becomes of a message that a fork throws out of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageFate {
    /// It lands where it was before, if there is a tipset.
    #[default]
    Again,
    /// It is back in the pool, and lands as soon as a block takes it.
    Pool,
    /// It is back in the pool and lands at the earliest so many epochs after the old head.
    Delay(u64),
    /// It is lost: whoever sent it has to push it again.
    Drop,
    /// One of these, drawn with a seed.
    Mixed(u64),
}

/// What a fork came to.
#[derive(Clone, Debug)]
pub struct Forked {
    /// The last tipset that stayed.
    pub base: TipsetRef,
    /// The tipsets that are gone, the highest first.
    pub reverted: Vec<TipsetRef>,
    /// The tipsets that came instead.
    pub applied: Vec<TipsetRef>,
    /// The messages that are on the new branch as well.
    pub landed: Vec<Cid>,
    /// Those that are back in the pool.
    pub returned: Vec<Cid>,
    /// Those that are lost.
    pub lost: Vec<Cid>,
}

/// What is reverted.
struct Reverted {
    base: Arc<Tipset>,
    /// The lowest first.
    tipsets: Vec<Arc<Tipset>>,
    branch: u64,
}

impl Devnet {
    /// Replaces the last tipsets by others at the same heights, with other tickets. Everything follows: state, receipts,
    /// the pool, randomness from tickets, and those who listen to the head. It is recorded as a whole or not at all.
    ///
    /// # Errors
    ///
    /// If the chain is not as long, is final there, or the new branch cannot be recorded.
    pub fn fork(&self, plan: &ForkPlan) -> Result<Forked, DevnetError> {
        let _growing = self.growing.lock();
        let reverted = self.to_revert(plan)?;
        let head = reverted.tipsets.last().map_or(reverted.base.height, |t| t.height);
        let overrides: HashMap<Cid, MessageFate> = plan.overrides.iter().copied().collect();
        let fates: Vec<(Cid, Fate)> = reverted
            .tipsets
            .iter()
            .flat_map(|tipset| tipset.messages.iter().map(|m| (m.cid, tipset.height)))
            .map(|(cid, height)| {
                let fate = overrides.get(&cid).copied().unwrap_or(plan.fate);
                (cid, decide(fate, &cid, height, head, reverted.base.height))
            })
            .collect();
        let heights = heights(&reverted, plan);
        let overlay = Overlay::new(&self.store);
        let grown = self.branch(&overlay, &reverted, &fates, &heights)?;
        let Some(last) = grown.last() else { return Err(refused("the new branch would have no tipset")) };
        let actors = last.actors.clone();
        let failures: Vec<String> = grown.iter().flat_map(|g| g.failures.iter().cloned()).collect();
        let tipsets: Vec<Tipset> = grown.into_iter().map(|g| g.tipset).collect();
        let outcome = outcome(&reverted, &fates, &tipsets);
        let blocks = overlay.reachable(tipsets.iter().flat_map(|t| [t.cid, t.state, t.receipts]));
        let fork = Fork { base: reverted.base.height, fates, tipsets };
        let entry = encode(&Entry::Fork(fork.clone()))?;
        self.commit(&entry, blocks, actors, |chain| chain.fork(fork))?;
        self.failures.lock().extend(failures);
        Ok(outcome)
    }

    fn to_revert(&self, plan: &ForkPlan) -> Result<Reverted, DevnetError> {
        if plan.depth == 0 {
            return Err(refused("a fork of depth 0 reverts nothing"));
        }
        let depth = usize::try_from(plan.depth).ok().filter(|d| *d <= MAX_DEPTH);
        let depth = depth.ok_or_else(|| refused("a chain is final after 900 tipsets"))?;
        if plan.extend > MAX_DEPTH as u64 {
            return Err(refused("at most 900 tipsets more than before"));
        }
        let chain = self.chain.read();
        let mut tipsets: Vec<Arc<Tipset>> = chain.tipsets().rev().take(depth + 1).cloned().collect();
        let base = tipsets.pop().filter(|_| tipsets.len() == depth);
        let base = base.ok_or_else(|| refused("the chain is not as long"))?;
        if base.height < chain.floor {
            return Err(
                refused("accounts got funds below the head, which no other branch has").with("epoch", chain.floor)
            );
        }
        if chain.head().height - base.height > FINALITY {
            return Err(refused("a chain is final after 900 epochs"));
        }
        tipsets.reverse();
        Ok(Reverted { base, tipsets, branch: chain.branches + 1 })
    }

    /// Makes the tipsets of a new branch.
    fn branch(
        &self,
        overlay: &Overlay<'_>,
        reverted: &Reverted,
        fates: &[(Cid, Fate)],
        heights: &[ChainEpoch],
    ) -> Result<Vec<Grown>, DevnetError> {
        let fates: HashMap<Cid, Fate> = fates.iter().copied().collect();
        let (mut pool, mut spike) = {
            let chain = self.chain.read();
            let mut pool = chain.pool.clone();
            for (from, message, not_before) in reverted.tipsets.iter().flat_map(|t| chain.returned(t, &fates)) {
                pool.give_back(from, message, not_before);
            }
            (pool, chain.spike.clone())
        };
        let base_actors = load_actors(&self.store, &reverted.base.state).map_err(state_error)?;
        let mut grown: Vec<Grown> = Vec::with_capacity(heights.len());
        for height in heights {
            let ticket_at = |epoch: ChainEpoch| {
                let made = grown.iter().rev().map(|g| g.tipset.ticket()).find(|t| t.height <= epoch);
                made.unwrap_or_else(|| self.ticket_at(epoch.min(reverted.base.height)))
            };
            let (parent, actors) =
                grown.last().map_or((reverted.base.as_ref(), &base_actors), |g| (&g.tipset, &g.actors));
            let site = Site {
                parent,
                actors,
                ticket: TicketId { height: *height, branch: reverted.branch },
                base_fee: spike.as_ref().map_or_else(|| parent.next_base_fee(), |s| s.base_fee.clone()),
                ticket_at: &ticket_at,
            };
            let choose: Choice<'_> = &|base_fee, account| pool.select(*height, base_fee, account);
            let made = self.build(overlay, &site, choose)?;
            pool.prune(&made.tipset.messages);
            if let Some(s) = &mut spike {
                s.left = s.left.saturating_sub(1);
            }
            spike = spike.filter(|s| s.left > 0);
            grown.push(made);
        }
        Ok(grown)
    }
}

/// The deepest fork, in tipsets.
const MAX_DEPTH: usize = 900;

fn refused(why: &'static str) -> DevnetError {
    DevnetError::new(DevnetErrorKind::Refused, "fork the chain").with("reason", why)
}

/// The heights of the new branch: those that were, without the first ones, and some more.
fn heights(reverted: &Reverted, plan: &ForkPlan) -> Vec<ChainEpoch> {
    let nulls = ChainEpoch::try_from(plan.nulls).unwrap_or(ChainEpoch::MAX);
    let first = reverted.base.height.saturating_add(nulls);
    let top = reverted.tipsets.last().map_or(reverted.base.height, |t| t.height);
    let more = (top + 1..).take(usize::try_from(plan.extend).unwrap_or_default());
    reverted.tipsets.iter().map(|t| t.height).chain(more).filter(|h| *h > first).collect()
}

fn decide(fate: MessageFate, cid: &Cid, height: ChainEpoch, head: ChainEpoch, base: ChainEpoch) -> Fate {
    match fate {
        MessageFate::Again => Fate::NotBefore(height),
        MessageFate::Pool => Fate::NotBefore(base),
        MessageFate::Delay(epochs) => {
            Fate::NotBefore(head.saturating_add(ChainEpoch::try_from(epochs).unwrap_or(ChainEpoch::MAX)))
        }
        MessageFate::Drop => Fate::Lost,
        MessageFate::Mixed(seed) => {
            let mut drawn = seed.to_be_bytes().to_vec();
            drawn.extend(cid.to_bytes());
            let digest = blake2b(&drawn);
            let (kind, by) = (digest.first().copied().unwrap_or_default(), digest.last().copied().unwrap_or_default());
            let fate = match kind % 4 {
                0 => MessageFate::Again,
                1 => MessageFate::Pool,
                2 => MessageFate::Delay(u64::from(by % 6)),
                _ => MessageFate::Drop,
            };
            decide(fate, cid, height, head, base)
        }
    }
}

fn outcome(reverted: &Reverted, fates: &[(Cid, Fate)], tipsets: &[Tipset]) -> Forked {
    let again: std::collections::HashSet<Cid> = tipsets.iter().flat_map(|t| t.messages.iter().map(|m| m.cid)).collect();
    let mut out = Forked {
        base: reference(&reverted.base),
        reverted: reverted.tipsets.iter().rev().map(|t| reference(t)).collect(),
        applied: tipsets.iter().map(reference).collect(),
        landed: Vec::new(),
        returned: Vec::new(),
        lost: Vec::new(),
    };
    for (cid, fate) in fates {
        match (fate, again.contains(cid)) {
            (_, true) => out.landed.push(*cid),
            (Fate::NotBefore(_), false) => out.returned.push(*cid),
            (Fate::Lost, false) => out.lost.push(*cid),
        }
    }
    out
}
