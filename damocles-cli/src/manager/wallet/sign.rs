//! Signatures over bytes.

use super::{
    args::{SignArgs, VerifyArgs},
    command::Desk,
};
use crate::{
    exit::{Exit, Failure},
    output::Render,
};
use damocles_chain::{lotus_json::from_core, signer};
use fvm_shared::crypto::signature::{Signature, SignatureType};
use serde::Serialize;

/// Signs, and prints the signature as Lotus does: the type, then the bytes.
pub(super) fn sign(desk: &Desk<'_>, args: &SignArgs) -> Result<(), Failure> {
    let bytes = hex::decode(&args.bytes).map_err(|e| Failure::usage(format_args!("the bytes are no hex: {e}")))?;
    let request = signer::SignRequest::bytes(args.purpose.clone(), bytes);
    let signature = desk.unlocked()?.sign_now(&args.address, &request)?;
    desk.printer.data(&Signed { signature: text_of(&signature) })
}

/// Checks a signature.
pub(super) fn verify(desk: &Desk<'_>, args: &VerifyArgs) -> Result<Exit, Failure> {
    let bytes = hex::decode(&args.bytes).map_err(|e| Failure::usage(format_args!("the bytes are no hex: {e}")))?;
    let address = from_core(&args.address).map_err(Failure::usage)?;
    let valid = signer::verify(&address, &signature_of(&args.signature)?, &bytes);
    let printed = desk.printer.data(&Verified { valid });
    // What is not valid is that whoever reads of it.
    if valid { printed.map(|()| Exit::Ok) } else { Ok(Exit::Failed) }
}

fn text_of(signature: &Signature) -> String {
    let first = match signature.sig_type {
        SignatureType::Secp256k1 => 1,
        SignatureType::BLS => 2,
    };
    format!("{first:02x}{}", hex::encode(&signature.bytes))
}

fn signature_of(text: &str) -> Result<Signature, Failure> {
    let raw = hex::decode(text).map_err(|e| Failure::usage(format_args!("the signature is no hex: {e}")))?;
    match raw.split_first() {
        Some((1, bytes)) => Ok(Signature::new_secp256k1(bytes.to_vec())),
        Some((2, bytes)) => Ok(Signature::new_bls(bytes.to_vec())),
        _ => Err(Failure::usage("the signature does not begin with its type")
            .hint("give it as `wallet sign` prints it: 01 for secp256k1 or 02 for BLS, then the bytes")),
    }
}

#[derive(Debug, Serialize)]
struct Signed {
    signature: String,
}

impl Render for Signed {
    fn text(&self, _: bool) -> String {
        self.signature.clone()
    }
}

#[derive(Debug, Serialize)]
struct Verified {
    valid: bool,
}

impl Render for Verified {
    fn text(&self, _: bool) -> String {
        if self.valid { "valid" } else { "not valid" }.to_owned()
    }
}
