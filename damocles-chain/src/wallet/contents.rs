//! What is inside a wallet's file.

use super::{Policy, WalletError, WalletErrorKind};
use crate::{
    lotus_json::{from_core, to_core},
    signer::{KeyKind, PrivateKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_core::{Address, Timestamp};
use rand::{RngCore as _, rngs::OsRng};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct as _};
use std::{collections::BTreeMap, fmt, io};
use zeroize::Zeroizing;

/// What is inside a wallet's file, in memory. Keys are wiped when it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// By address, with the prefix of test networks.
    pub(super) keys: BTreeMap<Address, Entry>,
    pub(super) default: Option<Address>,
    /// Proves that the record of what was signed away is this wallet's.
    pub(super) ledger_key: Secret,
}

/// One key, live or in the trash.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: PrivateKey,
    pub(super) added: Timestamp,
    pub(super) deleted: Option<Timestamp>,
    pub(super) policy: Option<Policy>,
}

/// What a wallet tells about a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// The address of the public key, with the prefix of test networks.
    pub address: Address,
    /// The kind.
    pub kind: KeyKind,
    /// Whether it is the default.
    pub default: bool,
    /// When it was made or imported.
    pub added: Timestamp,
    /// When it was moved to the trash, if it is there.
    pub deleted: Option<Timestamp>,
    /// What it may sign; `None` for everything.
    pub policy: Option<Policy>,
}

/// The file's form. Text of keys is read and written in place, so that no copy of it is left behind.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    ledger_key: Secret,
    default: Option<Address>,
    keys: Vec<EntryForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryForm {
    address: Address,
    kind: KeyKind,
    key: Secret,
    added: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    policy: Option<Policy>,
}

/// 32 secret bytes, base64 in JSON.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(bytes.as_mut_slice());
        Self(bytes)
    }

    pub(super) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The base64 of 32 bytes.
const SECRET_TEXT: usize = 44;

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Zeroizing::new([0; SECRET_TEXT]);
        STANDARD.encode_slice(self.0.as_slice(), text.as_mut_slice()).expect("32 bytes are 44 characters");
        serializer.serialize_str(std::str::from_utf8(text.as_slice()).expect("base64 is ASCII"))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the base64 of 32 bytes")
            }

            // The error must not quote the text.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                let mut bytes = Zeroizing::new([0; 33]);
                let length = STANDARD.decode_slice(text, bytes.as_mut_slice());
                match (length, bytes.first_chunk()) {
                    (Ok(32), Some(bytes)) => Ok(Secret(Zeroizing::new(*bytes))),
                    _ => Err(E::custom("not the base64 of 32 bytes")),
                }
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}

/// Counts what is written.
#[derive(Default)]
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Contents {
    /// No keys.
    pub(super) fn new() -> Self {
        Self { keys: BTreeMap::new(), default: None, ledger_key: Secret::random() }
    }

    pub(super) fn read(plain: &[u8]) -> Result<Self, serde_json::Error> {
        let form: Form = serde_json::from_slice(plain)?;
        let mut contents = Self { keys: BTreeMap::new(), default: form.default, ledger_key: form.ledger_key };
        for entry in form.keys {
            let key = PrivateKey::from_bytes(entry.kind, entry.key.expose())
                .map_err(<serde_json::Error as de::Error>::custom)?;
            let address = to_core(&key.address());
            if address != entry.address {
                return Err(de::Error::custom("a key of another address"));
            }
            let EntryForm { added, deleted, policy, .. } = entry;
            if contents.keys.insert(address, Entry { key, added, deleted, policy }).is_some() {
                return Err(de::Error::custom("a key twice"));
            }
        }
        let known = |address| contents.keys.get(address).is_some_and(|entry| entry.deleted.is_none());
        if contents.default.as_ref().is_some_and(|address| !known(address)) {
            return Err(de::Error::custom("a default without its key"));
        }
        Ok(contents)
    }

    /// Written into memory that never moves, so that it can be wiped.
    pub(super) fn write(&self) -> Zeroizing<Vec<u8>> {
        let mut length = Length::default();
        serde_json::to_writer(&mut length, self).expect("keys can be written to memory");
        let mut plain = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *plain, self).expect("keys can be written to memory");
        plain
    }

    /// A key that is not in the trash.
    pub(super) fn live(&self, address: &Address) -> Result<(&Address, &Entry), WalletError> {
        let known = canonical(address).and_then(|a| self.keys.get_key_value(&a));
        known.filter(|(_, entry)| entry.deleted.is_none()).ok_or_else(|| unknown(address))
    }

    pub(super) fn live_mut(&mut self, address: &Address) -> Result<(Address, &mut Entry), WalletError> {
        let known = canonical(address).and_then(|a| self.keys.get_mut(&a).map(|entry| (a, entry)));
        known.filter(|(_, entry)| entry.deleted.is_none()).ok_or_else(|| unknown(address))
    }

    /// Adds a key. One that is in the trash comes back, with its policy: deleting a key and importing it again must
    /// not be a way around what it may sign.
    pub(super) fn add(&mut self, key: PrivateKey, now: Timestamp) -> Result<Address, WalletError> {
        let address = to_core(&key.address());
        match self.keys.get_mut(&address) {
            Some(entry) if entry.deleted.is_none() => {
                return Err(WalletError::new(WalletErrorKind::Exists, "add key")
                    .with("address", &address)
                    .hint_with("the wallet has this key: there is nothing to do"));
            }
            Some(entry) => entry.deleted = None,
            None => {
                self.keys.insert(address.clone(), Entry { key, added: now, deleted: None, policy: None });
            }
        }
        if self.default.is_none() {
            self.default = Some(address.clone());
        }
        Ok(address)
    }

    pub(super) fn records(&self) -> Vec<KeyRecord> {
        let record = |(address, entry): (&Address, &Entry)| KeyRecord {
            address: address.clone(),
            kind: entry.key.kind(),
            default: self.default.as_ref() == Some(address),
            added: entry.added,
            deleted: entry.deleted,
            policy: entry.policy.clone(),
        };
        self.keys.iter().map(record).collect()
    }
}

impl Serialize for Contents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Keys<'a>(&'a BTreeMap<Address, Entry>);

        impl Serialize for Keys<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.iter().map(|(address, entry)| EntryForm {
                    address: address.clone(),
                    kind: entry.key.kind(),
                    key: Secret(Zeroizing::new(*entry.key.expose())),
                    added: entry.added,
                    deleted: entry.deleted,
                    policy: entry.policy.clone(),
                }))
            }
        }

        let mut form = serializer.serialize_struct("Form", 3)?;
        form.serialize_field("ledger_key", &self.ledger_key)?;
        form.serialize_field("default", &self.default)?;
        form.serialize_field("keys", &Keys(&self.keys))?;
        form.end()
    }
}

/// An address as the keys of [`Contents`] are written.
pub(super) fn canonical(address: &Address) -> Option<Address> {
    from_core(address).ok().map(|a| to_core(&a))
}

pub(super) fn unknown(address: &Address) -> WalletError {
    WalletError::new(WalletErrorKind::UnknownAddress, "find key").with("address", address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, SeedableRng as _};

    fn contents() -> Contents {
        let mut contents = Contents::new();
        for (kind, byte) in [(KeyKind::Bls, 7), (KeyKind::Secp256k1, 9)] {
            contents.add(PrivateKey::from_bytes(kind, &[byte; 32]).unwrap(), Timestamp(5)).unwrap();
        }
        contents
    }

    #[test]
    fn what_is_written_is_read() {
        let mut before = contents();
        let addresses: Vec<_> = before.keys.keys().cloned().collect();
        before.keys.get_mut(&addresses[1]).unwrap().deleted = Some(Timestamp(6));
        before.keys.get_mut(&addresses[0]).unwrap().policy = Some(Policy::messages());
        before.default = Some(addresses[0].clone());
        let plain = before.write();
        assert_eq!(plain.capacity(), plain.len(), "the memory did not move");
        let after = Contents::read(&plain).unwrap();
        assert_eq!(after.records(), before.records());
        assert_eq!(after.ledger_key, before.ledger_key);
        assert_eq!(after.write(), plain);
        assert!(!format!("{after:?}").contains(&STANDARD.encode([7; 32])));
    }

    #[test]
    fn an_odd_inside_is_refused() {
        let plain = String::from_utf8(contents().write().to_vec()).unwrap();
        let key = STANDARD.encode([7; 32]);
        assert!(plain.contains(&key));
        for bad in [
            plain.replace(&key, &STANDARD.encode([6; 32])),
            plain.replace(&key, &STANDARD.encode([0; 32])),
            plain.replace(&key, &STANDARD.encode([7; 31])),
            plain.replace(&key, &STANDARD.encode([7; 33])),
            plain.replace(r#""added":5"#, r#""added":5,"more":1"#),
            plain.replace(r#""kind":"bls""#, r#""kind":"delegated""#),
            plain.replace(r#""default":"t"#, r#""default":"t01"#),
            String::new(),
            "null".to_owned(),
        ] {
            let error = Contents::read(bad.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains(&key), "{error}");
        }
    }

    #[test]
    fn mutated_insides_do_not_panic() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let plain = contents().write();
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = plain.to_vec();
            let at = rng.gen_range(0..bytes.len());
            bytes[at] = rng.r#gen();
            refused += u32::from(Contents::read(&bytes).is_err());
        }
        assert!(refused > 10_000, "{refused}");
    }

    #[test]
    fn a_deleted_key_comes_back_with_its_policy() {
        let mut contents = contents();
        let address = contents.keys.keys().next().unwrap().clone();
        let entry = contents.keys.get_mut(&address).unwrap();
        entry.policy = Some(Policy::messages());
        let key = entry.key.clone();
        assert_eq!(contents.add(key.clone(), Timestamp(8)).unwrap_err().kind(), WalletErrorKind::Exists);
        contents.keys.get_mut(&address).unwrap().deleted = Some(Timestamp(7));
        assert!(contents.live(&address).is_err());
        contents.add(key, Timestamp(8)).unwrap();
        assert_eq!(contents.live(&address).unwrap().1.policy, Some(Policy::messages()));
    }
}
