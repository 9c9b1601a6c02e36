//! Which proofs a daemon believes.

use damocles_core::{
    testing::{FakeVerifier, fake_proof},
    verify::ProofVerifier,
};
use damocles_seal::verifier::Groth16Verifier;
use std::sync::Arc;

/// The verifier for a network: the fake one if its name begins with `devnet-fake-`, the real one for all others. There
/// is no other switch.
pub fn for_network(name: &str) -> Arc<dyn ProofVerifier> {
    if is_fake(name) { Arc::new(FakeVerifier) } else { Arc::new(Groth16Verifier::new()) }
}

/// Whether proofs on this network are fake.
pub fn is_fake(name: &str) -> bool {
    name.starts_with(fake_proof::NETWORK_PREFIX)
}
