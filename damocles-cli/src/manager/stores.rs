//! The persist stores as this machine sees them.

use crate::{config::ManagerConfig, exit::Failure};
use async_trait::async_trait;
use damocles_core::{BoxError, SealProofType, SectorId, post::ReplicaPaths};
use damocles_post::ReplicaSource;
use damocles_seal::{
    service::{ManagerService, ReplicaStores},
    store::{PersistStore, PersistStores, StoreErrorKind},
};
use std::{io, path::PathBuf, sync::Arc};

/// The persist stores of the configuration.
#[derive(Debug)]
pub(super) struct Stores(PersistStores);

impl Stores {
    /// Opens them. After a reboot with one dead disk, the replicas on the others are proven all the same.
    ///
    /// # Errors
    ///
    /// None of them is there: their disks may not be mounted.
    pub(super) fn open(config: &ManagerConfig) -> Result<Self, Failure> {
        let (mut stores, mut missing) = (Vec::new(), None);
        for section in &config.persist_stores {
            match PersistStore::open(&section.path, Some(&section.name), section.read_only) {
                Ok(store) => stores.push(store),
                Err(error) => {
                    let hint = "mount its disk and start the manager again: until then its replicas are not proven";
                    tracing::error!(store = section.name, error = %error.chain(), hint, "a persist store is left out");
                    missing.get_or_insert(error);
                }
            }
        }
        match missing {
            Some(error) if stores.is_empty() => Err(error.into()),
            _ => Ok(Self(PersistStores::new(stores)?)),
        }
    }

    fn get(&self, name: &str) -> io::Result<Arc<PersistStore>> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no persist store is named `{name}`"));
        self.0.get(name).ok_or_else(missing)
    }
}

impl ReplicaStores for Stores {
    fn names(&self) -> Vec<String> {
        self.0.iter().map(|s| s.name().to_owned()).collect()
    }

    fn has_all_files(&self, store: &str, sector: SectorId, proof_type: SealProofType) -> io::Result<bool> {
        match self.get(store)?.check(sector, proof_type.sector_size()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == StoreErrorKind::Damaged => {
                tracing::warn!(%sector, store, error = %error.chain(), "the replica is not whole");
                Ok(false)
            }
            // The store is away or its disk fails: that says nothing about the replica.
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn free_bytes(&self, store: &str) -> io::Result<u64> {
        let store = self.get(store)?;
        if store.is_read_only() {
            return Ok(0);
        }
        store.free_space().map(|bytes| bytes.0).map_err(io::Error::other)
    }

    fn path(&self, store: &str) -> Option<PathBuf> {
        self.0.get(store).map(|s| s.location().to_owned())
    }
}

/// Finds replicas by the manager's index.
#[derive(Debug)]
pub(super) struct Replicas {
    /// The index.
    pub(super) service: Arc<ManagerService>,
    /// The stores that it names.
    pub(super) stores: Arc<Stores>,
}

#[async_trait]
impl ReplicaSource for Replicas {
    async fn locate(&self, sector: SectorId) -> Result<Option<ReplicaPaths>, BoxError> {
        let Some(name) = self.service.locate(sector).await? else {
            return Ok(None);
        };
        let Ok(store) = self.stores.get(&name) else {
            // One store that is gone must not cost the other sectors of the deadline.
            tracing::warn!(%sector, store = name, "the replica is in a store that is not open");
            return Ok(None);
        };
        Ok(Some(ReplicaPaths { sealed: store.sealed(sector), cache: store.cache(sector) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Source, manager::StoreSection};

    #[test]
    fn one_missing_store_leaves_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        PersistStore::init(&there, Some("there")).unwrap();
        let section =
            |name: &str| StoreSection { name: name.to_owned(), path: dir.path().join(name), read_only: false };
        let text = "[chain]\nendpoint = \"http://h:1\"\n".to_owned();
        let mut config = ManagerConfig::parse(&Source::of("manager.toml", text)).unwrap();
        config.persist_stores = vec![section("gone"), section("there")];
        assert_eq!(Stores::open(&config).unwrap().names(), ["there"]);
        config.persist_stores = vec![section("gone")];
        let failure = Stores::open(&config).unwrap_err();
        assert!(format!("{:#}", failure.error).contains("gone"), "{:#}", failure.error);
    }
}
