//! Files that are there whole or not at all.

use super::error::{StoreError, StoreErrorKind, io_error};
use damocles_core::{ByteSize, Error};
use std::{fs::File, io, io::Write, path::Path};

/// Refuses a path that is not a directory.
pub(super) fn require_dir(op: &'static str, path: &Path) -> Result<(), StoreError> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(Error::new(StoreErrorKind::NotAStore, op).with("path", path.display())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Error::new(StoreErrorKind::Missing, op).with("path", path.display()))
        }
        Err(e) => Err(io_error(op, path, e)),
    }
}

/// Writes a file that must not be there yet, synced and by rename.
pub(super) fn write_new(op: &'static str, path: &Path, contents: &[u8]) -> Result<(), StoreError> {
    // Of its own: a file that two write at a time would be that of the slower under the name of the faster.
    let temporary = path.with_extension(format!("{:016x}.tmp", rand::random::<u64>()));
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        // A link fails where a rename would replace the file of another process that was faster.
        std::fs::hard_link(&temporary, path).or_else(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Err(e),
            _ => std::fs::rename(&temporary, path),
        })?;
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    };
    write().map_err(|e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => Error::new(StoreErrorKind::Exists, op).with("path", path.display()),
        _ => io_error(op, path, e),
    })
}

/// The bytes that this process may still write to the file system of `path`.
pub(super) fn free_space(path: &Path) -> Result<ByteSize, StoreError> {
    let stat = nix::sys::statvfs::statvfs(path).map_err(|e| io_error("read free space", path, e.into()))?;
    Ok(ByteSize(stat.blocks_available().saturating_mul(stat.fragment_size())))
}

/// Removes a file or a directory with all in it; one that is not there is no error.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    // Links are removed, never followed.
    let removed = match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path, e)),
        _ => Ok(()),
    }
}
