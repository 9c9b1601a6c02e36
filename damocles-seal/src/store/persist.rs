//! Where replicas are kept.

use super::{
    error::{StoreError, StoreErrorKind, io_error},
    file::{free_space, require_dir, write_new},
    identity::{self, FileSystem, Identity},
    known::{KnownStore, KnownStores},
    replica::replica_cache_files,
};
use crate::processor::files::{bytes_there, remove_left};
use damocles_core::{ByteSize, Error, SectorId, SectorSize};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    io,
    path::{Path, PathBuf},
};

const LAYOUT: [&str; 2] = ["sealed", "cache"];

/// A directory of replicas in the layout that Lotus, Curio and damocles share.
///
/// Which store it is says the `ID` in `sectorstore.json`, else the file `.damocles-store`, which is written when a store
/// that may be written to is attached for the first time. One that may only be read and has neither is known by its
/// file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistStore {
    name: String,
    location: PathBuf,
    id: Option<String>,
    file_system: FileSystem,
    read_only: bool,
}

/// A directory that is to be attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Where it is, or will be when its disk is mounted.
    pub location: PathBuf,
    /// Its name; without one, that in its identity file.
    pub name: Option<String>,
    /// Whether nothing may be written to it.
    pub read_only: bool,
    /// Whether it was found by a pattern and not named: a directory without `sectorstore.json` is no store then.
    pub scanned: bool,
}

impl Attach {
    /// What a reader finds it by.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("`{name}` ({})", self.location.display()),
            None => format!("`{}`", self.location.display()),
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
    /// Makes a store at `location` and gives its ID; directories are made.
    ///
    /// # Errors
    ///
    /// A store is there already, or the file system fails.
    pub fn init(location: &Path, name: Option<&str>) -> Result<String, StoreError> {
        let op = "make persist store";
        let identity = location.join(identity::SHARED);
        if identity.exists() {
            return Err(Error::new(StoreErrorKind::Exists, op).with("path", location.display()));
        }
        for dir in LAYOUT.map(|d| location.join(d)) {
            std::fs::create_dir_all(&dir).map_err(|e| io_error(op, &dir, e))?;
        }
        let bytes: [u8; 16] = rand::random();
        let id = hex::encode(bytes);
        let contents = json!({
            "ID": id,
            "Name": name.unwrap_or_default(),
            "Strict": false,
            "ReadOnly": false,
            "Weight": 10,
            "CanSeal": false,
            "CanStore": true,
        });
        write_new(op, &identity, format!("{contents:#}\n").as_bytes())?;
        Ok(id)
    }

    /// Opens the store at `location`. Its name is the one given, else that in its identity file, else its ID there,
    /// else its path.
    ///
    /// # Errors
    ///
    /// The directory is missing, or empty without an identity file: then it is most likely the mount point of a disk
    /// that is not there.
    pub fn open(location: &Path, name: Option<&str>, read_only: bool) -> Result<Self, StoreError> {
        let attach =
            Attach { location: location.to_owned(), name: name.map(ToOwned::to_owned), read_only, scanned: false };
        Self::attach_as(&attach, &KnownStores::default().list(), false)
    }

    /// Opens a store of which it may be known what it was: it must still be that one. Blocks if its disk does not answer.
    ///
    /// # Errors
    ///
    /// Those of [`PersistStore::open`]; it has no identity any more ([`StoreErrorKind::NotMounted`]) or another one
    /// ([`StoreErrorKind::Replaced`]).
    pub fn attach(wanted: &Attach, known: &[KnownStore]) -> Result<Self, StoreError> {
        Self::attach_as(wanted, known, true)
    }

    /// `writes` is whether replicas are to be written: who only reads them and counts its space may read a store that is
    /// another user's.
    fn attach_as(wanted: &Attach, known: &[KnownStore], writes: bool) -> Result<Self, StoreError> {
        let (op, location) = ("open persist store", &wanted.location);
        let error = |kind| Error::new(kind, op).with("path", location.display());
        require_dir(op, location)?;
        let location = &std::path::absolute(location).map_err(|e| io_error(op, location, e))?;
        let found = Identity::read(op, location)?;
        let by_name = |name: &str| known.iter().find(|k| k.name == name);
        let mut before = wanted.name.as_deref().map_or_else(|| known.iter().find(|k| k.location == *location), by_name);
        if let Some(before) = before.filter(|before| before.id.is_some() && found.id.is_none()) {
            return Err(error(StoreErrorKind::NotMounted).with("store", &before.name));
        }
        let marked = found.shared || (!wanted.scanned && (found.id.is_some() || has_layout(location)));
        if !marked {
            return Err(error(StoreErrorKind::NotAStore)
                .hint_with("is the disk mounted? `damocles-worker store file-init -l DIR` makes a persist store"));
        }
        if found.name.is_some() {
            // Disks that are found by a pattern change places; the name in the file goes with the disk.
            before = wanted.name.as_deref().or(found.name.as_deref()).and_then(by_name);
        }
        let file_system = FileSystem::of(op, location)?;
        if let Some(before) = before {
            expect_known(op, wanted, before, &found, &file_system)?;
        }
        let mut read_only = wanted.read_only || found.read_only;
        let mut id = found.id;
        if !read_only && id.is_none() {
            match identity::write_own(op, location) {
                Ok(made) => id = Some(made),
                // Whoever may only read the store attaches it like one that is only to be read.
                Err(e) if e.kind() == StoreErrorKind::ReadOnly => read_only = writes,
                // Full disks hold replicas too: it is known by its file system until it can be marked.
                Err(e) => tracing::warn!(error = %e.chain(), "the store gets no identity now"),
            }
        }
        if !read_only {
            // Other programs make the directories at the first replica.
            make_layout(op, location)?;
        }
        let name = [wanted.name.as_deref(), found.name.as_deref(), id.as_deref()].into_iter().flatten().next();
        let name = name.map_or_else(|| location.display().to_string(), ToOwned::to_owned);
        Ok(Self { name, location: location.clone(), id, file_system, read_only })
    }

    /// Its name, known to workers and manager.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn location(&self) -> &Path {
        &self.location
    }

    /// Where its file system comes from.
    pub fn file_system(&self) -> &FileSystem {
        &self.file_system
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
                .with("identity file", if self.id.is_some() { identity::SHARED } else { "none" })
                .hint_with("is the disk mounted? mount it at the path, then resume")
        };
        let found = Identity::read(op, &self.location)?;
        match (&self.id, found.id) {
            (Some(ours), Some(theirs)) if *ours == theirs => Ok(()),
            (Some(_), Some(theirs)) => Err(error(StoreErrorKind::Replaced).with("found", theirs)),
            (Some(_), None) => Err(gone()),
            (None, theirs) => {
                if !found.shared && theirs.is_none() && !has_layout(&self.location) {
                    return Err(gone());
                }
                let file_system = FileSystem::of(op, &self.location)?;
                if file_system.is_same(&self.file_system) {
                    return Ok(());
                }
                Err(error(StoreErrorKind::Replaced).with("found", file_system.source))
            }
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

    /// The bytes on the disk of what is there of copies of a replica, done or not.
    pub(super) fn bytes_of(&self, sector: SectorId, size: SectorSize) -> u64 {
        let cache = self.cache(sector);
        let beside = replica_cache_files(size).into_iter().map(|name| cache.join(name));
        std::iter::once(self.sealed(sector)).chain(beside).map(|path| bytes_there(&path)).fold(0, u64::saturating_add)
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

/// Makes sure that what lies there is the store that was known, before anything is written to it.
fn expect_known(
    op: &'static str,
    wanted: &Attach,
    before: &KnownStore,
    found: &Identity,
    file_system: &FileSystem,
) -> Result<(), StoreError> {
    let same = match (&before.id, &found.id) {
        (Some(before), Some(id)) => before == id,
        // It was known by its file system only.
        (None, _) => before.file_system.is_same(file_system),
        (Some(_), None) => true,
    };
    if same {
        return Ok(());
    }
    let path = wanted.location.display().to_string();
    let name = [wanted.name.as_deref(), found.name.as_deref(), found.id.as_deref()].into_iter().flatten().next();
    Err(Error::new(StoreErrorKind::Replaced, op)
        .with("path", &path)
        .with("store", name.unwrap_or(&path))
        .with("known as", before.id.as_deref().unwrap_or("a file system"))
        .with("found", found.id.as_deref().unwrap_or(&file_system.source)))
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
        let write = |text: &str| std::fs::write(dir.path().join(identity::SHARED), text).unwrap();
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

    fn attach(location: &Path, read_only: bool) -> Attach {
        Attach { location: location.to_owned(), name: Some("old".to_owned()), read_only, scanned: false }
    }

    #[test]
    fn a_store_without_an_identity_gets_one_and_is_not_known_without_it_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sealed")).unwrap();
        let open = |known: &[KnownStore]| PersistStore::attach(&attach(dir.path(), false), known);
        let store = open(&[]).unwrap();
        let own = dir.path().join(".damocles-store");
        let text: serde_json::Value = serde_json::from_slice(&std::fs::read(&own).unwrap()).unwrap();
        assert_eq!(text["id"].as_str(), store.id());
        assert_eq!(store.id().unwrap().len(), 36, "a uuid");
        assert_eq!(open(&[]).unwrap(), store);
        let known = [KnownStore::of(&store)];
        assert_eq!(open(&known).unwrap(), store);
        std::fs::remove_file(&own).unwrap();
        assert_eq!(store.free_space().unwrap_err().kind(), StoreErrorKind::Missing);
        let gone = open(&known).unwrap_err();
        assert_eq!(gone.kind(), StoreErrorKind::NotMounted);
        assert!(gone.to_string().contains("not mounted") && gone.to_string().contains("old"), "{gone}");
        assert!(!own.exists(), "a known store never gets another identity");
        std::fs::write(&own, r#"{"id":"another"}"#).unwrap();
        assert_eq!(open(&known).unwrap_err().kind(), StoreErrorKind::Replaced);
        // The shared file counts first.
        std::fs::write(dir.path().join(identity::SHARED), r#"{"ID":"shared"}"#).unwrap();
        assert_eq!(open(&[]).unwrap().id(), Some("shared"));
    }

    #[test]
    fn nothing_is_written_where_the_disk_of_a_store_without_an_identity_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("store");
        std::fs::create_dir_all(location.join("sealed")).unwrap();
        let wanted = Attach { location: location.clone(), name: None, read_only: true, scanned: false };
        let mut known = KnownStore::of(&PersistStore::attach(&wanted, &[]).unwrap());
        assert_eq!(known.id, None);
        let wanted = Attach { read_only: false, ..wanted };
        let there = known.file_system.clone();
        known.file_system = FileSystem { id: 1, source: "/dev/absent".to_owned() };
        let refused = PersistStore::attach(&wanted, std::slice::from_ref(&known)).unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Replaced);
        assert_eq!(std::fs::read_dir(&location).unwrap().count(), 1, "no identity is given to the disk below");
        known.file_system = there;
        assert!(PersistStore::attach(&wanted, &[known]).unwrap().id().is_some());
    }

    #[test]
    fn a_store_that_is_only_read_is_pinned_to_its_file_system() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sealed")).unwrap();
        let wanted = attach(dir.path(), true);
        let store = PersistStore::attach(&wanted, &[]).unwrap();
        assert_eq!((store.id(), std::fs::read_dir(dir.path()).unwrap().count()), (None, 1), "nothing is written");
        store.check_identity().unwrap();
        let mut known = KnownStore::of(&store);
        PersistStore::attach(&wanted, std::slice::from_ref(&known)).unwrap();
        known.file_system = FileSystem { id: 1, source: "nfs server:/a".to_owned() };
        assert_eq!(PersistStore::attach(&wanted, &[known]).unwrap_err().kind(), StoreErrorKind::Replaced);
        std::fs::remove_dir(dir.path().join("sealed")).unwrap();
        assert_eq!(store.check_identity().unwrap_err().kind(), StoreErrorKind::Missing);
    }

    #[test]
    fn the_directories_of_anothers_store_are_made() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(identity::SHARED), r#"{"ID":"abc"}"#).unwrap();
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
    }
}
