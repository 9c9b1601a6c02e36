//! What is to be signed.

use super::{SignerError, SignerErrorKind};
use crate::lotus_json::{form, message_cid};
use cid::Cid;
use fvm_shared::message::Message;
use multihash_codetable::{Code, MultihashDigest as _};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, str::FromStr};

const DAG_CBOR: u64 = 0x71;
/// CIDv1, DAG-CBOR, BLAKE2b-256 of 32 bytes: how the CID of every message begins.
const MESSAGE_CID_PREFIX: [u8; 6] = [0x01, 0x71, 0xa0, 0xe4, 0x02, 0x20];
const MESSAGE_CID_LEN: usize = 38;
/// Twice what a message pool takes.
const MAX_MESSAGE: usize = 128 << 10;

/// What a [`super::Signer`] is asked to sign.
///
/// A message is handed over whole, so that whoever holds the key can see what it agrees to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignRequest {
    /// A message. What is signed is its CID.
    Message(Box<Message>),
    /// Other bytes, signed as they are.
    Bytes {
        /// What they are for.
        purpose: Purpose,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl SignRequest {
    /// A message.
    pub fn message(message: Message) -> Self {
        Self::Message(Box::new(message))
    }

    /// Bytes that are no message.
    pub fn bytes(purpose: Purpose, bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes { purpose, bytes: bytes.into() }
    }

    /// What the signature is over.
    pub fn to_sign(&self) -> Vec<u8> {
        match self {
            Self::Message(message) => message_cid(message).to_bytes(),
            Self::Bytes { bytes, .. } => bytes.clone(),
        }
    }

    /// Reads what Lotus and gateways ask of wallets: the bytes, and what they are said to be. Bytes of type `message`
    /// must be the CID of the message that comes with them.
    ///
    /// # Errors
    ///
    /// The message is none, or another than the one whose CID is to be signed.
    pub fn from_lotus(to_sign: Vec<u8>, meta: &MsgMeta) -> Result<Self, SignerError> {
        if meta.r#type != Purpose::MESSAGE {
            return Ok(Self::Bytes { purpose: meta.r#type.clone(), bytes: to_sign });
        }
        let bad = |kind, what: &'static str| SignerError::new(kind, "read message to sign").with("what", what);
        if meta.extra.len() > MAX_MESSAGE {
            return Err(bad(SignerErrorKind::Malformed, "the message is larger than any that a node takes"));
        }
        let cid = Cid::new_v1(DAG_CBOR, Code::Blake2b256.digest(&meta.extra));
        if cid.to_bytes() != to_sign {
            return Err(bad(SignerErrorKind::Refused, "what is to be signed is not the CID of the message")
                .with("message", cid)
                .hint_with("whoever asks shows one message and wants another signed: do not trust it"));
        }
        let message: Message = fvm_ipld_encoding::from_slice(&meta.extra)
            .map_err(|e| bad(SignerErrorKind::Malformed, "the message is none").because(e))?;
        if message_cid(&message) != cid {
            return Err(bad(SignerErrorKind::Malformed, "the message is not written as the chain writes it"));
        }
        Ok(Self::message(message))
    }

    /// The bytes and what they are, as [`Self::from_lotus`] reads them.
    pub fn to_lotus(&self) -> (Vec<u8>, MsgMeta) {
        let meta = match self {
            Self::Message(message) => MsgMeta {
                r#type: Purpose::MESSAGE,
                extra: fvm_ipld_encoding::to_vec(message).expect("messages can be written to memory"),
            },
            Self::Bytes { purpose, .. } => MsgMeta { r#type: purpose.clone(), extra: Vec::new() },
        };
        (self.to_sign(), meta)
    }
}

/// Whether bytes have the form of a message's CID, so that a signature over them could be a message's.
pub(crate) fn is_message_cid(bytes: &[u8]) -> bool {
    bytes.len() == MESSAGE_CID_LEN && bytes.starts_with(&MESSAGE_CID_PREFIX)
}

/// What bytes are for, in the words of Lotus and Venus: `message`, `block`, `dealproposal`, `verifyaddress`, ...
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Purpose(Cow<'static, str>);

impl Purpose {
    /// Nothing is said.
    pub const UNKNOWN: Self = Self(Cow::Borrowed("unknown"));
    /// A message of the chain.
    pub const MESSAGE: Self = Self(Cow::Borrowed("message"));
    /// A block header.
    pub const BLOCK: Self = Self(Cow::Borrowed("block"));
    /// The entropy of a ticket or an election.
    pub const DRAW_RANDOM: Self = Self(Cow::Borrowed("drawrandomparam"));
    /// A gateway's proof that the key is here.
    pub const VERIFY_ADDRESS: Self = Self(Cow::Borrowed("verifyaddress"));

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Purpose {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Purpose {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        // Old callers leave it out.
        if text.is_empty() {
            return Ok(Self::UNKNOWN);
        }
        if text.len() > 40 || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return Err(SignerError::new(SignerErrorKind::Malformed, "read purpose of signature")
                .with("what", "not a word of letters, digits, `-`, `_` and `.`"));
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

impl TryFrom<String> for Purpose {
    type Error = SignerError;

    fn try_from(text: String) -> Result<Self, SignerError> {
        text.parse()
    }
}

impl From<Purpose> for String {
    fn from(purpose: Purpose) -> Self {
        purpose.0.into_owned()
    }
}

/// What Lotus sends along with bytes to sign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MsgMeta {
    /// What the bytes are for.
    #[serde(default)]
    pub r#type: Purpose,
    /// For a message, its CBOR.
    #[serde(default, with = "form")]
    pub extra: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvm_ipld_encoding::RawBytes;
    use fvm_shared::{address::Address, econ::TokenAmount};
    use serde_json::json;

    fn message() -> Message {
        Message {
            version: 0,
            from: Address::new_id(100),
            to: Address::new_id(1000),
            sequence: 9,
            value: TokenAmount::from_atto(5),
            method_num: 5,
            params: RawBytes::new(vec![0x80]),
            gas_limit: 1000,
            gas_fee_cap: TokenAmount::from_atto(7),
            gas_premium: TokenAmount::from_atto(1),
        }
    }

    #[test]
    fn a_message_is_what_its_cid_says() {
        let request = SignRequest::message(message());
        let (to_sign, meta) = request.to_lotus();
        assert!(is_message_cid(&to_sign));
        assert_eq!(SignRequest::from_lotus(to_sign.clone(), &meta).unwrap(), request);

        let mut other = message();
        other.value = TokenAmount::from_whole(1000);
        let (_, shown) = SignRequest::message(other).to_lotus();
        let error = SignRequest::from_lotus(to_sign.clone(), &shown).unwrap_err();
        assert_eq!(error.kind(), SignerErrorKind::Refused);

        // Hashed well, and yet no message, or not the only form of one.
        let mut long = meta.extra;
        long.push(0);
        for extra in [b"rubbish".to_vec(), Vec::new(), long] {
            let cid = Cid::new_v1(DAG_CBOR, Code::Blake2b256.digest(&extra)).to_bytes();
            let meta = MsgMeta { r#type: Purpose::MESSAGE, extra };
            assert_eq!(SignRequest::from_lotus(cid, &meta).unwrap_err().kind(), SignerErrorKind::Malformed);
        }
        let huge = MsgMeta { r#type: Purpose::MESSAGE, extra: vec![0; MAX_MESSAGE + 1] };
        assert!(SignRequest::from_lotus(to_sign, &huge).is_err());
    }

    #[test]
    fn meta_is_lotus() {
        let meta = MsgMeta { r#type: Purpose::BLOCK, extra: vec![1, 2, 3] };
        assert_eq!(serde_json::to_value(&meta).unwrap(), json!({"Type": "block", "Extra": "AQID"}));
        for (json, purpose) in [
            (json!({}), Purpose::UNKNOWN),
            (json!({"Type": "", "Extra": null}), Purpose::UNKNOWN),
            (json!({"Type": "verifyaddress"}), Purpose::VERIFY_ADDRESS),
        ] {
            assert_eq!(serde_json::from_value::<MsgMeta>(json).unwrap().r#type, purpose);
        }
        for bad in [json!({"Type": "a b"}), json!({"Type": 5}), json!({"Type": "x".repeat(41)}), json!([1])] {
            assert!(serde_json::from_value::<MsgMeta>(bad).is_err());
        }
    }
}
