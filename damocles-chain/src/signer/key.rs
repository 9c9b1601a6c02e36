//! Private keys.

use super::{SignerError, SignerErrorKind};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bls_signatures::Serialize as _;
use fvm_shared::{address::Address, crypto::signature::Signature};
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use zeroize::{Zeroize as _, Zeroizing};

/// The kinds of keys that are signed with here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// secp256k1: owners and control addresses.
    Secp256k1,
    /// BLS12-381: workers, the actor demands it.
    Bls,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secp256k1 => "secp256k1",
            Self::Bls => "bls",
        })
    }
}

impl FromStr for KeyKind {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        match text {
            "secp256k1" => Ok(Self::Secp256k1),
            "bls" => Ok(Self::Bls),
            _ => Err(SignerError::new(SignerErrorKind::Malformed, "read kind of key")
                .hint_with("the kinds are `secp256k1` and `bls`")),
        }
    }
}

/// A private key; wiped from memory when dropped.
#[derive(Clone)]
pub struct PrivateKey {
    kind: KeyKind,
    bytes: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.kind)
    }
}

/// Lotus' key file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyInfo {
    r#type: KeyType,
    private_key: String,
}

impl Drop for KeyInfo {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeyType {
    Name(String),
    /// Files of old Lotus versions.
    Number(u64),
}

impl PrivateKey {
    /// A new key.
    pub fn generate(kind: KeyKind) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        match kind {
            KeyKind::Secp256k1 => {
                let mut field = k256::ecdsa::SigningKey::random(&mut OsRng).to_bytes();
                bytes.copy_from_slice(&field);
                field.zeroize();
            }
            KeyKind::Bls => {
                let raw = Zeroizing::new(bls_signatures::PrivateKey::generate(&mut OsRng).as_bytes());
                bytes.copy_from_slice(&raw);
            }
        }
        Self { kind, bytes }
    }

    /// Checks raw key bytes: big-endian for secp256k1, little-endian for BLS, as in Lotus' files.
    ///
    /// # Errors
    ///
    /// They are no key of the kind.
    pub fn from_bytes(kind: KeyKind, raw: &[u8]) -> Result<Self, SignerError> {
        let bad = || SignerError::new(SignerErrorKind::Malformed, "read key").with("kind", kind);
        let bytes = Zeroizing::new(<[u8; 32]>::try_from(raw).map_err(|_| bad())?);
        let key = Self { kind, bytes };
        let valid = match kind {
            KeyKind::Secp256k1 => k256::ecdsa::SigningKey::from_slice(key.bytes.as_slice()).is_ok(),
            // The library takes zero, whose public key is the point at infinity.
            KeyKind::Bls => key.bytes.iter().any(|b| *b != 0) && key.bls().is_some(),
        };
        if valid { Ok(key) } else { Err(bad()) }
    }

    /// Reads Lotus' JSON form.
    ///
    /// # Errors
    ///
    /// It is not of that form, or of a kind that is not signed with here.
    pub fn from_lotus(json: &[u8]) -> Result<Self, SignerError> {
        let bad = |what: &'static str| SignerError::new(SignerErrorKind::Malformed, "read key").with("what", what);
        // Serde's message could quote the key.
        let info: KeyInfo = serde_json::from_slice(json).map_err(|_| bad("not Lotus' key JSON"))?;
        let kind = match &info.r#type {
            KeyType::Name(name) if name == "secp256k1" => KeyKind::Secp256k1,
            KeyType::Name(name) if name == "bls" => KeyKind::Bls,
            KeyType::Number(1) => KeyKind::Secp256k1,
            KeyType::Number(2) => KeyKind::Bls,
            _ => return Err(bad("a type other than secp256k1 and bls")),
        };
        let raw = Zeroizing::new(STANDARD.decode(&info.private_key).map_err(|_| bad("not base64"))?);
        Self::from_bytes(kind, &raw)
    }

    /// Reads the text of Lotus' `wallet export`, the hex of its JSON form, or that JSON itself.
    ///
    /// # Errors
    ///
    /// It is neither, or of a kind that is not signed with here.
    pub fn from_lotus_text(text: &str) -> Result<Self, SignerError> {
        let text = text.trim();
        if text.starts_with('{') {
            return Self::from_lotus(text.as_bytes());
        }
        let json = hex::decode(text).map(Zeroizing::new).map_err(|_| {
            SignerError::new(SignerErrorKind::Malformed, "read key").with("what", "neither hex nor JSON")
        })?;
        Self::from_lotus(&json)
    }

    /// Lotus' JSON form.
    pub fn to_lotus(&self) -> Zeroizing<Vec<u8>> {
        let info = KeyInfo {
            r#type: KeyType::Name(self.kind.to_string()),
            private_key: STANDARD.encode(self.bytes.as_slice()),
        };
        Zeroizing::new(serde_json::to_vec(&info).expect("two strings can be written"))
    }

    /// Its kind.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The bytes, for the file that keeps them.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The address of its public key.
    pub fn address(&self) -> Address {
        match self.kind {
            KeyKind::Secp256k1 => {
                let point = self.secp().verifying_key().to_encoded_point(false);
                Address::new_secp256k1(point.as_bytes()).expect("an uncompressed point has 65 bytes")
            }
            KeyKind::Bls => {
                let key = self.bls().expect("the key was checked when it was made");
                Address::new_bls(&key.public_key().as_bytes()).expect("a compressed point has 48 bytes")
            }
        }
    }

    /// Signs as the chain checks it.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        match self.kind {
            KeyKind::Secp256k1 => {
                let digest = blake2b(bytes);
                let (signature, id) =
                    self.secp().sign_prehash_recoverable(&digest).expect("a digest of 32 bytes can be signed");
                let mut raw = signature.to_bytes().to_vec();
                raw.push(id.to_byte());
                Signature::new_secp256k1(raw)
            }
            KeyKind::Bls => {
                let key = self.bls().expect("the key was checked when it was made");
                Signature::new_bls(key.sign(bytes).as_bytes())
            }
        }
    }

    fn secp(&self) -> k256::ecdsa::SigningKey {
        k256::ecdsa::SigningKey::from_slice(self.bytes.as_slice()).expect("the key was checked when it was made")
    }

    fn bls(&self) -> Option<bls_signatures::PrivateKey> {
        bls_signatures::PrivateKey::from_bytes(self.bytes.as_slice()).ok()
    }
}

/// BLAKE2b-256.
pub(super) fn blake2b(bytes: &[u8]) -> [u8; 32] {
    let hash = blake2b_simd::Params::new().hash_length(32).hash(bytes);
    hash.as_bytes().try_into().expect("the hash was asked for 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lotus_json::text_of, signer::verify};

    #[test]
    fn keys_survive_lotus_form() {
        for kind in [KeyKind::Secp256k1, KeyKind::Bls] {
            let key = PrivateKey::generate(kind);
            let again = PrivateKey::from_lotus(&key.to_lotus()).unwrap();
            assert_eq!(again.address(), key.address());
            assert!(verify(&key.address(), &again.sign(b"text"), b"text"));
            assert!(!verify(&key.address(), &again.sign(b"text"), b"other"));
            assert_eq!(format!("{key:?}"), format!("PrivateKey({kind})"));
        }
    }

    #[test]
    fn a_known_key_has_its_known_address() {
        // The public key of one is the curve's generator, whose address was computed by hand.
        let mut one = [0; 32];
        one[31] = 1;
        let key = PrivateKey::from_bytes(KeyKind::Secp256k1, &one).unwrap();
        assert_eq!(text_of(&key.address()), "t1wcuzrs736zqzbbjjdgl2wvyyufuk4pefbymzf2i");
    }

    #[test]
    fn rubbish_is_no_key() {
        let zero = STANDARD.encode([0; 32]);
        for bad in [
            "".to_owned(),
            "{}".to_owned(),
            format!(r#"{{"Type":"secp256k1","PrivateKey":"{zero}"}}"#),
            format!(r#"{{"Type":"bls","PrivateKey":"{zero}"}}"#),
            format!(r#"{{"Type":"delegated","PrivateKey":"{zero}"}}"#),
            r#"{"Type":"bls","PrivateKey":"AQID"}"#.to_owned(),
            r#"{"Type":"bls","PrivateKey":"!"}"#.to_owned(),
        ] {
            assert!(PrivateKey::from_lotus(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
