//! The loop that carries sectors through their plan.
//!
//! One [`SealingThread`] serves one sealing store: it takes up the sector that the store holds, or has a new one leased,
//! steps it to its end, and starts over. What to do about an error is decided by its recovery and nothing else.

mod backoff;
mod config;
mod control;
mod ending;
mod exit;
mod keeper;
mod rewind;
mod run;
mod status;
mod taking;
mod thread;
mod waiting;

pub use config::ThreadConfig;
pub use control::{Drain, Pause, ThreadControl};
pub use status::{ThreadError, ThreadState, ThreadStatus};
pub use thread::{Backlog, SealingThread, ThreadParts};
