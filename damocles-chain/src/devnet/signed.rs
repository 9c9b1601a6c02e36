//! Signed messages: their CIDs and signatures.

use crate::{lotus_json, signer::verify};
use cid::Cid;
use fvm_ipld_encoding::{
    DAG_CBOR, to_vec,
    tuple::{Deserialize_tuple, Serialize_tuple},
};
use fvm_shared::{
    address::Address,
    crypto::signature::{Signature, SignatureType},
    message::Message,
};
use multihash_codetable::{Code, MultihashDigest};

/// A message with its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize_tuple, Deserialize_tuple)]
pub struct SignedMessage {
    /// The message.
    pub message: Message,
    /// Its signature.
    pub signature: Signature,
}

impl From<lotus_json::SignedMessage> for SignedMessage {
    fn from(signed: lotus_json::SignedMessage) -> Self {
        Self { message: signed.message, signature: signed.signature }
    }
}

impl From<SignedMessage> for lotus_json::SignedMessage {
    fn from(signed: SignedMessage) -> Self {
        Self { message: signed.message, signature: signed.signature }
    }
}

/// The CID of an object on chain.
pub(super) fn cid_of(bytes: &[u8]) -> Cid {
    Cid::new_v1(DAG_CBOR, Code::Blake2b256.digest(bytes))
}

/// The CID of a message without its signature: what is signed.
pub fn message_cid(message: &Message) -> Cid {
    cid_of(&to_vec(message).unwrap_or_default())
}

impl SignedMessage {
    /// The CID by which the chain knows it.
    pub fn cid(&self) -> Cid {
        cid_of(&self.stored())
    }

    /// What is stored: BLS signatures are aggregated in the block, so that the message is stored without one.
    pub(super) fn stored(&self) -> Vec<u8> {
        match self.signature.sig_type {
            SignatureType::BLS => to_vec(&self.message),
            SignatureType::Secp256k1 => to_vec(self),
        }
        .unwrap_or_default()
    }

    /// Whether the signature is that of the key behind `signer`.
    pub(super) fn verify(&self, signer: &Address) -> bool {
        verify(signer, &self.signature, &message_cid(&self.message).to_bytes())
    }
}
