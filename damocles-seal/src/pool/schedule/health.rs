//! When a slot whose child failed may start another.

use crate::pool::Breaker;
use std::time::Duration;
use tokio::time::Instant;

/// What is done about failures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) rest: Duration,
    pub(super) breaker: Breaker,
    pub(super) auto_restart: bool,
}

/// How a slot's child has done of late.
#[derive(Debug)]
pub(super) struct Health {
    policy: Policy,
    failures: u32,
    last_error: Option<String>,
    bar: Option<Bar>,
}

/// What keeps a slot from work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bar {
    Rests { until: Instant },
    Open { until: Instant },
    Stopped,
}

impl Bar {
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Rests { until } | Self::Open { until } => Some(until),
            Self::Stopped => None,
        }
    }
}

impl Health {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, failures: 0, last_error: None, bar: None }
    }

    pub(super) fn failed(&mut self, now: Instant, error: String) {
        let doubled = 1 << self.failures.min(6);
        self.failures = self.failures.saturating_add(1);
        self.last_error = Some(error);
        self.bar = Some(if !self.policy.auto_restart {
            Bar::Stopped
        } else if self.failures >= self.policy.breaker.failures {
            Bar::Open { until: now + self.policy.breaker.rest }
        } else {
            Bar::Rests { until: now + self.policy.rest * doubled }
        });
    }

    /// Its child ended without a job to blame.
    pub(super) fn died_idle(&mut self) {
        self.last_error = Some("its process ended while it had no job".to_owned());
        if !self.policy.auto_restart {
            self.failures = self.failures.saturating_add(1);
            self.bar = Some(Bar::Stopped);
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.bar = None;
    }

    /// The operator says that it will do.
    pub(super) fn resume(&mut self) {
        self.succeeded();
    }

    /// What keeps it from work now.
    pub(super) fn bar(&self, now: Instant) -> Option<Bar> {
        self.bar.filter(|bar| bar.until().is_none_or(|until| until > now))
    }

    /// When time alone changes that.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.bar.and_then(Bar::until)
    }

    /// Whether it takes work sooner or later, and not only after a long rest.
    pub(super) fn in_service(&self, now: Instant) -> bool {
        !matches!(self.bar(now), Some(Bar::Open { .. } | Bar::Stopped))
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}
