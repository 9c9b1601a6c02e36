//! Waiting until the chain has everything, and skipping the time in which nothing can happen.

use crate::progress::TaskProgress;
use anyhow::{Context as _, bail};
use damocles_chain::rpc::RpcClient;
use damocles_core::{
    ActorId, Address, DeadlineIndex, Epoch, Recovery, SectorSet,
    chain::{ChainClient, ChainError, DeadlineInfo, DeadlineState, HeadChange, TipsetRef},
};
use futures::StreamExt as _;
use serde_json::json;

/// A deadline that is missed is proven a day later, once its sectors are declared recovered. A sector that misses so
/// many is lost.
const PATIENCE: u32 = 2;
/// How many epochs a recovery may take to be declared before the clock is moved on.
const RECOVERY: i64 = 80;

/// Watches the sectors of one miner.
#[derive(Debug)]
pub struct Watch<'a> {
    /// The node.
    pub rpc: &'a RpcClient,
    /// The same node behind the seam.
    pub chain: &'a dyn ChainClient,
    /// The miner.
    pub miner: ActorId,
    /// How many sectors there will be.
    pub wanted: u64,
}

/// Where the sectors of a deadline stand.
#[derive(Debug)]
struct Held {
    index: DeadlineIndex,
    state: DeadlineState,
}

impl Watch<'_> {
    /// Resolves when all wanted sectors are active on chain; says how many are.
    ///
    /// # Errors
    ///
    /// The node goes away for good.
    pub async fn active(&self, shown: &TaskProgress) -> anyhow::Result<()> {
        let mut heads = self.chain.head_changes();
        while let Some(change) = heads.next().await {
            let HeadChange::Apply(head) = change else { continue };
            let Some(live) = known(self.live(&head).await)? else { continue };
            shown.set(live);
            if live >= self.wanted {
                return Ok(());
            }
        }
        bail!("the node tells no more heads")
    }

    /// Resolves when each sector was proven in a window PoSt from now on, or has missed too many of its deadlines.
    /// Whenever nothing can happen before the next challenge, the devnet's clock is moved there.
    ///
    /// # Errors
    ///
    /// The node goes away for good.
    pub async fn proven(&self, shown: &TaskProgress) -> anyhow::Result<()> {
        let mut heads = self.chain.head_changes();
        let mut places: Option<Vec<DeadlineIndex>> = None;
        let mut proven = SectorSet::new();
        let mut before: Option<(Epoch, SectorSet)> = None;
        let mut skips = 0;
        let mut idle_since: Option<Epoch> = None;
        // News of earlier heads may still be on their way, and with them proofs of before.
        let mut reached = known(self.chain.head().await)?.map_or(Epoch(0), |head| head.epoch);
        while let Some(change) = heads.next().await {
            let HeadChange::Apply(head) = change else { continue };
            if head.epoch < reached {
                continue;
            }
            // Sectors stay in their deadlines, so only these are asked for from the second head on.
            let indices = places.clone().unwrap_or_else(|| (0..48).map(DeadlineIndex).collect());
            let Some(held) = known(self.held(&head, &indices).await)? else { continue };
            places = Some(held.iter().map(|h| h.index).collect());
            let Some(now) = known(self.chain.deadline(&head, self.miner).await)? else { continue };
            let seen = newly_proven(&held, &now);
            // What was proven before this watch began does not count for it.
            let (window, earlier) = before.get_or_insert_with(|| (now.open, seen.clone()));
            proven = proven.union(&if *window == now.open { seen.minus(earlier) } else { seen });
            shown.set(u64::try_from(proven.len())?);
            let rest = remaining(&held, &proven);
            if rest.is_empty() {
                return Ok(());
            }
            if rest.iter().any(|h| is_challenged(&now, h.index)) {
                idle_since = None;
                continue;
            }
            let since = *idle_since.get_or_insert(head.epoch);
            let declarable = |h: &&&Held| awaits_recovery(h) && takes_recoveries(&now, h.index);
            if rest.iter().any(|h| declarable(&h)) && head.epoch - since < RECOVERY {
                shown.note("a deadline was missed; waiting for the recovery to be declared");
                continue;
            }
            if skips >= PATIENCE * u32::try_from(held.len())? {
                return Ok(());
            }
            skips += 1;
            idle_since = None;
            reached = self.skip(&head, shown).await?.unwrap_or(reached);
        }
        bail!("the node tells no more heads")
    }

    /// Moves the clock; says how far, unless the node will answer later.
    async fn skip(&self, head: &TipsetRef, shown: &TaskProgress) -> anyhow::Result<Option<Epoch>> {
        shown.note("moving the devnet's clock to the next challenge");
        let far = head.epoch + 2 * 2880;
        let Some(reached) = known(self.rpc.raw("Devnet.AdvanceTo", json!([far])).await)? else { return Ok(None) };
        let epoch = reached.as_i64().context("the devnet says which epoch it reached")?;
        shown.note(format!("challenge at epoch {epoch}: proving"));
        Ok(Some(Epoch(epoch)))
    }

    /// How many sectors are on chain and not terminated.
    async fn live(&self, head: &TipsetRef) -> Result<u64, ChainError> {
        let key: Vec<_> = head.key.0.iter().map(|cid| json!({ "/": cid.to_string() })).collect();
        let count = self.rpc.raw("Filecoin.StateMinerSectorCount", json!([Address::from_actor(self.miner), key]));
        Ok(count.await?.get("Live").and_then(serde_json::Value::as_u64).unwrap_or(0))
    }

    async fn held(&self, head: &TipsetRef, indices: &[DeadlineIndex]) -> Result<Vec<Held>, ChainError> {
        let mut held = Vec::new();
        for &index in indices {
            let state = self.chain.partitions(head, self.miner, index).await?;
            if !state.partitions.is_empty() {
                held.push(Held { index, state });
            }
        }
        Ok(held)
    }
}

/// An answer, or nothing if the node will answer later.
fn known<T>(answer: Result<T, ChainError>) -> Result<Option<T>, ChainError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if matches!(error.recovery(), Recovery::Retry { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The sectors whose partition was proven in the window that is open now, and that were part of the proof.
fn newly_proven(held: &[Held], now: &DeadlineInfo) -> SectorSet {
    let open = held.iter().filter(|h| h.index == now.index).flat_map(|h| {
        let proven = (0..).zip(&h.state.partitions).filter(|(i, _)| h.state.proven.contains(i));
        proven.flat_map(|(_, partition)| partition.active.iter())
    });
    open.collect()
}

/// The deadlines with a sector that is not proven yet, and only those sectors in them.
fn remaining<'h>(held: &'h [Held], proven: &SectorSet) -> Vec<&'h Held> {
    let open = |h: &&Held| h.state.partitions.iter().any(|p| !p.live.minus(proven).is_empty());
    held.iter().filter(open).collect()
}

fn awaits_recovery(held: &&Held) -> bool {
    held.state.partitions.iter().any(|p| !p.faulty.minus(&p.recovering).is_empty())
}

/// Whether a deadline is near and its fault cut-off still ahead: then a manager declares recoveries.
fn takes_recoveries(now: &DeadlineInfo, index: DeadlineIndex) -> bool {
    let offset = i64::try_from(index.0).unwrap_or(0) * now.challenge_window;
    let cutoff = now.period_start + offset - now.fault_declaration_cutoff;
    let ahead = (cutoff - now.current).rem_euclid(now.proving_period);
    (1..=2 * now.challenge_window).contains(&ahead)
}

/// Whether a deadline's challenge is out and its window not over.
fn is_challenged(now: &DeadlineInfo, index: DeadlineIndex) -> bool {
    let offset = i64::try_from(index.0).unwrap_or(0) * now.challenge_window;
    let challenge = now.period_start + offset - now.challenge_lookback;
    let into = (now.current - challenge).rem_euclid(now.proving_period);
    into < now.challenge_lookback + now.challenge_window
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{SectorNumber, chain::PartitionState};

    fn now(current: i64) -> DeadlineInfo {
        let period_start = Epoch(current - current.rem_euclid(2880));
        let index = (Epoch(current) - period_start) / 60;
        let open = period_start + index * 60;
        DeadlineInfo {
            current: Epoch(current),
            period_start,
            index: DeadlineIndex(index.unsigned_abs()),
            open,
            close: open + 60,
            challenge: open - 20,
            fault_cutoff: open - 70,
            deadlines: 48,
            proving_period: 2880,
            challenge_window: 60,
            challenge_lookback: 20,
            fault_declaration_cutoff: 70,
        }
    }

    fn sectors(numbers: &[u64]) -> SectorSet {
        numbers.iter().copied().map(SectorNumber).collect()
    }

    #[test]
    fn a_deadline_is_challenged_from_its_challenge_to_its_end() {
        for (epoch, challenged) in [(99, false), (100, true), (120, true), (179, true), (180, false)] {
            assert_eq!(is_challenged(&now(epoch), DeadlineIndex(2)), challenged, "epoch {epoch}");
        }
        assert!(is_challenged(&now(2870), DeadlineIndex(0)), "the challenge of the first deadline is a period earlier");
    }

    #[test]
    fn recoveries_are_taken_in_the_two_windows_before_the_cutoff() {
        // Deadline 5 opens at 300; its cut-off is 230.
        for (epoch, taken) in [(109, false), (110, true), (229, true), (230, false), (310, false)] {
            assert_eq!(takes_recoveries(&now(epoch), DeadlineIndex(5)), taken, "epoch {epoch}");
        }
    }

    #[test]
    fn only_active_sectors_of_proven_partitions_count() {
        let partition = |active: &[u64], faulty: &[u64]| PartitionState {
            live: sectors(active).union(&sectors(faulty)),
            active: sectors(active),
            faulty: sectors(faulty),
            ..PartitionState::default()
        };
        let state = DeadlineState { proven: vec![0], partitions: vec![partition(&[1], &[2]), partition(&[3], &[])] };
        let held = [Held { index: DeadlineIndex(2), state }];
        let proven = newly_proven(&held, &now(130));
        assert_eq!(proven, sectors(&[1]));
        assert_eq!(newly_proven(&held, &now(300)), sectors(&[]), "another deadline is open");
        assert_eq!(remaining(&held, &proven).len(), 1);
        assert!(awaits_recovery(&&held[0]));
        assert!(remaining(&held, &sectors(&[1, 2, 3])).is_empty());
    }
}
