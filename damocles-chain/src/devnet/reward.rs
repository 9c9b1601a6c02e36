//! The reward actor: what an epoch pays, and who gets it.
//!
//! The exponential function is a series here and a rational approximation in the actor: both are exact to far below an
//! attoFIL.

use super::{
    actors::World,
    miner::{self, Invocation},
    power,
};
use fil_actor_reward_state::v18::{BASELINE_EXPONENT, State};
use fil_actors_shared::v18::{
    ActorError, BURNT_FUNDS_ACTOR_ID, REWARD_ACTOR_ID,
    reward::smooth::{AlphaBetaFilter, DEFAULT_ALPHA, DEFAULT_BETA},
};
use fvm_shared::{
    ActorID,
    bigint::{BigInt, Integer},
    clock::ChainEpoch,
    econ::TokenAmount,
    sector::StoragePower,
};
use num_traits::Zero;

/// Fractional bits of the actor's numbers.
const PRECISION: u64 = 128;
/// Fractional bits of the numbers that the series is summed in.
const FINE: u64 = 256;
/// ln(2) / (6 years of epochs), with 128 fractional bits.
const LAMBDA: u128 = 37_396_271_439_864_487_274_534_522_888_786;
/// e^lambda - 1, with 128 fractional bits.
const EXP_LAMBDA_LESS_ONE: u128 = 37_396_273_494_747_879_394_193_016_954_629;

/// e^-x for a number that is not negative, both with 128 fractional bits.
fn exp_neg(x: &BigInt) -> BigInt {
    let x = x << (FINE - PRECISION);
    let one = BigInt::from(1) << FINE;
    // e^-x is (e^-(x / 2^n))^(2^n): the series is short for small numbers.
    let mut halvings = 0_u32;
    let mut small = x;
    while small > one {
        small >>= 1_u32;
        halvings += 1;
    }
    let mut term = one.clone();
    let mut sum = one;
    let mut n = 1_i64;
    while !term.is_zero() {
        // Rounded towards zero, so that it ends.
        term = -((term * &small) >> FINE) / n;
        sum += &term;
        n += 1;
        if n > 200 {
            break;
        }
    }
    for _ in 0..halvings {
        sum = (&sum * &sum) >> FINE;
    }
    sum >> (FINE - PRECISION)
}

fn next_baseline(power: &StoragePower) -> StoragePower {
    (power * &*BASELINE_EXPONENT) >> PRECISION
}

/// How far the network is on the way that its baseline goes, in epochs with 128 fractional bits.
fn theta(state: &State) -> BigInt {
    if state.effective_network_time == 0 {
        return BigInt::zero();
    }
    let missing =
        ((&state.cumsum_baseline - &state.cumsum_realized) << PRECISION).div_floor(&state.effective_baseline_power);
    (BigInt::from(state.effective_network_time) << PRECISION) - missing
}

fn advance(state: &mut State, power: &StoragePower) {
    state.epoch += 1;
    state.this_epoch_baseline_power = next_baseline(&state.this_epoch_baseline_power);
    state.cumsum_realized += power.min(&state.this_epoch_baseline_power);
    while state.cumsum_realized > state.cumsum_baseline {
        state.effective_network_time += 1;
        state.effective_baseline_power = next_baseline(&state.effective_baseline_power);
        state.cumsum_baseline += &state.effective_baseline_power;
    }
}

/// What has been minted by the baseline until then, with 128 fractional bits.
fn baseline_supply(theta: &BigInt, total: &TokenAmount) -> BigInt {
    let x = (theta * BigInt::from(LAMBDA)) >> PRECISION;
    ((BigInt::from(1) << PRECISION) - exp_neg(&x)) * total.atto()
}

fn reward_of(state: &State, before: &BigInt, after: &BigInt) -> TokenAmount {
    let simple = state.simple_total.atto() * BigInt::from(EXP_LAMBDA_LESS_ONE);
    let simple = (simple * exp_neg(&(BigInt::from(LAMBDA) * state.epoch))) >> PRECISION;
    let baseline = baseline_supply(after, &state.baseline_total) - baseline_supply(before, &state.baseline_total);
    TokenAmount::from_atto((simple + baseline) >> PRECISION)
}

/// Moves on to the next epoch, as the actor does when the power actor's cron tells it the power of the network.
fn update(state: &mut State, epoch: ChainEpoch, power: &StoragePower) {
    let before = state.epoch;
    while state.epoch < epoch {
        advance(state, power);
    }
    let theta_before = theta(state);
    advance(state, power);
    state.this_epoch_reward = reward_of(state, &theta_before, &theta(state));
    let filter = AlphaBetaFilter::load(&state.this_epoch_reward_smoothed, &DEFAULT_ALPHA, &DEFAULT_BETA);
    state.this_epoch_reward_smoothed = filter.next_estimate(state.this_epoch_reward.atto(), state.epoch - before);
}

/// Tells the actor the power of the network at the end of an epoch.
pub(super) fn end_epoch(world: &mut World<'_>, power: &StoragePower) -> Result<(), ActorError> {
    let mut state: State = world.state(REWARD_ACTOR_ID)?;
    update(&mut state, world.epoch, power);
    world.save(REWARD_ACTOR_ID, &state)
}

/// Pays an epoch's reward and a block's tips to a miner: the whole reward, because every tipset has one block. What the
/// miner cannot take is burnt.
pub(super) fn award(world: &mut World<'_>, miner: ActorID, tips: &TokenAmount) -> Result<(), ActorError> {
    let mut state: State = world.state(REWARD_ACTOR_ID)?;
    let total = (&state.this_epoch_reward + tips).min(world.balance(REWARD_ACTOR_ID));
    state.total_storage_power_reward += (&total - tips).max(TokenAmount::zero());
    world.save(REWARD_ACTOR_ID, &state)?;
    let paid = world.attempt(|world| {
        world.transfer(REWARD_ACTOR_ID, miner, &total)?;
        miner::reward(&mut Invocation { world, caller: REWARD_ACTOR_ID, miner }, total.clone())
    });
    if let Err(e) = paid {
        world.failed(format!("epoch {}: the block reward of t0{miner} was burnt: {e}", world.epoch));
        world.transfer(REWARD_ACTOR_ID, BURNT_FUNDS_ACTOR_ID, &total)?;
    }
    Ok(())
}

/// Who makes the block with this ticket: a miner by chance, in proportion to its power. None while nobody has power.
pub(super) fn winner(world: &World<'_>, ticket: &[u8; 32]) -> Result<Option<ActorID>, ActorError> {
    let eligible = power::eligible(world)?;
    let total: StoragePower = eligible.iter().map(|(_, power)| power).sum();
    if total.is_zero() {
        return Ok(None);
    }
    let mut left = BigInt::from_bytes_be(fvm_shared::bigint::Sign::Plus, ticket) % total;
    for (miner, power) in eligible {
        if left < power {
            return Ok(Some(miner));
        }
        left -= power;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The registry's own state computes the first reward with the actor's code.
    #[test]
    fn the_first_reward_is_the_actors() {
        for power in [0_u64, 1 << 50, u64::MAX] {
            let power = BigInt::from(power);
            let actors = State::new(power.clone());
            // The same state one epoch before.
            let mut ours = State { epoch: -1, ..State::new(power.clone()) };
            ours.cumsum_realized = BigInt::zero();
            ours.cumsum_baseline = BigInt::zero();
            ours.effective_network_time = 0;
            ours.effective_baseline_power = BigInt::from(2_888_888_880_000_000_000_u64);
            ours.this_epoch_baseline_power = fil_actor_reward_state::v18::INIT_BASELINE_POWER.clone();
            let before = theta(&ours);
            advance(&mut ours, &power);
            let reward = reward_of(&ours, &before, &theta(&ours));
            assert_eq!(ours.epoch, actors.epoch);
            assert_eq!(ours.cumsum_baseline, actors.cumsum_baseline);
            assert_eq!(ours.effective_network_time, actors.effective_network_time);
            let difference = (reward - actors.this_epoch_reward).atto().clone();
            assert!(difference <= BigInt::from(1) && difference >= BigInt::from(-1), "{difference}");
        }
    }

    #[test]
    fn the_exponential_is_exact() {
        let one = BigInt::from(1) << PRECISION;
        assert_eq!(exp_neg(&BigInt::zero()), one);
        // e^-ln(2) is a half: six years of the simple supply.
        let half = exp_neg(&(BigInt::from(LAMBDA) * (6 * 365 * 2880)));
        let error = half - (&one >> 1_u32);
        assert!(error.magnitude().bits() < 32, "lambda itself is rounded: {error}");
        assert!(exp_neg(&(one << 7_u32)).is_zero(), "e^-128 is less than 2^-128");
    }

    #[test]
    fn epochs_move_the_reward_slowly_down() {
        let mut state = State::new(BigInt::zero());
        let first = state.this_epoch_reward.clone();
        let smoothed = state.this_epoch_reward_smoothed.position.clone();
        for epoch in 1..50 {
            update(&mut state, epoch, &BigInt::zero());
            assert_eq!(state.epoch, epoch + 1);
        }
        assert!(state.this_epoch_reward < first && state.this_epoch_reward.atto() * 1000 > first.atto() * 999);
        assert_ne!(state.this_epoch_reward_smoothed.position, smoothed);
        let mut null = State::new(BigInt::zero());
        update(&mut null, 49, &BigInt::zero());
        assert_eq!(null.this_epoch_reward, state.this_epoch_reward, "null rounds are caught up with");
    }
}
