//! Skipping idle time, without skipping a proof that is due.

use super::{
    actors::{Actors, code},
    error::DevnetError,
    node::{Devnet, state_error},
    select::Account,
};
use damocles_core::chain::TipsetRef;
use fil_actor_miner_state::v18::{Deadline, Partition, State, new_deadline_info};
use fil_actors_shared::{actor_error_v18, v18::ActorError};
use fvm_shared::{ActorID, clock::ChainEpoch};

/// Where skipping has to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// A deadline that is challenged already still waits for a proof.
    Now,
    /// The next challenge of a deadline with live sectors.
    At(ChainEpoch),
    /// No miner has live sectors.
    Nowhere,
}

/// What a deadline still waits for.
#[derive(Default)]
struct Pending {
    /// Something can be proven and was not in this window.
    proof: bool,
    /// Something is faulty and was not declared recovered.
    recovery: bool,
}

/// How many windows before a deadline's fault cut-off skipping stops if the deadline has faults to be declared recovered.
const RECOVERY_WINDOWS: i64 = 2;

/// The most epochs that one call skips: more than two months, and a slip of the pen does not run for ever.
const MAX_SKIP: ChainEpoch = 200_000;

impl Devnet {
    /// Mines null rounds, with cron in each, up to `limit` or up to the first epoch at which a deadline with live sectors
    /// is challenged, whichever comes first; before a deadline whose faults are not declared recovered there is one more
    /// stop, two windows before its cut-off. Messages that wait are mined before; while a challenged deadline still waits
    /// for a proof, nothing more is skipped. Returns the head that was reached.
    ///
    /// # Errors
    ///
    /// If the tipsets cannot be recorded.
    pub fn advance_to(&self, limit: ChainEpoch) -> Result<TipsetRef, DevnetError> {
        let _growing = self.growing.lock();
        let head = self.chain.read().head().height;
        let limit = limit.min(head + MAX_SKIP);
        let waiting = {
            let chain = self.chain.read();
            let account = |id| chain.actors.get(&id).map(Account::of);
            !chain.pool.select(head + 1, &chain.next_base_fee(), account).is_empty()
        };
        if waiting && head < limit {
            self.grow(head + 1)?;
        }
        let (head, actors) = self.tip();
        let target = match self.next_stop(&actors, head.height).map_err(state_error)? {
            Stop::Now => head.height,
            Stop::At(epoch) => epoch.min(limit),
            Stop::Nowhere => limit,
        };
        // Reads at a tipset see the state before it: with a tipset right below the target they see what the null rounds did.
        self.grow(target - 1)?;
        self.grow(target)?;
        self.start_clock_anew();
        Ok(self.head())
    }

    fn next_stop(&self, actors: &Actors, epoch: ChainEpoch) -> Result<Stop, ActorError> {
        let miner = code::of(code::MINER);
        let mut stop = Stop::Nowhere;
        for (id, actor) in actors.iter().filter(|(_, a)| a.code == miner) {
            let state: State = super::actors::load(&self.store, &actor.state)?;
            stop = stop.min(self.next_stop_of(*id, &state, epoch)?);
        }
        Ok(stop)
    }

    fn next_stop_of(&self, id: ActorID, state: &State, epoch: ChainEpoch) -> Result<Stop, ActorError> {
        let mut stop = Stop::Nowhere;
        // Sectors that were just committed are proven only while the miner's cron runs.
        if !state.deadline_cron_active {
            return Ok(stop);
        }
        let deadlines = state.load_deadlines(&self.store)?;
        let period = state.current_proving_period_start(&self.policy, epoch);
        for index in 0..self.policy.wpost_period_deadlines {
            let deadline = deadlines.load_deadline(&self.store, index)?;
            if deadline.live_sectors == 0 {
                continue;
            }
            // The next epoch's messages are the first that can still be about this deadline.
            let next = new_deadline_info(&self.policy, period, index, epoch + 1).next_not_elapsed();
            let pending = self
                .pending(&deadline)
                .map_err(|e| actor_error_v18!(illegal_state, "deadline {} of miner {}: {}", index, id, e))?;
            let found = if next.challenge <= epoch && pending.proof {
                Stop::Now
            } else {
                let later = if next.challenge > epoch { 0 } else { self.policy.wpost_proving_period };
                // Recoveries are declared shortly before the cut-off: there must be time for it.
                let room = next.fault_cutoff + later - RECOVERY_WINDOWS * self.policy.wpost_challenge_window;
                let challenge = next.challenge + later;
                Stop::At(if pending.recovery && room > epoch { room } else { challenge })
            };
            stop = stop.min(found);
        }
        Ok(stop)
    }

    /// What a deadline still waits for.
    fn pending(&self, deadline: &Deadline) -> Result<Pending, anyhow::Error> {
        let mut pending = Pending::default();
        deadline.for_each(&self.store, |index, partition: &Partition| {
            let good = &partition.live_sectors() - &partition.faults;
            let provable = &good | &partition.recoveries;
            pending.proof |= !provable.is_empty() && !deadline.partitions_posted.get(index);
            pending.recovery |= !(&partition.faults - &partition.recoveries).is_empty();
            Ok(())
        })?;
        Ok(pending)
    }
}
