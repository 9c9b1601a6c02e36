//! Running tasks in child processes.
//!
//! [`LocalPool`] keeps one supervised child in each slot and speaks [`wire`] with it, or the lines of damocles 0.13;
//! [`InlinePool`] runs the same registry in this process, for tests and small programs.

mod child;
mod dialect;
mod end;
mod flat;
mod frames;
mod gate;
mod inline;
mod lease;
mod local;
pub(crate) mod payload;
mod pulse;
mod queue;
pub mod schedule;
mod spec;
mod stderr;
mod talk;
pub(crate) mod v1;
pub mod wire;

pub use gate::{Gate, Pass};
pub use inline::InlinePool;
pub use local::{Binding, Hooks, LocalPool};
pub use schedule::{PoolStats, WaitingJob};
pub use spec::{Backlog, Breaker, CommandSpec, Limits, PlacementSpec, PoolSpec, Protocol, SlotSpec, SpecError};
pub use talk::TalkSpec;
pub use v1::has_v1;
