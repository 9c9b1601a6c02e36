//! What does the work of a task.

mod contract;

pub use contract::{Processor, ProcessorError, ProgressSink, Registry};
