//! Who may act for a miner, and where it is found: owner, worker, control addresses, peer ID and multiaddresses.

use super::{
    encode,
    invocation::{Invocation, illegal_state},
};
use crate::devnet::actors::{World, code, load};
use fil_actor_account_state::v18 as account;
use fil_actor_miner_state::v18::{
    ChangeMultiaddrsParams, ChangeOwnerAddressParams, ChangePeerIDParams, ChangeWorkerAddressParams,
    GetControlAddressesReturn, MinerInfo, State, WorkerKeyChange,
};
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, runtime::Policy},
};
use fvm_ipld_encoding::{BytesDe, RawBytes};
use fvm_shared::{
    ActorID,
    address::{Address, Protocol},
};

pub(super) fn controllers(call: &Invocation<'_, '_>) -> Result<RawBytes, ActorError> {
    let info = call.info(&call.state()?)?;
    encode(&GetControlAddressesReturn {
        owner: info.owner,
        worker: info.worker,
        control_addresses: info.control_addresses,
    })
}

/// Replaces the control addresses at once; a new worker has to wait and to be confirmed.
pub(super) fn change_worker(
    call: &mut Invocation<'_, '_>,
    params: ChangeWorkerAddressParams,
) -> Result<RawBytes, ActorError> {
    let policy = call.world.policy;
    if params.new_control_addresses.len() > policy.max_control_addresses {
        return Err(actor_error_v18!(
            illegal_argument,
            "control addresses length {} exceeds max control addresses length {}",
            params.new_control_addresses.len(),
            policy.max_control_addresses
        ));
    }
    let worker = Address::new_id(resolve_worker(call.world, &params.new_worker)?);
    let resolve = |address: &Address| {
        let id = call.world.resolve(address)?;
        id.map(Address::new_id)
            .ok_or_else(|| actor_error_v18!(illegal_argument, "unable to resolve control address: {}", address))
    };
    let control = params.new_control_addresses.iter().map(resolve).collect::<Result<Vec<_>, _>>()?;
    let mut state = call.state()?;
    let mut info = call.info(&state)?;
    call.only(&[info.owner])?;
    info.control_addresses = control;
    if worker != info.worker && info.pending_worker_key.is_none() {
        let effective_at = call.world.epoch + policy.worker_key_change_delay;
        info.pending_worker_key = Some(WorkerKeyChange { new_worker: worker, effective_at });
    }
    save(call, &mut state, &info)
}

pub(super) fn confirm_worker(call: &mut Invocation<'_, '_>) -> Result<RawBytes, ActorError> {
    let mut state = call.state()?;
    let info = call.info(&state)?;
    call.only(&[info.owner])?;
    settle_worker(call, &mut state, info)?;
    call.save(&state)?;
    Ok(RawBytes::default())
}

/// Makes a new worker the worker once its time has come. The caller saves the state.
pub(super) fn settle_worker(
    call: &Invocation<'_, '_>,
    state: &mut State,
    mut info: MinerInfo,
) -> Result<(), ActorError> {
    let due = info.pending_worker_key.take_if(|change| call.world.epoch >= change.effective_at);
    let Some(change) = due else { return Ok(()) };
    info.worker = change.new_worker;
    state.save_info(call.world.store, &info).map_err(illegal_state("failed to save miner info"))
}

/// Proposes a new owner, or, called by the proposed one, makes it the owner.
pub(super) fn change_owner(
    call: &mut Invocation<'_, '_>,
    params: ChangeOwnerAddressParams,
) -> Result<RawBytes, ActorError> {
    let new = params.new_owner;
    if new.protocol() != Protocol::ID {
        return Err(actor_error_v18!(illegal_argument, "owner address must be an ID address"));
    }
    let mut state = call.state()?;
    let mut info = call.info(&state)?;
    let caller = Address::new_id(call.caller);
    match info.pending_owner_address {
        Some(pending) if caller != info.owner => {
            call.only(&[pending])?;
            if new != pending {
                return Err(actor_error_v18!(illegal_argument, "expected confirmation of {} got {}", pending, new));
            }
            // A beneficiary that was the owner follows it.
            if info.beneficiary == info.owner {
                info.beneficiary = pending;
            }
            info.pending_beneficiary_term = None;
            info.owner = pending;
        }
        _ => {
            call.only(&[info.owner])?;
            info.pending_owner_address = Some(new);
        }
    }
    if info.pending_owner_address == Some(info.owner) {
        info.pending_owner_address = None;
    }
    save(call, &mut state, &info)
}

pub(super) fn change_peer(call: &mut Invocation<'_, '_>, params: ChangePeerIDParams) -> Result<RawBytes, ActorError> {
    check_peer(call.world.policy, &params.new_id, &[])?;
    let mut state = call.state()?;
    let mut info = call.info(&state)?;
    call.only_controllers(&info)?;
    info.peer_id = params.new_id;
    save(call, &mut state, &info)
}

pub(super) fn change_multiaddrs(
    call: &mut Invocation<'_, '_>,
    params: ChangeMultiaddrsParams,
) -> Result<RawBytes, ActorError> {
    check_peer(call.world.policy, &[], &params.new_multi_addrs)?;
    let mut state = call.state()?;
    let mut info = call.info(&state)?;
    call.only_controllers(&info)?;
    info.multi_address = params.new_multi_addrs;
    save(call, &mut state, &info)
}

/// Saves a miner's info, and the state with it.
pub(super) fn save(call: &mut Invocation<'_, '_>, state: &mut State, info: &MinerInfo) -> Result<RawBytes, ActorError> {
    state.save_info(call.world.store, info).map_err(illegal_state("could not save miner info"))?;
    call.save(state)?;
    Ok(RawBytes::default())
}

/// Whether a miner may be found under this peer ID and these addresses.
pub(super) fn check_peer(policy: &Policy, peer: &[u8], addresses: &[BytesDe]) -> Result<(), ActorError> {
    if peer.len() > policy.max_peer_id_length {
        return Err(actor_error_v18!(
            illegal_argument,
            "peer ID size of {} exceeds maximum size of {}",
            peer.len(),
            policy.max_peer_id_length
        ));
    }
    if addresses.iter().any(|a| a.0.is_empty()) {
        return Err(actor_error_v18!(illegal_argument, "invalid empty multiaddr"));
    }
    let size: usize = addresses.iter().map(|a| a.0.len()).sum();
    if size > policy.max_multiaddr_data {
        return Err(actor_error_v18!(
            illegal_argument,
            "multiaddr size of {} exceeds maximum of {}",
            size,
            policy.max_multiaddr_data
        ));
    }
    Ok(())
}

/// The worker signs blocks, so it has to be a BLS account.
pub(in crate::devnet) fn resolve_worker(world: &World<'_>, address: &Address) -> Result<ActorID, ActorError> {
    let id = world
        .resolve(address)?
        .ok_or_else(|| actor_error_v18!(illegal_argument, "unable to resolve worker address {}", address))?;
    let actor = world.actors.get(&id).filter(|a| a.code == code::of(code::ACCOUNT));
    let actor =
        actor.ok_or_else(|| actor_error_v18!(illegal_argument, "worker actor {} must be an account", address))?;
    let key = load::<_, account::State>(world.store, &actor.state)?.address;
    if key.protocol() != Protocol::BLS {
        return Err(actor_error_v18!(
            illegal_argument,
            "worker account {} must have BLS pubkey, was {}",
            id,
            key.protocol()
        ));
    }
    Ok(id)
}
