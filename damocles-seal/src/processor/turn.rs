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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_work_takes_turns_and_small_work_does_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("turn");
        let turn = ProofTurn::new(path.clone());
        let mine = turn.take(&TaskKind::new("c2")).unwrap();
        assert!(mine.is_some());
        assert!(turn.take(&TaskKind::new("pc1")).unwrap().is_none());
        let other = File::options().write(true).open(&path).unwrap();
        assert!(matches!(other.try_lock(), Err(std::fs::TryLockError::WouldBlock)));
        drop(mine);
        other.try_lock().unwrap();

        let error = ProofTurn::new(dir.path().to_owned()).take(&TaskKind::new("c2")).unwrap_err();
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    }
}
