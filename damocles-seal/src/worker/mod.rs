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
mod run;
mod status;
mod taking;
mod thread;

pub use config::ThreadConfig;
pub use control::ThreadControl;
pub use status::{ThreadError, ThreadState, ThreadStatus};
pub use thread::{SealingThread, ThreadParts};
