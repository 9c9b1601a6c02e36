//! Messages on their way and on chain.

use super::{
    args::{Args, RpcFault, lotus, plain},
    chain::{receipt_json, stored_message},
};
use crate::{
    devnet::{
        block::Executed,
        gas,
        node::Devnet,
        signed::{SignedMessage, message_cid},
        store::Overlay,
        vm,
    },
    lotus_json::{self, GasCost, InvocResult, MessageReceipt, MessageSendSpec, MsgLookup},
    outbox::same_call,
};
use cid::Cid;
use fvm_ipld_encoding::to_vec;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount, message::Message};
use num_traits::Zero;
use serde_json::Value;

/// Finds a message on chain whose receipt is there: one that sits in the head has none yet. What Lotus answers with an
/// error is one here too: a message that the node never saw, and one whose nonce another message has.
pub(super) fn lookup(devnet: &Devnet, cid: &Cid, allow_replaced: bool) -> Result<Option<MsgLookup>, RpcFault> {
    let (wanted, executed, child) = {
        let chain = devnet.chain.read();
        let (wanted, found) = match (chain.message(cid), chain.pushed(cid)) {
            (Some(found), _) => (None, Some(found)),
            (None, Some(pushed)) => (Some(pushed), chain.in_place_of(&pushed)),
            (None, None) => {
                return Err(RpcFault::new(format!("failed to load message: ipld: could not find {cid}")));
            }
        };
        let Some((tipset, executed)) = found else { return Ok(None) };
        let Some(child) = chain.child(tipset.height) else { return Ok(None) };
        (wanted, executed, child)
    };
    if let Some(wanted) = wanted {
        let replaced = |doubt: &str| {
            let (other, nonce) = (executed.cid, wanted.nonce);
            RpcFault::new(format!(
                "found message with equal nonce as the one we are looking for{doubt} (F:{cid} n {nonce}, TS: {other} \
                 n{nonce})"
            ))
        };
        if !same_call(&stored_message(devnet, &wanted.cid)?, &stored_message(devnet, &executed.cid)?) {
            return Err(replaced(" that is NOT a valid replacement message"));
        }
        if !allow_replaced {
            return Err(replaced(""));
        }
    }
    Ok(Some(MsgLookup {
        message: if wanted.is_none() { *cid } else { executed.cid },
        receipt: receipt_json(&executed),
        return_dec: Value::Null,
        tip_set: vec![child.cid],
        height: child.height,
    }))
}

pub(super) fn search(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let allow_replaced: Option<bool> = args.get(3)?;
    plain(&lookup(devnet, &args.lotus(1)?, allow_replaced.unwrap_or(true))?)
}

/// Runs a message on the state after a tipset, without a trace on chain.
pub(super) fn call(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let message: Message = args.lotus(0)?;
    let tipset = super::view::tipset(devnet, args, 1)?;
    plain(&simulate(devnet, message, &tipset)?)
}

fn simulate(
    devnet: &Devnet,
    mut message: Message,
    tipset: &crate::devnet::block::Tipset,
) -> Result<InvocResult, RpcFault> {
    let actors = crate::devnet::actors::load_actors(&devnet.store, &tipset.state)?;
    let overlay = Overlay::new(&devnet.store);
    let epoch = tipset.height + 1;
    let tipset_at = |asked| devnet.tipset_at(asked, epoch);
    let mut world = devnet.world(&overlay, &tipset_at, epoch, &actors);
    let from = world
        .resolve(&message.from)?
        .filter(|id| world.actors.contains_key(id))
        .ok_or_else(|| RpcFault::no_actor(&format!("call raw get actor: {}", lotus_json::text_of(&message.from))))?;
    message.gas_limit = gas::BLOCK_GAS_LIMIT;
    message.gas_fee_cap = TokenAmount::zero();
    message.gas_premium = TokenAmount::zero();
    if let Some(sender) = world.actors.get_mut(&from) {
        message.sequence = sender.sequence;
        // A simulated message is free.
        sender.balance += gas::base_fee() * BigInt::from(gas::BLOCK_GAS_LIMIT);
    }
    let applied = vm::apply(&mut world, &message, from);
    let cid = message_cid(&message);
    let executed = Executed {
        cid,
        unsigned: cid,
        from,
        nonce: message.sequence,
        receipt: applied.receipt,
        error: applied.error,
        fee: applied.fee,
    };
    Ok(result(message, executed))
}

fn result(message: Message, executed: Executed) -> InvocResult {
    let receipt: MessageReceipt = receipt_json(&executed);
    let used = TokenAmount::from_atto(receipt.gas_used);
    let burn = gas::base_fee() * BigInt::from(receipt.gas_used);
    InvocResult {
        msg_cid: Some(executed.cid),
        msg: Some(message),
        gas_cost: Some(GasCost {
            message: Some(executed.cid),
            gas_used: used,
            miner_tip: &executed.fee - &burn,
            base_fee_burn: burn,
            total_cost: executed.fee,
            ..GasCost::default()
        }),
        msg_rct: Some(receipt),
        execution_trace: Value::Null,
        error: executed.error,
        duration: 0,
    }
}

/// What became of a message on chain, with what the actor said.
pub(super) fn replay(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let cid: Cid = args.lotus(1)?;
    let found = devnet.chain.read().message(&cid);
    let (_, executed) = found.ok_or_else(|| RpcFault::new(format!("could not find message {cid}")))?;
    plain(&result(stored_message(devnet, &cid)?, executed))
}

/// Fills in what is not set: limit, premium and fee cap.
pub(super) fn estimate(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let mut message: Message = args.lotus(0)?;
    let spec: Option<MessageSendSpec> = args.get(1)?;
    let tipset = super::view::tipset(devnet, args, 2)?;
    if message.gas_limit == 0 {
        let outcome = simulate(devnet, message.clone(), &tipset)?;
        let receipt = outcome.msg_rct.unwrap_or_default();
        if receipt.exit_code != 0 {
            return Err(RpcFault::new(format!(
                "estimating gas limit: message execution failed (exit=[{}], vm error=[{}])",
                receipt.exit_code, outcome.error
            )));
        }
        // The message's own gas fields make it a little longer.
        let bytes = to_vec(&message).map(|b| b.len() as u64 + 64).unwrap_or_default();
        message.gas_limit = gas::price(&message, bytes) / 4 * 5;
    }
    if message.gas_premium.is_zero() {
        message.gas_premium = gas::suggested_premium();
    }
    if message.gas_fee_cap.is_zero() {
        message.gas_fee_cap = gas::base_fee() * BigInt::from(2) + &message.gas_premium;
    }
    if let Some(max) = spec.map(|s| s.max_fee).filter(|max| !max.is_zero()) {
        let cap = TokenAmount::from_atto(max.atto() / BigInt::from(message.gas_limit));
        if cap < message.gas_fee_cap {
            message.gas_premium = message.gas_premium.min(cap.clone());
            message.gas_fee_cap = cap;
        }
    }
    lotus(message)
}

pub(super) fn nonce(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let address: Address = args.lotus(0)?;
    let (id, _) = devnet.account(&address).map_err(|e| RpcFault { code: 11, message: e.to_string() })?;
    let chain = devnet.chain.read();
    let state = chain.actors.get(&id).map_or(0, |a| a.sequence);
    plain(&chain.pool.next_nonce(id, state))
}

pub(super) fn push(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let message: lotus_json::SignedMessage = args.get(0)?;
    lotus(devnet.accept(SignedMessage::from(message)).map_err(|e| RpcFault::new(e.to_string()))?)
}

pub(super) fn pending(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    let all: Vec<lotus_json::SignedMessage> =
        devnet.chain.read().pool.all().cloned().map(lotus_json::SignedMessage::from).collect();
    plain(&all)
}
