//! `CreateMiner` of the power actor, with the miner's constructor.

use super::{
    addresses::{check_peer, resolve_worker},
    encode,
    invocation::illegal_state,
};
use crate::devnet::{
    actors::{Actor, World, code},
    power::{self, Economy},
    randomness::blake2b,
};
use fil_actor_miner_state::v18::{MinerInfo, REWARD_VESTING_SPEC, State};
use fil_actor_power_state::v18::{CreateMinerParams, CreateMinerReturn};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, STORAGE_POWER_ACTOR_ID, runtime::Policy},
};
use fvm_ipld_encoding::{RawBytes, to_vec};
use fvm_shared::{ActorID, address::Address, clock::ChainEpoch, econ::TokenAmount};

/// Makes a miner. `origin` is the caller's key address and nonce: they name the new actor.
pub(in crate::devnet) fn create(
    world: &mut World<'_>,
    origin: (Address, u64),
    value: &TokenAmount,
    params: CreateMinerParams,
) -> Result<RawBytes, ActorError> {
    let policy = world.policy;
    check_peer(policy, &params.peer, &params.multiaddrs)?;
    if !policy.valid_post_proof_type.contains(params.window_post_proof_type) {
        return Err(actor_error_v18!(
            illegal_argument,
            "proof type {:?} not allowed for new miner actors",
            params.window_post_proof_type
        ));
    }
    let owner = world
        .resolve(&params.owner)?
        .ok_or_else(|| actor_error_v18!(illegal_argument, "unable to resolve owner address {}", params.owner))?;
    let worker = resolve_worker(world, &params.worker)?;

    let mut name = to_vec(&origin.0).map_err(|e| actor_error_v18!(serialization, "{}", e))?;
    name.extend_from_slice(&origin.1.to_be_bytes());
    name.extend_from_slice(&0_u64.to_be_bytes());
    let robust = Address::new_actor(&name);
    let vacant = Actor {
        code: code::of(code::MINER),
        state: world.put(&Vec::<u8>::new())?,
        sequence: 0,
        balance: TokenAmount::default(),
        delegated_address: None,
    };
    let id = world.create(&robust, vacant)?;
    world.transfer(STORAGE_POWER_ACTOR_ID, id, value)?;

    let (period_start, deadline) = first_period(policy, id, world.epoch)?;
    let info =
        MinerInfo::new(owner, worker, Vec::new(), params.peer, params.multiaddrs, params.window_post_proof_type)?;
    let info = world.put(&info)?;
    let mut state = State::new(policy, world.store, info, period_start, deadline)?;
    let deposit = Economy::of(world)?.creation_deposit(&policy.minimum_consensus_power);
    let available =
        state.get_available_balance(value).map_err(illegal_state("failed to calculate available balance"))?;
    if available < deposit {
        return Err(actor_error_v18!(
            insufficient_funds,
            "not enough balance to lock for create miner deposit: sent balance {} < deposit {}",
            available,
            deposit
        ));
    }
    state
        .add_locked_funds(world.store, world.epoch, &deposit, &REWARD_VESTING_SPEC)
        .map_err(illegal_state("failed to lock the create miner deposit"))?;
    world.save(id, &state)?;
    power::register(world, id, params.window_post_proof_type)?;
    encode(&CreateMinerReturn { id_address: Address::new_id(id), robust_address: robust })
}

/// Where in its proving period a new miner stands: spread over miners by a hash.
pub(in crate::devnet) fn first_period(
    policy: &Policy,
    miner: ActorID,
    epoch: ChainEpoch,
) -> Result<(ChainEpoch, u64), ActorError> {
    let mut seed = to_vec(&Address::new_id(miner)).map_err(|e| actor_error_v18!(serialization, "{}", e))?;
    seed.extend_from_slice(&epoch.to_be_bytes());
    let digest = blake2b(&seed);
    let head = digest.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)).unwrap_or_default();
    let period = policy.wpost_proving_period;
    let offset = ChainEpoch::try_from(head % u64::try_from(period).unwrap_or(1)).unwrap_or_default();
    let modulus = epoch % period;
    let progress = if modulus >= offset { modulus - offset } else { period - (offset - modulus) };
    let start = epoch - progress;
    let index = u64::try_from((epoch - start) / policy.wpost_challenge_window).unwrap_or_default();
    if start > epoch || index >= policy.wpost_period_deadlines {
        return Err(actor_error_v18!(
            illegal_state,
            "computed proving period start {} greater than current epoch {}",
            start,
            epoch
        ));
    }
    Ok((start, index))
}
