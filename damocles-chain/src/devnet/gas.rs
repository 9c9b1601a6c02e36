//! A simple gas model: a fixed price per method and per byte, and a base fee that stays at the protocol's minimum.

use super::miner::method;
use fvm_shared::{bigint::BigInt, econ::TokenAmount, message::Message};

/// The least base fee of the protocol, in attoFIL.
const BASE_FEE: i64 = 100;

/// What a block may hold.
pub(super) const BLOCK_GAS_LIMIT: u64 = 10_000_000_000;

/// What it costs to put a message on chain, before anything of it runs.
pub(super) const fn inclusion(bytes: u64) -> u64 {
    500_000 + 1_300 * bytes
}

/// The price of a message that is `bytes` long. Magnitudes are those of the real actors.
pub(super) fn price(message: &Message, bytes: u64) -> u64 {
    let method = match message.method_num {
        0 => 1_000_000,
        2 => 40_000_000,
        method::SUBMIT_WINDOWED_POST => 60_000_000,
        method::DECLARE_FAULTS | method::DECLARE_FAULTS_RECOVERED => 20_000_000,
        method::PRE_COMMIT_SECTOR_BATCH2 => 16_000_000,
        method::PROVE_COMMIT_SECTORS3 => 90_000_000,
        _ => 2_000_000,
    };
    inclusion(bytes) + method
}

/// The base fee of every block.
pub(super) fn base_fee() -> TokenAmount {
    TokenAmount::from_atto(BASE_FEE)
}

/// The premium that the node suggests.
pub(super) fn suggested_premium() -> TokenAmount {
    TokenAmount::from_atto(100_000)
}

/// What a sender has to have before a message may run.
pub(super) fn worst_case(message: &Message) -> TokenAmount {
    &message.gas_fee_cap * BigInt::from(message.gas_limit)
}

/// What a message costs in the end.
pub(super) fn fee(message: &Message, used: u64) -> TokenAmount {
    let base = base_fee();
    // A simulated message offers nothing.
    let premium = message.gas_premium.clone().min(&message.gas_fee_cap - &base).max(TokenAmount::default());
    base * BigInt::from(used) + premium * BigInt::from(message.gas_limit)
}
