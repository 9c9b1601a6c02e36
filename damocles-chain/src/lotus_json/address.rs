//! Addresses as text.

use super::LotusJson;
use fvm_shared::address::{Address, Network};
use serde::{Deserialize, Deserializer, Serializer, de};

/// A text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {reason}")]
pub struct AddressError {
    text: String,
    reason: String,
}

/// Reads an address of either network prefix.
///
/// # Errors
///
/// The text is not an address, or its checksum is wrong.
pub fn parse_address(text: &str) -> Result<Address, AddressError> {
    let network = if text.starts_with('t') { Network::Testnet } else { Network::Mainnet };
    network
        .parse_address(text)
        .map_err(|e| AddressError { text: text.chars().take(100).collect(), reason: e.to_string() })
}

/// Writes an address with the test-network prefix, which every node reads on every network.
///
/// The prefix is no part of an address, and the one that `fvm_shared` writes hangs on a global setting.
pub fn text_of(address: &Address) -> String {
    let text = address.to_string();
    format!("t{}", text.get(1..).unwrap_or_default())
}

/// The address that a text address of damocles-core names.
///
/// # Errors
///
/// Its checksum is wrong.
pub fn from_core(address: &damocles_core::Address) -> Result<Address, AddressError> {
    parse_address(address.as_str())
}

/// The text address of damocles-core.
pub fn to_core(address: &Address) -> damocles_core::Address {
    text_of(address).parse().expect("every address has the shape of an address")
}

impl LotusJson for Address {
    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text_of(self))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// An address that may be undefined, which Lotus writes as `<empty>`.
pub(super) mod maybe {
    use super::{Address, Deserialize, Deserializer, Serializer, de, parse_address, text_of};

    const UNDEFINED: &str = "<empty>";

    #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Address>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(address) => serializer.serialize_str(&text_of(address)),
            None => serializer.serialize_str(UNDEFINED),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Address>, D::Error> {
        match Option::<String>::deserialize(deserializer)?.as_deref() {
            None | Some("" | UNDEFINED) => Ok(None),
            Some(text) => parse_address(text).map(Some).map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lotus_json::Lotus;

    #[test]
    fn both_prefixes_are_read_and_one_is_written() {
        for text in ["\"t01000\"", "\"f01000\""] {
            let Lotus(address) = serde_json::from_str::<Lotus<Address>>(text).unwrap();
            assert_eq!(address, Address::new_id(1000));
            assert_eq!(serde_json::to_string(&Lotus(address)).unwrap(), "\"t01000\"");
        }
        for bad in [
            "\"\"",
            "\"t\"",
            "\"<empty>\"",
            "\"x01000\"",
            "\"t1aaaa\"",
            "\"t0-5\"",
            "7",
            "null",
            "\"t099999999999999999999\"",
        ] {
            assert!(serde_json::from_str::<Lotus<Address>>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn core_addresses_survive() {
        let key = Address::new_secp256k1(&[4; 65]).unwrap();
        assert_eq!(from_core(&to_core(&key)).unwrap(), key);
    }
}
