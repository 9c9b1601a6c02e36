//! What a message offers, and what its replacement does. Nothing here asks anybody.

use super::{FeePolicy, Ratio, limits::in_chain};
use damocles_core::{
    Recovery,
    chain::{ChainError, ChainErrorKind},
};
use fvm_shared::{bigint::BigInt, econ::TokenAmount, message::Message};

/// What a message offers for its gas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) limit: u64,
    pub(crate) cap: TokenAmount,
    pub(crate) premium: TokenAmount,
}

impl Price {
    pub(crate) fn of(message: &Message) -> Self {
        Self { limit: message.gas_limit, cap: message.gas_fee_cap.clone(), premium: message.gas_premium.clone() }
    }

    pub(crate) fn onto(self, message: Message) -> Message {
        Message { gas_limit: self.limit, gas_fee_cap: self.cap, gas_premium: self.premium, ..message }
    }
}

/// What a node says of the gas of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Estimate {
    pub(crate) limit: u64,
    /// The node could not run the message, and the limit is nobody's measure.
    pub(crate) is_guess: bool,
    pub(crate) premium: TokenAmount,
}

/// The most gas that a block holds.
pub(crate) const BLOCK_GAS: u64 = 10_000_000_000;

/// The base fee after so many epochs of the steepest rise.
fn grown(base_fee: &TokenAmount, epochs: u32) -> TokenAmount {
    let mut fee = base_fee.atto().clone();
    for _ in 0..epochs {
        fee += (&fee + BigInt::from(7)) / BigInt::from(8);
    }
    TokenAmount::from_atto(fee)
}

fn times(amount: &TokenAmount, ratio: Ratio) -> TokenAmount {
    let thousandths: BigInt = amount.atto() * BigInt::from(ratio.as_thousandths());
    TokenAmount::from_atto((thousandths + BigInt::from(999)) / BigInt::from(1000))
}

/// The highest fee cap for one unit of gas.
pub(crate) fn ceiling(policy: &FeePolicy, limit: u64) -> TokenAmount {
    let by_fee = TokenAmount::from_atto(in_chain(policy.max_fee).atto() / BigInt::from(limit.max(1)));
    match policy.max_fee_cap {
        Some(most) => in_chain(most).min(by_fee),
        None => by_fee,
    }
}

/// The gas limit for a message of which a node says that it needs so much.
pub(crate) fn roomy(policy: &FeePolicy, needed: u64) -> u64 {
    let scaled = u128::from(needed) * u128::from(policy.gas_over_estimation.as_thousandths()) / 1000;
    u64::try_from(scaled).unwrap_or(u64::MAX).min(BLOCK_GAS)
}

/// The offer of a new message. It is refused where the ceiling of its class does not even cover the base fee of today
/// and the premium: it would take a nonce and stop all that follow.
pub(crate) fn first(policy: &FeePolicy, base_fee: &TokenAmount, said: &Estimate) -> Result<Price, ChainError> {
    let limit = roomy(policy, said.limit);
    let premium = times(&said.premium, policy.premium_factor);
    let most = ceiling(policy, limit);
    let needed = base_fee + &premium;
    if needed > most {
        return Err(too_dear("price message", policy));
    }
    let cap = (grown(base_fee, policy.base_fee_growth) + &premium).min(most);
    Ok(Price { limit, cap, premium })
}

/// The least premium that a pool takes for a replacement (Lotus' `ComputeMinRBF`).
pub(crate) fn least_premium(old: &TokenAmount) -> TokenAmount {
    let raised: BigInt = old.atto() * BigInt::from(110);
    TokenAmount::from_atto(raised / BigInt::from(100) + BigInt::from(1))
}

/// The offer of a message that takes the place of another, at a market where `premium` lands. The gas limit is that of
/// `old`.
pub(crate) fn replacement(
    policy: &FeePolicy,
    ratio: Ratio,
    base_fee: &TokenAmount,
    premium: &TokenAmount,
    old: &Price,
) -> Result<Price, ChainError> {
    let least = least_premium(&old.premium);
    let raised = times(&old.premium, ratio.max(Ratio::LEAST_REPLACE)) + TokenAmount::from_atto(1);
    let wished = raised.max(times(premium, policy.premium_factor)).max(least.clone());
    let most = ceiling(policy, old.limit);
    let fits = [wished, least].into_iter().find(|premium| base_fee + premium <= most);
    let Some(premium) = fits else {
        return Err(too_dear("replace message", policy));
    };
    let cap = (grown(base_fee, policy.base_fee_growth) + &premium).max(old.cap.clone()).min(most);
    Ok(Price { limit: old.limit, cap, premium })
}

/// Whether a message that has waited `age` epochs is to be replaced. `left` are the epochs until it is worth nothing.
pub(crate) fn is_due(policy: &FeePolicy, age: i64, left: Option<i64>) -> bool {
    let after = match left {
        Some(left) if left > 0 => policy.replace_after.min((left / 8).max(1)),
        _ => policy.replace_after,
    };
    age >= after
}

/// What is needed changes with every head: were it said here, every message that waits would have new trouble at each.
fn too_dear(op: &'static str, policy: &FeePolicy) -> ChainError {
    let error = ChainError::new(ChainErrorKind::Rejected, op)
        .recover_by(Recovery::RETRY)
        .with("limit", "fee cap")
        .with("most for a message", policy.max_fee);
    let error = match policy.max_fee_cap {
        Some(most) => error.with("most for a unit of gas", most),
        None => error,
    };
    error.hint_with("wait for fees to fall, or raise the ceiling of the class if the node is to be believed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{TokenAmount as Amount, chain::CallKind};

    fn atto(n: i64) -> TokenAmount {
        TokenAmount::from_atto(n)
    }

    fn policy() -> FeePolicy {
        FeePolicy {
            max_fee: Amount::from_atto(1_000_000),
            max_fee_cap: None,
            base_fee_growth: 1,
            ..FeePolicy::of(CallKind::Other)
        }
    }

    #[test]
    fn a_new_offer_covers_growth_up_to_the_ceiling() {
        // A million for 1,000 units: 1,000 each. The base fee grows by an eighth, rounded up.
        let said = Estimate { limit: 1000, is_guess: false, premium: atto(10) };
        for (base, cap) in [(100, Some(123)), (101, Some(124)), (800, Some(910)), (900, Some(1000)), (990, Some(1000))]
        {
            let price = first(&policy(), &atto(base), &said).ok();
            assert_eq!(price.map(|p| (p.cap, p.premium)), cap.map(|c| (atto(c), atto(10))), "{base}");
        }
        let error = |base| first(&policy(), &atto(base), &said).unwrap_err().chain();
        assert_eq!(error(991), error(1234), "no new trouble at each head");
        let capped = FeePolicy { max_fee_cap: Some(Amount::from_atto(120)), ..policy() };
        assert_eq!(first(&capped, &atto(100), &said).unwrap().cap, atto(120));
        assert!(first(&capped, &atto(111), &said).is_err());
        let generous = FeePolicy { gas_over_estimation: Ratio::thousandths(1500).unwrap(), ..policy() };
        assert_eq!(first(&generous, &atto(1), &said).unwrap().limit, 1500);
        assert_eq!(grown(&atto(1_000_000), 20), atto(10_545_125), "1.125^20 is 10.545, and each epoch rounds up");
    }

    #[test]
    fn a_replacement_offers_what_the_pool_demands_up_to_the_ceiling() {
        let old = |premium: i64, cap: i64| Price { limit: 1000, cap: atto(cap), premium: atto(premium) };
        let ratio = Ratio::LOTUS_REPLACE;
        let of = |base: i64, market: i64, old: &Price| {
            let price = replacement(&policy(), ratio, &atto(base), &atto(market), old).ok()?;
            assert!(price.premium >= least_premium(&old.premium) && price.premium <= price.cap);
            Some((price.premium, price.cap))
        };
        // A quarter more and one, or the market.
        assert_eq!(of(100, 0, &old(100, 200)), Some((atto(126), atto(239))));
        assert_eq!(of(100, 300, &old(100, 200)), Some((atto(300), atto(413))));
        assert_eq!(of(100, 0, &old(100, 900)), Some((atto(126), atto(900))), "a cap never falls");
        // 126 does not fit and 111 does: to the attoFIL.
        assert_eq!(of(889, 0, &old(100, 900)), Some((atto(111), atto(1000))));
        assert_eq!(of(890, 0, &old(100, 900)), None);
        // A ratio below what pools take is raised to it.
        let low = replacement(&policy(), Ratio::ONE, &atto(1), &atto(0), &old(1000, 1000));
        assert!(low.is_err());
        let low = replacement(&policy(), Ratio::ONE, &atto(1), &atto(0), &old(100, 200)).unwrap();
        assert_eq!(low.premium, atto(111));
        for (premium, least) in [(0, 1), (1, 2), (9, 10), (10, 12), (105, 116), (100_000, 110_001)] {
            assert_eq!(least_premium(&atto(premium)), atto(least), "{premium}");
        }
    }

    #[test]
    fn replacements_come_faster_as_the_end_nears() {
        let post = FeePolicy::of(CallKind::PoSt);
        let first_due = |left| (0..100).find(|age| is_due(&post, *age, left));
        assert_eq!(
            [None, Some(80), Some(40), Some(24), Some(16), Some(8), Some(1), Some(0), Some(-5)].map(first_due),
            [5, 5, 5, 3, 2, 1, 1, 5, 5].map(Some),
        );
    }
}
