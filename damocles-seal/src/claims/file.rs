//! One lock file.

use super::{ClaimError, Holder};
use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt};
use std::{
    fs::TryLockError,
    io::{self, Read, Write},
    path::Path,
};

/// What a holder may say of itself.
const MOST: u64 = 64 << 10;

/// A lock that is held.
///
/// It has the file open twice. The first descriptor only reads and carries the lock: a try that fails closes just that,
/// which wakes nobody. The second writes; its end is what watchers wake for, and it comes after that of the first, with
/// the death of the process too, because the kernel closes the lower descriptor first.
#[derive(Debug)]
pub(super) struct Held {
    lock: Option<File>,
    words: Option<File>,
}

impl Held {
    /// Takes the lock; none if somebody has it.
    pub(super) fn lock(path: &Path) -> Result<Option<Self>, ClaimError> {
        let failed = |source| ClaimError::Io { path: path.to_owned(), source };
        let lock = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // Never removed, so that everybody locks the same file.
                let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o660).open(path);
                drop(made.map_err(failed)?);
                File::open(path).map_err(failed)?
            }
            opened => opened.map_err(failed)?,
        };
        match lock.file().try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        Ok(Some(Self { lock: Some(lock), words: None }))
    }

    /// Says who holds it.
    pub(super) fn say(&mut self, holder: &Holder) -> Result<(), ClaimError> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let path = lock.path().to_owned();
        let failed = |source| ClaimError::Io { path: path.clone(), source };
        let text = serde_json::to_vec(holder).map_err(|e| failed(e.into()))?;
        let mut words = OpenOptions::new().write(true).truncate(true).open(&path).map_err(failed)?;
        words.write_all(&text).map_err(failed)?;
        self.words = Some(words);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Without words nobody was kept waiting for long, but somebody may have tried and be waiting for a sign.
        let path = self.lock.as_ref().map(|lock| lock.path().to_owned());
        let words = self.words.take().or_else(|| OpenOptions::new().write(true).open(path?).ok());
        if let Some(words) = &words {
            let _ = words.set_len(0);
        }
        drop(self.lock.take());
        drop(words);
    }
}

/// What the holder of a file says of itself.
pub(super) fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(MOST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
