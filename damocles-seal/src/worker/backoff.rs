//! How long to wait before a repeat, and when to stop repeating.

use super::ThreadConfig;
use damocles_core::{
    Recovery,
    pipeline::{SealError, SealErrorKind},
};
use std::time::Duration;

/// Counts failures by cause since the last progress.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(SealErrorKind, u32)>);

impl Failures {
    /// Counts one more failure of this kind and returns how many there are now.
    pub(super) fn add(&mut self, kind: SealErrorKind) -> u32 {
        if let Some((_, count)) = self.0.iter_mut().find(|(k, _)| *k == kind) {
            *count = count.saturating_add(1);
            return *count;
        }
        self.0.push((kind, 1));
        1
    }

    /// Progress was made: earlier failures say nothing about later ones.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn total(&self) -> u32 {
        self.0.iter().map(|(_, count)| *count).sum()
    }
}

/// The wait before repeat number `count`.
pub(super) fn wait_before(config: &ThreadConfig, count: u32, asked: Option<Duration>) -> Duration {
    let doublings = count.saturating_sub(1).min(16);
    let wait = config.first_wait.saturating_mul(1 << doublings).min(config.longest_wait);
    wait.max(asked.unwrap_or_default())
}

/// What is done about an error after `count` of its kind: a retry becomes a park at the limit.
pub(super) fn decide(config: &ThreadConfig, error: &SealError, count: u32) -> Recovery {
    // These pass by themselves, however long it takes.
    let patient = matches!(error.kind(), SealErrorKind::Service | SealErrorKind::DiskFull | SealErrorKind::Cancelled);
    match error.recovery() {
        Recovery::Retry { .. } if !patient && count > config.max_retries => Recovery::Park,
        recovery => recovery,
    }
}

/// Whether what an error says may be over later although nobody did anything about it. What is proven never is.
pub(super) fn may_pass(error: &SealError) -> bool {
    use SealErrorKind as K;
    matches!(error.kind(), K::Stage | K::Journal | K::DiskFull | K::Service | K::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::Error;

    #[test]
    fn waits_double_up_to_the_longest() {
        let config = ThreadConfig::default();
        let seconds = |count| wait_before(&config, count, None).as_secs();
        assert_eq!([1, 2, 3, 6, 7, u32::MAX].map(seconds), [1, 2, 4, 32, 60, 60]);
        assert_eq!(wait_before(&config, 1, Some(Duration::from_secs(90))).as_secs(), 90);
    }

    #[test]
    fn the_limit_counts_by_cause_and_ends_with_progress() {
        let config = ThreadConfig { max_retries: 2, ..ThreadConfig::default() };
        let mut failures = Failures::default();
        let mut fail = |kind| {
            let count = failures.add(kind);
            decide(&config, &Error::new(kind, "x"), count)
        };
        assert_eq!(fail(SealErrorKind::Stage), Recovery::RETRY);
        assert_eq!(fail(SealErrorKind::Service), Recovery::RETRY);
        assert_eq!(fail(SealErrorKind::Stage), Recovery::RETRY);
        assert_eq!(fail(SealErrorKind::Stage), Recovery::Park);
        assert_eq!((0..20).map(|_| fail(SealErrorKind::Service)).last(), Some(Recovery::RETRY));
        assert_eq!((0..20).map(|_| fail(SealErrorKind::DiskFull)).last(), Some(Recovery::RETRY));
        for proven in [
            SealErrorKind::UnknownSector,
            SealErrorKind::Damaged,
            SealErrorKind::CorruptJournal,
            SealErrorKind::Fenced,
            SealErrorKind::Refused,
        ] {
            assert_eq!(fail(proven), Recovery::Park, "{proven}: repeating it changes nothing");
            assert!(!may_pass(&Error::new(proven, "x")), "{proven}");
        }
        failures.clear();
        let count = failures.add(SealErrorKind::Stage);
        assert_eq!(decide(&config, &Error::new(SealErrorKind::Stage, "x"), count), Recovery::RETRY);
    }
}
