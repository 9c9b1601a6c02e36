//! The replica and its trees.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{sync_file, sync_files_in},
    library::{self, failed},
    prepare,
};
use crate::task::{Pc2, Pc2Output};
use damocles_core::{CommD, CommR};
use filecoin_proofs_api::seal::{self, SealPreCommitPhase1Output};
use fs_err as fs;
use serde::Deserialize;

/// Encodes the replica with the proofs library, from a fresh copy of the data.
///
/// The library encodes the sealed file in place and loads whatever trees it finds: a run that was killed leaves a file
/// that is half data and half replica, beside half-written trees. Nothing of that is ever read again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pc2Processor;

impl Processor<Pc2> for Pc2Processor {
    fn process(&self, task: Pc2, _: &dyn ProgressSink) -> Result<Pc2Output, ProcessorError> {
        let output = SealPreCommitPhase1Output::deserialize(&task.pc1.library)
            .map_err(|e| ProcessorError::new("read PC1's output", e))?;
        if output.registered_proof != library::seal_proof(task.proof_type) {
            return Err(ProcessorError::because("PC1's output is of another kind of proof"));
        }
        prepare::pc2(&task, |from, to| fs::copy(from, to).map(drop))?;
        let sealed = seal::seal_pre_commit_phase2(output, &task.cache, &task.sealed)
            .map_err(|e| failed(format!("PC2 of {} in {}", task.sector, task.cache.display()), e))?;
        sync_files_in(&task.cache).map_err(|e| ProcessorError::new("sync the trees", e))?;
        sync_file(&task.sealed).map_err(|e| ProcessorError::new("sync the sealed file", e))?;
        Ok(Pc2Output { comm_r: CommR(sealed.comm_r), comm_d: CommD(sealed.comm_d) })
    }
}
