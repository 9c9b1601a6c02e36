//! Where sectors lie while they are sealed, and where replicas are kept.
//!
//! Both have the field's common layout, so that other software finds what it expects. A directory that is not there is
//! never made on the fly: it may be a disk that is not mounted.

mod admission;
mod attached;
mod error;
mod file;
mod footprint;
mod identity;
mod known;
mod ledger;
mod mounts;
mod persist;
mod probe;
mod replica;
mod room;
mod sealing;
mod static_tree;
mod verify;

pub use attached::{PersistStores, StoreSettings, StoreState, StoreStatus, Survey, Wanted};
pub use error::{StoreError, StoreErrorKind};
pub(crate) use footprint::WRITERS;
pub use footprint::{whole, written_by};
pub use identity::FileSystem;
pub use known::{KnownStore, KnownStores};
pub use ledger::{Booking, Claim, DiskLedger, Marks, Present, Reservation, Space, Stay, Usage};
pub use persist::{Attach, PersistStore};
pub(crate) use probe::probe;
pub use replica::replica_cache_files;
pub use sealing::SealingStore;
pub use static_tree::StaticTrees;
