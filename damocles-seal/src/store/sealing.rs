//! Where a sector lies while it is sealed.

use super::{
    error::{StoreError, StoreErrorKind, io_error},
    file::{free_space, remove, require_dir, write_new},
    ledger::DiskLedger,
    room::Place,
};
use crate::task::FileFact;
use damocles_core::{ByteSize, Error, SectorId, StoreId, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

const IDENTITY: &str = ".damocles-store.json";
const VERSION: u32 = 1;
const DATA: [&str; 6] = ["unsealed", "prepared", "sealed", "cache", "pieces", "work"];

/// A sealing store that this process has for itself.
///
/// `<location>/.damocles-store.json` says which one it is, `meta/` holds the journal, `data/` the files of sectors.
/// Its identity moves with the disk: leases belong to it and not to a process or a machine.
#[derive(Debug)]
pub struct SealingStore {
    location: PathBuf,
    id: StoreId,
    pub(super) ledger: DiskLedger,
    /// The place of its sector on the disk.
    pub(super) place: Mutex<Option<Place>>,
    // The kernel releases it with the process, however that ends.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    id: StoreId,
    version: u32,
    /// The worker that it was made for, if it was made for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
}

fn identity(op: &'static str, location: &Path) -> Result<(File, Identity), StoreError> {
    let error = |kind| Error::new(kind, op).with("path", location.display());
    require_dir(op, location)?;
    let path = location.join(IDENTITY);
    let file = File::open(&path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound if location.join(".holder").exists() => error(StoreErrorKind::NotAStore)
            .hint_with("it belongs to damocles-worker 0.13: let that finish its sector, then use an empty directory"),
        io::ErrorKind::NotFound => error(StoreErrorKind::NotAStore),
        _ => io_error(op, &path, e),
    })?;
    let text = std::fs::read(&path).map_err(|e| io_error(op, &path, e))?;
    let identity: Identity = serde_json::from_slice(&text)
        .map_err(|e| Error::new(StoreErrorKind::Identity, op).with("path", path.display()).because(e))?;
    if identity.version > VERSION {
        return Err(error(StoreErrorKind::Newer).with("version", identity.version));
    }
    Ok((file, identity))
}

impl SealingStore {
    /// Makes a store at `location` for any worker; directories are made.
    ///
    /// # Errors
    ///
    /// A store is there already, ours or an older program's, or the file system fails.
    pub fn init(location: &Path) -> Result<StoreId, StoreError> {
        Self::init_for(location, None)
    }

    /// Makes a store that a worker of another name than this refuses.
    ///
    /// # Errors
    ///
    /// Those of [`SealingStore::init`].
    pub fn init_for(location: &Path, worker: Option<&str>) -> Result<StoreId, StoreError> {
        let op = "make sealing store";
        let error = |kind| Error::new(kind, op).with("path", location.display());
        if location.join(IDENTITY).exists() {
            return Err(error(StoreErrorKind::Exists));
        }
        if location.join(".holder").exists() {
            return Err(error(StoreErrorKind::Exists).hint_with(
                "it belongs to damocles-worker 0.13: let that finish its sector, then use an empty directory",
            ));
        }
        for dir in std::iter::once(location.join("meta")).chain(DATA.map(|d| location.join("data").join(d))) {
            std::fs::create_dir_all(&dir).map_err(|e| io_error(op, &dir, e))?;
        }
        let id = StoreId::new(hex::encode(rand::random::<[u8; 16]>()));
        let identity = Identity { id: id.clone(), version: VERSION, worker: worker.map(ToOwned::to_owned) };
        let text = serde_json::to_vec_pretty(&identity).map_err(|e| error(StoreErrorKind::Identity).because(e))?;
        // The identity comes last: a directory that has one has everything.
        write_new(op, &location.join(IDENTITY), &text)?;
        Ok(id)
    }

    /// Opens the store at `location` and keeps every other process out.
    ///
    /// # Errors
    ///
    /// The directory is missing or no store, another process has it, or a newer version made it.
    pub fn open(location: &Path) -> Result<Self, StoreError> {
        let op = "open sealing store";
        let (lock, Identity { id, .. }) = identity(op, location)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(StoreErrorKind::InUse, op).with("path", location.display()));
            }
            Err(TryLockError::Error(e)) => return Err(io_error(op, &location.join(IDENTITY), e)),
        }
        for dir in std::iter::once(location.join("meta")).chain(DATA.map(|d| location.join("data").join(d))) {
            // Empty directories get lost when a store is copied.
            std::fs::create_dir_all(&dir).map_err(|e| io_error(op, &dir, e))?;
        }
        Ok(Self {
            location: location.to_owned(),
            id,
            ledger: DiskLedger::default(),
            place: Mutex::default(),
            _lock: lock,
        })
    }

    /// The same store with its space accounted in `ledger`: stores on one disk have to share one.
    #[must_use]
    pub fn accounted_in(self, ledger: &DiskLedger) -> Self {
        Self { ledger: ledger.clone(), ..self }
    }

    /// Who was promised which space.
    pub fn ledger(&self) -> &DiskLedger {
        &self.ledger
    }

    /// The identity of the store at `location`, whoever uses it now. Changes nothing.
    ///
    /// # Errors
    ///
    /// The directory is missing or no store, or a newer version made it.
    pub fn look(location: &Path) -> Result<StoreId, StoreError> {
        identity("look at sealing store", location).map(|(_, identity)| identity.id)
    }

    /// Makes sure that the store at `location` was not made for another worker than this. Changes nothing.
    ///
    /// # Errors
    ///
    /// It was ([`StoreErrorKind::Replaced`]), or those of [`SealingStore::look`].
    pub fn look_as(location: &Path, worker: &str) -> Result<StoreId, StoreError> {
        let op = "look at sealing store";
        let (_, identity) = identity(op, location)?;
        match identity.worker.filter(|of| of != worker) {
            None => Ok(identity.id),
            Some(of) => Err(Error::new(StoreErrorKind::Replaced, op)
                .with("path", location.display())
                .with("made for worker", of)
                .with("this worker", worker)
                .hint_with(format!(
                    "mount the disk of this worker there, or write its name as `worker.name`; if the store and the \
                     sector in it are to be this worker's, take `worker` out of `{}`",
                    location.join(IDENTITY).display()
                ))),
        }
    }

    /// Its identity.
    pub fn id(&self) -> &StoreId {
        &self.id
    }

    /// Where it is.
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// The file of its journal.
    pub fn journal_path(&self) -> PathBuf {
        self.location.join("meta").join("journal.db")
    }

    fn data(&self, dir: &str, sector: SectorId) -> PathBuf {
        self.location.join("data").join(dir).join(sector.to_string())
    }

    /// The data of a sector before it is sealed.
    pub fn staged(&self, sector: SectorId) -> PathBuf {
        self.data("unsealed", sector)
    }

    /// The directory for the tree over its data.
    pub fn prepared(&self, sector: SectorId) -> PathBuf {
        self.data("prepared", sector)
    }

    /// The replica.
    pub fn sealed(&self, sector: SectorId) -> PathBuf {
        self.data("sealed", sector)
    }

    /// The directory of layers and trees.
    pub fn cache(&self, sector: SectorId) -> PathBuf {
        self.data("cache", sector)
    }

    /// The directory for pieces that were fetched.
    pub fn pieces(&self, sector: SectorId) -> PathBuf {
        self.data("pieces", sector)
    }

    /// The directory for what passes between two stages and is needed by no other.
    pub fn work(&self, sector: SectorId) -> PathBuf {
        self.data("work", sector)
    }

    /// What is to be recorded of a file.
    ///
    /// # Errors
    ///
    /// It is missing, or not below this store.
    pub fn fact(&self, path: &Path) -> Result<FileFact, StoreError> {
        let op = "look at file";
        let relative = path.strip_prefix(&self.location).map_err(|e| {
            Error::new(StoreErrorKind::Damaged, op)
                .with("path", path.display())
                .with("store", self.location.display())
                .because(e)
        })?;
        let (len, modified) = stat(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::new(StoreErrorKind::Damaged, op).with("path", path.display()).because(e),
            _ => io_error(op, path, e),
        })?;
        Ok(FileFact { path: relative.to_owned(), len, modified })
    }

    /// Checks that a recorded file is still the one that was recorded.
    ///
    /// # Errors
    ///
    /// It is missing or changed, or the file system fails.
    pub fn check(&self, recorded: &FileFact) -> Result<(), StoreError> {
        // A journal is input: a path in it must not lead out of the store.
        let inside = recorded.path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let path = self.location.join(&recorded.path);
        if !inside {
            return Err(Error::new(StoreErrorKind::Damaged, "check file").with("path", recorded.path.display()));
        }
        let found = self.fact(&path)?;
        if found == *recorded {
            return Ok(());
        }
        Err(Error::new(StoreErrorKind::Damaged, "check file")
            .with("path", path.display())
            .with("recorded bytes", recorded.len)
            .with("found bytes", found.len)
            .with("recorded time", recorded.modified.0)
            .with("found time", found.modified.0))
    }

    /// Removes everything that the store holds of a sector but its journal.
    ///
    /// # Errors
    ///
    /// The file system fails.
    pub fn wipe(&self, sector: SectorId) -> Result<(), StoreError> {
        DATA.iter().try_for_each(|dir| remove(&self.data(dir, sector)))
    }

    /// Removes one file or directory of the store; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// The path is not below this store, or the file system fails.
    pub fn remove(&self, path: &Path) -> Result<(), StoreError> {
        if !path.starts_with(self.location.join("data")) {
            return Err(Error::new(StoreErrorKind::Damaged, "remove").with("path", path.display()));
        }
        remove(path)
    }

    /// The space that is left.
    ///
    /// # Errors
    ///
    /// The file system fails.
    pub fn free_space(&self) -> Result<ByteSize, StoreError> {
        free_space(&self.location)
    }
}

fn stat(path: &Path) -> io::Result<(u64, Timestamp)> {
    let meta = std::fs::metadata(path)?;
    let since = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((meta.len(), Timestamp::default().plus(since)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{ActorId, SectorNumber};

    const SECTOR: SectorId = SectorId::new(ActorId(1000), SectorNumber(7));

    #[test]
    fn one_process_has_a_store_and_its_identity_stays() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("store");
        assert_eq!(SealingStore::open(&location).unwrap_err().kind(), StoreErrorKind::Missing);
        assert!(!location.exists(), "a missing directory is never made on the fly");
        std::fs::create_dir(&location).unwrap();
        assert_eq!(SealingStore::open(&location).unwrap_err().kind(), StoreErrorKind::NotAStore);
        let id = SealingStore::init(&location).unwrap();
        assert_eq!(SealingStore::init(&location).unwrap_err().kind(), StoreErrorKind::Exists);
        let store = SealingStore::open(&location).unwrap();
        assert_eq!(*store.id(), id);
        let second = SealingStore::open(&location).unwrap_err();
        assert_eq!(second.kind(), StoreErrorKind::InUse);
        assert!(second.hint().is_some());
        drop(store);
        assert_eq!(*SealingStore::open(&location).unwrap().id(), id);
    }

    #[test]
    fn a_newer_or_broken_identity_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        SealingStore::init(dir.path()).unwrap();
        let identity = dir.path().join(IDENTITY);
        std::fs::write(&identity, r#"{"id":"x","version":99}"#).unwrap();
        assert_eq!(SealingStore::open(dir.path()).unwrap_err().kind(), StoreErrorKind::Newer);
        std::fs::write(&identity, "{").unwrap();
        assert_eq!(SealingStore::open(dir.path()).unwrap_err().kind(), StoreErrorKind::Identity);
    }

    #[test]
    fn a_store_that_was_made_for_another_worker_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let id = SealingStore::init_for(dir.path(), Some("w1")).unwrap();
        assert_eq!(SealingStore::look_as(dir.path(), "w1").unwrap(), id);
        let refused = SealingStore::look_as(dir.path(), "w2").unwrap_err();
        let (text, hint) = (refused.to_string(), refused.hint().unwrap().to_owned());
        assert!(text.contains("w1") && text.contains("w2") && hint.contains(IDENTITY), "{text} {hint}");
        let any = tempfile::tempdir().unwrap();
        SealingStore::init(any.path()).unwrap();
        assert!(SealingStore::look_as(any.path(), "w2").is_ok());
        assert!(!std::fs::read_to_string(any.path().join(IDENTITY)).unwrap().contains("worker"));
    }

    #[test]
    fn a_truncated_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        SealingStore::init(dir.path()).unwrap();
        let store = SealingStore::open(dir.path()).unwrap();
        let sealed = store.sealed(SECTOR);
        std::fs::write(&sealed, [1; 2048]).unwrap();
        let fact = store.fact(&sealed).unwrap();
        assert_eq!(fact.path, Path::new("data/sealed/s-t01000-7"));
        store.check(&fact).unwrap();
        std::fs::write(&sealed, [1; 2047]).unwrap();
        let err = store.check(&fact).unwrap_err();
        assert_eq!(err.kind(), StoreErrorKind::Damaged);
        assert!(err.to_string().contains("s-t01000-7"), "{err}");
        store.wipe(SECTOR).unwrap();
        assert_eq!(store.check(&fact).unwrap_err().kind(), StoreErrorKind::Damaged);
        let outside = FileFact { path: PathBuf::from("../outside"), ..fact };
        assert_eq!(store.check(&outside).unwrap_err().kind(), StoreErrorKind::Damaged);
        assert_eq!(store.remove(Path::new("/etc")).unwrap_err().kind(), StoreErrorKind::Damaged);
    }
}
