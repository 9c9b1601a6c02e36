//! The layers.

use super::{
    Processor, ProcessorError, ProgressSink,
    files::{clear_dir, expect_len, parent, remove_if_there, sync_file, sync_files_in},
    library::{self, TREE_D, failed},
};
use crate::{
    parent_cache::ParentCache,
    task::{Pc1, Pc1Output},
};
use damocles_core::PoRepKind;
use filecoin_proofs_api::seal;
use fs_err as fs;
use std::{io, path::Path};

/// Computes layers with the proofs library, in an emptied directory and with a parent cache that was checked.
///
/// A recorded data tree is linked into the cache directory and stays where it was, so that a repeat finds it again; on
/// another file system it is copied.
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
        let io = |e| ProcessorError::new("prepare the cache directory", e);
        if task.proof_type.kind() != PoRepKind::Interactive {
            // The later phases would miss their files: better said before hours of work than after.
            return Err(ProcessorError::because(format!("sectors are not sealed as {} here", task.proof_type)));
        }
        let sector = task.proof_type.sector_size().bytes();
        expect_len("staged file", &task.staged, sector)?;
        let pieces = library::pieces(&task.pieces)?;
        let own = task.cache.join(TREE_D);
        let recorded_here = task.tree_d.as_deref() == Some(&*own);
        if let Some(tree) = &task.tree_d {
            // All nodes of a binary tree over the sector's.
            expect_len("data tree", tree, 2 * sector - 32)?;
        }
        clear_dir(&task.cache, |name| recorded_here && name == TREE_D).map_err(io)?;
        if let Some(tree) = task.tree_d.as_deref().filter(|_| !recorded_here) {
            link_or_copy(tree, &own).map_err(io)?;
        }
        self.parents.ensure(task.proof_type).map_err(|e| ProcessorError::new("prepare the parent cache", e))?;
        fs::create_dir_all(parent(&task.sealed)).map_err(io)?;
        remove_if_there(&task.sealed).map_err(io)?;
        fs::File::create(&task.sealed).map_err(|e| ProcessorError::new("create the sealed file", e))?;
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

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => fs::copy(from, to).map(|_| ()),
        linked => linked,
    }
}
