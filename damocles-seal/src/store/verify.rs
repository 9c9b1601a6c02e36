//! Whether the copies of a replica are what was copied.

use super::{PersistStore, StoreError, StoreErrorKind, error::io_error, replica::replica_cache_files};
use crate::task::CopiedFile;
use damocles_core::{Error, SectorId, SectorSize};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read},
};

const BLOCK: usize = 1 << 20;

impl PersistStore {
    /// Reads every file of a replica again and compares it with what was recorded when it was copied. False if `go_on`
    /// said to stop before the end.
    ///
    /// # Errors
    ///
    /// A file is missing, differs or was never recorded, the store is not there any more, or the file system fails.
    pub fn verify(
        &self,
        sector: SectorId,
        size: SectorSize,
        copies: &[CopiedFile],
        go_on: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let op = "compare copy of the replica";
        self.check(sector, size)?;
        let cache = self.cache(sector);
        let beside = replica_cache_files(size).into_iter().map(|name| cache.join(name));
        for path in std::iter::once(self.sealed(sector)).chain(beside) {
            let damaged = || {
                Error::new(StoreErrorKind::Damaged, op)
                    .with("store", self.name())
                    .with("sector", sector)
                    .with("path", path.display())
            };
            // The store may have moved since, so that only the names count.
            let Some(copied) = copies.iter().find(|c| c.path.file_name() == path.file_name()) else {
                return Err(damaged().with("recorded sha256", "none"));
            };
            let file = File::open(&path).map_err(|e| io_error(op, &path, e))?;
            // A copy that cannot be read is as good as none: it is made again, from a source that is there.
            match hash(file, go_on).map_err(|e| damaged().because(e))? {
                None => return Ok(false),
                Some((len, sha256)) if len == copied.len && sha256 == copied.sha256 => {}
                Some((len, sha256)) => {
                    return Err(damaged()
                        .with("recorded bytes", copied.len)
                        .with("found bytes", len)
                        .with("recorded sha256", &copied.sha256)
                        .with("found sha256", sha256));
                }
            }
        }
        Ok(true)
    }
}

fn hash(mut file: File, go_on: &dyn Fn() -> bool) -> io::Result<Option<(u64, String)>> {
    // The disk is to be read and not what the kernel remembers of the copy. One that cannot forget does no harm.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let mut hasher = Sha256::new();
    let mut len = 0_u64;
    let mut block = vec![0; BLOCK];
    while go_on() {
        let n = match file.read(&mut block) {
            Ok(0) => return Ok(Some((len, hex::encode(hasher.finalize())))),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(block.get(..n).unwrap_or_default());
        len = len.saturating_add(n as u64);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{ActorId, SectorNumber};

    #[test]
    fn a_copy_that_cannot_be_read_is_damaged() {
        let (sector, size) = (SectorId::new(ActorId(1000), SectorNumber(7)), SectorSize::KiB2);
        let dir = tempfile::tempdir().unwrap();
        PersistStore::init(dir.path(), None).unwrap();
        let store = PersistStore::open(dir.path(), None, false).unwrap();
        std::fs::write(store.sealed(sector), [1; 2048]).unwrap();
        std::fs::create_dir(store.cache(sector)).unwrap();
        let mut files = vec![store.sealed(sector)];
        for name in replica_cache_files(size) {
            let path = store.cache(sector).join(name);
            std::fs::write(&path, [1]).unwrap();
            files.push(path);
        }
        let copy = |path: &std::path::PathBuf| {
            let bytes = std::fs::read(path).unwrap();
            CopiedFile { path: path.clone(), len: bytes.len() as u64, sha256: hex::encode(Sha256::digest(&bytes)) }
        };
        let copies: Vec<_> = files.iter().map(copy).collect();
        let verify = |go_on: bool| store.verify(sector, size, &copies, &|| go_on).map_err(|e| e.kind());
        assert_eq!(verify(true), Ok(true));
        assert_eq!(verify(false), Ok(false));
        // Opens, and fails to be read like a sector of a bad disk.
        std::fs::remove_file(&files[1]).unwrap();
        std::fs::create_dir_all(files[1].join("inside")).unwrap();
        assert_eq!(verify(true), Err(StoreErrorKind::Damaged));
    }
}
