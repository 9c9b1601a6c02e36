//! Which pieces the sectors of a thread take.

use crate::service::PieceTerms;
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// Which pieces the sectors of a thread take. It decides until a sector has its pieces, or is settled without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DealPolicy {
    /// Whether pieces are asked for.
    pub enabled: bool,
    /// Whether a sector without pieces waits for some, instead of being sealed as committed capacity.
    pub waits: bool,
    /// At most so many pieces a sector; as many as fit if it is absent.
    pub most: Option<u64>,
    /// The padded bytes that the pieces of a sector must have together.
    pub least: u64,
    /// When a sector that waits for pieces asks again, if the manager does not speak up before.
    pub ask_again: Duration,
}

impl Default for DealPolicy {
    fn default() -> Self {
        Self { enabled: true, waits: false, most: None, least: 0, ask_again: Duration::from_secs(60) }
    }
}

impl DealPolicy {
    /// What the manager is asked for.
    pub fn terms(&self) -> PieceTerms {
        let terms = PieceTerms { most: self.most, least: self.least, settles: !self.waits };
        // It is asked all the same: a piece that was promised before has to be taken.
        if self.enabled { terms } else { PieceTerms { settles: terms.settles, ..PieceTerms::NONE } }
    }
}

/// The policy that a thread and the stages of its sectors share: the thread sets it before each step.
#[derive(Clone, Debug, Default)]
pub struct DealSettings(Arc<Mutex<DealPolicy>>);

impl DealSettings {
    /// The policy of this moment.
    pub fn get(&self) -> DealPolicy {
        *self.0.lock()
    }

    /// Counts from the next question on.
    pub fn set(&self, policy: DealPolicy) {
        *self.0.lock() = policy;
    }
}
