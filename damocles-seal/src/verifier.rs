//! The verifier of real proofs.

use crate::{
    params::{CircuitId, CircuitKind, ParameterCache},
    processor::{library, panic_text},
};
use damocles_core::{
    BoxError, Error, SealProofType,
    verify::{PoStStatement, ProofVerifier, SealStatement, VerifyError, VerifyErrorKind, VerifyingKeys},
};
use filecoin_proofs_api::{PublicReplicaInfo, RegisteredPoStProof, SectorId, post, seal};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Verifies Groth16 proofs with the keys in the proofs library's parameter cache.
///
/// A PoSt statement is taken as the network takes it: each sector once, by ascending number. One that names two
/// replicas of a sector proves nothing.
#[derive(Clone, Debug)]
pub struct Groth16Verifier {
    cache: ParameterCache,
}

impl Default for Groth16Verifier {
    fn default() -> Self {
        Self::new()
    }
}

impl Groth16Verifier {
    /// A verifier with the keys of the library's own cache: it reads no other.
    pub fn new() -> Self {
        Self { cache: ParameterCache::of_library() }
    }

    fn key(&self, kind: CircuitKind, sector_size: u64) -> Result<String, VerifyError> {
        let circuit = CircuitId::new(kind, sector_size);
        let digest = self.cache.verifying_key_digest(circuit).map_err(|e| {
            let dir = self.cache.dir().display().to_string();
            let hint = e.hint().unwrap_or("make or fetch the proof parameters");
            Error::new(VerifyErrorKind::Key, "read verifying key")
                .with("circuit", format_args!("{kind:?}"))
                .with("sector size", sector_size)
                .with("cache", dir)
                .hint_with(hint)
                .because(e)
        })?;
        Ok(hex::encode(digest))
    }

    /// Asks the library. The key is known to be whole, so that what it refuses is the proof or the statement.
    fn ask<E: Into<BoxError>>(
        &self,
        kind: CircuitKind,
        sector_size: u64,
        verify: impl FnOnce() -> Result<bool, E>,
    ) -> Result<bool, VerifyError> {
        self.key(kind, sector_size)?;
        match catch_unwind(AssertUnwindSafe(verify)) {
            Ok(Ok(verified)) => Ok(verified),
            Ok(Err(refused)) => {
                let refused: BoxError = refused.into();
                tracing::debug!(error = %refused, "the library refused a proof");
                Ok(false)
            }
            Err(panic) => Err(Error::new(VerifyErrorKind::Failed, "verify proof").because(panic_text(&*panic))),
        }
    }
}

/// The sectors of a statement in the network's order; none if they contradict each other or there are none.
fn replicas(statement: &PoStStatement) -> Option<BTreeMap<SectorId, PublicReplicaInfo>> {
    let proof = library::post_proof(statement.proof_type);
    let mut replicas = BTreeMap::new();
    for sector in &statement.sectors {
        let info = PublicReplicaInfo::new(proof, sector.comm_r.0);
        if replicas.insert(library::sector_id(sector.number), info.clone()).is_some_and(|other| other != info) {
            return None;
        }
    }
    Some(replicas).filter(|replicas| !replicas.is_empty())
}

/// Whether a proof has the length that so many sectors call for: the library reads what follows as nothing.
fn has_length(proof: &[u8], kind: RegisteredPoStProof, sectors: usize) -> bool {
    let partitions = sectors.div_ceil(kind.sector_count().max(1));
    proof.len() == partitions * kind.single_partition_proof_len()
}

impl ProofVerifier for Groth16Verifier {
    fn verify_seal(&self, statement: &SealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        let kind = library::seal_proof(statement.proof_type);
        let size = statement.proof_type.sector_size().bytes();
        self.ask(CircuitKind::PoRep, size, || {
            if proof.len() != usize::from(kind.partitions()) * kind.single_partition_proof_len() {
                return Ok(false);
            }
            seal::verify_seal(
                kind,
                statement.comm_r.0,
                statement.comm_d.0,
                library::prover_id(statement.sector.miner),
                library::sector_id(statement.sector.number),
                statement.ticket.0,
                statement.seed.0,
                proof,
            )
        })
    }

    fn verify_window_post(&self, statement: &PoStStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        let kind = library::post_proof(statement.proof_type);
        let size = statement.proof_type.sector_size().bytes();
        self.ask(CircuitKind::WindowPoSt, size, || {
            let Some(replicas) = replicas(statement).filter(|r| has_length(proof, kind, r.len())) else {
                return Ok(false);
            };
            let randomness = statement.randomness.for_post().0;
            post::verify_window_post(&randomness, &[(kind, proof)], &replicas, library::prover_id(statement.miner))
        })
    }

    fn verify_winning_post(&self, statement: &PoStStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        let kind = library::post_proof(statement.proof_type);
        let size = statement.proof_type.sector_size().bytes();
        self.ask(CircuitKind::WinningPoSt, size, || {
            let Some(replicas) = replicas(statement).filter(|_| proof.len() == kind.single_partition_proof_len())
            else {
                return Ok(false);
            };
            let randomness = statement.randomness.for_post().0;
            post::verify_winning_post(&randomness, proof, &replicas, library::prover_id(statement.miner))
        })
    }

    fn keys(&self, proof_type: SealProofType) -> Result<VerifyingKeys, VerifyError> {
        let size = proof_type.sector_size().bytes();
        Ok(VerifyingKeys {
            porep: self.key(CircuitKind::PoRep, size)?,
            window_post: self.key(CircuitKind::WindowPoSt, size)?,
        })
    }
}
