//! When a new sector expires.

use damocles_core::Epoch;

pub(super) const EPOCHS_PER_DAY: i64 = 2880;

/// The actor's bounds: a sector lives 180 days at least after the last epoch at which it may be proven, which is 30
/// days and the challenge delay after its pre-commit; nothing expires later than 1,278 days from now.
const LEAST_DAYS: i64 = 180 + 30;
const MOST_DAYS: i64 = 1278;

/// The expiration of a sector that is pre-committed at `head` or within a day after it.
pub(super) fn expiration(head: Epoch, challenge_delay: i64, lifetime_days: u32) -> Epoch {
    let late = EPOCHS_PER_DAY;
    let least = LEAST_DAYS * EPOCHS_PER_DAY + challenge_delay.max(0) + late;
    let most = MOST_DAYS * EPOCHS_PER_DAY;
    head + (i64::from(lifetime_days) * EPOCHS_PER_DAY).clamp(least.min(most), most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_stay_within_the_actors_bounds() {
        let head = Epoch(1000);
        assert_eq!(expiration(head, 10, 540), head + 540 * EPOCHS_PER_DAY);
        assert_eq!(expiration(head, 10, 0), head + 211 * EPOCHS_PER_DAY + 10);
        assert_eq!(expiration(head, 10, u32::MAX), head + 1278 * EPOCHS_PER_DAY);
    }
}
