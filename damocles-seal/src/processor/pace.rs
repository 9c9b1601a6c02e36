//! How fast bytes may pass.

use damocles_core::{Clock, Timestamp};
use std::{fmt, num::NonZeroU64, sync::Arc, thread, time::Duration};

/// A bucket that fills with the rate and is never fuller than what a second yields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: NonZeroU64,
    /// Below zero: a debt that has to be waited for.
    bytes: i128,
    at: Timestamp,
}

impl Bucket {
    pub(super) fn new(rate: NonZeroU64, now: Timestamp) -> Self {
        Self { rate, bytes: 0, at: now }
    }

    /// Takes bytes, and says how long to wait for them. A clock that was set does no harm: back is no time, forward fills
    /// the bucket.
    pub(super) fn take(&mut self, now: Timestamp, bytes: u64) -> Duration {
        let rate = i128::from(self.rate.get());
        let millis = i128::try_from(now.since(self.at).as_millis()).unwrap_or(i128::MAX);
        let filled = rate.saturating_mul(millis) / 1000;
        self.at = now;
        self.bytes = self.bytes.saturating_add(filled).min(rate).saturating_sub(i128::from(bytes));
        let debt = self.bytes.min(0).saturating_neg();
        // Rounded up: a wait that is too short would be asked for again and again.
        let millis = debt.saturating_mul(1000).saturating_add(rate - 1) / rate;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

/// How time passes for whoever has to wait.
#[derive(Clone)]
pub(super) struct Pace {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) sleep: Arc<dyn Fn(Duration) + Send + Sync>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { clock: Arc::new(Monotonic(tokio::time::Instant::now())), sleep: Arc::new(thread::sleep) }
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pace").field(&self.clock).finish()
    }
}

/// Time since it was made: only differences count here.
#[derive(Debug)]
struct Monotonic(tokio::time::Instant);

impl Clock for Monotonic {
    fn now(&self) -> Timestamp {
        Timestamp::default().plus(self.0.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_yields_more_than_the_rate_and_a_clock_that_jumps_does_no_harm() {
        let rate = NonZeroU64::new(1_000).unwrap();
        let mut bucket = Bucket::new(rate, Timestamp(10_000));
        let mut take = |at, bytes| bucket.take(Timestamp(at), bytes).as_millis();
        assert_eq!(take(10_000, 500), 500);
        assert_eq!(take(10_500, 500), 500);
        assert_eq!(take(10_750, 1), 251, "who does not wait owes the more");
        assert_eq!(take(99_999, 1_000), 0, "a rest fills it for a second");
        assert_eq!(take(99_999, 1_000), 1_000);
        assert_eq!(take(0, 0), 1_000, "back is no time");
        assert_eq!(take(i64::MAX, u64::MAX), u128::from(u64::MAX - 1_000));
    }
}
