//! One lock file.

use super::{ClaimError, Holder, dir::make_dir};
use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt};
use std::{
    fs::{Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// What a holder may say of itself.
const MOST: u64 = 64 << 10;

/// A lock that is held.
///
/// It has the file open twice. The first descriptor only reads and carries the lock: a try that fails closes just that,
/// which wakes nobody. The second writes; its end is what watchers wake for, and it comes after that of the first. When a
/// process dies, the kernel may close them in the other order: whoever waits looks again after a while.
#[derive(Debug)]
pub(super) struct Held {
    lock: Option<File>,
    words: Option<File>,
}

impl Held {
    /// Takes the lock; none if somebody has it.
    pub(super) fn lock(path: &Path) -> Result<Option<Self>, ClaimError> {
        let failed = |source| ClaimError::Io { path: path.to_owned(), source };
        let read = || OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let lock = match read() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(failed)?;
                read().map_err(failed)?
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

    /// Says who holds it. The lock holds whether that is read or not: a disk without room is no reason to stop a proof.
    pub(super) fn say(&mut self, holder: &Holder) {
        let Some(lock) = &self.lock else { return };
        let say = || {
            let text = serde_json::to_vec(holder)?;
            let mut words = writer().open(lock.path())?;
            words.set_len(0)?;
            words.write_all(&text)?;
            Ok::<_, io::Error>(words)
        };
        match say() {
            Ok(words) => self.words = Some(words),
            Err(error) => tracing::warn!(path = %lock.path().display(), %error, "who holds a claim cannot be said"),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Without words nobody was kept waiting for long, but somebody may have tried and be waiting for a sign.
        let path = self.lock.as_ref().map(|lock| lock.path().to_owned());
        let words = self.words.take().or_else(|| writer().open(path?).ok());
        if let Some(words) = &words {
            let _ = words.set_len(0);
        }
        drop(self.lock.take());
        drop(words);
    }
}

/// A link that somebody else put there would have another file emptied.
fn writer() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NOFOLLOW);
    options
}

/// Makes a lock file, which is never removed, so that everybody locks the same one. Its mode is for a directory that a
/// group shares.
fn make(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        // It lay in memory, and the session that made it has ended.
        make_dir(dir)?;
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o660).open(path);
    match made {
        Ok(made) => {
            let _ = made.file().set_permissions(Permissions::from_mode(0o660));
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

/// What the holder of a file says of itself.
pub(super) fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = Vec::new();
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path).ok()?;
    file.take(MOST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}
