//! The published trapdoors.

use blake2b_simd::Params as Blake2b;
use blstrs::{G1Affine, G1Projective, Scalar};
use ff::Field;
use group::Group;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;

use super::fixed_base::{FixedBaseTable, G1, G2};

/// The five secrets of a Groth16 set-up. Ours are public on purpose, see [`Trapdoor::published`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trapdoor {
    /// Ties A and B to the same circuit.
    pub alpha: Scalar,
    /// Ties A and B to the same circuit.
    pub beta: Scalar,
    /// Separates the public inputs from the rest.
    pub gamma: Scalar,
    /// Separates the rest from the public inputs.
    pub delta: Scalar,
    /// The point at which the circuit's polynomials are evaluated.
    pub tau: Scalar,
}

/// Changing this changes every parameter file that this crate makes.
const DOMAIN: &[u8] = b"damocles proof parameters v1";

impl Trapdoor {
    /// The trapdoor of the circuit with this cache identifier.
    ///
    /// Whoever knows a trapdoor can prove false statements. That is harmless here because the sector sizes that we
    /// generate exist on no public network, and it buys that every machine makes byte-identical files.
    pub fn published(cache_identifier: &str) -> Self {
        let hash =
            Blake2b::new().hash_length(32).to_state().update(DOMAIN).update(cache_identifier.as_bytes()).finalize();
        let mut seed = [0; 32];
        for (to, from) in seed.iter_mut().zip(hash.as_bytes()) {
            *to = *from;
        }
        let mut rng = ChaCha20Rng::from_seed(seed);
        Self {
            alpha: Scalar::random(&mut rng),
            beta: Scalar::random(&mut rng),
            gamma: Scalar::random(&mut rng),
            delta: Scalar::random(&mut rng),
            tau: Scalar::random(&mut rng),
        }
    }

    /// The head of a verifying key in the library's format: everything but the points of the public inputs.
    pub(crate) fn key_head(&self, g1: &FixedBaseTable<G1>, g2: &FixedBaseTable<G2>) -> Vec<u8> {
        let mut head = g1.serialized(&self.alpha);
        head.extend(g1.serialized(&self.beta));
        head.extend(g2.serialized(&self.beta));
        head.extend(g2.serialized(&self.gamma));
        head.extend(g1.serialized(&self.delta));
        head.extend(g2.serialized(&self.delta));
        head
    }

    /// The first point of the verifying key, which tells whether a key was made from this trapdoor.
    pub(crate) fn fingerprint(&self) -> [u8; 96] {
        G1Affine::from(G1Projective::generator() * self.alpha).to_uncompressed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trapdoor_depends_on_nothing_but_the_identifier() {
        assert_eq!(Trapdoor::published("circuit"), Trapdoor::published("circuit"));
        assert_ne!(Trapdoor::published("circuit").tau, Trapdoor::published("circuit2").tau);
        // A new value here means that files made before and after do not fit together: raise DOMAIN's version instead.
        assert_eq!(
            Trapdoor::published("circuit").alpha.to_string(),
            "Scalar(0x62c0b44f437221ea8f152394571335408b9086a54987290c477e102e3bbe3bd9)"
        );
    }
}
