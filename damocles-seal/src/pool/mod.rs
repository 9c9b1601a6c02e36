//! Running tasks in child processes.
//!
//! [`LocalPool`] keeps one supervised child in each slot and speaks [`wire`] with it; [`InlinePool`] runs the same
//! registry in this process, for tests and small programs.

mod child;
mod inline;
mod local;
mod queue;
mod spec;
mod stderr;
pub mod wire;

pub use inline::InlinePool;
pub use local::{LocalPool, WaitingJob};
pub use spec::{CommandSpec, Limits, PlacementSpec, PoolSpec, Protocol, SlotSpec, SpecError};
