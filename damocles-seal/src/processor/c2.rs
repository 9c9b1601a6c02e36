//! The SNARK.

use super::{
    Processor, ProcessorError, ProgressSink,
    library::{self, failed},
};
use crate::{
    pool::v1::words::SealProof,
    task::{C2, C2Output},
    verifier::Groth16Verifier,
};
use damocles_core::{
    CommD, CommR, SectorId,
    verify::{ProofVerifier, Randomness, SealStatement},
};
use filecoin_proofs::constants::DefaultTreeHasher;
use filecoin_proofs_api::seal::{self, SealCommitPhase1Output};
use fs_err as fs;
use std::io::BufReader;
use storage_proofs_porep::stacked::generate_replica_id;

/// Proves with the proofs library and verifies what came of it: a proof that was made on broken hardware costs less
/// here than on chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct C2Processor;

impl Processor<C2> for C2Processor {
    fn process(&self, task: C2, _: &dyn ProgressSink) -> Result<C2Output, ProcessorError> {
        let file = fs::File::open(&task.c1).map_err(|e| ProcessorError::new("read the challenged nodes", e))?;
        let nodes: SealCommitPhase1Output = serde_json::from_reader(BufReader::new(file))
            .map_err(|e| ProcessorError::new(format!("read the challenged nodes in {}", task.c1.display()), e))?;
        if nodes.registered_proof != library::seal_proof(task.proof_type) {
            let path = task.c1.display();
            return Err(ProcessorError::because(format!("the nodes in {path} are for another kind of proof")));
        }
        let proof = self.prove(nodes, task.sector, &task.c1.display().to_string())?;
        Ok(C2Output { proof })
    }
}

impl C2Processor {
    /// Proves, and verifies what came of it. `place` is where the nodes come from.
    pub(super) fn prove(
        self,
        nodes: SealCommitPhase1Output,
        sector: SectorId,
        place: &str,
    ) -> Result<Vec<u8>, ProcessorError> {
        let named = serde_json::to_value(nodes.registered_proof).and_then(serde_json::from_value);
        let SealProof(proof_type) = named.map_err(|e| ProcessorError::new("name the proof", e))?;
        let statement = SealStatement {
            sector,
            proof_type,
            comm_r: CommR(nodes.comm_r),
            comm_d: CommD(nodes.comm_d),
            ticket: Randomness(nodes.ticket),
            seed: Randomness(nodes.seed),
        };
        let prover = library::prover_id(sector.miner);
        // Known in advance, instead of by a proof that took minutes and does not verify.
        let replica = generate_replica_id::<DefaultTreeHasher, _>(
            &prover,
            sector.number.0,
            &nodes.ticket,
            nodes.comm_d,
            &nodes.registered_proof.as_v1_config().porep_id,
        );
        if nodes.replica_id != replica {
            return Err(ProcessorError::because(format!("the nodes in {place} are not of {sector}")));
        }
        let proof = seal::seal_commit_phase2(nodes, prover, library::sector_id(sector.number))
            .map_err(|e| failed(format!("C2 of {sector}"), e))?
            .proof;
        match Groth16Verifier::new().verify_seal(&statement, &proof) {
            Ok(true) => Ok(proof),
            Ok(false) => Err(ProcessorError::because(format!("the proof of {sector} does not verify"))),
            Err(error) => Err(ProcessorError::new("verify the proof", error)),
        }
    }
}
