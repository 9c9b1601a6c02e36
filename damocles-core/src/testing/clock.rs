//! A clock that stands until it is moved.

use crate::{Clock, Timestamp};
use parking_lot::Mutex;
use std::time::Duration;

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct FakeClock(Mutex<Timestamp>);

impl FakeClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves it forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        *now = now.plus(by);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}
