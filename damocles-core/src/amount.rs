//! Token amounts.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    ops::{Add, Sub},
    str::FromStr,
};

/// An amount of FIL, in attoFIL (10^-18 FIL).
///
/// - All FIL that will ever exist is 2 x 10^27 attoFIL, far inside the range; arithmetic saturates.
/// - JSON form: a decimal string of attoFIL, as on Lotus' wire.
/// - Text form: `1.5 FIL`; parsing takes that, `1.5FIL`, `1.5` (FIL) and `15 attoFIL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenAmount(i128);

const FIL: i128 = 1_000_000_000_000_000_000;

impl TokenAmount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// An amount in attoFIL.
    pub const fn from_atto(atto: i128) -> Self {
        Self(atto)
    }

    /// An amount in whole FIL.
    pub const fn from_fil(fil: i64) -> Self {
        Self(fil as i128 * FIL)
    }

    /// The amount in attoFIL.
    pub const fn atto(self) -> i128 {
        self.0
    }
}

impl Add for TokenAmount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for TokenAmount {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for TokenAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, rest) = (self.0.unsigned_abs() / FIL.unsigned_abs(), self.0.unsigned_abs() % FIL.unsigned_abs());
        if rest == 0 {
            return write!(f, "{sign}{whole} FIL");
        }
        let digits = format!("{rest:018}");
        write!(f, "{sign}{whole}.{} FIL", digits.trim_end_matches('0'))
    }
}

impl FromStr for TokenAmount {
    type Err = ParseTokenAmountError;

    fn from_str(text: &str) -> Result<Self, ParseTokenAmountError> {
        let bad = || ParseTokenAmountError(text.chars().take(60).collect());
        let trimmed = text.trim();
        if let Some(atto) = trimmed.strip_suffix("attoFIL") {
            return atto.trim_end().parse().map(Self).map_err(|_| bad());
        }
        let number = trimmed.strip_suffix("FIL").unwrap_or(trimmed).trim_end();
        let (sign, number) = match number.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, number),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.is_empty() || fraction.len() > 18 {
            return Err(bad());
        }
        let whole: i128 = whole.parse().map_err(|_| bad())?;
        let fraction: i128 = format!("{fraction:0<18}").parse().map_err(|_| bad())?;
        let atto = whole.checked_mul(FIL).and_then(|w| w.checked_add(fraction)).ok_or_else(bad)?;
        Ok(Self(sign * atto))
    }
}

impl Serialize for TokenAmount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenAmount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A text that is not an amount of FIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseTokenAmountError(String);

impl fmt::Display for ParseTokenAmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an amount such as `1.5 FIL` or `20 attoFIL`", self.0)
    }
}

impl std::error::Error for ParseTokenAmountError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts() {
        for (text, atto) in [("1.5 FIL", 15 * FIL / 10), ("0", 0), ("-2FIL", -2 * FIL), ("20 attoFIL", 20)] {
            assert_eq!(text.parse(), Ok(TokenAmount(atto)), "{text}");
        }
        for bad in ["", "FIL", ".5", "1e3", "1.0000000000000000001", "99999999999999999999999999999999999999999"] {
            assert!(bad.parse::<TokenAmount>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(atto in -2_000_000_000i128 * FIL..2_000_000_000i128 * FIL) {
            let amount = TokenAmount(atto);
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<TokenAmount>(&json).unwrap(), amount);
        }
    }
}
