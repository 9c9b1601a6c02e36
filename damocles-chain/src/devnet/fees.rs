//! What gas costs: the base fee after FIP-0115, and who gets what a message pays.
//!
//! - The base fee is that of FIP-0115 as Lotus implements it (`chain/store/basefee.go`, in force since network version
//!   28): it follows the premium at the 20th percentile of a block's worth of gas, and no longer how full blocks are.
//!   A network whose tipsets hold less than four fifths of a block's gas has no such premium, so that its base fee falls
//!   to the minimum and stays there.
//! - Burn, over-estimation burn, tip and refund are `GasOutputs::compute` of the reference FVM (`fvm/src/gas/outputs.rs`).

use fvm_shared::{bigint::BigInt, econ::TokenAmount, message::Message};
use num_traits::Zero;
use serde::{Deserialize, Serialize};

/// The least base fee of the protocol, in attoFIL.
pub(super) const MINIMUM_BASE_FEE: i64 = 100;
/// The gas that a block may hold.
pub(super) const BLOCK_GAS_LIMIT: u64 = 10_000_000_000;
/// The messages that a block may hold.
pub(super) const BLOCK_MESSAGE_LIMIT: usize = 10_000;
/// The premium that counts is the one that this much gas, counted from the highest premium down, does not reach.
const PERCENTILE_INDEX: u64 = BLOCK_GAS_LIMIT * 80 / 100 - 1;
/// The base fee moves by an eighth at most, and rests where that premium is an eighth of it.
pub(super) const MAX_CHANGE_DENOMINATOR: i64 = 8;
/// A limit of more than eleven tenths of the gas used burns.
const OVERUSE: (i64, i64) = (11, 10);

/// The least base fee of the protocol.
pub(super) fn minimum_base_fee() -> TokenAmount {
    TokenAmount::from_atto(MINIMUM_BASE_FEE)
}

/// What a message really offers per gas on top of the base fee.
pub(super) fn effective_premium(message: &Message, base_fee: &TokenAmount) -> TokenAmount {
    let room = (&message.gas_fee_cap - base_fee).max(TokenAmount::zero());
    message.gas_premium.clone().min(room)
}

/// The premium at the percentile: zero where all messages together hold less gas than that.
pub(super) fn percentile_premium(mut offers: Vec<(TokenAmount, u64)>) -> TokenAmount {
    premium_at(&mut offers, PERCENTILE_INDEX)
}

/// The premium of the unit of gas at `index`, counted from the highest premium down.
pub(super) fn premium_at(offers: &mut [(TokenAmount, u64)], index: u64) -> TokenAmount {
    offers.sort_by(|a, b| b.0.cmp(&a.0));
    let mut below = 0_u64;
    for (premium, limit) in offers {
        below = below.saturating_add(*limit);
        if below > index {
            return premium.clone();
        }
    }
    TokenAmount::zero()
}

/// The base fee after a tipset with this base fee and this premium at the percentile.
pub(super) fn next_base_fee(base_fee: &TokenAmount, premium: &TokenAmount) -> TokenAmount {
    let denominator = BigInt::from(MAX_CHANGE_DENOMINATOR);
    let step = TokenAmount::from_atto((base_fee.atto() + &denominator - 1) / denominator);
    (base_fee + step.clone().min(premium - &step)).max(minimum_base_fee())
}

/// Where the money of a message's gas goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GasOutputs {
    /// The base fee of the gas used, burnt.
    pub(super) base_fee_burn: TokenAmount,
    /// The base fee of a part of the gas that the limit was too high by, burnt.
    pub(super) over_estimation_burn: TokenAmount,
    /// What the block's maker would lose for a message that cannot pay the base fee.
    pub(super) miner_penalty: TokenAmount,
    /// The premium on the whole limit, for the block's maker.
    pub(super) miner_tip: TokenAmount,
    /// Given back to the sender.
    pub(super) refund: TokenAmount,
}

impl GasOutputs {
    /// Divides what a message put up: its fee cap times its limit.
    pub(super) fn of(message: &Message, used: u64, base_fee: &TokenAmount) -> Self {
        let (fee_cap, limit) = (&message.gas_fee_cap, message.gas_limit);
        let payable = base_fee.clone().min(fee_cap.clone());
        let burnt = over_estimation(used, limit);
        let short = base_fee - &payable;
        let premium = message.gas_premium.clone().min(fee_cap - &payable);
        let base_fee_burn = &payable * BigInt::from(used);
        let over_estimation_burn = &payable * &burnt;
        let miner_tip = premium * BigInt::from(limit);
        let refund = deposit(message) - &base_fee_burn - &over_estimation_burn - &miner_tip;
        Self {
            base_fee_burn,
            over_estimation_burn,
            miner_penalty: &short * BigInt::from(used) + short * burnt,
            miner_tip,
            refund,
        }
    }

    /// All that the sender paid.
    pub(super) fn total(&self) -> TokenAmount {
        &self.base_fee_burn + &self.over_estimation_burn + &self.miner_tip
    }
}

/// What a sender has to put up before a message may run.
pub(super) fn deposit(message: &Message) -> TokenAmount {
    &message.gas_fee_cap * BigInt::from(message.gas_limit)
}

/// How much of the unused gas burns.
fn over_estimation(used: u64, limit: u64) -> BigInt {
    if used == 0 {
        return BigInt::from(limit);
    }
    let (used, limit) = (BigInt::from(used), BigInt::from(limit));
    let over: BigInt = &limit - &used * OVERUSE.0 / OVERUSE.1;
    if over < BigInt::zero() {
        return BigInt::zero();
    }
    (&limit - &used) * over.min(used.clone()) / used
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_shared::address::Address;

    fn atto(n: i64) -> TokenAmount {
        TokenAmount::from_atto(n)
    }

    fn message(limit: u64, cap: i64, premium: i64) -> Message {
        Message {
            version: 0,
            from: Address::new_id(100),
            to: Address::new_id(101),
            sequence: 0,
            value: TokenAmount::zero(),
            method_num: 0,
            params: Default::default(),
            gas_limit: limit,
            gas_fee_cap: atto(cap),
            gas_premium: atto(premium),
        }
    }

    /// The table of FIP-0115.
    #[test]
    fn the_base_fee_follows_the_premium() {
        let table = [
            (100, 0, 100),
            (100, 13, 100),
            (100, 14, 101),
            (100, 26, 113),
            (801, 0, 700),
            (801, 20, 720),
            (801, 100, 800),
            (801, 120, 820),
            (801, 200, 900),
            (801, 201, 901),
            (808, 0, 707),
            (808, 1, 708),
            (808, 201, 908),
            (808, 202, 909),
            (808, 203, 909),
            // By hand: ceil(1e8 / 8) = 12,500,000, so the bounds are 7/8 and 9/8.
            (100_000_000, 0, 87_500_000),
            (100_000_000, 12_500_000, 100_000_000),
            (100_000_000, 25_000_000, 112_500_000),
            (100_000_000, i64::MAX, 112_500_000),
            // ceil(114 / 8) = 15: 99 would be below the minimum.
            (114, 0, 100),
        ];
        for (base, premium, expected) in table {
            assert_eq!(next_base_fee(&atto(base), &atto(premium)), atto(expected), "{base} {premium}");
        }
    }

    /// The table of FIP-0115.
    #[test]
    fn the_premium_is_what_is_left_above_the_base_fee() {
        for (base, cap, premium, expected) in [
            (8, 8, 8, 0),
            (8, 16, 7, 7),
            (8, 19, 10, 10),
            (123_456, 123_455, 123_455, 0),
            (123_456, 1_234_567, 1_111_112, 1_111_111),
        ] {
            assert_eq!(effective_premium(&message(1, cap, premium), &atto(base)), atto(expected), "{base} {cap}");
        }
    }

    /// The table of FIP-0115, and the longer one of Lotus' tests.
    #[test]
    fn the_percentile_is_weighted_by_gas() {
        let table: [(&[i64], &[u64], i64); 8] = [
            (&[], &[], 0),
            (&[123, 100], &[5_999_999_999, 2_000_000_000], 0),
            (&[123, 0], &[5_999_999_999, 2_000_000_001], 0),
            (&[123, 100], &[5_999_999_999, 2_000_000_001], 100),
            (&[123, 100], &[7_999_999_999, 2_000_000_001], 100),
            (&[123, 100], &[8_000_000_000, 2_000_000_000], 123),
            (&[123, 100], &[8_000_000_000, 9_000_000_000], 123),
            (
                &[100, 200, 300, 400, 500, 600, 700],
                &[
                    4_000_000_000,
                    1_000_000_000,
                    2_000_000_000,
                    1_000_000_000,
                    2_000_000_000,
                    2_000_000_000,
                    3_000_000_000,
                ],
                400,
            ),
        ];
        for (premiums, limits, expected) in table {
            let offers = premiums.iter().map(|p| atto(*p)).zip(limits.iter().copied()).collect();
            assert_eq!(percentile_premium(offers), atto(expected), "{premiums:?} {limits:?}");
        }
    }

    /// By hand, from the FVM's formula: with limit L, used U, over = min(L - floor(11 U / 10), U), burnt gas is
    /// floor((L - U) x over / U).
    #[test]
    fn gas_is_divided_as_the_fvm_divides_it() {
        // (limit, used, burnt gas)
        for (limit, used, burnt) in [
            (100, 100, 0_u64),
            (110, 100, 0),
            (111, 100, 0),
            (120, 100, 2),
            (200, 100, 90),
            (210, 100, 110),
            (1000, 100, 900),
            (50, 0, 50),
        ] {
            assert_eq!(over_estimation(used, limit), BigInt::from(burnt), "{limit} {used}");
        }
        // Base fee 100, cap 1,000, premium 50, limit 200, used 100: burns 100 x 100 and 100 x 90, tips 50 x 200.
        let out = GasOutputs::of(&message(200, 1000, 50), 100, &atto(100));
        assert_eq!(
            (out.base_fee_burn.clone(), out.over_estimation_burn.clone(), out.miner_tip.clone()),
            (atto(10_000), atto(9000), atto(10_000))
        );
        assert_eq!(out.refund, atto(200_000 - 29_000));
        assert_eq!((out.total(), out.miner_penalty), (atto(29_000), atto(0)));
        // The cap leaves 20 of the premium.
        assert_eq!(GasOutputs::of(&message(100, 120, 50), 100, &atto(100)).miner_tip, atto(2000));
        // A cap below the base fee: the sender pays the cap, the block's maker the rest.
        let out = GasOutputs::of(&message(100, 80, 50), 100, &atto(100));
        assert_eq!(
            (out.base_fee_burn, out.miner_tip, out.miner_penalty, out.refund),
            (atto(8000), atto(0), atto(2000), atto(0))
        );
    }
}
