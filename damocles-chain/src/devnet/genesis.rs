//! The state before the first message.

use super::actors::{Actor, World, code};
use cid::Cid;
use fil_actor_init_state::v18 as init;
use fil_actor_power_state::v18 as power;
use fil_actor_reward_state::v18 as reward;
use fil_actors_shared::{
    actor_error_v18,
    v18::{
        ActorError, BURNT_FUNDS_ACTOR_ID, CRON_ACTOR_ID, INIT_ACTOR_ID, REWARD_ACTOR_ID, STORAGE_MARKET_ACTOR_ID,
        STORAGE_POWER_ACTOR_ID, SYSTEM_ACTOR_ID, VERIFIED_REGISTRY_ACTOR_ID, reward::FilterEstimate,
    },
};
use fvm_shared::{ActorID, address::Address, bigint::Zero, econ::TokenAmount};

/// The first ID of an actor that is not a singleton, as on public networks.
const FIRST_ID: ActorID = 1000;

/// Fills an empty world.
pub(super) fn build(world: &mut World<'_>, network: &str, fund: &[(Address, TokenAmount)]) -> Result<(), ActorError> {
    let empty = world.put(&Vec::<u8>::new())?;
    let mut init_state = init::State::new(world.store, network.to_owned())?;
    init_state.next_id = FIRST_ID;
    let init_state = world.put(&init_state)?;
    let mut power_state =
        power::State::new(world.store).map_err(|e| actor_error_v18!(illegal_state, "power state: {}", e))?;
    // Without a float the vesting of creation deposits, which were never added, would make this total negative.
    power_state.total_pledge_collateral = TokenAmount::from_whole(1_000_000);
    if let Some(power) = world.parameters.initial_network_power {
        power_state.this_epoch_qa_power_smoothed = FilterEstimate::new(power.into(), Zero::zero());
    }
    let power_state = world.put(&power_state)?;
    let reward_state = world.put(&reward::State::new(Zero::zero()))?;
    let singletons = [
        (SYSTEM_ACTOR_ID, "system", empty, TokenAmount::default()),
        (INIT_ACTOR_ID, "init", init_state, TokenAmount::default()),
        (REWARD_ACTOR_ID, "reward", reward_state, TokenAmount::from_whole(1_100_000_000)),
        (CRON_ACTOR_ID, "cron", empty, TokenAmount::default()),
        (STORAGE_POWER_ACTOR_ID, "storagepower", power_state, TokenAmount::default()),
        (STORAGE_MARKET_ACTOR_ID, "storagemarket", empty, TokenAmount::default()),
        (VERIFIED_REGISTRY_ACTOR_ID, "verifiedregistry", empty, TokenAmount::default()),
        (BURNT_FUNDS_ACTOR_ID, code::ACCOUNT, empty, TokenAmount::default()),
    ];
    for (id, name, state, balance) in singletons {
        world.actors.insert(id, singleton(name, state, balance));
    }
    fund_accounts(world, fund)
}

fn singleton(name: &str, state: Cid, balance: TokenAmount) -> Actor {
    Actor { code: code::of(name), state, sequence: 0, balance, delegated_address: None }
}

/// Credits accounts, which are made if they are not there.
pub(super) fn fund_accounts(world: &mut World<'_>, fund: &[(Address, TokenAmount)]) -> Result<(), ActorError> {
    for (address, amount) in fund {
        let id = match world.resolve(address)? {
            Some(id) => id,
            None => world.create_account(address)?,
        };
        world.actor_mut(id)?.balance += amount;
    }
    Ok(())
}
