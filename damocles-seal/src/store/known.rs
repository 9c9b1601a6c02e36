//! What a worker remembers of the stores that it attached.
//!
//! A mount point without its disk looks like an empty directory, or like an old one of the disk below. Only who remembers
//! what was there can tell. It is remembered in the sealing stores (`meta/persist-stores.json`): they are the only state
//! that a worker has, survive every restart, and are on disks of their own; its sockets are in a directory that a reboot
//! empties.

use super::{
    error::{StoreError, StoreErrorKind, io_error},
    identity::FileSystem,
    persist::PersistStore,
};
use crate::processor::files::replace;
use damocles_core::Error;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

const VERSION: u32 = 1;

/// A store that was attached once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownStore {
    /// Its name.
    pub name: String,
    /// Its ID, if it had one.
    pub id: Option<String>,
    /// Where it was.
    pub location: PathBuf,
    /// On which file system.
    pub file_system: FileSystem,
}

impl KnownStore {
    /// What is to be remembered of a store.
    pub fn of(store: &PersistStore) -> Self {
        Self {
            name: store.name().to_owned(),
            id: store.id().map(ToOwned::to_owned),
            location: store.location().to_owned(),
            file_system: store.file_system().clone(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    version: u32,
    stores: Vec<KnownStore>,
}

#[derive(Debug, Default)]
struct Remembered {
    stores: Vec<KnownStore>,
    /// Whether a file could not be written: it lacks something.
    unwritten: bool,
}

/// The stores that a worker attached, in files that are synced. Cheap to clone; the default has no file.
#[derive(Clone, Debug, Default)]
pub struct KnownStores {
    files: Vec<PathBuf>,
    stores: Arc<Mutex<Remembered>>,
}

impl KnownStores {
    /// Reads these files; one that is not there yet is no error. Of a store that two of them know, the first counts.
    ///
    /// # Errors
    ///
    /// One cannot be read, or a newer version wrote it.
    pub fn open(files: impl IntoIterator<Item = PathBuf>) -> Result<Self, StoreError> {
        let op = "read which stores are known";
        let files: Vec<PathBuf> = files.into_iter().collect();
        let mut stores: Vec<KnownStore> = Vec::new();
        for path in &files {
            let text = match std::fs::read(path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(|e| io_error(op, path, e))?,
            };
            let error = |kind| Error::new(kind, op).with("path", path.display());
            let read: Memory = serde_json::from_slice(&text).map_err(|e| {
                error(StoreErrorKind::Identity)
                    .because(e)
                    .hint_with("remove the file if all persist stores are mounted; it is written anew")
            })?;
            if read.version > VERSION {
                return Err(error(StoreErrorKind::Newer).with("version", read.version));
            }
            let new = |known: &KnownStore| stores.iter().all(|s| s.name != known.name);
            let fresh: Vec<_> = read.stores.into_iter().filter(new).collect();
            stores.extend(fresh);
        }
        Ok(Self { files, stores: Arc::new(Mutex::new(Remembered { stores, unwritten: false })) })
    }

    /// All that are known.
    pub fn list(&self) -> Vec<KnownStore> {
        self.stores.lock().stores.clone()
    }

    /// The files, to name them in a remedy: each knows all stores.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Remembers a store, durably before this returns.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn remember(&self, store: &PersistStore) -> Result<(), StoreError> {
        let op = "remember a store";
        let new = KnownStore::of(store);
        // Held until all is written: two that are attached at a time must not overwrite each other's.
        let mut known = self.stores.lock();
        if known.stores.contains(&new) && !known.unwritten {
            return Ok(());
        }
        known.stores.retain(|other| other.name != new.name);
        known.stores.push(new);
        let memory = Memory { version: VERSION, stores: known.stores.clone() };
        let text =
            serde_json::to_vec_pretty(&memory).map_err(|e| Error::new(StoreErrorKind::Identity, op).because(e))?;
        // One that cannot be written keeps no other from knowing it.
        let write = |path: &PathBuf| replace(path, |file| file.write_all(&text)).map_err(|e| io_error(op, path, e));
        let written: Vec<_> = self.files.iter().map(write).collect();
        let written = written.into_iter().try_for_each(|written| written.map(drop));
        known.unwritten = written.is_err();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_written_later_and_keeps_no_other_from_knowing() {
        let dir = tempfile::tempdir().unwrap();
        let files = || ["a/a.json", "b.json"].map(|name| dir.path().join(name));
        let known = KnownStores::open(files()).unwrap();
        // What lies there is no directory.
        std::fs::write(dir.path().join("a"), "").unwrap();
        PersistStore::init(&dir.path().join("one"), Some("one")).unwrap();
        let store = PersistStore::open(&dir.path().join("one"), None, false).unwrap();
        let error = known.remember(&store).unwrap_err();
        assert!(error.to_string().contains("a.json"), "{error}");
        assert_eq!(KnownStores::open([files()[1].clone()]).unwrap().list(), known.list());
        std::fs::remove_file(dir.path().join("a")).unwrap();
        known.remember(&store).unwrap();
        assert_eq!(KnownStores::open([files()[0].clone()]).unwrap().list(), known.list());
    }

    #[test]
    fn what_one_run_attached_the_next_one_knows() {
        let dir = tempfile::tempdir().unwrap();
        let files = || ["a.json", "b.json"].map(|name| dir.path().join(name));
        let known = KnownStores::open(files()).unwrap();
        assert!(known.list().is_empty());
        for name in ["one", "two"] {
            PersistStore::init(&dir.path().join(name), Some(name)).unwrap();
            known.remember(&PersistStore::open(&dir.path().join(name), None, false).unwrap()).unwrap();
        }
        assert_eq!(known.list().len(), 2);
        assert_eq!(KnownStores::open(files()).unwrap().list(), known.list());
        // One of the sealing stores is gone.
        std::fs::remove_file(&files()[0]).unwrap();
        assert_eq!(KnownStores::open(files()).unwrap().list(), known.list());
        std::fs::write(&files()[1], r#"{"version":2,"stores":[]}"#).unwrap();
        assert_eq!(KnownStores::open(files()).unwrap_err().kind(), StoreErrorKind::Newer);
        std::fs::write(&files()[1], "{").unwrap();
        let error = KnownStores::open(files()).unwrap_err();
        assert!(error.hint().is_some() && error.to_string().contains("b.json"), "{error}");
    }
}
