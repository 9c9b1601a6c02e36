//! What is expected of the talk with a child, as data.

use damocles_core::pool::TaskKind;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// How a child shows that it is there, and how large payloads reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TalkSpec {
    /// How often a child that works is asked whether it is there.
    pub ping_every: Duration,
    /// How long it may take to answer that, to read on in what it is sent, or to be stopped by a signal before it is
    /// taken to hang.
    pub hung_after: Duration,
    /// Where payloads go that are longer than `file_above`; all go through the pipe without.
    pub payload_dir: Option<PathBuf>,
    /// The longest payload in bytes that goes through the pipe.
    pub file_above: usize,
    /// How long jobs may take, for the child to know: the pool's own limits.
    pub(super) time: BTreeMap<TaskKind, Duration>,
}

impl Default for TalkSpec {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(15),
            // Proofs take all CPUs, and a task of hundreds of megabytes takes seconds to read.
            hung_after: Duration::from_secs(120),
            payload_dir: None,
            file_above: 8 << 20,
            time: BTreeMap::new(),
        }
    }
}
