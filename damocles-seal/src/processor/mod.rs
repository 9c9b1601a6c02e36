//! What does the work of a task.

mod contract;
mod panic;
mod serve;
mod turn;

pub(crate) use panic::panic_text;

pub use contract::{Processor, ProcessorError, ProgressSink, Registry};
pub use serve::{ServeError, ServeOptions, Served, serve};
pub use turn::ProofTurn;
