//! What the node says of gas, as Lotus says it (`node/impl/gasutils` and `CapGasFee`). Its noise on premiums is left out,
//! so that runs repeat.

use super::{
    args::{Args, RpcFault, lotus, plain},
    message::{applied, exit_name},
    view::tipset,
};
use crate::{
    devnet::{
        fees::{self, BLOCK_GAS_LIMIT, MAX_CHANGE_DENOMINATOR},
        node::Devnet,
        randomness::TicketId,
        store::Overlay,
        vm,
    },
    lotus_json::{MessageSendSpec, text_of},
};
use fvm_shared::{bigint::BigInt, econ::TokenAmount, error::ExitCode, message::Message};
use num_traits::Zero;
use serde_json::{Value, json};

/// The least premium that is suggested.
const MIN_PREMIUM: i64 = 100_000;
/// What a message may cost if nothing else is said: 0.07 FIL.
const DEFAULT_MAX_FEE: i64 = 70_000_000;
/// How many blocks ahead a message is priced for: its premium, and its fee cap.
const PREMIUM_BLOCKS: u64 = 10;
const FEE_CAP_BLOCKS: i64 = 20;
/// Error codes of Lotus' own.
const OUT_OF_GAS: i64 = 2;
const REVERTED: i64 = 3;

pub(super) fn limit(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    plain(&estimate_limit(devnet, &args.lotus(0)?)?)
}

/// Runs a message on top of the head and of what its sender has waiting before it.
fn estimate_limit(devnet: &Devnet, message: &Message) -> Result<u64, RpcFault> {
    let (head, actors) = devnet.tip();
    let overlay = Overlay::new(&devnet.store);
    let ticket = TicketId { height: head.height + 1, branch: head.branch };
    let ticket_at = |epoch| if epoch >= ticket.height { ticket } else { devnet.ticket_at(epoch) };
    let mut world = devnet.world(&overlay, &ticket_at, ticket.height, &actors);
    let from = world.resolve(&message.from)?.filter(|id| world.actors.contains_key(id));
    let from = from.ok_or_else(|| RpcFault::no_actor(&format!("getting key address: {}", text_of(&message.from))))?;
    let (before, base_fee) = {
        let chain = devnet.chain.read();
        let before: Vec<Message> = chain.pool.of(from).map(|m| m.message.clone()).collect();
        (before, chain.next_base_fee())
    };
    for message in before.iter().take_while(|m| m.sequence != message.sequence) {
        // One after a gap cannot run yet.
        if vm::apply(&mut world, message, from, &base_fee).is_err() {
            break;
        }
    }
    let applied = applied(&mut world, message.clone(), from, BLOCK_GAS_LIMIT)?.1;
    let receipt = applied.receipt;
    if receipt.exit_code == ExitCode::SYS_OUT_OF_GAS {
        return Err(RpcFault { code: OUT_OF_GAS, message: "message execution failed: out of gas".to_owned() });
    }
    if !receipt.exit_code.is_success() {
        let message = format!(
            "message execution failed (exit=[{}], revert reason=[none], vm error=[{}])",
            exit_name(receipt.exit_code),
            applied.error
        );
        return Err(RpcFault { code: REVERTED, message });
    }
    Ok(receipt.gas_used)
}

pub(super) fn fee_cap(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let (message, blocks): (Message, i64) = (args.lotus(0)?, args.get(1)?);
    let base_fee = tipset(devnet, args, 2)?.base_fee.clone();
    lotus(estimate_fee_cap(&base_fee, &message.gas_premium, blocks))
}

/// The base fee after as many blocks as it can rise in, and the premium.
fn estimate_fee_cap(base_fee: &TokenAmount, premium: &TokenAmount, blocks: i64) -> TokenAmount {
    // An eighth more per block, in 256ths rounded down, as Lotus computes it; more than 300 blocks overflow its number.
    let blocks = i32::try_from(blocks.clamp(0, 300)).unwrap_or_default();
    let factor = (1.0 + 1.0 / MAX_CHANGE_DENOMINATOR as f64).powi(blocks) * 256.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and below 2^64")]
    let factor = BigInt::from(factor as u64);
    TokenAmount::from_atto(base_fee.atto() * factor / BigInt::from(256)) + premium
}

pub(super) fn premium(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let blocks: u64 = args.get(0)?;
    lotus(estimate_premium(devnet, args, blocks, 3)?)
}

/// The median premium of what landed lately, weighted by gas: a little below the middle of the capacity that there was.
/// What counts is what a message really offered above the base fee of its block.
fn estimate_premium(devnet: &Devnet, args: &Args, blocks: u64, key: usize) -> Result<TokenAmount, RpcFault> {
    let blocks = blocks.clamp(1, 128);
    let mut offers = Vec::new();
    let mut seen = 0_u64;
    let top = tipset(devnet, args, key)?;
    let chain = devnet.chain.read();
    let mut at = chain.ancestor(&top, top.height - 1).filter(|_| top.height > 0);
    while let Some(tipset) = at.take().filter(|_| seen < 2 * blocks) {
        seen += 1;
        offers.extend(tipset.messages.iter().map(|m| (m.premium.clone(), m.gas_limit)));
        at = chain.ancestor(&tipset, tipset.height - 1).filter(|_| tipset.height > 0);
    }
    let premium = median(&mut offers, seen);
    if premium >= TokenAmount::from_atto(MIN_PREMIUM) {
        return Ok(premium);
    }
    Ok(TokenAmount::from_atto(match blocks {
        1 => 2 * MIN_PREMIUM,
        2 => MIN_PREMIUM * 3 / 2,
        _ => MIN_PREMIUM,
    }))
}

/// Lotus' `medianGasPremium`: 52.5% of the target of so many blocks, counted from the highest premium down.
fn median(offers: &mut [(TokenAmount, u64)], blocks: u64) -> TokenAmount {
    offers.sort_by(|a, b| b.0.cmp(&a.0));
    let capacity = i128::from(BLOCK_GAS_LIMIT / 2) * i128::from(blocks);
    let mut left = capacity / 2 + capacity / 40;
    let (mut last, mut before) = (TokenAmount::zero(), TokenAmount::zero());
    for (premium, limit) in offers {
        before = std::mem::replace(&mut last, premium.clone());
        left -= i128::from(*limit);
        if left < 0 {
            break;
        }
    }
    if before.is_zero() { last } else { TokenAmount::from_atto((last.atto() + before.atto()) / BigInt::from(2)) }
}

/// Fills in what is not set: limit, premium and fee cap.
pub(super) fn message(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let mut message: Message = args.lotus(0)?;
    let spec: MessageSendSpec = args.get::<Option<MessageSendSpec>>(1)?.unwrap_or_default();
    if message.gas_limit == 0 {
        let used = estimate_limit(devnet, &message)
            .map_err(|e| RpcFault::new(format!("estimating gas used: {}", e.message)))?;
        message.gas_limit = used.saturating_mul(5) / 4;
    }
    if message.gas_premium.is_zero() {
        message.gas_premium = estimate_premium(devnet, args, PREMIUM_BLOCKS, 2)?;
    }
    if message.gas_fee_cap.is_zero() {
        let base_fee = tipset(devnet, args, 2)?.base_fee.clone();
        message.gas_fee_cap = estimate_fee_cap(&base_fee, &message.gas_premium, FEE_CAP_BLOCKS);
    }
    cap(&mut message, &spec);
    lotus(message)
}

/// Keeps a message's price below the most that it may cost.
fn cap(message: &mut Message, spec: &MessageSendSpec) {
    let max = if spec.max_fee.is_zero() { TokenAmount::from_nano(DEFAULT_MAX_FEE) } else { spec.max_fee.clone() };
    if spec.maximize_fee_cap || fees::deposit(message) > max {
        message.gas_fee_cap = TokenAmount::from_atto(max.atto() / BigInt::from(message.gas_limit.max(1)));
    }
    message.gas_premium = message.gas_premium.clone().min(message.gas_fee_cap.clone());
}

/// What is charged now, which Lotus has no method for.
pub(super) fn report(devnet: &Devnet) -> Value {
    json!({"Next": devnet.base_fee().atto().to_string(), "Head": devnet.chain.read().head().base_fee.atto().to_string()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fee_caps_are_lotus() {
        // By hand: 1.125^20 x 256 = 2,699.6 and 1.125 x 256 = 288.
        let atto = TokenAmount::from_atto;
        assert_eq!(estimate_fee_cap(&atto(100), &atto(7), 20), atto(100 * 2699 / 256 + 7));
        assert_eq!(estimate_fee_cap(&atto(1000), &atto(0), 1), atto(1125));
        assert_eq!(estimate_fee_cap(&atto(1000), &atto(5), -3), atto(1005));
        assert!(estimate_fee_cap(&atto(1000), &atto(5), i64::MAX) > atto(1_000_000_000_000_000_000_i64));
    }

    #[test]
    fn medians_are_lotus() {
        let atto = TokenAmount::from_atto;
        let of = |offers: &[(i64, u64)], blocks| {
            median(&mut offers.iter().map(|(p, g)| (atto(*p), *g)).collect::<Vec<_>>(), blocks)
        };
        let target = BLOCK_GAS_LIMIT / 2;
        assert_eq!(of(&[], 1), atto(0));
        assert_eq!(of(&[(5, target)], 1), atto(5));
        assert_eq!(of(&[(10, target), (5, target)], 1), atto(10));
        assert_eq!(of(&[(20, target / 2), (10, target / 2)], 1), atto(15));
        assert_eq!(of(&[(20, target / 2), (10, target / 2), (1, target)], 2), atto(5));
    }
}
