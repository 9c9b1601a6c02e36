//! Identifiers. Each is a newtype, so an epoch can never be passed as a sector number.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, ops::Add, ops::Sub, str::FromStr};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.parse().map(Self).map_err(|_| ParseIdError::new(stringify!($name), text))
            }
        }
    };
}

macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps the text.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A miner's actor ID: the `1000` of `f01000`.
    ActorId(u64)
);
id!(
    /// A sector number, unique within one miner for the life of the chain.
    SectorNumber(u64)
);
id!(
    /// A chain epoch. Epochs before genesis are negative.
    Epoch(i64)
);
id!(
    /// The index of a deadline in a proving period, 0 to 47.
    DeadlineIndex(u64)
);
id!(
    /// The index of a partition in a deadline.
    PartitionIndex(u64)
);
id!(
    /// A fencing number: it grows with every lease of the same thing, so that whoever stores results can refuse a
    /// holder that was replaced. Zero means that the other side does not fence.
    Fence(u64)
);
text_id!(
    /// The identity of a store, from its identity file; it moves with the disk.
    StoreId
);
text_id!(
    /// Chosen and recorded by whoever asks, before asking: a repeat of the same request gets the same answer.
    RequestId
);

impl Add<i64> for Epoch {
    type Output = Self;

    fn add(self, epochs: i64) -> Self {
        Self(self.0.saturating_add(epochs))
    }
}

impl Sub<i64> for Epoch {
    type Output = Self;

    fn sub(self, epochs: i64) -> Self {
        Self(self.0.saturating_sub(epochs))
    }
}

impl Sub for Epoch {
    type Output = i64;

    fn sub(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

/// Identifies one unit of work for its whole life, across retries and restarts. Text form: 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u128);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for JobId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ParseIdError::new("JobId", text))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A sector of one miner. Text form: `s-t01000-7`, the same on every network, as in the field's file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SectorId {
    /// The miner that owns the sector.
    pub miner: ActorId,
    /// The sector's number.
    pub number: SectorNumber,
}

impl SectorId {
    /// Sector `number` of `miner`.
    pub const fn new(miner: ActorId, number: SectorNumber) -> Self {
        Self { miner, number }
    }
}

impl fmt::Display for SectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s-t0{}-{}", self.miner, self.number)
    }
}

impl FromStr for SectorId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let parts = || {
            let rest = text.strip_prefix("s-t0").or_else(|| text.strip_prefix("s-f0"))?;
            let (miner, number) = rest.split_once('-')?;
            Some(Self::new(ActorId(miner.parse().ok()?), SectorNumber(number.parse().ok()?)))
        };
        parts().ok_or_else(|| ParseIdError::new("SectorId", text))
    }
}

/// An address in its text form, `f01000` or `t3...`. Only its shape is known here; damocles-chain checks the rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The ID address of an actor, with the test-network prefix that both sides accept.
    pub fn from_actor(id: ActorId) -> Self {
        Self(format!("t0{id}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The actor ID, if this is an ID address.
    pub fn actor_id(&self) -> Option<ActorId> {
        let digits = self.0.strip_prefix("t0").or_else(|| self.0.strip_prefix("f0"))?;
        digits.parse().ok().map(ActorId)
    }
}

impl FromStr for Address {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let mut chars = text.chars();
        let network = matches!(chars.next(), Some('f' | 't'));
        let protocol = matches!(chars.next(), Some('0'..='4'));
        let rest = chars.as_str();
        if network && protocol && !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError::new("Address", text))
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not the identifier it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    what: &'static str,
    text: String,
}

impl ParseIdError {
    fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.chars().take(100).collect() }
    }

    pub(crate) fn of_address(address: &Address) -> Self {
        Self::new("ID address", address.as_str())
    }
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a valid {}", self.text, self.what)
    }
}

impl std::error::Error for ParseIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sector_ids_have_the_file_name_form() {
        let id = SectorId::new(ActorId(1000), SectorNumber(7));
        assert_eq!(id.to_string(), "s-t01000-7");
        assert_eq!("s-t01000-7".parse(), Ok(id));
        for bad in ["", "s-t01000", "s-t0-7", "1000-7", "s-t01000-7-8", "s-t01000-x"] {
            assert!(bad.parse::<SectorId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_checked_for_shape() {
        assert_eq!("t01000".parse::<Address>().unwrap().actor_id(), Some(ActorId(1000)));
        for bad in ["", "t", "t0", "x01000", "t9abc", "t3 ab", "<empty>"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn job_ids_survive_text() {
        let id = JobId(u128::MAX - 5);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
