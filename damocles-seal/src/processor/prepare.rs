//! What has to be in place before the proofs library, or a program around it, does the work of a phase.

use super::{
    ProcessorError,
    files::{clear_dir, expect_len, parent, remove_if_there},
    names::TREE_D,
};
use crate::task::{Pc1, Pc2};
use fs_err as fs;
use std::{io, path::Path};

/// Empties the cache directory but for the data tree, and creates the sealed file.
///
/// A recorded data tree is linked into the cache directory and stays where it was, so that a repeat finds it again; on
/// another file system it is copied.
pub(crate) fn pc1(task: &Pc1) -> Result<(), ProcessorError> {
    let io = |e| ProcessorError::new("prepare the cache directory", e);
    let sector = task.proof_type.sector_size().bytes();
    expect_len("staged file", &task.staged, sector)?;
    let own = task.cache.join(TREE_D);
    let recorded_here = task.tree_d.as_deref() == Some(&*own);
    if let Some(tree) = &task.tree_d {
        expect_len("data tree", tree, tree_d_len(sector))?;
    }
    clear_dir(&task.cache, |name| recorded_here && name == TREE_D).map_err(io)?;
    if let Some(tree) = task.tree_d.as_deref().filter(|_| !recorded_here) {
        link_or_copy(tree, &own).map_err(io)?;
    }
    fs::create_dir_all(parent(&task.sealed)).map_err(io)?;
    remove_if_there(&task.sealed).map_err(io)?;
    fs::File::create(&task.sealed).map_err(|e| ProcessorError::new("create the sealed file", e))?;
    Ok(())
}

/// The length of the data tree: all nodes of a binary tree over the sector's.
pub(crate) fn tree_d_len(sector: u64) -> u64 {
    2 * sector - 32
}

/// Removes what an earlier PC2 left, and puts a copy of the data in place of the sealed file, which is encoded in place.
pub(crate) fn pc2(task: &Pc2, copy: impl FnOnce(&Path, &Path) -> io::Result<()>) -> Result<(), ProcessorError> {
    let io = |e| ProcessorError::new("prepare PC2", e);
    expect_len("staged file", &task.staged, task.proof_type.sector_size().bytes())?;
    if let Some(missing) = task.pc1.files.iter().find(|name| !task.cache.join(name).is_file()) {
        let path = task.cache.join(missing);
        return Err(ProcessorError::because(format!("{}, a file of PC1, is missing", path.display())));
    }
    clear_dir(&task.cache, |name| task.pc1.files.iter().any(|file| file == name)).map_err(io)?;
    fs::create_dir_all(parent(&task.sealed)).map_err(io)?;
    remove_if_there(&task.sealed).map_err(io)?;
    copy(&task.staged, &task.sealed).map_err(|e| ProcessorError::new("copy the data", e))
}

fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => fs::copy(from, to).map(|_| ()),
        linked => linked,
    }
}
