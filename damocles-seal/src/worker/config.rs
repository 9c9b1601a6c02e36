//! How a sealing thread behaves.

use damocles_core::{ActorId, SealProofType};
use std::time::Duration;

/// How a sealing thread behaves. All of it may change while the thread runs, see
/// [`super::ThreadControl::reconfigure`].
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadConfig {
    /// The worker's name, shown to people.
    pub worker: String,
    /// Only sectors of these miners; empty means any.
    pub miners: Vec<ActorId>,
    /// Only sectors of these proof types; empty means any.
    pub proof_types: Vec<SealProofType>,
    /// How long the thread may stay silent before its lease is shown as such.
    pub ttl: Duration,
    /// Between two sectors.
    pub seal_interval: Duration,
    /// Before the manager is asked again when it has no work.
    pub idle_interval: Duration,
    /// Before a waiting sector is looked at again although the manager said nothing.
    pub poll_interval: Duration,
    /// How long one call to the manager may take.
    pub call_limit: Duration,
    /// How often a failed step is repeated without progress before the sector is parked. A manager that is away and
    /// a full disk are waited for without limit.
    pub max_retries: u32,
    /// The wait before the first repeat; it doubles from one to the next.
    pub first_wait: Duration,
    /// The longest wait between two repeats.
    pub longest_wait: Duration,
    /// After how long a parked sector goes on by itself, if its error may pass. What is proven to be inconsistent waits
    /// for an operator in any case.
    pub auto_resume: Option<Duration>,
}

impl Default for ThreadConfig {
    fn default() -> Self {
        Self {
            worker: String::new(),
            miners: Vec::new(),
            proof_types: Vec::new(),
            ttl: Duration::from_secs(300),
            seal_interval: Duration::from_secs(30),
            idle_interval: Duration::from_secs(60),
            poll_interval: Duration::from_secs(180),
            call_limit: Duration::from_secs(60),
            max_retries: 5,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(60),
            auto_resume: None,
        }
    }
}
