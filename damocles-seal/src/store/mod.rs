//! Where sectors lie while they are sealed, and where replicas are kept.
//!
//! Both have the field's common layout, so that other software finds what it expects. A directory that is not there is
//! never made on the fly: it may be a disk that is not mounted.

mod error;
mod file;
mod persist;
mod replica;
mod sealing;
mod verify;

pub use error::{StoreError, StoreErrorKind};
pub use persist::{PersistStore, PersistStores};
pub use replica::replica_cache_files;
pub use sealing::SealingStore;
