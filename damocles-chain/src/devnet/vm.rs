//! Applying messages to the state.

use super::{
    actors::{World, code, load},
    gas,
    miner::{self, Invocation},
    power,
};
use fil_actor_account_state::v18 as account;
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, BURNT_FUNDS_ACTOR_ID, STORAGE_POWER_ACTOR_ID},
};
use fvm_ipld_encoding::{RawBytes, to_vec};
use fvm_shared::{
    ActorID, METHOD_SEND, address::Address, econ::TokenAmount, error::ExitCode, message::Message, receipt::Receipt,
};

/// The power actor's `CreateMiner`.
const CREATE_MINER: u64 = 2;

/// What became of a message.
#[derive(Clone, Debug)]
pub(super) struct Applied {
    pub(super) receipt: Receipt,
    /// What the actor said when it refused; empty on success.
    pub(super) error: String,
    pub(super) fee: TokenAmount,
}

/// Applies a message whose sender was checked. The nonce moves and gas is paid whatever comes of it; a handler that
/// fails leaves nothing else behind.
pub(super) fn apply(world: &mut World<'_>, message: &Message, from: ActorID) -> Applied {
    if let Some(sender) = world.actors.get_mut(&from) {
        sender.sequence += 1;
    }
    let bytes = to_vec(message).map(|b| b.len() as u64).unwrap_or_default();
    let price = gas::price(message, bytes);
    let used = price.min(message.gas_limit);
    let fee = gas::fee(message, used);
    let paid = world.transfer(from, BURNT_FUNDS_ACTOR_ID, &fee);
    let before = world.actors.clone();
    let result = match paid {
        Err(e) => Err(ActorError::unchecked(ExitCode::SYS_SENDER_STATE_INVALID, e.msg().to_owned())),
        Ok(()) if price > message.gas_limit => Err(ActorError::unchecked(
            ExitCode::SYS_OUT_OF_GAS,
            format!("out of gas: {price} needed, limit {}", message.gas_limit),
        )),
        Ok(()) => dispatch(world, message, from),
    };
    let (exit_code, return_data, error) = match result {
        Ok(data) => (ExitCode::OK, data, String::new()),
        Err(e) => {
            world.actors = before;
            (e.exit_code(), RawBytes::default(), format!("{} (RetCode={})", e.msg(), e.exit_code()))
        }
    };
    Applied { receipt: Receipt { exit_code, return_data, gas_used: used, events_root: None }, error, fee }
}

fn dispatch(world: &mut World<'_>, message: &Message, from: ActorID) -> Result<RawBytes, ActorError> {
    let to = match world.resolve(&message.to)? {
        Some(id) if world.actors.contains_key(&id) => id,
        None if message.method_num == METHOD_SEND => world
            .create_account(&message.to)
            .map_err(|e| ActorError::unchecked(ExitCode::SYS_INVALID_RECEIVER, e.msg().to_owned()))?,
        _ => {
            return Err(ActorError::unchecked(
                ExitCode::SYS_INVALID_RECEIVER,
                format!("receiver {} does not exist", message.to),
            ));
        }
    };
    world.transfer(from, to, &message.value).map_err(|e| match e.exit_code() {
        ExitCode::USR_INSUFFICIENT_FUNDS => ActorError::unchecked(ExitCode::SYS_INSUFFICIENT_FUNDS, e.msg().to_owned()),
        _ => e,
    })?;
    if message.method_num == METHOD_SEND {
        return Ok(RawBytes::default());
    }
    if to == STORAGE_POWER_ACTOR_ID && message.method_num == CREATE_MINER {
        let origin = (key_of(world, from)?, message.sequence);
        return miner::create(world, origin, &message.value, miner::decode(&message.params)?);
    }
    if world.actor(to)?.code == code::of(code::MINER) {
        let mut call = Invocation { world, caller: from, miner: to };
        return miner::invoke(&mut call, message.method_num, &message.params);
    }
    Err(actor_error_v18!(unhandled_message, "invalid method: {}", message.method_num))
}

/// The key address of an account.
pub(super) fn key_of(world: &World<'_>, id: ActorID) -> Result<Address, ActorError> {
    let actor = world.actor(id)?;
    if actor.code != code::of(code::ACCOUNT) {
        return Err(actor_error_v18!(illegal_argument, "actor {} is not an account", id));
    }
    Ok(load::<_, account::State>(world.store, &actor.state)?.address)
}

/// Runs what is due at the end of an epoch. A miner whose callback fails loses its power, as on public networks.
pub(super) fn cron(world: &mut World<'_>) -> Result<(), ActorError> {
    for (id, event) in power::take_due(world)? {
        let before = world.actors.clone();
        if let Err(e) =
            miner::on_deferred_cron(&mut Invocation { world, caller: STORAGE_POWER_ACTOR_ID, miner: id }, event)
        {
            tracing::error!(miner = id, epoch = world.epoch, error = %e, "a deferred cron callback failed");
            world.actors = before;
            power::delete_claim(world, id)?;
        }
    }
    power::end_epoch(world)
}
