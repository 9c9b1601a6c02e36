//! Looking at a persist store.

use super::{Processor, ProcessorError, ProgressSink};
use crate::{
    store::probe,
    task::{Probe, Probed},
};

/// Looks at a store that may not answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProbeProcessor;

impl Processor<Probe> for ProbeProcessor {
    fn process(&self, task: Probe, _: &dyn ProgressSink) -> Result<Probed, ProcessorError> {
        Ok(probe(&task))
    }
}
