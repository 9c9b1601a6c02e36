//! Running tasks in child processes.
//!
//! [`LocalPool`] keeps one supervised child in each slot and speaks [`wire`] with it; [`InlinePool`] runs the same
//! registry in this process, for tests and small programs.

mod child;
mod gate;
mod inline;
mod lease;
mod local;
pub mod schedule;
mod spec;
mod stderr;
pub mod wire;

pub use gate::{Gate, Pass};
pub use inline::InlinePool;
pub use local::{Hooks, LocalPool};
pub use schedule::{PoolStats, Room, WaitingJob};
pub use spec::{Backlog, Breaker, CommandSpec, Limits, PlacementSpec, PoolSpec, Protocol, SlotSpec, SpecError};
