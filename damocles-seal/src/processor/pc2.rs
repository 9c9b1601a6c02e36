//! The replica and its trees.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{clear_dir, expect_len, parent, remove_if_there, sync_file, sync_files_in},
    library::{self, failed},
};
use crate::task::{Pc2, Pc2Output};
use damocles_core::{CommD, CommR};
use filecoin_proofs_api::seal::{self, SealPreCommitPhase1Output};
use fs_err as fs;

/// Encodes the replica with the proofs library, from a fresh copy of the data.
///
/// The library encodes the sealed file in place and loads whatever trees it finds: a run that was killed leaves a file
/// that is half data and half replica, beside half-written trees. Nothing of that is ever read again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pc2Processor;

impl Processor<Pc2> for Pc2Processor {
    fn process(&self, task: Pc2, _: &dyn ProgressSink) -> Result<Pc2Output, ProcessorError> {
        let sector = task.proof_type.sector_size().bytes();
        let io = |e| ProcessorError::new("prepare PC2", e);
        expect_len("staged file", &task.staged, sector)?;
        if let Some(missing) = task.pc1.files.iter().find(|name| !task.cache.join(name).is_file()) {
            let path = task.cache.join(missing);
            return Err(ProcessorError::because(format!("{}, a file of PC1, is missing", path.display())));
        }
        let output: SealPreCommitPhase1Output =
            serde_json::from_value(task.pc1.library).map_err(|e| ProcessorError::new("read PC1's output", e))?;
        if output.registered_proof != library::seal_proof(task.proof_type) {
            return Err(ProcessorError::because("PC1's output is of another kind of proof"));
        }
        clear_dir(&task.cache, |name| task.pc1.files.iter().any(|file| file == name)).map_err(io)?;
        fs::create_dir_all(parent(&task.sealed)).map_err(io)?;
        remove_if_there(&task.sealed).map_err(io)?;
        fs::copy(&task.staged, &task.sealed).map_err(|e| ProcessorError::new("copy the data", e))?;
        let sealed = seal::seal_pre_commit_phase2(output, &task.cache, &task.sealed)
            .map_err(|e| failed(format!("PC2 of {} in {}", task.sector, task.cache.display()), e))?;
        sync_files_in(&task.cache).map_err(|e| ProcessorError::new("sync the trees", e))?;
        sync_file(&task.sealed).map_err(|e| ProcessorError::new("sync the sealed file", e))?;
        Ok(Pc2Output { comm_r: CommR(sealed.comm_r), comm_d: CommD(sealed.comm_d) })
    }
}
