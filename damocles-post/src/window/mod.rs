//! The scheduler that proves.

mod carry;
mod names;
mod prove;
mod read;
mod recover;
mod scheduler;

pub use scheduler::{Deps, WindowScheduler};
