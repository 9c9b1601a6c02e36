//! Fake proofs: a keyed digest of the statement. They bind everything that a real proof binds and cost nothing.

use crate::{
    SealProofType,
    verify::{
        AggregateSealStatement, NiSealStatement, PoStStatement, ProofVerifier, SealStatement, UpdateStatement,
        VerifyError, VerifyingKeys,
    },
};
use serde::Serialize;

/// Networks whose name begins with this accept fake proofs, and no other network does.
pub const NETWORK_PREFIX: &str = "devnet-fake-";

const KEY: &[u8; 32] = b"damocles fake proofs, worthless!";

/// The bytes in one Groth16 proof: fake proofs have the length of real ones, because actors check it.
pub const GROTH_PROOF_LEN: usize = 192;

fn digest(tag: &str, statement: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(statement).expect("statements are plain data");
    let hash =
        blake2b_simd::Params::new().hash_length(64).key(KEY).to_state().update(tag.as_bytes()).update(&json).finalize();
    hash.as_bytes().iter().copied().cycle().take(GROTH_PROOF_LEN).collect()
}

/// A fake seal proof.
pub fn seal(statement: &SealStatement) -> Vec<u8> {
    digest("seal", statement)
}

/// A fake aggregate of seal proofs.
pub fn aggregate_seals(statement: &AggregateSealStatement) -> Vec<u8> {
    digest("aggregate", statement)
}

/// A fake non-interactive seal proof, of one sector or many.
pub fn ni_seals(statement: &NiSealStatement) -> Vec<u8> {
    digest("non-interactive", statement)
}

/// A fake replica-update proof.
pub fn replica_update(statement: &UpdateStatement) -> Vec<u8> {
    digest("update", statement)
}

/// A fake WindowPoSt proof.
pub fn window_post(statement: &PoStStatement) -> Vec<u8> {
    digest("window", statement)
}

/// A fake WinningPoSt proof.
pub fn winning_post(statement: &PoStStatement) -> Vec<u8> {
    digest("winning", statement)
}

/// Accepts fake proofs and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct FakeVerifier;

impl ProofVerifier for FakeVerifier {
    fn verify_seal(&self, statement: &SealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        Ok(proof == seal(statement))
    }

    fn verify_aggregate_seals(&self, statement: &AggregateSealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        Ok(proof == aggregate_seals(statement))
    }

    fn verify_ni_seals(&self, statement: &NiSealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        Ok(proof == ni_seals(statement))
    }

    fn verify_replica_update(&self, statement: &UpdateStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        Ok(proof == replica_update(statement))
    }

    fn verify_window_post(&self, statement: &PoStStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        Ok(proof == window_post(statement))
    }

    fn verify_winning_post(&self, statement: &PoStStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        Ok(proof == winning_post(statement))
    }

    fn keys(&self, _: SealProofType) -> Result<VerifyingKeys, VerifyError> {
        Ok(VerifyingKeys { porep: "fake".to_owned(), window_post: "fake".to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ActorId, AggregationType, CommD, CommR, PoStProofType, SectorNumber, SectorSize,
        verify::{AggregatedSeal, NiSeal, ProvenSector, Randomness},
    };

    #[test]
    fn a_fake_proof_binds_its_whole_statement() {
        let statement = PoStStatement {
            miner: ActorId(1000),
            proof_type: PoStProofType::window(SectorSize::KiB2),
            randomness: Randomness([1; 32]),
            sectors: vec![ProvenSector { number: SectorNumber(1), comm_r: CommR([2; 32]) }],
        };
        let proof = window_post(&statement);
        assert!(FakeVerifier.verify_window_post(&statement, &proof).unwrap());
        let mut other = statement.clone();
        other.randomness.0[31] ^= 1;
        assert!(!FakeVerifier.verify_window_post(&other, &proof).unwrap());
        assert!(!FakeVerifier.verify_winning_post(&statement, &proof).unwrap(), "another kind of proof");
        assert!(!FakeVerifier.verify_window_post(&statement, &proof[1..]).unwrap());
    }

    #[test]
    fn proofs_of_many_sectors_and_of_updates_are_fake_too() {
        let (number, comm_r, comm_d) = (SectorNumber(1), CommR([2; 32]), CommD([3; 32]));
        let (ticket, seed) = (Randomness([4; 32]), Randomness([5; 32]));
        let aggregate = AggregateSealStatement {
            miner: ActorId(1000),
            proof_type: SealProofType::of(SectorSize::KiB2),
            aggregation: AggregationType::SnarkPackV2,
            sectors: vec![AggregatedSeal { number, comm_r, comm_d, ticket, seed }],
        };
        let proof = aggregate_seals(&aggregate);
        assert!(FakeVerifier.verify_aggregate_seals(&aggregate, &proof).unwrap());
        let mut other = aggregate;
        other.sectors[0].seed.0[0] ^= 1;
        assert!(!FakeVerifier.verify_aggregate_seals(&other, &proof).unwrap());

        let ni = NiSealStatement {
            miner: ActorId(1000),
            sector_size: SectorSize::KiB2,
            sectors: vec![NiSeal { number, comm_r, comm_d, ticket }],
        };
        assert!(FakeVerifier.verify_ni_seals(&ni, &ni_seals(&ni)).unwrap());
        assert!(!FakeVerifier.verify_ni_seals(&ni, &proof).unwrap(), "another kind of proof");

        let update = UpdateStatement {
            sector_size: SectorSize::KiB2,
            old_comm_r: comm_r,
            new_comm_r: CommR([6; 32]),
            new_comm_d: comm_d,
        };
        let proof = replica_update(&update);
        assert!(FakeVerifier.verify_replica_update(&update, &proof).unwrap());
        let back = UpdateStatement { old_comm_r: update.new_comm_r, new_comm_r: comm_r, ..update };
        assert!(!FakeVerifier.verify_replica_update(&back, &proof).unwrap());
    }
}
