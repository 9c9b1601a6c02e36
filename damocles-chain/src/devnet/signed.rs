//! Signed messages: their CIDs and signatures.

use super::randomness::blake2b;
use crate::lotus_json;
use bls_signatures::Serialize as _;
use cid::Cid;
use fvm_ipld_encoding::{
    DAG_CBOR, to_vec,
    tuple::{Deserialize_tuple, Serialize_tuple},
};
use fvm_shared::{
    address::{Address, Payload},
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
        let signed = message_cid(&self.message).to_bytes();
        match (signer.payload(), self.signature.sig_type) {
            (Payload::Secp256k1(_), SignatureType::Secp256k1) => verify_secp(&self.signature.bytes, &signed, signer),
            (Payload::BLS(key), SignatureType::BLS) => verify_bls(&self.signature.bytes, &signed, key),
            _ => false,
        }
    }
}

fn verify_secp(signature: &[u8], signed: &[u8], signer: &Address) -> bool {
    let recover = || {
        let (rs, v) = signature.split_first_chunk::<64>()?;
        let [v] = v else { return None };
        let signature = k256::ecdsa::Signature::from_slice(rs).ok()?;
        let id = k256::ecdsa::RecoveryId::from_byte(*v)?;
        let key = k256::ecdsa::VerifyingKey::recover_from_prehash(&blake2b(signed), &signature, id).ok()?;
        Address::new_secp256k1(key.to_encoded_point(false).as_bytes()).ok()
    };
    recover().as_ref() == Some(signer)
}

fn verify_bls(signature: &[u8], signed: &[u8], key: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) =
        (bls_signatures::PublicKey::from_bytes(key), bls_signatures::Signature::from_bytes(signature))
    else {
        return false;
    };
    bls_signatures::verify_messages(&signature, &[signed], &[key])
}
