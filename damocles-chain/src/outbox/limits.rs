//! The most that messages may cost.

use super::Fees;
use damocles_core::{
    Recovery, SectorSize, TokenAmount,
    chain::{ChainError, ChainErrorKind},
};
use fvm_shared::econ::TokenAmount as ChainAmount;

/// The most that messages may cost. What a node asks for is the node's word: beyond this nothing is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What is paid for gas, by class.
    pub fees: Fees,
    /// The deposit of a pre-commit, for a sector of up to 32 GiB; twice that for 64 GiB.
    pub sector_deposit: TokenAmount,
    /// The pledge of a sector of up to 32 GiB; twice that for 64 GiB.
    pub sector_pledge: TokenAmount,
    /// The deposit of a new miner.
    pub create_miner_deposit: TokenAmount,
    /// What other messages leave to the sender of proofs of spacetime.
    pub post_reserve: TokenAmount,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fees: Fees::default(),
            sector_deposit: TokenAmount::from_fil(5),
            sector_pledge: TokenAmount::from_fil(5),
            create_miner_deposit: TokenAmount::from_fil(500),
            post_reserve: TokenAmount::from_fil(1),
        }
    }
}

impl Limits {
    /// An amount for one sector of this size. Sizes below 32 GiB are those of development networks, where the share of
    /// a sector in the network says nothing.
    pub(super) fn of_size(amount: TokenAmount, size: SectorSize) -> TokenAmount {
        if size == SectorSize::GiB64 { amount + amount } else { amount }
    }
}

/// Refuses what costs more than it may. `name` is that of the limit.
pub(super) fn check(name: &'static str, asked: &ChainAmount, most: TokenAmount) -> Result<(), ChainError> {
    if !asked.is_negative() && *asked <= in_chain(most) {
        return Ok(());
    }
    Err(ChainError::new(ChainErrorKind::Rejected, "keep to limits")
        .recover_by(Recovery::RETRY)
        .with("limit", name)
        .with("most", most)
        .with("asked", about(asked))
        .hint_with("wait for fees to fall, or raise the limit if the node is to be believed"))
}

/// An amount to one digit, rounded down: what a node asks for moves with every head, and trouble that is noted is to be
/// news only where it is another.
fn about(amount: &ChainAmount) -> String {
    if amount.is_negative() {
        return "less than nothing".to_owned();
    }
    let digits = amount.atto().to_string();
    let zeros = digits.len().saturating_sub(1);
    let (first, _) = digits.split_at(digits.len().min(1));
    let rounded: Option<i128> = format!("{first}{}", "0".repeat(zeros)).parse().ok();
    rounded.map_or_else(|| "more than there is".to_owned(), |atto| TokenAmount::from_atto(atto).to_string())
}

pub(crate) fn in_chain(amount: TokenAmount) -> ChainAmount {
    ChainAmount::from_atto(amount.atto())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_limit_does_not_move_with_every_head() {
        let most = TokenAmount::from_fil(1);
        let said = |nano: i64| check("deposit", &ChainAmount::from_nano(nano), most).unwrap_err().chain();
        assert_eq!(said(5_100_000_000), said(5_999_999_999));
        assert!(said(5_100_000_000).contains("asked: 5 FIL"), "{}", said(5_100_000_000));
        assert_ne!(said(5_100_000_000), said(6_000_000_000));
        for (atto, expected) in [(0, "0"), (7, "7"), (19, "10"), (123_456, "100000")] {
            let expected = TokenAmount::from_atto(expected.parse().unwrap()).to_string();
            assert_eq!(about(&ChainAmount::from_atto(atto)), expected);
        }
        assert_eq!(about(&ChainAmount::from_atto(-5)), "less than nothing");
    }

    #[test]
    fn limits_hold_to_the_attofil() {
        let most = TokenAmount::from_fil(5);
        assert!(check("fee", &ChainAmount::from_whole(5), most).is_ok());
        assert!(check("fee", &(ChainAmount::from_whole(5) + ChainAmount::from_atto(1)), most).is_err());
        assert!(check("fee", &ChainAmount::from_atto(-1), most).is_err());
        assert_eq!(Limits::of_size(most, SectorSize::GiB64), TokenAmount::from_fil(10));
        assert_eq!(Limits::of_size(most, SectorSize::KiB2), most);
    }
}
