//! What lasts: every attempt at a duty and what became of it.

mod attempt;
mod records;
mod schema;

pub use attempt::{Attempt, AttemptEnd, AttemptEvent, Intent, ProofIntent};
pub use records::{ProofRecords, RecordError};
