//! What miners tell the power actor: claims, pledge and cron events.

use super::actors::World;
use fil_actor_miner_state::v18::{self as miner, PowerPair};
use fil_actor_power_state::v18::{
    CONSENSUS_MINER_MIN_MINERS, CRON_QUEUE_AMT_BITWIDTH, CRON_QUEUE_HAMT_BITWIDTH, Claim, CronEvent, State,
    consensus_miner_min_power, epoch_key, set_claim,
};
use fil_actor_reward_state::v18 as reward;
use fil_actors_shared::{
    actor_error_v18,
    v18::{
        ActorError, Multimap, REWARD_ACTOR_ID, STORAGE_POWER_ACTOR_ID,
        reward::{
            FilterEstimate,
            smooth::{AlphaBetaFilter, DEFAULT_ALPHA, DEFAULT_BETA},
        },
    },
};
use fvm_ipld_encoding::RawBytes;
use fvm_shared::{
    ActorID, address::Address, bigint::BigInt, clock::ChainEpoch, econ::TokenAmount, sector::StoragePower,
};
use num_traits::Zero;

/// What handlers ask the network about money.
#[derive(Debug)]
pub(super) struct Economy {
    pub(super) reward: FilterEstimate,
    pub(super) baseline: StoragePower,
    pub(super) qa_power: FilterEstimate,
    pub(super) circulating: TokenAmount,
    ramp_start: i64,
    ramp_duration: u64,
    epoch: ChainEpoch,
}

impl Economy {
    /// Reads it. The supply in circulation is a constant: nothing on a devnet depends on its course.
    pub(super) fn of(world: &World<'_>) -> Result<Self, ActorError> {
        let reward: reward::State = world.state(REWARD_ACTOR_ID)?;
        let power: State = world.state(STORAGE_POWER_ACTOR_ID)?;
        Ok(Self::from_states(reward, power, world.epoch))
    }

    /// The same from the states that it lies in.
    pub(super) fn from_states(reward: reward::State, power: State, epoch: ChainEpoch) -> Self {
        Self {
            reward: reward.this_epoch_reward_smoothed,
            baseline: reward.this_epoch_baseline_power,
            qa_power: power.this_epoch_qa_power_smoothed,
            circulating: TokenAmount::from_whole(1_000_000),
            ramp_start: power.ramp_start_epoch,
            ramp_duration: power.ramp_duration_epochs,
            epoch,
        }
    }

    /// The pledge for some power.
    pub(super) fn initial_pledge(&self, qa_power: &StoragePower) -> TokenAmount {
        miner::initial_pledge_for_power(
            qa_power,
            &self.baseline,
            &self.reward,
            &self.qa_power,
            &self.circulating,
            self.epoch - self.ramp_start,
            self.ramp_duration,
        )
    }

    /// The deposit for a pre-commit of some power.
    pub(super) fn pre_commit_deposit(&self, qa_power: &StoragePower) -> TokenAmount {
        miner::pre_commit_deposit_for_power(&self.reward, &self.qa_power, qa_power)
    }

    /// What a new miner locks up: the pledge for a tenth of the minimum power.
    pub(super) fn creation_deposit(&self, minimum_power: &StoragePower) -> TokenAmount {
        self.initial_pledge(&(minimum_power / BigInt::from(10)))
    }
}

/// Registers a new miner.
pub(super) fn register(
    world: &mut World<'_>,
    id: ActorID,
    proof: fvm_shared::sector::RegisteredPoStProof,
) -> Result<(), ActorError> {
    let mut state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let mut claims = state.load_claims(world.store)?;
    let claim =
        Claim { window_post_proof_type: proof, raw_byte_power: BigInt::zero(), quality_adj_power: BigInt::zero() };
    set_claim(&mut claims, &Address::new_id(id), claim)?;
    state.save_claims(&mut claims)?;
    state.miner_count += 1;
    world.save(STORAGE_POWER_ACTOR_ID, &state)
}

/// Adds to a miner's claim.
pub(super) fn update_claim(world: &mut World<'_>, id: ActorID, delta: &PowerPair) -> Result<(), ActorError> {
    if delta.is_zero() {
        return Ok(());
    }
    let mut state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let mut claims = state.load_claims(world.store)?;
    let address = Address::new_id(id);
    let old =
        claims.get(&address)?.ok_or_else(|| actor_error_v18!(not_found, "no claim for actor {}", address))?.clone();
    state.total_bytes_committed += &delta.raw;
    state.total_qa_bytes_committed += &delta.qa;
    let new = Claim {
        window_post_proof_type: old.window_post_proof_type,
        raw_byte_power: &old.raw_byte_power + &delta.raw,
        quality_adj_power: &old.quality_adj_power + &delta.qa,
    };
    let minimum = consensus_miner_min_power(world.policy, old.window_post_proof_type)
        .map_err(|e| actor_error_v18!(illegal_state, "{}", e))?;
    match (old.raw_byte_power < minimum, new.raw_byte_power < minimum) {
        (true, false) => {
            state.miner_above_min_power_count += 1;
            state.total_quality_adj_power += &new.quality_adj_power;
            state.total_raw_byte_power += &new.raw_byte_power;
        }
        (false, true) => {
            state.miner_above_min_power_count -= 1;
            state.total_quality_adj_power -= &old.quality_adj_power;
            state.total_raw_byte_power -= &old.raw_byte_power;
        }
        (false, false) => {
            state.total_quality_adj_power += &delta.qa;
            state.total_raw_byte_power += &delta.raw;
        }
        (true, true) => {}
    }
    set_claim(&mut claims, &address, new)?;
    state.save_claims(&mut claims)?;
    world.save(STORAGE_POWER_ACTOR_ID, &state)
}

/// Adds to the pledge of the whole network, for a miner that the actor knows.
pub(super) fn update_pledge(world: &mut World<'_>, id: ActorID, delta: &TokenAmount) -> Result<(), ActorError> {
    if delta.is_zero() {
        return Ok(());
    }
    let mut state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let address = Address::new_id(id);
    if !state.load_claims(world.store)?.contains_key(&address)? {
        return Err(actor_error_v18!(forbidden, "unknown miner {} forbidden to interact with power actor", address));
    }
    state.total_pledge_collateral += delta;
    if state.total_pledge_collateral.is_negative() {
        return Err(actor_error_v18!(
            illegal_state,
            "negative total pledge collateral {}",
            state.total_pledge_collateral
        ));
    }
    world.save(STORAGE_POWER_ACTOR_ID, &state)
}

/// Asks for a callback at the end of an epoch.
pub(super) fn enroll(
    world: &mut World<'_>,
    id: ActorID,
    epoch: ChainEpoch,
    event: miner::CronEvent,
) -> Result<(), ActorError> {
    let payload = RawBytes::serialize(miner::CronEventPayload { event_type: event })
        .map_err(|e| actor_error_v18!(serialization, "cron payload: {}", e))?;
    let mut state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let mut queue = queue(world, &state)?;
    let event = CronEvent { miner_addr: Address::new_id(id), callback_payload: payload };
    queue.add(epoch_key(epoch), event).map_err(|e| actor_error_v18!(illegal_state, "cron queue: {}", e))?;
    state.cron_event_queue = queue.root().map_err(|e| actor_error_v18!(illegal_state, "cron queue: {}", e))?;
    state.first_cron_epoch = state.first_cron_epoch.min(epoch);
    world.save(STORAGE_POWER_ACTOR_ID, &state)
}

/// Takes the callbacks that are due at this epoch. Those of miners without a claim are dropped.
pub(super) fn take_due(world: &mut World<'_>) -> Result<Vec<(ActorID, miner::CronEvent)>, ActorError> {
    let mut state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let mut queue = queue(world, &state)?;
    let key = epoch_key(world.epoch);
    let mut due = Vec::new();
    queue
        .for_each(&key, |_, event: &CronEvent| {
            let payload: miner::CronEventPayload = event.callback_payload.deserialize()?;
            due.push((event.miner_addr.id()?, payload.event_type));
            Ok(())
        })
        .map_err(|e| actor_error_v18!(illegal_state, "cron queue: {}", e))?;
    if due.is_empty() {
        return Ok(due);
    }
    queue.remove_all(&key).map_err(|e| actor_error_v18!(illegal_state, "cron queue: {}", e))?;
    state.cron_event_queue = queue.root().map_err(|e| actor_error_v18!(illegal_state, "cron queue: {}", e))?;
    // The actor moves this on at every epoch; here only when a callback was due, so that idle epochs write nothing.
    state.first_cron_epoch = world.epoch + 1;
    world.save(STORAGE_POWER_ACTOR_ID, &state)?;
    let claims = state.load_claims(world.store)?;
    let mut called = Vec::with_capacity(due.len());
    for (id, event) in due {
        if claims.contains_key(&Address::new_id(id))? {
            called.push((id, event));
        }
    }
    Ok(called)
}

/// The miners that may make blocks, with their power.
pub(super) fn eligible(world: &World<'_>) -> Result<Vec<(ActorID, StoragePower)>, ActorError> {
    let state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let few = state.miner_above_min_power_count < CONSENSUS_MINER_MIN_MINERS;
    let minimum = if few { BigInt::from(1) } else { world.policy.minimum_consensus_power.clone() };
    let mut out = Vec::new();
    state.load_claims(world.store)?.for_each(|address, claim| {
        if let (Ok(id), true) = (address.id(), claim.raw_byte_power >= minimum) {
            out.push((id, claim.quality_adj_power.clone()));
        }
        Ok(())
    })?;
    // The order of the map is that of hashes.
    out.sort_unstable();
    Ok(out)
}

/// Takes the epoch's totals over, as the actor does at the end of each epoch, and moves estimates and reward on if they
/// move.
pub(super) fn end_epoch(world: &mut World<'_>) -> Result<(), ActorError> {
    let mut state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let (raw, qa) = if state.miner_above_min_power_count < CONSENSUS_MINER_MIN_MINERS {
        (state.total_bytes_committed.clone(), state.total_qa_bytes_committed.clone())
    } else {
        (state.total_raw_byte_power.clone(), state.total_quality_adj_power.clone())
    };
    let pledge = state.total_pledge_collateral.clone();
    if world.parameters.moving_economy {
        state.this_epoch_raw_byte_power = raw.clone();
        state.this_epoch_quality_adj_power = qa;
        state.this_epoch_pledge_collateral = pledge;
        let filter = AlphaBetaFilter::load(&state.this_epoch_qa_power_smoothed, &DEFAULT_ALPHA, &DEFAULT_BETA);
        state.this_epoch_qa_power_smoothed = filter.next_estimate(&state.this_epoch_quality_adj_power, 1);
        world.save(STORAGE_POWER_ACTOR_ID, &state)?;
        return super::reward::end_epoch(world, &raw);
    }
    if (&raw, &qa, &pledge)
        == (&state.this_epoch_raw_byte_power, &state.this_epoch_quality_adj_power, &state.this_epoch_pledge_collateral)
    {
        return Ok(());
    }
    state.this_epoch_raw_byte_power = raw;
    state.this_epoch_quality_adj_power = qa;
    state.this_epoch_pledge_collateral = pledge;
    world.save(STORAGE_POWER_ACTOR_ID, &state)
}

/// Deletes a miner's claim: what the power actor does to a miner whose cron callback fails.
pub(super) fn delete_claim(world: &mut World<'_>, id: ActorID) -> Result<(), ActorError> {
    let state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let Some(claim) = state.miner_power(world.store, &Address::new_id(id))? else { return Ok(()) };
    update_claim(world, id, &PowerPair { raw: -claim.raw_byte_power, qa: -claim.quality_adj_power })?;
    let mut state: State = world.state(STORAGE_POWER_ACTOR_ID)?;
    let mut claims = state.load_claims(world.store)?;
    claims.delete(&Address::new_id(id))?;
    state.save_claims(&mut claims)?;
    state.miner_count -= 1;
    world.save(STORAGE_POWER_ACTOR_ID, &state)
}

fn queue<'w>(world: &World<'w>, state: &State) -> Result<Multimap<'w, super::store::Overlay<'w>>, ActorError> {
    Multimap::from_root(world.store, &state.cron_event_queue, CRON_QUEUE_HAMT_BITWIDTH, CRON_QUEUE_AMT_BITWIDTH)
        .map_err(|e| actor_error_v18!(illegal_state, "cron queue: {}", e))
}
