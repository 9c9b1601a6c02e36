//! Where replicas are kept.

use super::{
    error::{StoreError, StoreErrorKind, io_error},
    file::{free_space, require_dir, write_new},
    replica::replica_cache_files,
};
use crate::processor::files::remove_left;
use damocles_core::{ByteSize, Error, SectorId, SectorSize};
use serde::Deserialize;
use serde_json::json;
use std::{
    io,
    path::{Path, PathBuf},
};

const IDENTITY: &str = "sectorstore.json";
const LAYOUT: [&str; 2] = ["sealed", "cache"];

/// A directory of replicas in the layout that Lotus, Curio and damocles share.
#[derive(Clone, Debug)]
pub struct PersistStore {
    name: String,
    location: PathBuf,
    id: Option<String>,
    identified: bool,
    read_only: bool,
}

/// What we read of `sectorstore.json`. Other programs write more into it, and not always all of this.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Identity {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    read_only: bool,
}

impl Identity {
    fn read(op: &'static str, location: &Path) -> Result<Option<Self>, StoreError> {
        let path = location.join(IDENTITY);
        match std::fs::read(&path) {
            // A list would pass for an identity of which every member is missing.
            Ok(text) => serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&text)
                .and_then(|members| serde_json::from_value(serde_json::Value::Object(members)))
                .map(Some)
                .map_err(|e| Error::new(StoreErrorKind::Identity, op).with("path", path.display()).because(e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error(op, &path, e)),
        }
    }
}

fn has_layout(location: &Path) -> bool {
    LAYOUT.iter().any(|dir| location.join(dir).is_dir())
}

fn make_layout(op: &'static str, location: &Path) -> Result<(), StoreError> {
    for dir in LAYOUT.map(|d| location.join(d)) {
        match std::fs::create_dir(&dir) {
            // Whoever may only read the store does not need them.
            Err(e)
                if !matches!(
                    e.kind(),
                    io::ErrorKind::AlreadyExists | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Err(io_error(op, &dir, e));
            }
            _ => {}
        }
    }
    Ok(())
}

impl PersistStore {
    /// Makes a store at `location`; directories are made.
    ///
    /// # Errors
    ///
    /// A store is there already, or the file system fails.
    pub fn init(location: &Path, name: Option<&str>) -> Result<(), StoreError> {
        let op = "make persist store";
        let identity = location.join(IDENTITY);
        if identity.exists() {
            return Err(Error::new(StoreErrorKind::Exists, op).with("path", location.display()));
        }
        for dir in LAYOUT.map(|d| location.join(d)) {
            std::fs::create_dir_all(&dir).map_err(|e| io_error(op, &dir, e))?;
        }
        let bytes: [u8; 16] = rand::random();
        let contents = json!({
            "ID": hex::encode(bytes),
            "Name": name.unwrap_or_default(),
            "Strict": false,
            "ReadOnly": false,
            "Weight": 10,
            "CanSeal": false,
            "CanStore": true,
        });
        write_new(op, &identity, format!("{contents:#}\n").as_bytes())
    }

    /// Opens the store at `location`. Its name is the one given, else that in its identity file, else its ID there,
    /// else its path.
    ///
    /// # Errors
    ///
    /// The directory is missing, or empty without an identity file: then it is most likely the mount point of a disk
    /// that is not there.
    pub fn open(location: &Path, name: Option<&str>, read_only: bool) -> Result<Self, StoreError> {
        let op = "open persist store";
        require_dir(op, location)?;
        let identity = Identity::read(op, location)?;
        if identity.is_none() && !has_layout(location) {
            return Err(Error::new(StoreErrorKind::NotAStore, op)
                .with("path", location.display())
                .hint_with("is the disk mounted? `damocles-worker store file-init -l DIR` makes a persist store"));
        }
        let identified = identity.is_some();
        let identity = identity.unwrap_or_default();
        let read_only = read_only || identity.read_only;
        if identified && !read_only {
            // Other programs make the directories at the first replica.
            make_layout(op, location)?;
        }
        let location = std::path::absolute(location).map_err(|e| io_error(op, location, e))?;
        let own_name = [identity.name.as_str(), identity.id.as_str()].into_iter().find(|n| !n.is_empty());
        let name = name.or(own_name).map_or_else(|| location.display().to_string(), ToOwned::to_owned);
        let id = Some(identity.id).filter(|id| !id.is_empty());
        Ok(Self { name, location, id, identified, read_only })
    }

    /// Its name, known to workers and manager.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// Its ID, if it has an identity file with one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether nothing may be written to it.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// The replica of a sector.
    pub fn sealed(&self, sector: SectorId) -> PathBuf {
        self.location.join("sealed").join(sector.to_string())
    }

    /// The directory of the files beside it.
    pub fn cache(&self, sector: SectorId) -> PathBuf {
        self.location.join("cache").join(sector.to_string())
    }

    /// Checks that the store is still where it was opened: without its disk, the path is an empty directory of the file
    /// system below.
    ///
    /// # Errors
    ///
    /// It is not there, another store is, or the file system fails.
    pub fn check_identity(&self) -> Result<(), StoreError> {
        let op = "find persist store";
        let error = |kind| Error::new(kind, op).with("store", &self.name).with("path", self.location.display());
        let gone = || {
            error(StoreErrorKind::Missing)
                .with("identity file", IDENTITY)
                .hint_with("is the disk mounted? mount it at the path, then resume")
        };
        match Identity::read(op, &self.location)? {
            Some(found) if self.identified && found.id != self.id.as_deref().unwrap_or_default() => {
                Err(error(StoreErrorKind::Replaced).with("found", found.id))
            }
            Some(_) => Ok(()),
            None if self.identified || !has_layout(&self.location) => Err(gone()),
            None => Ok(()),
        }
    }

    /// Checks that all files of a replica are there and that none is empty or of a wrong length.
    ///
    /// # Errors
    ///
    /// One is not, the store is not there any more, or the file system fails.
    pub fn check(&self, sector: SectorId, size: SectorSize) -> Result<(), StoreError> {
        let op = "check replica";
        self.check_identity()?;
        let cache = self.cache(sector);
        let beside = replica_cache_files(size).into_iter().map(|name| (cache.join(name), None));
        for (path, expected) in std::iter::once((self.sealed(sector), Some(size.bytes()))).chain(beside) {
            let damaged = || {
                Error::new(StoreErrorKind::Damaged, op)
                    .with("store", &self.name)
                    .with("sector", sector)
                    .with("path", path.display())
            };
            let len = match std::fs::metadata(&path) {
                Ok(meta) => meta.len(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged().because(e)),
                Err(e) => return Err(io_error(op, &path, e)),
            };
            if len == 0 || expected.is_some_and(|expected| expected != len) {
                return Err(damaged().with("bytes", len));
            }
        }
        Ok(())
    }

    /// Removes what ended processes left of copies of a replica. What cannot be removed does no harm but for its space.
    pub(crate) fn sweep(&self, sector: SectorId, size: SectorSize) {
        if self.check_identity().is_err() {
            return;
        }
        let cache = self.cache(sector);
        let beside = replica_cache_files(size).into_iter().map(|name| cache.join(name));
        for path in std::iter::once(self.sealed(sector)).chain(beside) {
            let _ = remove_left(&path);
        }
    }

    /// The space that is left.
    ///
    /// # Errors
    ///
    /// The store is not there any more, or the file system fails.
    pub fn free_space(&self) -> Result<ByteSize, StoreError> {
        self.check_identity()?;
        free_space(&self.location)
    }
}

/// The persist stores that are attached.
#[derive(Clone, Debug, Default)]
pub struct PersistStores(Vec<PersistStore>);

impl PersistStores {
    /// These stores.
    ///
    /// # Errors
    ///
    /// Two have the same name.
    pub fn new(stores: Vec<PersistStore>) -> Result<Self, StoreError> {
        for (i, store) in stores.iter().enumerate() {
            if let Some(other) = stores.iter().skip(i + 1).find(|s| s.name == store.name) {
                return Err(Error::new(StoreErrorKind::Exists, "attach persist stores")
                    .with("name", &store.name)
                    .with("one", store.location.display())
                    .with("other", other.location.display())
                    .hint_with("give each [[attached]] store a name of its own"));
            }
        }
        Ok(Self(stores))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &PersistStore> {
        self.0.iter()
    }

    /// The one of this name.
    pub fn get(&self, name: &str) -> Option<&PersistStore> {
        self.0.iter().find(|s| s.name == name)
    }

    /// The names of those that may be written to.
    pub fn writable(&self) -> Vec<String> {
        self.0.iter().filter(|s| !s.read_only).map(|s| s.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{ActorId, SectorNumber};

    const SECTOR: SectorId = SectorId::new(ActorId(1000), SectorNumber(7));

    #[test]
    fn an_unmounted_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        assert_eq!(PersistStore::open(&missing, None, false).unwrap_err().kind(), StoreErrorKind::Missing);
        assert!(!missing.exists());
        let empty = PersistStore::open(dir.path(), None, false).unwrap_err();
        assert_eq!(empty.kind(), StoreErrorKind::NotAStore);
        assert!(empty.hint().is_some());
    }

    #[test]
    fn identity_files_of_others_are_read_leniently() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join(IDENTITY), text).unwrap();
        write(r#"{"ID":"abc","Weight":10,"CanSeal":true,"Groups":null,"ReadOnly":true}"#);
        let store = PersistStore::open(dir.path(), None, false).unwrap();
        assert_eq!((store.name(), store.is_read_only()), ("abc", true));
        assert_eq!(PersistStore::open(dir.path(), Some("mine"), false).unwrap().name(), "mine");
        write("[]");
        assert_eq!(PersistStore::open(dir.path(), None, false).unwrap_err().kind(), StoreErrorKind::Identity);
    }

    #[test]
    fn a_store_that_was_unmounted_or_exchanged_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let (mount, away) = (dir.path().join("mount"), dir.path().join("away"));
        PersistStore::init(&mount, Some("long-term")).unwrap();
        let store = PersistStore::open(&mount, None, false).unwrap();
        assert!(store.free_space().is_ok());
        std::fs::rename(&mount, &away).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let checked = || [store.check(SECTOR, SectorSize::KiB2).unwrap_err(), store.free_space().unwrap_err()];
        for error in checked() {
            assert_eq!(error.kind(), StoreErrorKind::Missing);
            assert!(error.to_string().contains("mount") && error.hint().is_some(), "{error}");
        }
        assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0);
        PersistStore::init(&mount, Some("long-term")).unwrap();
        for error in checked() {
            assert_eq!(error.kind(), StoreErrorKind::Replaced, "the same name is not the same store");
            assert!(error.hint().is_some());
        }
        std::fs::remove_dir_all(&mount).unwrap();
        std::fs::rename(&away, &mount).unwrap();
        assert!(store.free_space().is_ok());
        assert_eq!(store.check(SECTOR, SectorSize::KiB2).unwrap_err().kind(), StoreErrorKind::Damaged);
    }

    #[test]
    fn a_store_without_an_identity_is_known_by_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sealed")).unwrap();
        let store = PersistStore::open(dir.path(), Some("old"), false).unwrap();
        assert!(store.free_space().is_ok());
        std::fs::remove_dir(dir.path().join("sealed")).unwrap();
        assert_eq!(store.free_space().unwrap_err().kind(), StoreErrorKind::Missing);
    }

    #[test]
    fn the_directories_of_anothers_store_are_made() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(IDENTITY), r#"{"ID":"abc"}"#).unwrap();
        PersistStore::open(dir.path(), None, true).unwrap();
        assert!(!has_layout(dir.path()), "nothing is made in a store that is only read");
        PersistStore::open(dir.path(), None, false).unwrap();
        assert!(LAYOUT.iter().all(|d| dir.path().join(d).is_dir()));
    }

    #[test]
    fn a_replica_is_whole_or_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        PersistStore::init(dir.path(), Some("long-term")).unwrap();
        assert_eq!(PersistStore::init(dir.path(), None).unwrap_err().kind(), StoreErrorKind::Exists);
        let store = PersistStore::open(dir.path(), None, false).unwrap();
        assert_eq!(store.name(), "long-term");
        let check = || store.check(SECTOR, SectorSize::KiB2).map_err(|e| e.kind());
        assert_eq!(check(), Err(StoreErrorKind::Damaged));
        std::fs::write(store.sealed(SECTOR), [1; 2048]).unwrap();
        std::fs::create_dir(store.cache(SECTOR)).unwrap();
        for name in replica_cache_files(SectorSize::KiB2) {
            assert_eq!(check(), Err(StoreErrorKind::Damaged), "{name} is not there yet");
            std::fs::write(store.cache(SECTOR).join(name), [1]).unwrap();
        }
        assert_eq!(check(), Ok(()));
        std::fs::write(store.sealed(SECTOR), [1; 2047]).unwrap();
        assert_eq!(check(), Err(StoreErrorKind::Damaged));
        assert!(PersistStores::new(vec![store.clone(), store]).is_err());
    }
}
