//! The layers.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{sync_file, sync_files_in},
    library::{self, failed},
    prepare,
};
use crate::{
    parent_cache::ParentCache,
    task::{Pc1, Pc1Output},
};
use damocles_core::PoRepKind;
use filecoin_proofs_api::seal;

/// Computes layers with the proofs library, in an emptied directory and with a parent cache that was checked.
#[derive(Clone, Debug)]
pub struct Pc1Processor {
    parents: ParentCache,
}

impl Default for Pc1Processor {
    fn default() -> Self {
        Self { parents: ParentCache::of_library() }
    }
}

impl Processor<Pc1> for Pc1Processor {
    fn process(&self, task: Pc1, _: &dyn ProgressSink) -> Result<Pc1Output, ProcessorError> {
        if task.proof_type.kind() != PoRepKind::Interactive {
            // The later phases would miss their files: better said before hours of work than after.
            return Err(ProcessorError::because(format!("sectors are not sealed as {} here", task.proof_type)));
        }
        let pieces = library::pieces(&task.pieces)?;
        prepare::pc1(&task)?;
        self.parents.ensure(task.proof_type).map_err(|e| ProcessorError::new("prepare the parent cache", e))?;
        let output = seal::seal_pre_commit_phase1(
            library::seal_proof(task.proof_type),
            &task.cache,
            &task.staged,
            &task.sealed,
            library::prover_id(task.sector.miner),
            library::sector_id(task.sector.number),
            task.ticket.0,
            &pieces,
        )
        .map_err(|e| failed(format!("PC1 of {} in {}", task.sector, task.cache.display()), e))?;
        // The library renames its layers without a sync.
        let files = sync_files_in(&task.cache).map_err(|e| ProcessorError::new("sync the layers", e))?;
        sync_file(&task.sealed).map_err(|e| ProcessorError::new("sync the sealed file", e))?;
        let library = serde_json::to_value(&output).map_err(|e| ProcessorError::new("encode PC1's output", e))?;
        Ok(Pc1Output { library, files })
    }
}
