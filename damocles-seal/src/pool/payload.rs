//! Payloads that go by file: they are too large for a pipe.

use fs_err as fs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    fs::{File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// The longest payload: several times what the largest task needs.
const MAX_FILE: u64 = 4 << 30;

/// What the name of every directory for payloads begins with.
const PREFIX: &str = "damocles-payloads-";

/// A file in the directory of the payloads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Its name, without any directory.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// SHA-256 of its contents, in hex.
    pub sha256: String,
}

/// A file that is not the one that was announced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    /// It lies elsewhere.
    #[error("`{0}` is not the name of a file in the directory of the payloads")]
    Name(String),
    /// It cannot be read or written.
    #[error("the file of a payload cannot be used")]
    Io(#[from] io::Error),
    /// It has changed.
    #[error("{path} is not what was announced: {what}")]
    Changed {
        /// The file.
        path: String,
        /// In which way.
        what: String,
    },
}

/// Writes a payload to a new file of this directory.
pub(crate) fn write(dir: &Path, about: impl fmt::Display, bytes: &[u8]) -> Result<FileRef, PayloadError> {
    let name = format!("{about}-{:016x}.json", rand::random::<u64>());
    let path = dir.join(&name);
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = opened.and_then(|mut file| file.write_all(bytes));
    written.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Ok(FileRef { name, len, sha256: hex::encode(Sha256::digest(bytes)) })
}

/// Reads what the other side wrote, checks it, and removes it.
pub(crate) fn take(dir: &Path, file: &FileRef) -> Result<Vec<u8>, PayloadError> {
    if Path::new(&file.name).file_name().is_none_or(|name| name != file.name.as_str()) {
        return Err(PayloadError::Name(file.name.chars().take(100).collect()));
    }
    let path = dir.join(&file.name);
    let changed = |what: String| PayloadError::Changed { path: path.display().to_string(), what };
    // Neither a link that leads elsewhere nor a pipe that never ends.
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
    let opened = opened.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    let found = opened.metadata()?;
    if !found.is_file() || found.nlink() > 1 {
        return Err(changed("it is no plain file".to_owned()));
    }
    if found.len() != file.len || file.len > MAX_FILE {
        return Err(changed(format!("it has {} bytes instead of {}", found.len(), file.len)));
    }
    let mut bytes = Vec::new();
    opened.take(file.len + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).ok() != Some(file.len) || hex::encode(Sha256::digest(&bytes)) != file.sha256 {
        return Err(changed("it has other contents".to_owned()));
    }
    // One that stays goes with its directory.
    let _ = fs::remove_file(&path);
    Ok(bytes)
}

/// The directory of one child's payloads, gone with this value.
#[derive(Debug)]
pub(super) struct PayloadDir {
    path: PathBuf,
    /// Held for as long as the directory is in use, so that others can tell it from one that was left behind.
    _held: fs::File,
}

impl PayloadDir {
    /// Makes one in `parent`, and removes those whose programs died.
    pub(super) fn in_dir(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        loop {
            let path = parent.join(format!("{PREFIX}{}-{:016x}", std::process::id(), rand::random::<u64>()));
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            let held = fs::File::create_new(path.join(".held"))?;
            // Somebody may have taken it for one that was left behind: another is made then. On a file system without
            // locks none is ever taken for that.
            let taken = matches!(held.file().try_lock(), Err(TryLockError::WouldBlock));
            if !taken && held.metadata()?.nlink() > 0 {
                return Ok(Self { path, _held: held });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PayloadDir {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next one.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(PREFIX)) {
        // Held until all is removed: whoever has just made it sees that it is not its own any more.
        let Some(_held) = left_behind(&entry) else { continue };
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// The lock of a directory of ours that nobody uses. Anybody may put something into a directory for all: what is not our
/// user's is not touched, and nothing is waited for.
fn left_behind(entry: &fs::DirEntry) -> Option<File> {
    let me = nix::unistd::geteuid().as_raw();
    let dir = entry.metadata().ok()?;
    if !dir.is_dir() || dir.uid() != me {
        return None;
    }
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let held = File::options().write(true).custom_flags(flags).open(entry.path().join(".held")).ok()?;
    let found = held.metadata().ok()?;
    (found.is_file() && found.uid() == me && held.try_lock().is_ok()).then_some(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_arrives_as_it_was_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let file = write(path, "task-7", b"[1,2,3]").unwrap();
        assert_eq!(take(path, &file).unwrap(), b"[1,2,3]");
        assert!(!path.join(&file.name).exists(), "it is removed when it was read");
        assert!(take(path, &file).unwrap_err().to_string().contains("cannot be used"), "missing");

        for (contents, what) in [(&b"[1,2"[..], "has 4 bytes instead of 7"), (b"[1,2,4]", "has other contents")] {
            let file = write(path, "task-8", b"[1,2,3]").unwrap();
            fs::write(path.join(&file.name), contents).unwrap();
            let error = take(path, &file).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let file = write(path, "task-9", b"1").unwrap();
        std::os::unix::fs::symlink(path.join(&file.name), path.join("link")).unwrap();
        let link = FileRef { name: "link".to_owned(), ..file.clone() };
        assert!(matches!(take(path, &link), Err(PayloadError::Io(_))));
        for name in ["../x", "/etc/passwd", "", ".", "..", "a/b", "a/"] {
            let elsewhere = FileRef { name: name.to_owned(), ..file.clone() };
            assert!(matches!(take(path, &elsewhere), Err(PayloadError::Name(_))), "{name}");
        }
        nix::unistd::mkfifo(&path.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let pipe = FileRef { name: "pipe".to_owned(), len: 0, ..file };
        assert!(matches!(take(path, &pipe), Err(PayloadError::Changed { .. })));
    }

    #[test]
    fn directories_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join(format!("{PREFIX}1-00"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(".held"), "").unwrap();
        fs::write(dead.join("task-1.json"), "1").unwrap();
        // What others may put there: a pipe that nobody reads, and a directory of somebody else.
        let others = ["2-00", "3-00"].map(|name| parent.path().join(format!("{PREFIX}{name}")));
        others.iter().for_each(|dir| fs::create_dir(dir).unwrap());
        nix::unistd::mkfifo(&others[0].join(".held"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(others[1].join(".held"), "").unwrap();
        let root = nix::unistd::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&others[1], Some(65534), None).unwrap();
        }
        let one = PayloadDir::in_dir(parent.path()).unwrap();
        let two = PayloadDir::in_dir(parent.path()).unwrap();
        assert!(!dead.exists() && one.path().exists() && two.path().exists());
        assert_eq!(fs::metadata(one.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(others.iter().map(|dir| dir.exists()).collect::<Vec<_>>(), [true, root]);
        drop((one, two));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1 + usize::from(root));
    }
}
