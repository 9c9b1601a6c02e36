//! A call, as operators see it.

use damocles_chain::{OutboxEntry, venus::VenusState};
use serde::{Deserialize, Serialize};

/// A call of the manager, whoever sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::manager) struct Entry {
    /// The call and what was sent for it.
    #[serde(flatten)]
    pub(in crate::manager) message: OutboxEntry,
    /// Where it stands with the messager, if one sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::manager) messager: Option<AtMessager>,
}

/// Where a call stands with a messager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::manager) struct AtMessager {
    /// Its name there.
    pub(in crate::manager) uid: String,
    /// How far it is.
    pub(in crate::manager) state: VenusState,
}

impl Entry {
    /// A call that the manager itself sends.
    pub(in crate::manager) fn of_outbox(message: OutboxEntry) -> Self {
        Self { message, messager: None }
    }
}
