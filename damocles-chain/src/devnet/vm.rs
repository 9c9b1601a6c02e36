//! Applying messages to the state.

use super::{
    actors::{World, code, load},
    fees::{self, GasOutputs},
    gas,
    miner::{self, Invocation},
    power,
};
use fil_actor_account_state::v18 as account;
use fil_actors_shared::{
    actor_error_v18,
    v18::{ActorError, BURNT_FUNDS_ACTOR_ID, REWARD_ACTOR_ID, STORAGE_POWER_ACTOR_ID},
};
use fvm_ipld_encoding::RawBytes;
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
    pub(super) gas: GasOutputs,
}

/// Applies a message as the FVM's executor does: the sender puts up its fee cap for the whole limit and its nonce moves;
/// a handler that fails leaves nothing behind; then the deposit is divided. There are no block rewards, so that tips stay
/// with the reward actor, which pays them out on public networks. An error means that no block may hold the message.
pub(super) fn apply(
    world: &mut World<'_>,
    message: &Message,
    from: ActorID,
    base_fee: &TokenAmount,
) -> Result<Applied, ActorError> {
    let deposit = fees::deposit(message);
    let price = gas::price(world, message);
    let sender = world.actor_mut(from)?;
    if message.sequence != sender.sequence || sender.balance < deposit || message.gas_limit < gas::inclusion_of(message)
    {
        return Err(ActorError::unchecked(
            ExitCode::SYS_SENDER_STATE_INVALID,
            format!("message {} of actor {from} cannot be included", message.sequence),
        ));
    }
    sender.balance -= deposit;
    sender.sequence += 1;
    let used = price.min(message.gas_limit);
    let result = if price > message.gas_limit {
        let text = format!("out of gas: {price} needed, limit {}", message.gas_limit);
        Err(ActorError::unchecked(ExitCode::SYS_OUT_OF_GAS, text))
    } else {
        world.attempt(|world| dispatch(world, message, from))
    };
    let (exit_code, return_data, error) = match result {
        Ok(data) => (ExitCode::OK, data, String::new()),
        Err(e) => (e.exit_code(), RawBytes::default(), format!("{} (RetCode={})", e.msg(), e.exit_code())),
    };
    let gas = GasOutputs::of(message, used, base_fee);
    world.actor_mut(BURNT_FUNDS_ACTOR_ID)?.balance += &gas.base_fee_burn + &gas.over_estimation_burn;
    world.actor_mut(REWARD_ACTOR_ID)?.balance += &gas.miner_tip;
    world.actor_mut(from)?.balance += &gas.refund;
    Ok(Applied { receipt: Receipt { exit_code, return_data, gas_used: used, events_root: None }, error, gas })
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
    let mut failed = Vec::new();
    for (id, event) in power::take_due(world)? {
        let called = world.attempt(|world| {
            miner::on_deferred_cron(&mut Invocation { world, caller: STORAGE_POWER_ACTOR_ID, miner: id }, event)
        });
        if let Err(e) = called {
            world.failed(format!("epoch {}: a cron callback of t0{id}: {e}", world.epoch));
            failed.push(id);
        }
    }
    for id in failed {
        power::delete_claim(world, id)?;
    }
    power::end_epoch(world)
}
