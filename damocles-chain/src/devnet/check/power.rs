//! The network's books: claims, totals and callbacks.

use super::{Books, Faults, Totals, miner::unreadable};
use crate::devnet::actors::{Actors, load};
use fil_actor_miner_state::v18::{
    CRON_EVENT_PROCESS_EARLY_TERMINATIONS, CRON_EVENT_PROVING_DEADLINE, CronEventPayload, PowerPair,
};
use fil_actor_power_state::v18::{
    CRON_QUEUE_AMT_BITWIDTH, CRON_QUEUE_HAMT_BITWIDTH, CronEvent, State, consensus_miner_min_power, epoch_key,
};
use fil_actors_shared::v18::{ActorError, Multimap, STORAGE_POWER_ACTOR_ID};
use fvm_shared::{ActorID, bigint::BigInt, clock::ChainEpoch};
use std::collections::HashMap;

/// Compares what miners have with what the power actor thinks that they have.
pub(super) fn check(
    books: &Books<'_>,
    actors: &Actors,
    miners: &HashMap<ActorID, Totals>,
    found: &mut Vec<String>,
) -> Result<(), ActorError> {
    let Some(actor) = actors.get(&STORAGE_POWER_ACTOR_ID) else {
        found.push("there is no power actor".to_owned());
        return Ok(());
    };
    let state: State = load(books.store, &actor.state)?;
    let mut faults = Faults::at("power actor");
    let (mut committed, mut counted) = (PowerPair::zero(), PowerPair::zero());
    let (mut claims, mut above) = (0, 0);
    state.load_claims(books.store)?.for_each(|address, claim| {
        claims += 1;
        let power = PowerPair::new(claim.raw_byte_power.clone(), claim.quality_adj_power.clone());
        let miner = address.id().ok().and_then(|id| miners.get(&id));
        faults.same(&format!("the claim of {address}"), &Some(&power), &miner.map(|m| &m.power));
        let minimum = consensus_miner_min_power(books.policy, claim.window_post_proof_type).map_err(unreadable)?;
        if claim.raw_byte_power >= minimum {
            above += 1;
            counted += &power;
        }
        committed += &power;
        Ok(())
    })?;
    let total = |raw: &BigInt, qa: &BigInt| PowerPair::new(raw.clone(), qa.clone());
    faults.same("committed power", &total(&state.total_bytes_committed, &state.total_qa_bytes_committed), &committed);
    faults.same("power", &total(&state.total_raw_byte_power, &state.total_quality_adj_power), &counted);
    faults.same("miners with the minimum power", &state.miner_above_min_power_count, &above);
    faults.same("miners", &state.miner_count, &claims);
    faults.same("miners without a claim", &(miners.len().abs_diff(usize::try_from(claims).unwrap_or_default())), &0);
    check_callbacks(books, &state, miners, &mut faults)?;
    found.append(&mut faults.found);
    Ok(())
}

/// Each miner that has to be looked after is called at the end of its deadline, once.
fn check_callbacks(
    books: &Books<'_>,
    state: &State,
    miners: &HashMap<ActorID, Totals>,
    faults: &mut Faults,
) -> Result<(), ActorError> {
    let queue =
        Multimap::from_root(books.store, &state.cron_event_queue, CRON_QUEUE_HAMT_BITWIDTH, CRON_QUEUE_AMT_BITWIDTH)
            .map_err(|e| unreadable(e.into()))?;
    let count = |epoch: ChainEpoch, miner: ActorID, event: i64| -> Result<usize, ActorError> {
        let mut count = 0;
        queue
            .for_each(&epoch_key(epoch), |_, callback: &CronEvent| {
                let payload: CronEventPayload = callback.callback_payload.deserialize()?;
                count += usize::from(callback.miner_addr.id()? == miner && payload.event_type == event);
                Ok(())
            })
            .map_err(|e| unreadable(e.into()))?;
        Ok(count)
    };
    for (id, miner) in miners {
        faults.unless(miner.cron_active || !miner.needs_cron, || format!("nobody looks after t0{id}"));
        let calls = count(miner.next_deadline_end, *id, CRON_EVENT_PROVING_DEADLINE)?;
        if miner.cron_active {
            faults.same(&format!("callbacks of t0{id} at {}", miner.next_deadline_end), &calls, &1);
        }
        if miner.early_terminations {
            let calls = count(books.epoch + 1, *id, CRON_EVENT_PROCESS_EARLY_TERMINATIONS)?;
            faults.unless(calls > 0, || format!("nobody settles the early terminations of t0{id}"));
        }
    }
    Ok(())
}
