//! Checking signatures.

use super::key::blake2b;
use bls_signatures::Serialize as _;
use fvm_shared::{
    address::{Address, Payload},
    crypto::signature::{Signature, SignatureType},
};

/// Whether `signature` over `bytes` is that of the key behind `address`, which must be a key address. Rubbish is a
/// signature that is not.
pub fn verify(address: &Address, signature: &Signature, bytes: &[u8]) -> bool {
    match (address.payload(), signature.sig_type) {
        (Payload::Secp256k1(_), SignatureType::Secp256k1) => secp(&signature.bytes, bytes).as_ref() == Some(address),
        (Payload::BLS(key), SignatureType::BLS) => bls(key, &signature.bytes, bytes),
        _ => false,
    }
}

/// The address that signed.
fn secp(signature: &[u8], bytes: &[u8]) -> Option<Address> {
    let (rs, rest) = signature.split_first_chunk::<64>()?;
    let [v] = rest else { return None };
    let signature = k256::ecdsa::Signature::from_slice(rs).ok()?;
    let id = k256::ecdsa::RecoveryId::from_byte(*v)?;
    let key = k256::ecdsa::VerifyingKey::recover_from_prehash(&blake2b(bytes), &signature, id).ok()?;
    Address::new_secp256k1(key.to_encoded_point(false).as_bytes()).ok()
}

fn bls(key: &[u8], signature: &[u8], bytes: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) =
        (bls_signatures::PublicKey::from_bytes(key), bls_signatures::Signature::from_bytes(signature))
    else {
        return false;
    };
    bls_signatures::verify_messages(&signature, &[bytes], &[key])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signer::{KeyKind, PrivateKey};

    #[test]
    fn rubbish_is_no_signature() {
        for kind in [KeyKind::Secp256k1, KeyKind::Bls] {
            let key = PrivateKey::generate(kind);
            let address = key.address();
            let good = key.sign(b"x");
            for len in [0, 1, 64, 65, 66, 95, 96, 97] {
                let bad = Signature { sig_type: good.sig_type, bytes: vec![7; len] };
                assert!(!verify(&address, &bad, b"x"), "{kind} {len}");
            }
            let mut flipped = good.clone();
            flipped.bytes[10] ^= 1;
            assert!(!verify(&address, &flipped, b"x"));
            assert!(!verify(&PrivateKey::generate(kind).address(), &good, b"x"));
            assert!(!verify(&Address::new_id(100), &good, b"x"));
        }
    }
}
