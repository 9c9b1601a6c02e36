//! Counting appends from outside.

use std::fmt;

/// Sees the appends of a journal go by, so that a test can end the process at the n-th of them.
///
/// Numbers count from 1 over the life of the journal object, all sectors together.
pub trait JournalObserver: fmt::Debug + Send + Sync + 'static {
    /// The `n`-th entry is about to be written; nothing of it is on disk.
    fn appending(&self, n: u64) {
        let _ = n;
    }

    /// The `n`-th entry is on disk; nobody was told.
    fn appended(&self, n: u64) {
        let _ = n;
    }
}
