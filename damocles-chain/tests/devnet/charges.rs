//! What faults, endings and every day cost, worked out here from the protocol's own words.

use crate::{
    harness::refused,
    sim::{Sim, bits, fil, short},
};
use fil_actor_miner_state::v18::{
    DataActivationNotification, ExpirationExtension2, ExtendSectorExpiration2Params, TerminateSectorsParams,
    TerminationDeclaration, VerifiedAllocationKey,
};
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use num_traits::{ToPrimitive, Zero};

const OWNER: u64 = 1000;
const WORKER: u64 = 1001;
const SECTOR: u64 = 2048;

fn none() -> TokenAmount {
    TokenAmount::zero()
}

fn sim() -> (Sim, u64) {
    let sim = Sim::new(short(), 4, fil(100_000));
    let miner = sim.create_miner(OWNER, WORKER, fil(100));
    (sim, miner)
}

fn number(atto: &BigInt) -> f64 {
    atto.to_f64().unwrap()
}

/// An estimate and how fast it moves, both with 128 fractional bits.
fn estimate(position: &BigInt, velocity: &BigInt) -> impl Fn(f64) -> f64 {
    let (position, velocity) = (number(position) / 2_f64.powi(128), number(velocity) / 2_f64.powi(128));
    move |t| position + velocity * t
}

/// What the network expects power to earn in so many epochs: the integral of the estimates' ratio, by Simpson's rule.
fn expected_reward(sim: &Sim, power: u64, epochs: f64) -> f64 {
    let reward: fil_actor_reward_state::v18::State = sim.state_of(2);
    let network: fil_actor_power_state::v18::State = sim.state_of(4);
    let (reward, network) = (reward.this_epoch_reward_smoothed, network.this_epoch_qa_power_smoothed);
    let reward = estimate(&reward.position, &reward.velocity);
    let network = estimate(&network.position, &network.velocity);
    let steps = 1000_u32;
    let step = epochs / f64::from(steps);
    let weight = |n: u32| if n == 0 || n == steps { 1.0 } else { 2.0 + 2.0 * f64::from(n % 2) };
    let at = |n: u32| weight(n) * reward(f64::from(n) * step) / network(f64::from(n) * step);
    (0..=steps).map(at).sum::<f64>() * step / 3.0 * f64::from(u32::try_from(power).unwrap())
}

/// FIP-0100: 5.56e-15 of the supply in circulation, a million FIL here, a day for 32 GiB of power.
fn daily_fee(sectors: u64) -> TokenAmount {
    let supply = fil(1_000_000).atto().clone();
    let of_one: BigInt = supply * 556 * SECTOR / (BigInt::from(10_u64.pow(17)) << 35_u32);
    TokenAmount::from_atto(of_one) * sectors
}

#[track_caller]
fn about(actual: &TokenAmount, expected: f64) {
    let actual = number(actual.atto());
    assert!((actual - expected).abs() <= expected * 1e-6 + 1.0, "{actual} is not about {expected}");
}

/// FIP-0098: 8.5% of the pledge, in proportion to the age until 140 days; at least 2% of it, and 105% of a fault's fee.
#[test]
fn an_early_end_costs_what_the_age_and_a_fault_say() {
    let (sim, miner) = sim();
    let deadline = sim.active(miner, WORKER, &[1, 2, 3]);
    sim.devnet.mine(15).unwrap();
    let (_, partition) = sim.find(miner, 1);
    let sector = sim.sector(miner, 1);
    let params = TerminateSectorsParams {
        terminations: vec![TerminationDeclaration { deadline, partition, sectors: bits([1]) }],
    };
    let before = sim.balance(miner);
    let landed = sim.good(WORKER, miner, 9, &params, none());
    let cost = before - sim.balance(miner);
    let pledge = number(sector.initial_pledge.atto());
    let age = landed.epoch - sector.activation;
    let by_age = pledge * 0.085 * (f64::from(i32::try_from(age).unwrap()) / (140.0 * 2880.0)).min(1.0);
    let fault = expected_reward(&sim, SECTOR, (3.51_f64 * 2880.0).floor());
    about(&cost, by_age.max(pledge * 0.02).max(fault * 1.05));
    sim.check();
}

/// A day's fee is due at each end of a deadline; a missed proof is free the first time, and 3.51 days of reward later on.
#[test]
fn every_day_costs_a_fee_and_every_fault_after_its_first_day_more() {
    let (sim, miner) = sim();
    let deadline = sim.active(miner, WORKER, &[1, 2]);
    assert_eq!(daily_fee(2), sim.sector(miner, 1).daily_fee * 2_u64);
    assert!(number(daily_fee(2).atto()) < expected_reward(&sim, 2 * SECTOR, 2880.0) / 2.0, "the cap is far");
    sim.devnet.mine(12).unwrap();
    assert_eq!(sim.prove_to_the_end(miner, WORKER, deadline), daily_fee(2));
    let unproven = || {
        let before = sim.balance(miner);
        sim.devnet.grow_to(sim.epoch() + 480).unwrap();
        sim.devnet.mine(2).unwrap();
        before - sim.balance(miner)
    };
    assert_eq!((unproven(), sim.power(miner)), (daily_fee(2), 0), "a fault is free at first");
    about(&(unproven() - daily_fee(2)), expected_reward(&sim, 2 * SECTOR, (3.51_f64 * 2880.0).floor()));
    sim.check();
}

/// An actor that panics ends with 24 and leaves nothing behind, here too: the quality of no time is no number.
#[test]
fn a_call_that_panics_is_refused() {
    let (sim, miner) = sim();
    let deadline = sim.active(miner, WORKER, &[1]);
    let (_, partition) = sim.find(miner, 1);
    let new_expiration = sim.sector(miner, 1).expiration;
    let extension =
        ExpirationExtension2 { deadline, partition, sectors: bits([1]), sectors_with_claims: vec![], new_expiration };
    sim.devnet.grow_to(new_expiration - 1).unwrap();
    let (before, sent) = (sim.balance(miner), sim.balance(OWNER));
    let params = ExtendSectorExpiration2Params { extensions: vec![extension] };
    let landed = sim.land(OWNER, miner, 32, &params, fil(1));
    refused(&landed, 24, "panicked");
    assert_eq!(landed.epoch, new_expiration);
    assert!(sim.balance(miner) <= before, "the value went back");
    assert!(sim.balance(OWNER) > sent - fil(1));
    sim.devnet.mine(20).unwrap();
    sim.check();
}

/// Only the market is ever told what is in a sector, and there is none that listens.
#[test]
fn nobody_is_told_what_is_in_a_sector() {
    let (sim, miner) = sim();
    sim.active(miner, WORKER, &[1, 2]);
    sim.devnet.mine(15).unwrap();
    let to = |id: u64| DataActivationNotification { address: Address::new_id(id), payload: vec![1].into() };
    let params = |told: &[u64]| {
        let mut params = sim.update_params(miner, 1);
        params.sector_updates[0].pieces[0].notify = told.iter().map(|id| to(*id)).collect();
        params.require_notification_success = true;
        params
    };
    refused(&sim.land(WORKER, miner, 35, &params(&[1002]), none()), 16, "disallowed notification receiver: ");
    refused(&sim.land(WORKER, miner, 35, &params(&[5, 1002]), none()), 1002, "receiver aborted");
    // A sector whose allocation nobody has is not activated, and so nobody is told of it.
    let mut both = params(&[5]);
    both.require_activation_success = false;
    both.sector_updates[0].pieces[0].verified_allocation_key = Some(VerifiedAllocationKey { client: 1002, id: 1 });
    let second = sim.update_params(miner, 2);
    both.sector_updates.extend(second.sector_updates);
    both.sector_proofs.extend(second.sector_proofs);
    sim.good(WORKER, miner, 35, &both, none());
    assert!(sim.sector(miner, 1).deal_weight.is_zero() && !sim.sector(miner, 2).deal_weight.is_zero());
    let mut lenient = params(&[5, 1002]);
    lenient.require_notification_success = false;
    sim.good(WORKER, miner, 35, &lenient, none());
    assert!(!sim.sector(miner, 1).deal_weight.is_zero());
    sim.check();
}
