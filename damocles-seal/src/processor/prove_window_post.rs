//! Making a WindowPoSt proof.

use super::{
    Processor, ProcessorError, ProgressSink,
    library::{self, failed},
};
use damocles_core::{
    SectorNumber,
    post::{ProveWindowPoSt, WindowPoStProof},
};
use filecoin_proofs_api::post;
use std::collections::BTreeMap;

/// Proves with the proofs library. Sectors are taken once each and by ascending number, whatever the order of the
/// task: that is the statement that every verifier checks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProveWindowPoStProcessor;

impl Processor<ProveWindowPoSt> for ProveWindowPoStProcessor {
    fn process(&self, task: ProveWindowPoSt, _: &dyn ProgressSink) -> Result<WindowPoStProof, ProcessorError> {
        let (sectors, proofs) = (task.sectors.len(), task.vanilla.len());
        if sectors != proofs {
            return Err(ProcessorError::because(format!("{sectors} sectors come with {proofs} vanilla proofs")));
        }
        let mut vanilla: BTreeMap<SectorNumber, Vec<u8>> = BTreeMap::new();
        for (sector, text) in task.sectors.iter().zip(&task.vanilla) {
            let number = sector.number;
            let proof = hex::decode(text)
                .map_err(|e| ProcessorError::new(format!("read the vanilla proof of sector {number}"), e))?;
            vanilla.insert(number, proof);
        }
        let vanilla: Vec<Vec<u8>> = vanilla.into_values().collect();
        let proofs = post::generate_window_post_with_vanilla(
            library::post_proof(task.proof_type),
            &task.randomness.for_post().0,
            library::prover_id(task.miner),
            &vanilla,
        )
        .map_err(|e| failed(format!("prove {} sectors of miner {}", vanilla.len(), task.miner), e))?;
        match <[_; 1]>::try_from(proofs) {
            Ok([(_, proof)]) => Ok(WindowPoStProof { proof }),
            Err(proofs) => Err(ProcessorError::because(format!("the library made {} proofs, not 1", proofs.len()))),
        }
    }
}
