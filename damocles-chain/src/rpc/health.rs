//! How each endpoint is, for operators and for the choice among several.

use damocles_core::chain::TipsetRef;
use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::time::Instant;

/// Whether an endpoint is relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthState {
    /// It was not asked yet.
    Unchecked,
    /// It answers and agrees with the others.
    Ok,
    /// Its head is too far behind the best.
    Lagging,
    /// Its chain is another one than that of the others.
    Forked,
    /// It does not answer, or not what a node answers.
    Away,
    /// It serves another network.
    Refused,
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchecked => "unchecked",
            Self::Ok => "ok",
            Self::Lagging => "lagging",
            Self::Forked => "forked",
            Self::Away => "away",
            Self::Refused => "refused",
        })
    }
}

/// How one endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointHealth {
    /// The endpoint, without its token.
    pub endpoint: String,
    /// Whether it is relied on. Only such endpoints are asked, but for the comparison itself.
    pub state: HealthState,
    /// Whether it is the one that is asked first, and whose head is followed.
    pub preferred: bool,
    /// For how many seconds it has been so.
    pub for_secs: u64,
    /// Its head, when it was last asked.
    pub head: Option<TipsetRef>,
    /// Why it is as it is, where there is something to say.
    pub reason: Option<String>,
    /// The last error, whenever that was.
    pub last_error: Option<String>,
}

/// What is known of one endpoint.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) state: HealthState,
    pub(super) since: Instant,
    pub(super) head: Option<TipsetRef>,
    pub(super) reason: Option<String>,
    pub(super) last_error: Option<String>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { state: HealthState::Unchecked, since: Instant::now(), head: None, reason: None, last_error: None }
    }

    /// Sets the state; whether it is another one than before.
    pub(super) fn becomes(&mut self, state: HealthState, reason: Option<String>) -> bool {
        let changed = self.state != state;
        if changed {
            self.since = Instant::now();
        }
        self.state = state;
        self.reason = reason;
        changed
    }
}
