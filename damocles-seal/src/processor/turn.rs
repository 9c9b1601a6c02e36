//! Turns to prove.

use damocles_core::pool::TaskKind;
use std::{fs::File, io, path::PathBuf};

/// Kinds of work that need the memory of a whole small machine.
const LARGE: [&str; 2] = ["c2", "window_post"];

/// Real proofs that take turns by a lock on a file. The kernel gives the lock back when its holder dies.
#[derive(Clone, Debug)]
pub struct ProofTurn {
    path: PathBuf,
}

impl ProofTurn {
    /// Turns by this file, which is created if need be.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Waits for the turn if work of this kind needs one. It ends when what is returned is dropped.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or locked.
    pub fn take(&self, kind: &TaskKind) -> io::Result<Option<File>> {
        if !LARGE.contains(&kind.as_str()) {
            return Ok(None);
        }
        let file = fs_err::OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
        let file = file.into_parts().0;
        file.lock()?;
        Ok(Some(file))
    }
}
