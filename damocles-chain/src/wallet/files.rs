//! Files that only their owner may read.

use super::{WalletError, WalletErrorKind};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// How long another process may hold the lock: a few passwords.
const PATIENCE: Duration = Duration::from_secs(20);
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// Tells one writing of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino(), length: meta.len(), modified: (meta.mtime(), meta.mtime_nsec()) }
    }
}

/// The file beside the wallet at `path` with another ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

pub(super) fn io_error(op: &'static str, path: &Path, source: io::Error) -> WalletError {
    let kind = if source.kind() == io::ErrorKind::NotFound { WalletErrorKind::NotFound } else { WalletErrorKind::Io };
    WalletError::new(kind, op).with("path", path.display()).because(source)
}

/// Reads a whole file that is for its owner only.
pub(super) fn read(op: &'static str, path: &Path, limit: usize) -> Result<(Vec<u8>, Stamp), WalletError> {
    let failed = |e| io_error(op, path, e);
    // Opening a pipe would wait for its other end.
    let file = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let corrupt = |what: &'static str| {
        WalletError::new(WalletErrorKind::Corrupt, op).with("path", path.display()).with("what", what)
    };
    if !meta.is_file() {
        return Err(corrupt("it is no file"));
    }
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(WalletError::new(WalletErrorKind::Exposed, op)
            .with("path", path.display())
            .with("mode", format_args!("{mode:o}"))
            .hint_with(format!(
                "run `chmod 600 {}` and, if others may have read it, move the funds to new keys",
                path.display()
            )));
    }
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if read > limit {
        return Err(corrupt("it is larger than any of its kind"));
    }
    Ok((bytes, Stamp::of(&meta)))
}

/// The stamp of a file; `None` if there is none.
pub(super) fn stamp(op: &'static str, path: &Path) -> Result<Option<Stamp>, WalletError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(Stamp::of(&meta))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(op, path, e)),
    }
}

/// Puts a file in the place of the one at `path`: after a crash there is the old one or the new one.
pub(super) fn replace(op: &'static str, path: &Path, bytes: &[u8]) -> Result<Stamp, WalletError> {
    let partial = beside(path, ".new");
    let write = || -> io::Result<Stamp> {
        // What an interrupted write left behind may have another mode.
        match fs_err::remove_file(&partial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let stamp = Stamp::of(&file.metadata()?);
        fs_err::rename(&partial, path)?;
        sync_directory(path)?;
        Ok(stamp)
    };
    write().map_err(|e| io_error(op, path, e))
}

/// Adds to the end of the first `length` bytes of a file, and waits until that lies on the disk.
pub(super) fn append(op: &'static str, path: &Path, length: u64, bytes: &[u8]) -> Result<Stamp, WalletError> {
    let write = || -> io::Result<Stamp> {
        let mut file = fs_err::OpenOptions::new().append(true).open(path)?;
        file.set_len(length)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(Stamp::of(&file.metadata()?))
    };
    write().map_err(|e| io_error(op, path, e))
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs_err::File::open(parent)?.sync_all()
}

/// Held while files of a wallet are changed, against other processes and other values of this one.
#[derive(Debug)]
pub(super) struct FileLock {
    _held: Flock<fs::File>,
}

impl FileLock {
    /// Waits for the lock, for a while.
    pub(super) fn take(op: &'static str, wallet: &Path) -> Result<Self, WalletError> {
        let path = beside(wallet, ".lock");
        let open = || fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open().map_err(|e| io_error(op, &path, e))?;
        let mut waited = Duration::ZERO;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(Self { _held: held }),
                // The kernel tells nobody that a lock is free within a time, so that it is asked again.
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) if waited < PATIENCE => file,
                Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => {
                    return Err(WalletError::new(WalletErrorKind::Busy, op).with("path", path.display()));
                }
                Err((_, e)) => return Err(io_error(op, &path, e.into())),
            };
            std::thread::sleep(LOCK_AGAIN);
            waited = waited.saturating_add(LOCK_AGAIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        assert_eq!(read("x", &path, 10).unwrap_err().kind(), WalletErrorKind::NotFound);
        let stamp_of = replace("x", &path, b"12345").unwrap();
        assert_eq!(read("x", &path, 5).unwrap(), (b"12345".to_vec(), stamp_of));
        assert_eq!(stamp("x", &path).unwrap(), Some(stamp_of));
        assert_eq!(read("x", &path, 4).unwrap_err().kind(), WalletErrorKind::Corrupt);
        assert_ne!(replace("x", &path, b"12345").unwrap(), stamp_of);
        for mode in [0o640, 0o604, 0o620, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read("x", &path, 10).unwrap_err();
            assert_eq!(error.kind(), WalletErrorKind::Exposed, "{mode:o}");
            assert!(error.hint().unwrap().contains("chmod 600"));
        }
        assert_eq!(read("x", dir.path(), 10).unwrap_err().kind(), WalletErrorKind::Corrupt);
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read("x", &pipe, 10).unwrap_err().kind(), WalletErrorKind::Corrupt, "and nobody waits");
    }

    #[test]
    fn appending_drops_what_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        replace("x", &path, b"first\nto").unwrap();
        append("x", &path, 6, b"second\n").unwrap();
        assert_eq!(read("x", &path, 100).unwrap().0, b"first\nsecond\n");
    }
}
