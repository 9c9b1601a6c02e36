//! The verifier of real proofs.

use crate::{
    params::{CircuitId, CircuitKind, ParameterCache},
    processor::{library, panic_text},
};
use bellperson::groth16::aggregate::AggregateProof;
use blstrs::{Bls12, Scalar};
use damocles_core::{
    AggregationType, BoxError, Error, PoRepKind, SealProofType, SectorSize,
    verify::{
        AggregateSealStatement, AggregatedSeal, NI_SEED, NiSealStatement, PoStStatement, ProofVerifier, SealStatement,
        UpdateStatement, VerifyError, VerifyErrorKind, VerifyingKeys,
    },
};
use ff::PrimeField as _;
use filecoin_proofs_api::{PublicReplicaInfo, RegisteredPoStProof, RegisteredSealProof, SectorId, post, seal, update};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};
use storage_proofs_update::constants::partition_count;

/// Bytes of a node of a replica.
const NODE: u64 = 32;

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

/// Whether all of these commitments are elements of the field, as replicas' and data's are. The library panics at others.
fn are_elements<'a>(commitments: impl IntoIterator<Item = &'a [u8; 32]>) -> bool {
    commitments.into_iter().all(|bytes| bool::from(Scalar::from_repr(*bytes).is_some()))
}

/// Whether the bytes are one aggregate of so many Groth16 proofs and nothing else.
///
/// The library takes the number of proofs from the bytes, looks up keys for as many, panics where there are none, and
/// reads what follows as nothing.
fn is_aggregate_of(proof: &[u8], proofs: usize) -> bool {
    AggregateProof::<Bls12>::read(proof).is_ok_and(|aggregate| {
        let number = usize::try_from(aggregate.tmipp.gipa.nproofs);
        number == Ok(proofs) && aggregate.parsing_check().is_ok() && aggregate.serialized_len() == proof.len()
    })
}

/// How many Groth16 proofs an aggregate for so many sectors is padded to: the next power of two, and two at least.
fn aggregate_len(kind: RegisteredSealProof, sectors: usize) -> Option<usize> {
    sectors.checked_mul(usize::from(kind.partitions()))?.checked_next_power_of_two().map(|n| n.max(2))
}

/// The sectors of a statement in the network's order; none if they contradict each other, are no replicas, or there are none.
fn replicas(statement: &PoStStatement) -> Option<BTreeMap<SectorId, PublicReplicaInfo>> {
    let proof = library::post_proof(statement.proof_type);
    let mut replicas = BTreeMap::new();
    if !are_elements(statement.sectors.iter().map(|s| &s.comm_r.0)) {
        return None;
    }
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

impl Groth16Verifier {
    /// What the network's `verify_aggregate_seals` does, for both uses of it.
    fn verify_aggregate(&self, statement: &AggregateSealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        let kind = library::seal_proof(statement.proof_type);
        let size = statement.proof_type.sector_size();
        let aggregation = library::aggregation(statement.aggregation);
        let prover = library::prover_id(statement.miner);
        let capacity = self.aggregation_capacity(size)?;
        self.ask(CircuitKind::PoRep, size.bytes(), || {
            let Some(proofs) = aggregate_len(kind, statement.sectors.len()).filter(|n| *n <= capacity) else {
                return Ok(false);
            };
            let commitments = statement.sectors.iter().flat_map(|s| [&s.comm_r.0, &s.comm_d.0]);
            if statement.sectors.is_empty() || !are_elements(commitments) || !is_aggregate_of(proof, proofs) {
                return Ok(false);
            }
            let mut inputs = Vec::with_capacity(proofs);
            for s in &statement.sectors {
                let number = library::sector_id(s.number);
                let of_sector =
                    seal::get_seal_inputs(kind, s.comm_r.0, s.comm_d.0, prover, number, s.ticket.0, s.seed.0)?;
                inputs.extend(of_sector);
            }
            let replicas: Vec<_> = statement.sectors.iter().map(|s| s.comm_r.0).collect();
            let seeds: Vec<_> = statement.sectors.iter().map(|s| s.seed.0).collect();
            let proof = proof.to_vec();
            seal::verify_aggregate_seal_commit_proofs(kind, aggregation, proof, &replicas, &seeds, inputs)
        })
    }

    /// How many Groth16 proofs the aggregation key in the cache serves. The library would take its absence for a fault of
    /// the proof.
    fn aggregation_capacity(&self, size: SectorSize) -> Result<usize, VerifyError> {
        self.cache.srs_for(size.bytes()).map(|srs| srs.capacity).map_err(|e| {
            let hint = e.hint().unwrap_or("make or fetch the aggregation key");
            Error::new(VerifyErrorKind::Key, "read aggregation key")
                .with("sector size", size)
                .with("cache", self.cache.dir().display())
                .hint_with(hint)
                .because(e)
        })
    }
}

impl ProofVerifier for Groth16Verifier {
    fn verify_aggregate_seals(&self, statement: &AggregateSealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        if statement.proof_type.kind() == PoRepKind::NonInteractive {
            return Ok(false);
        }
        self.verify_aggregate(statement, proof)
    }

    fn verify_ni_seals(&self, statement: &NiSealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        let sectors = statement.sectors.iter().map(|s| AggregatedSeal {
            number: s.number,
            comm_r: s.comm_r,
            comm_d: s.comm_d,
            ticket: s.ticket,
            seed: NI_SEED,
        });
        let aggregate = AggregateSealStatement {
            miner: statement.miner,
            proof_type: SealProofType::non_interactive(statement.sector_size),
            aggregation: AggregationType::SnarkPackV2,
            sectors: sectors.collect(),
        };
        self.verify_aggregate(&aggregate, proof)
    }

    fn verify_replica_update(&self, statement: &UpdateStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        let kind = library::update_proof(statement.sector_size);
        self.ask(CircuitKind::SectorUpdate, statement.sector_size.bytes(), || {
            // The library's word for the proof counts the partitions of a PoRep; an update has its own.
            let partitions = usize::try_from(statement.sector_size.bytes() / NODE).map(partition_count).unwrap_or(0);
            let UpdateStatement { old_comm_r, new_comm_r, new_comm_d, .. } = statement;
            let elements = are_elements([&old_comm_r.0, &new_comm_r.0, &new_comm_d.0]);
            if !elements || proof.len() != partitions * kind.single_partition_proof_len() {
                return Ok(false);
            }
            update::verify_empty_sector_update_proof(kind, proof, old_comm_r.0, new_comm_r.0, new_comm_d.0)
        })
    }

    fn verify_seal(&self, statement: &SealStatement, proof: &[u8]) -> Result<bool, VerifyError> {
        if statement.proof_type.kind() == PoRepKind::NonInteractive {
            return Ok(false);
        }
        let kind = library::seal_proof(statement.proof_type);
        let size = statement.proof_type.sector_size().bytes();
        self.ask(CircuitKind::PoRep, size, || {
            let len = usize::from(kind.partitions()) * kind.single_partition_proof_len();
            if proof.len() != len || !are_elements([&statement.comm_r.0, &statement.comm_d.0]) {
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
