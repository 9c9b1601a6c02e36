//! What happened to the sectors of one sealing store, durably and for ever.
//!
//! Every entry is one synced transaction and carries a checksum of itself. Where a sector stands follows from its
//! entries: nothing is ever changed or deleted, a rewind is an entry too.

mod contract;
mod entry;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod observer;
mod record;
mod schema;
mod sqlite;
mod untold;

pub use contract::{Journal, JournalSector, MOST_UNTOLD, Phase, Untold};
pub use entry::{Entry, EntryFault, EntryKind, NewEntry};
#[cfg(any(test, feature = "testing"))]
pub use memory::InMemoryJournal;
pub use observer::JournalObserver;
pub use record::{Fact, SectorRecord};
pub use sqlite::SqliteJournal;
