//! Several senders of one role, and which of them sends what.

use crate::lotus_json::from_core;
use damocles_core::{
    Address,
    chain::{ChainError, ChainErrorKind, SubmitKey},
};
use fvm_shared::address::Address as ChainAddress;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{cmp::Reverse, fmt};

/// Sets these hashes apart from others of the same bytes, and this way of choosing from later ones.
const DOMAIN: &[u8] = b"damocles/lane/1\0";

/// The senders of one role: at least one, and nobody twice. In a configuration it is an address or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// Never empty.
    all: Vec<Address>,
    first: Address,
}

impl Lanes {
    /// These senders.
    ///
    /// # Errors
    ///
    /// There is none, or one is there twice, perhaps in another spelling.
    pub fn new(all: Vec<Address>) -> Result<Self, ChainError> {
        let refused = || ChainError::new(ChainErrorKind::Rejected, "name senders");
        let Some(first) = all.first().cloned() else {
            return Err(refused()
                .with("what", "the list is empty")
                .hint_with("name an address, or leave the role out: what no sender is named for goes to the default"));
        };
        match Self::repeated(&all) {
            Some(place) => Err(refused()
                .with("what", "a sender is there twice")
                .with("place", place)
                .with("sender", all.get(place).unwrap_or(&first))
                .hint_with(
                    "name each sender once: a key is chosen for each message, and not for each place in the list",
                )),
            None => Ok(Self { all, first }),
        }
    }

    /// The first place of a list, from 0, whose address stood there before, perhaps in another spelling.
    pub fn repeated(all: &[Address]) -> Option<usize> {
        let same = |a: &Address, b: &Address| match (from_core(a), from_core(b)) {
            (Ok(a), Ok(b)) => a == b,
            _ => a == b,
        };
        (0..all.len()).find(|place| {
            let (before, rest) = all.split_at(*place);
            rest.first().is_some_and(|address| before.iter().any(|earlier| same(earlier, address)))
        })
    }

    /// All of them, in the order in which they were named.
    pub fn all(&self) -> &[Address] {
        &self.all
    }

    /// The one that was named first.
    pub const fn first(&self) -> &Address {
        &self.first
    }
}

impl From<Address> for Lanes {
    fn from(sender: Address) -> Self {
        Self { all: vec![sender.clone()], first: sender }
    }
}

impl Serialize for Lanes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.all.len() == 1 { self.first.serialize(serializer) } else { self.all.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Lanes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = read_addresses(deserializer)?;
        Self::new(all).map_err(|e| {
            let hint = e.hint().map(|hint| format!(": {hint}")).unwrap_or_default();
            de::Error::custom(format_args!("{e}{hint}"))
        })
    }
}

/// Reads an address or a list of addresses, as it stands there: what becomes [`Lanes`] when it was checked, for whoever can
/// say where in a file a mistake is.
///
/// # Errors
///
/// It is neither, or what stands there is no address.
pub fn read_addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Address>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<Address>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address or a list of addresses")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.parse().map_err(E::custom)?])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(address) = list.next_element()? {
                all.push(address);
            }
            Ok(all)
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// Who of several sends the call of a key: the one whose hash with the key is the highest, so that a sender who comes or
/// goes changes the choice of no other. None of nobody.
pub(super) fn pick(key: &SubmitKey, senders: &[ChainAddress]) -> Option<ChainAddress> {
    let score = |sender: &ChainAddress| {
        let mut state = blake2b_simd::Params::new().hash_length(8).to_state();
        state.update(DOMAIN).update(&sender.to_bytes()).update(&[0]).update(key.0.as_bytes());
        (state.finalize().as_bytes().to_vec(), Reverse(sender.to_bytes()))
    };
    senders.iter().copied().max_by_key(score)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn key(n: usize) -> SubmitKey {
        SubmitKey(format!("precommit/1000/{n}/1"))
    }

    #[test]
    fn the_pick_follows_from_key_and_senders_alone() {
        let of = |ids: &[u64]| -> Vec<ChainAddress> { ids.iter().copied().map(ChainAddress::new_id).collect() };
        // Messages lie in outboxes by this choice: it is the same in all versions.
        let table = [(0, 1002), (1, 1002), (2, 1003), (3, 1003), (4, 1001), (5, 1003), (6, 1003), (7, 1001)];
        for (n, id) in table {
            let picked = pick(&key(n), &of(&[1001, 1002, 1003])).unwrap();
            assert_eq!(picked, ChainAddress::new_id(id), "{n}");
            assert_eq!(pick(&key(n), &of(&[1003, 1001, 1002])), Some(picked), "{n}: whatever their order");
            let without: Vec<u64> = [1001, 1002, 1003].into_iter().filter(|other| *other != id).collect();
            assert_eq!(pick(&key(n), &of(&[without[0], id])), Some(picked), "{n}: whoever else goes");
        }
        assert_eq!(pick(&key(1), &[]), None);
        for count in 2..=5 {
            let all = of(&(1001..1001 + count).collect::<Vec<_>>());
            let mut loads = vec![0_u64; all.len()];
            for n in 0..1000 {
                let picked = pick(&key(n), &all).unwrap();
                loads[all.iter().position(|sender| *sender == picked).unwrap()] += 1;
            }
            let fair = 1000 / count;
            assert!(loads.iter().all(|load| load.abs_diff(fair) < fair / 4), "{loads:?}");
        }
    }

    #[test]
    fn lanes_are_an_address_or_a_list_without_doubles() {
        let read = |value: serde_json::Value| serde_json::from_value::<Lanes>(value).map_err(|e| e.to_string());
        let one = read(json!("f01000")).unwrap();
        assert_eq!((one.all(), one.first()), ([address("f01000")].as_slice(), &address("f01000")));
        assert_eq!(one, Lanes::from(address("f01000")));
        assert_eq!(serde_json::to_value(&one).unwrap(), json!("f01000"));
        let two = read(json!(["f01000", "f01001"])).unwrap();
        assert_eq!(two.all(), [address("f01000"), address("f01001")]);
        assert_eq!(serde_json::to_value(&two).unwrap(), json!(["f01000", "f01001"]));
        assert_eq!(read(json!(["f01000"])).unwrap(), one);
        for (value, said) in [
            (json!([]), "the list is empty"),
            (json!(["f01000", "f01001", "t01000"]), "twice"),
            (json!(["f01000", "me"]), "`me` is not a valid Address"),
            (json!("me"), "`me` is not a valid Address"),
            (json!([["f01000"]]), "string"),
            (json!(1000), "an address or a list of addresses"),
            (json!({"a": "f01000"}), "an address or a list of addresses"),
        ] {
            let error = read(value.clone()).unwrap_err();
            assert!(error.contains(said), "{value}: {error}");
        }
    }
}
