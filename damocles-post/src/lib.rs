#![doc = include_str!("../README.md")]

mod deadline;
mod dry_run;
mod fingerprint;
mod heads;
mod options;
mod plan;
mod record;
mod replica;
mod run;
mod view;
mod window;

pub use deadline::Deadlines;
pub use dry_run::DryRun;
pub use options::Options;
pub use plan::plan;
pub use record::{Attempt, AttemptEnd, AttemptEvent, Intent, ProofIntent, ProofRecords, RecordError};
pub use replica::ReplicaSource;
pub use run::{LoopOptions, PoStLoop};
pub use view::take_view;
pub use window::{Deps, WindowScheduler};
