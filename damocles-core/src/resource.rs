//! What processors are bound to: CPUs, memory nodes, GPUs, bytes.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// The kernel's list format: `0-7,16`.
fn parse_list(text: &str, what: &'static str) -> Result<Vec<u16>, ParseSetError> {
    let bad = || ParseSetError { what, text: text.chars().take(100).collect() };
    let mut members = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u16 = first.trim().parse().map_err(|_| bad())?;
        let last: u16 = last.trim().parse().map_err(|_| bad())?;
        if first > last {
            return Err(bad());
        }
        members.extend(first..=last);
    }
    members.sort_unstable();
    members.dedup();
    Ok(members)
}

fn write_list(members: &[u16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut rest = members.iter().copied().peekable();
    let mut separator = "";
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if(|n| *n == last + 1) {
            last = next;
        }
        write!(f, "{separator}{first}")?;
        if last > first {
            write!(f, "-{last}")?;
        }
        separator = ",";
    }
    Ok(())
}

macro_rules! set {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub struct $name(Vec<u16>);

        impl $name {
            /// The members in ascending order.
            pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
                self.0.iter().copied()
            }

            /// How many there are: at least one.
            #[expect(clippy::len_without_is_empty, reason = "the set is never empty")]
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether `other` has a member of this set.
            pub fn overlaps(&self, other: &Self) -> bool {
                self.0.iter().any(|m| other.0.binary_search(m).is_ok())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_list(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseSetError;

            fn from_str(text: &str) -> Result<Self, ParseSetError> {
                parse_list(text, stringify!($name)).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

set!(
    /// CPUs of one machine, in the kernel's list format `0-7,16`. Sorted, no duplicates, never empty.
    CpuSet
);
set!(
    /// Memory nodes of one machine, in the kernel's list format. Sorted, no duplicates, never empty.
    NodeSet
);

/// A GPU, by the identifier that its driver prints (`GPU-8f6c...`), which does not change with the slot order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GpuId(pub String);

impl fmt::Display for GpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number of bytes. Text form: `64GiB`, `1.5MiB`, `100`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = UNITS.iter().take(4).find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        match binary {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = ParseByteSizeError;

    fn from_str(text: &str) -> Result<Self, ParseByteSizeError> {
        let bad = || ParseByteSizeError(text.chars().take(60).collect());
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let (unit_name, unit) =
            UNITS.into_iter().find(|(name, _)| lower.ends_with(&name.to_ascii_lowercase())).ok_or_else(bad)?;
        let number = lower.get(..lower.len() - unit_name.len()).ok_or_else(bad)?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if fraction.len() > 6 || fraction.is_empty() {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let scale = 10u64.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
        let fraction: u64 = fraction.parse().map_err(|_| bad())?;
        let part = u128::from(fraction) * u128::from(unit) / u128::from(scale);
        let bytes = u128::from(whole) * u128::from(unit) + part;
        u64::try_from(bytes).map(Self).map_err(|_| bad())
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A text that is not a list of CPUs or nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseSetError {
    what: &'static str,
    text: String,
}

impl fmt::Display for ParseSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a {} such as `0-7,16`", self.text, self.what)
    }
}

impl std::error::Error for ParseSetError {}

/// A text that is not a number of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseByteSizeError(String);

impl fmt::Display for ParseByteSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a size such as `64GiB`", self.0)
    }
}

impl std::error::Error for ParseByteSizeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_the_kernels() {
        for (text, printed) in [("0-7,16", "0-7,16"), ("3,1,2", "1-3"), ("5", "5"), ("0-1,1-2", "0-2")] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), printed);
        }
        for bad in ["", "7-0", "a", "1,", "-1", "70000"] {
            assert!(bad.parse::<CpuSet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_parse() {
        for (text, bytes) in [("64GiB", 64 << 30), ("1.5MiB", 3 << 19), ("100", 100), ("2 kb", 2000), ("7B", 7)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "GiB", "-1B", "99999999999TiB", "1.2.3", "1.B"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(64 << 30).to_string(), "64GiB");
    }
}
