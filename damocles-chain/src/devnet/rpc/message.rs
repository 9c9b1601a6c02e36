//! Messages on their way and on chain.

use super::{
    args::{Args, RpcFault, lotus, plain},
    chain::{receipt_json, stored_message},
};
use crate::{
    devnet::{
        actors::World,
        block::{Executed, Tipset},
        fees::BLOCK_GAS_LIMIT,
        gas,
        mempool::Trust,
        node::Devnet,
        select::Account,
        signed::{SignedMessage, message_cid},
        store::Overlay,
        vm::{self, Applied},
    },
    lotus_json::{self, GasCost, InvocResult, MessageReceipt, MsgLookup},
    outbox::same_call,
};
use cid::Cid;
use fvm_shared::{ActorID, address::Address, econ::TokenAmount, error::ExitCode, message::Message};
use num_traits::Zero;
use serde_json::Value;
use std::sync::Arc;

/// Finds a message on chain whose receipt is there: one that sits in the head has none yet. What Lotus answers with an
/// error is one here too: a message that the node never saw, and one whose nonce another message has.
pub(super) fn lookup(
    devnet: &Devnet,
    from: &Arc<Tipset>,
    cid: &Cid,
    allow_replaced: bool,
) -> Result<Option<MsgLookup>, RpcFault> {
    let (wanted, executed, child) = {
        let chain = devnet.chain.read();
        let reverted = chain.reverted(from);
        let (wanted, found) = match (chain.message(cid), chain.pushed(cid)) {
            // Seen from a branch that was given up.
            (_, pushed) if !reverted.is_empty() => {
                let nonce = pushed.map(|p| (p.from, p.nonce));
                let found = reverted_message(&reverted, cid, nonce);
                (pushed.filter(|p| found.as_ref().is_none_or(|f| f.1.cid != p.cid)), found)
            }
            (Some(found), _) => (None, Some(found)),
            (None, Some(pushed)) => (Some(pushed), chain.in_place_of(&pushed)),
            (None, None) => {
                return Err(RpcFault::new(format!("failed to load message: ipld: could not find {cid}")));
            }
        };
        let Some((tipset, executed)) = found else { return Ok(None) };
        let Some(child) = chain.descendant(from, tipset.height + 1) else { return Ok(None) };
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

/// A message in tipsets that were reverted, or one with its nonce.
fn reverted_message(
    tipsets: &[Arc<Tipset>],
    cid: &Cid,
    nonce: Option<(ActorID, u64)>,
) -> Option<(Arc<Tipset>, Executed)> {
    tipsets.iter().find_map(|tipset| {
        let is_it = |m: &&Executed| m.cid == *cid || m.unsigned == *cid || Some((m.from, m.nonce)) == nonce;
        tipset.messages.iter().find(is_it).map(|m| (Arc::clone(tipset), m.clone()))
    })
}

pub(super) fn search(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let allow_replaced: Option<bool> = args.get(3)?;
    let from = super::view::tipset(devnet, args, 0)?;
    plain(&lookup(devnet, &from, &args.lotus(1)?, allow_replaced.unwrap_or(true))?)
}

/// Runs a message on the state that reads at a tipset see, without a trace on chain.
pub(super) fn call(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let message: Message = args.lotus(0)?;
    let tipset = super::view::tipset(devnet, args, 1)?;
    let actors = crate::devnet::actors::load_actors(&devnet.store, &tipset.parent_state)?;
    let overlay = Overlay::new(&devnet.store);
    let ticket_at = |epoch| {
        let found = devnet.chain.read().ancestor(&tipset, epoch);
        found.map_or_else(|| tipset.ticket(), |t| t.ticket())
    };
    let mut world = devnet.world(&overlay, &ticket_at, tipset.height, &actors);
    let from = world
        .resolve(&message.from)?
        .filter(|id| world.actors.contains_key(id))
        .ok_or_else(|| RpcFault::no_actor(&format!("call raw get actor: {}", lotus_json::text_of(&message.from))))?;
    let limit = if message.gas_limit == 0 { BLOCK_GAS_LIMIT } else { message.gas_limit.min(BLOCK_GAS_LIMIT) };
    let (message, applied) = applied(&mut world, message, from, limit)?;
    let cid = message_cid(&message);
    let executed = Executed {
        cid,
        unsigned: cid,
        from,
        nonce: message.sequence,
        receipt: applied.receipt,
        error: applied.error,
        fee: TokenAmount::zero(),
        gas: applied.gas,
        gas_limit: message.gas_limit,
        premium: TokenAmount::zero(),
    };
    plain(&result(message, executed))
}

/// Applies a message that costs nothing, with its sender's next nonce.
pub(super) fn applied(
    world: &mut World<'_>,
    mut message: Message,
    from: ActorID,
    limit: u64,
) -> Result<(Message, Applied), RpcFault> {
    message.gas_limit = limit.max(gas::inclusion_of(&message));
    message.gas_fee_cap = TokenAmount::zero();
    message.gas_premium = TokenAmount::zero();
    message.sequence = world.actors.get(&from).map_or(0, |a| a.sequence);
    let applied = vm::apply(world, &message, from, &TokenAmount::zero())?;
    Ok((message, applied))
}

fn result(message: Message, executed: Executed) -> InvocResult {
    let receipt: MessageReceipt = receipt_json(&executed);
    let gas = executed.gas;
    InvocResult {
        msg_cid: Some(executed.cid),
        msg: Some(message),
        gas_cost: Some(GasCost {
            message: Some(executed.cid),
            gas_used: TokenAmount::from_atto(receipt.gas_used),
            base_fee_burn: gas.base_fee_burn,
            over_estimation_burn: gas.over_estimation_burn,
            miner_penalty: gas.miner_penalty,
            miner_tip: gas.miner_tip,
            refund: gas.refund,
            total_cost: executed.fee,
        }),
        msg_rct: Some(receipt),
        execution_trace: Value::Null,
        error: executed.error,
        duration: 0,
    }
}

/// An exit code as Lotus writes it.
pub(super) fn exit_name(code: ExitCode) -> String {
    let name = match code.value() {
        0 => "Ok",
        1 => "SysErrSenderInvalid",
        2 => "SysErrSenderStateInvalid",
        4 => "SysErrIllegalInstruction",
        5 => "SysErrInvalidReceiver",
        6 => "SysErrInsufficientFunds",
        7 => "SysErrOutOfGas",
        9 => "SysErrIllegalExitCode",
        10 => "SysErrAssertionFailed",
        11 => "SysErrMissingReturn",
        16 => "ErrIllegalArgument",
        17 => "ErrNotFound",
        18 => "ErrForbidden",
        19 => "ErrInsufficientFunds",
        20 => "ErrIllegalState",
        21 => "ErrSerialization",
        22 => "ErrUnhandledMessage",
        23 => "ErrUnspecified",
        24 => "ErrAssertionFailed",
        25 => "ErrReadOnly",
        26 => "ErrNotPayable",
        other => return other.to_string(),
    };
    format!("{name}({})", code.value())
}

/// What became of a message on chain, with what the actor said.
pub(super) fn replay(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let cid: Cid = args.lotus(1)?;
    let found = devnet.chain.read().message(&cid);
    let (_, executed) = found.ok_or_else(|| RpcFault::new(format!("could not find message {cid}")))?;
    plain(&result(stored_message(devnet, &cid)?, executed))
}

pub(super) fn nonce(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let address: Address = args.lotus(0)?;
    let (id, _) = devnet.account(&address).map_err(|e| RpcFault { code: 11, message: e.to_string() })?;
    let chain = devnet.chain.read();
    let state = chain.actors.get(&id).map_or(0, |a| a.sequence);
    plain(&chain.pool.next_nonce(id, state))
}

pub(super) fn push(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    push_as(devnet, args.get(0)?, Trust::Local)
}

pub(super) fn push_untrusted(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    push_as(devnet, args.get(0)?, Trust::Untrusted)
}

pub(super) fn batch_push(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    push_all(devnet, args.get(0)?, Trust::Local)
}

pub(super) fn batch_push_untrusted(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    push_all(devnet, args.get(0)?, Trust::Untrusted)
}

fn push_as(devnet: &Devnet, message: lotus_json::SignedMessage, trust: Trust) -> Result<Value, RpcFault> {
    lotus(devnet.accept(SignedMessage::from(message), trust).map_err(|e| RpcFault::new(e.to_string()))?)
}

/// Those before the first that is refused are in the pool.
fn push_all(devnet: &Devnet, messages: Vec<lotus_json::SignedMessage>, trust: Trust) -> Result<Value, RpcFault> {
    Ok(Value::Array(messages.into_iter().map(|m| push_as(devnet, m, trust)).collect::<Result<_, _>>()?))
}

pub(super) fn pending(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    let all: Vec<lotus_json::SignedMessage> =
        devnet.chain.read().pool.all().cloned().map(lotus_json::SignedMessage::from).collect();
    plain(&all)
}

/// The messages that the next block would take. Any ticket quality is as good as another: there is one block in a tipset.
pub(super) fn select(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    super::view::tipset(devnet, args, 0)?;
    let chain = devnet.chain.read();
    let account = |id| chain.actors.get(&id).map(Account::of);
    let chosen = chain.pool.select(chain.head().height + 1, &chain.next_base_fee(), account);
    let chosen: Vec<lotus_json::SignedMessage> = chosen.into_iter().map(|(m, _)| m.into()).collect();
    plain(&chosen)
}
