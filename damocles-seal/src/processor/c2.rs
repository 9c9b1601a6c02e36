//! The SNARK.

use super::{
    Processor, ProcessorError, ProgressSink,
    library::{self, failed},
};
use crate::{
    task::{C2, C2Output},
    verifier::Groth16Verifier,
};
use damocles_core::{
    CommD, CommR,
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
        let statement = SealStatement {
            sector: task.sector,
            proof_type: task.proof_type,
            comm_r: CommR(nodes.comm_r),
            comm_d: CommD(nodes.comm_d),
            ticket: Randomness(nodes.ticket),
            seed: Randomness(nodes.seed),
        };
        let prover = library::prover_id(task.sector.miner);
        // Known in advance, instead of by a proof that took minutes and does not verify.
        let replica = generate_replica_id::<DefaultTreeHasher, _>(
            &prover,
            task.sector.number.0,
            &nodes.ticket,
            nodes.comm_d,
            &nodes.registered_proof.as_v1_config().porep_id,
        );
        if nodes.replica_id != replica {
            let path = task.c1.display();
            return Err(ProcessorError::because(format!("the nodes in {path} are not of {}", task.sector)));
        }
        let proof = seal::seal_commit_phase2(nodes, prover, library::sector_id(task.sector.number))
            .map_err(|e| failed(format!("C2 of {}", task.sector), e))?
            .proof;
        match Groth16Verifier::new().verify_seal(&statement, &proof) {
            Ok(true) => Ok(C2Output { proof }),
            Ok(false) => Err(ProcessorError::because(format!("the proof of {} does not verify", task.sector))),
            Err(error) => Err(ProcessorError::new("verify the proof", error)),
        }
    }
}
