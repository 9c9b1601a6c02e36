//! Actors and accounts.

use super::{
    actor_state::state_json,
    args::{Args, RpcFault, lotus, plain},
    view::View,
};
use crate::{
    devnet::{
        actors::{code, load},
        node::Devnet,
    },
    lotus_json::{ActorState, Lotus, text_of},
};
use fil_actor_account_state::v18 as account;
use fil_actors_shared::v18::INIT_ACTOR_ID;
use fvm_shared::address::{Address, Protocol};
use serde_json::{Value, json};

pub(super) fn lookup_id(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    lotus(Address::new_id(view.resolve(&args.lotus(0)?)?))
}

pub(super) fn account_key(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let address: Address = args.lotus(0)?;
    if matches!(address.protocol(), Protocol::BLS | Protocol::Secp256k1) {
        return lotus(address);
    }
    let view = View::of(devnet, args, 1)?;
    let (id, actor) = view.actor(&address)?;
    if actor.code != code::of(code::ACCOUNT) || id < INIT_ACTOR_ID + 99 {
        return Err(RpcFault::new(format!(
            "failed to get account actor state for {}: not an account",
            text_of(&address)
        )));
    }
    lotus(load::<_, account::State>(&devnet.store, &actor.state)?.address)
}

pub(super) fn actor(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, actor) = view.actor(&args.lotus(0)?)?;
    plain(&ActorState {
        code: actor.code,
        head: actor.state,
        nonce: actor.sequence,
        balance: actor.balance.clone(),
        delegated_address: actor.delegated_address,
    })
}

/// Balance, code and state.
pub(super) fn read_state(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let view = View::of(devnet, args, 1)?;
    let (_, actor) = view.actor(&args.lotus(0)?)?;
    Ok(json!({
        "Balance": plain(&Lotus(actor.balance.clone()))?,
        "Code": plain(&Lotus(actor.code))?,
        "State": state_json(&devnet.store, actor)?,
    }))
}

/// The balance after the head's messages; zero for an account that is not there.
pub(super) fn balance(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let address: Address = args.lotus(0)?;
    let (_, actors) = devnet.tip();
    let id = match address.id() {
        Ok(id) => Some(id),
        Err(_) => devnet.account(&address).ok().map(|(id, _)| id),
    };
    lotus(id.and_then(|id| actors.get(&id)).map(|a| a.balance.clone()).unwrap_or_default())
}
