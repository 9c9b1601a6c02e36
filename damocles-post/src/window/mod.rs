//! The scheduler that proves.

mod carry;
mod hunt;
mod names;
mod prove;
mod read;
mod recover;
mod scheduler;
mod work;

pub use scheduler::{Deps, WindowScheduler};
