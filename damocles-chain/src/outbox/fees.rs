//! What messages may pay for their gas, by class.

use damocles_core::{TokenAmount, chain::CallKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The fees of every class of messages.
///
/// As a section of a configuration: amounts are texts such as `"0.5 FIL"`, ratios are numbers such as `1.25`, and what a
/// class does not say keeps that class's default.
///
/// What stands before a proof of spacetime in its sender's lane may pay what the proof may, as long as the proof is of use:
/// a proof lands after all that comes before it. A proof whose window has closed is one of `other`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "FeesForm")]
pub struct Fees {
    /// By how much more a replacement pays than the message that it replaces.
    pub replace_ratio: Ratio,
    /// Whether a message is tried out at the node before it gets a nonce.
    pub simulate: Simulate,
    /// A sender that cannot go on for so many epochs as it did lately is told of.
    pub runway_alert: i64,
    /// Making a miner.
    pub create_miner: FeePolicy,
    /// Pre-commits.
    pub pre_commit: FeePolicy,
    /// Prove-commits, updates and non-interactive commits.
    pub prove_commit: FeePolicy,
    /// Proofs of spacetime, faults and recoveries.
    pub post: FeePolicy,
    /// Terminations.
    pub terminate: FeePolicy,
    /// Everything else.
    pub other: FeePolicy,
}

/// The fees of one class of messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeePolicy {
    /// The gas limit, as a multiple of what the node estimates: Lotus has put a quarter on top of it already.
    pub gas_over_estimation: Ratio,
    /// The premium, as a multiple of what the node estimates.
    pub premium_factor: Ratio,
    /// For so many epochs of the steepest rise the fee cap covers the base fee: an eighth more each.
    pub base_fee_growth: u32,
    /// The most that a message may pay: its fee cap times its gas limit.
    #[serde(serialize_with = "human::serialize")]
    pub max_fee: TokenAmount,
    /// The highest fee cap, for one unit of gas; none for no other limit than `max_fee`.
    #[serde(serialize_with = "human::maybe")]
    pub max_fee_cap: Option<TokenAmount>,
    /// After so many epochs a message that did not land is replaced by a dearer one.
    pub replace_after: i64,
    /// Above this base fee, for one unit of gas, new messages wait for it to fall; none if they never do.
    #[serde(serialize_with = "human::maybe")]
    pub wait_above: Option<TokenAmount>,
    /// After so many epochs they wait no longer.
    pub wait_most: i64,
}

/// Whether a message is tried out at the node before it gets a nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Simulate {
    /// It is not.
    #[default]
    Off,
    /// It is, and what fails is sent all the same and said.
    Warn,
    /// It is, and what fails is not sent as long as it fails.
    Refuse,
}

/// 10^9 attoFIL.
const NANO: i128 = 1_000_000_000;
const MILLI: i128 = 1_000_000_000_000_000;

impl Default for Fees {
    fn default() -> Self {
        Self {
            replace_ratio: Ratio::LOTUS_REPLACE,
            simulate: Simulate::Off,
            runway_alert: 2880,
            create_miner: FeePolicy::of(CallKind::CreateMiner),
            pre_commit: FeePolicy::of(CallKind::PreCommit),
            prove_commit: FeePolicy::of(CallKind::ProveCommit),
            post: FeePolicy::of(CallKind::PoSt),
            terminate: FeePolicy::of(CallKind::Terminate),
            other: FeePolicy::of(CallKind::Other),
        }
    }
}

impl Fees {
    /// The policy of a class.
    pub const fn policy(&self, kind: CallKind) -> &FeePolicy {
        match kind {
            CallKind::CreateMiner => &self.create_miner,
            CallKind::PreCommit => &self.pre_commit,
            CallKind::ProveCommit => &self.prove_commit,
            CallKind::PoSt => &self.post,
            CallKind::Terminate => &self.terminate,
            _ => &self.other,
        }
    }
}

impl FeePolicy {
    /// The usual policy of a class. A missed proof of spacetime costs far more than any fee; what commits sectors can
    /// wait for a better day.
    pub const fn of(kind: CallKind) -> Self {
        let common = Self {
            gas_over_estimation: Ratio::ONE,
            premium_factor: Ratio::ONE,
            base_fee_growth: 20,
            max_fee: TokenAmount::from_fil(1),
            max_fee_cap: Some(TokenAmount::from_atto(20 * NANO)),
            replace_after: 20,
            wait_above: None,
            wait_most: 240,
        };
        match kind {
            CallKind::PoSt => Self {
                base_fee_growth: 40,
                max_fee: TokenAmount::from_fil(10),
                max_fee_cap: None,
                replace_after: 5,
                ..common
            },
            CallKind::Terminate => Self { max_fee: TokenAmount::from_fil(2), ..common },
            CallKind::Other => Self { max_fee: TokenAmount::from_atto(500 * MILLI), ..common },
            _ => common,
        }
    }
}

/// A factor of at least a tenth and at most a hundred, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    /// Once.
    pub const ONE: Self = Self(1000);
    /// What a node's pool demands of a replacement; nothing below it is ever offered.
    pub const LEAST_REPLACE: Self = Self(1100);
    /// What Lotus offers for a replacement if nothing else is said.
    pub const LOTUS_REPLACE: Self = Self(1250);

    /// So many thousandths; none where that is out of bounds.
    pub const fn thousandths(thousandths: u32) -> Option<Self> {
        if thousandths >= 100 && thousandths <= 100_000 { Some(Self(thousandths)) } else { None }
    }

    /// In thousandths.
    pub const fn as_thousandths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(deserializer)?;
        let bad = || de::Error::custom(format_args!("{number} is not a ratio from 0.1 to 100"));
        if !(0.1..=100.0).contains(&number) {
            return Err(bad());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 100 to 100,000")]
        let thousandths = (number * 1000.0).round() as u32;
        Self::thousandths(thousandths).ok_or_else(bad)
    }
}

/// Amounts as people write them.
mod human {
    use damocles_core::TokenAmount;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(amount: &TokenAmount, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }

    #[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
    pub(super) fn maybe<S: Serializer>(amount: &Option<TokenAmount>, serializer: S) -> Result<S::Ok, S::Error> {
        match amount {
            Some(amount) => serializer.collect_str(amount),
            None => serializer.serialize_str("none"),
        }
    }

    /// An amount that is not negative.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TokenAmount>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let amount: TokenAmount = text.parse().map_err(de::Error::custom)?;
        if amount < TokenAmount::ZERO {
            return Err(de::Error::custom(format_args!("`{text}` is negative")));
        }
        Ok(Some(amount))
    }

    /// An amount, or `none`.
    pub(super) fn or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<TokenAmount>>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim() == "none" {
            return Ok(Some(None));
        }
        deserialize(de::value::StringDeserializer::new(text)).map(Some)
    }
}

/// What a configuration says of all classes.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct FeesForm {
    #[serde(deserialize_with = "replace_ratio")]
    replace_ratio: Option<Ratio>,
    simulate: Simulate,
    #[serde(deserialize_with = "epochs")]
    runway_alert: Option<i64>,
    create_miner: PolicyForm,
    pre_commit: PolicyForm,
    prove_commit: PolicyForm,
    post: PolicyForm,
    terminate: PolicyForm,
    other: PolicyForm,
}

/// What a configuration says of one class.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PolicyForm {
    #[serde(deserialize_with = "at_least_one")]
    gas_over_estimation: Option<Ratio>,
    premium_factor: Option<Ratio>,
    #[serde(deserialize_with = "growth")]
    base_fee_growth: Option<u32>,
    #[serde(deserialize_with = "human::deserialize")]
    max_fee: Option<TokenAmount>,
    #[serde(deserialize_with = "human::or_none")]
    max_fee_cap: Option<Option<TokenAmount>>,
    #[serde(deserialize_with = "epochs")]
    replace_after: Option<i64>,
    #[serde(deserialize_with = "human::or_none")]
    wait_above: Option<Option<TokenAmount>>,
    #[serde(deserialize_with = "epochs")]
    wait_most: Option<i64>,
}

fn replace_ratio<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ratio>, D::Error> {
    let ratio = Ratio::deserialize(deserializer)?;
    if ratio < Ratio::LEAST_REPLACE {
        return Err(de::Error::custom(format_args!(
            "a replacement that pays {ratio} times as much is refused by every node: at least {}",
            Ratio::LEAST_REPLACE
        )));
    }
    Ok(Some(ratio))
}

fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ratio>, D::Error> {
    let ratio = Ratio::deserialize(deserializer)?;
    if ratio < Ratio::ONE {
        return Err(de::Error::custom(format_args!("{ratio} of the gas that is needed is too little: at least 1")));
    }
    Ok(Some(ratio))
}

/// More epochs than any message waits.
const MAX_EPOCHS: i64 = 2880 * 365;

fn epochs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let epochs = i64::deserialize(deserializer)?;
    if !(1..=MAX_EPOCHS).contains(&epochs) {
        return Err(de::Error::custom(format_args!("{epochs} is not a number of epochs from 1 to {MAX_EPOCHS}")));
    }
    Ok(Some(epochs))
}

fn growth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let epochs = u32::deserialize(deserializer)?;
    if epochs > MAX_GROWTH {
        return Err(de::Error::custom(format_args!("a base fee that rises for {epochs} epochs: at most {MAX_GROWTH}")));
    }
    Ok(Some(epochs))
}

/// After so many epochs of the steepest rise a base fee is 1.6 million times what it was.
const MAX_GROWTH: u32 = 120;

impl PolicyForm {
    fn over(self, base: FeePolicy) -> FeePolicy {
        FeePolicy {
            gas_over_estimation: self.gas_over_estimation.unwrap_or(base.gas_over_estimation),
            premium_factor: self.premium_factor.unwrap_or(base.premium_factor),
            base_fee_growth: self.base_fee_growth.unwrap_or(base.base_fee_growth),
            max_fee: self.max_fee.unwrap_or(base.max_fee),
            max_fee_cap: self.max_fee_cap.unwrap_or(base.max_fee_cap),
            replace_after: self.replace_after.unwrap_or(base.replace_after),
            wait_above: self.wait_above.unwrap_or(base.wait_above),
            wait_most: self.wait_most.unwrap_or(base.wait_most),
        }
    }
}

impl From<FeesForm> for Fees {
    fn from(form: FeesForm) -> Self {
        let base = Self::default();
        Self {
            replace_ratio: form.replace_ratio.unwrap_or(base.replace_ratio),
            simulate: form.simulate,
            runway_alert: form.runway_alert.unwrap_or(base.runway_alert),
            create_miner: form.create_miner.over(base.create_miner),
            pre_commit: form.pre_commit.over(base.pre_commit),
            prove_commit: form.prove_commit.over(base.prove_commit),
            post: form.post.over(base.post),
            terminate: form.terminate.over(base.terminate),
            other: form.other.over(base.other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_section_changes_what_it_names_and_nothing_else() {
        let section = json!({"replace_ratio": 1.5, "simulate": "refuse", "post": {"max_fee": "20 FIL"},
            "pre_commit": {"max_fee_cap": "none", "wait_above": "5000000000 attoFIL", "gas_over_estimation": 1.2}});
        let fees: Fees = serde_json::from_value(section).unwrap();
        let usual = Fees::default();
        assert_eq!(fees.replace_ratio, Ratio::thousandths(1500).unwrap());
        assert_eq!(fees.simulate, Simulate::Refuse);
        assert_eq!(fees.post, FeePolicy { max_fee: TokenAmount::from_fil(20), ..usual.post });
        let wait_above = Some(TokenAmount::from_atto(5 * NANO));
        let gas_over_estimation = Ratio::thousandths(1200).unwrap();
        assert_eq!(
            fees.pre_commit,
            FeePolicy { max_fee_cap: None, wait_above, gas_over_estimation, ..usual.pre_commit }
        );
        assert_eq!(fees.prove_commit, usual.prove_commit);
        assert!(usual.post.max_fee > usual.pre_commit.max_fee);
        assert_eq!(serde_json::from_value::<Fees>(json!({})).unwrap(), usual);
        let written = serde_json::to_value(&fees).unwrap();
        assert_eq!(serde_json::from_value::<Fees>(written).unwrap(), fees);
    }

    #[test]
    fn a_section_that_makes_no_sense_is_refused() {
        for (section, said) in [
            (json!({"replace_ratio": 1.09}), "at least 1.100"),
            (json!({"replace_ratio": 1e9}), "ratio"),
            (json!({"windowpost": {}}), "unknown field"),
            (json!({"post": {"max_feee": "1 FIL"}}), "unknown field"),
            (json!({"post": {"max_fee": "-1 FIL"}}), "negative"),
            (json!({"post": {"max_fee": "cheap"}}), "not an amount"),
            (json!({"post": {"max_fee": 5}}), "string"),
            (json!({"post": {"replace_after": 0}}), "epochs"),
            (json!({"post": {"base_fee_growth": 121}}), "at most 120"),
            (json!({"post": {"gas_over_estimation": 0.9}}), "too little"),
            (json!({"simulate": "maybe"}), "unknown variant"),
        ] {
            let error = serde_json::from_value::<Fees>(section.clone()).unwrap_err().to_string();
            assert!(error.contains(said), "{section}: {error}");
        }
    }
}
