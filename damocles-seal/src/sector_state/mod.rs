//! What a manager records of its sectors: tables, history, queries.
//!
//! Current values live in one row a sector; everything that ever happened to it is an event row that is never changed.

mod db;
mod event;
mod query;
mod schema;

pub use db::{DbError, SealDb};
pub use event::{RecordedEvent, SectorEvent};
pub use query::{Attempt, AttemptKind, LeaseView, SectorDetail, SectorKind, SectorSummary, list, show};

pub(crate) use db::{from_db, json_of, of_json, to_db};
pub(crate) use event::append;
pub(crate) use query::{piece_of, pieces, proof_type_of, sector_of};
