//! Deadline arithmetic.

use damocles_core::{DeadlineIndex, Epoch, chain::DeadlineInfo};

/// The deadlines of one miner through all time. They repeat every proving period, so any one of them tells all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The first epoch of any proving period.
    start: Epoch,
    count: u64,
    period: i64,
    window: i64,
    lookback: i64,
    cutoff: i64,
}

impl Deadlines {
    /// The deadlines that `info` is one of; none if its numbers cannot be those of a chain.
    pub fn of(info: &DeadlineInfo) -> Option<Self> {
        let count = i64::try_from(info.deadlines).ok().filter(|n| *n > 0)?;
        let fits = info.challenge_window > 0
            && info.challenge_window.checked_mul(count) == Some(info.proving_period)
            && (0..=info.proving_period).contains(&info.challenge_lookback)
            && (0..=info.proving_period).contains(&info.fault_declaration_cutoff);
        fits.then_some(Self {
            start: info.period_start,
            count: info.deadlines,
            period: info.proving_period,
            window: info.challenge_window,
            lookback: info.challenge_lookback,
            cutoff: info.fault_declaration_cutoff,
        })
    }

    /// The first epoch of the proving period that `epoch` lies in.
    pub fn period_start(&self, epoch: Epoch) -> Epoch {
        epoch - (epoch - self.start).rem_euclid(self.period)
    }

    /// The deadline that is open at `epoch`.
    pub fn current(&self, epoch: Epoch) -> DeadlineInfo {
        let start = self.period_start(epoch);
        let index = (epoch - start).div_euclid(self.window);
        self.info(start, index, epoch)
    }

    /// The occurrence of a deadline that is open at `epoch` or opens next; none if there is no such deadline.
    pub fn next(&self, index: DeadlineIndex, epoch: Epoch) -> Option<DeadlineInfo> {
        let number = i64::try_from(index.0).ok().filter(|_| index.0 < self.count)?;
        let this_period = self.info(self.period_start(epoch), number, epoch);
        if epoch < this_period.close {
            return Some(this_period);
        }
        Some(self.info(this_period.period_start + self.period, number, epoch))
    }

    /// Whether sectors may be assigned to or moved out of a deadline at `epoch`: not while it is open, nor in the window
    /// before.
    pub fn is_mutable(&self, index: DeadlineIndex, epoch: Epoch) -> bool {
        self.next(index, epoch).is_some_and(|next| epoch < next.open - self.window)
    }

    /// The index `by` deadlines after `index`.
    pub fn after(&self, index: DeadlineIndex, by: u64) -> DeadlineIndex {
        DeadlineIndex((index.0 % self.count).saturating_add(by % self.count) % self.count)
    }

    /// How many deadlines a period has.
    pub fn count(&self) -> u64 {
        self.count
    }

    fn info(&self, period_start: Epoch, index: i64, current: Epoch) -> DeadlineInfo {
        let open = period_start + index.saturating_mul(self.window);
        DeadlineInfo {
            current,
            period_start,
            index: DeadlineIndex(index.unsigned_abs()),
            open,
            close: open + self.window,
            challenge: open - self.lookback,
            fault_cutoff: open - self.cutoff,
            deadlines: self.count,
            proving_period: self.period,
            challenge_window: self.window,
            challenge_lookback: self.lookback,
            fault_declaration_cutoff: self.cutoff,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a chain with the protocol's numbers says at `current`, for a period that starts at `start`.
    pub(crate) fn info(start: i64, index: u64, current: i64) -> DeadlineInfo {
        let open = start + 60 * i64::try_from(index).unwrap();
        DeadlineInfo {
            current: Epoch(current),
            period_start: Epoch(start),
            index: DeadlineIndex(index),
            open: Epoch(open),
            close: Epoch(open + 60),
            challenge: Epoch(open - 20),
            fault_cutoff: Epoch(open - 70),
            deadlines: 48,
            proving_period: 2880,
            challenge_window: 60,
            challenge_lookback: 20,
            fault_declaration_cutoff: 70,
        }
    }

    /// Every occurrence of every deadline around `epoch`, in time, written down one after the other.
    fn almanac(offset: i64, epoch: i64) -> Vec<DeadlineInfo> {
        let mut start = offset;
        while start > epoch - 2 * 2880 {
            start -= 2880;
        }
        while start < epoch - 3 * 2880 {
            start += 2880;
        }
        let mut all = Vec::new();
        for period in 0..6 {
            for index in 0..48 {
                all.push(info(start + period * 2880, index, epoch));
            }
        }
        all
    }

    proptest! {
        #[test]
        fn agrees_with_the_almanac(offset in -3000_i64..6000, epoch in -20_000_i64..20_000, index in 0_u64..48) {
            let seen = info(offset, 17, offset);
            let deadlines = Deadlines::of(&seen).unwrap();
            let all = almanac(offset, epoch);
            let open = all.iter().find(|d| d.open.0 <= epoch && epoch < d.close.0).unwrap();
            prop_assert_eq!(&deadlines.current(Epoch(epoch)), open);
            prop_assert_eq!(deadlines.period_start(Epoch(epoch)), open.period_start);

            let next = all.iter().find(|d| d.index.0 == index && d.close.0 > epoch).unwrap();
            prop_assert_eq!(&deadlines.next(DeadlineIndex(index), Epoch(epoch)).unwrap(), next);
            // builtin-actors: mutable until one challenge window before it opens.
            prop_assert_eq!(deadlines.is_mutable(DeadlineIndex(index), Epoch(epoch)), epoch < next.open.0 - 60);
        }

        #[test]
        fn any_deadline_tells_all(offset in -3000_i64..3000, epoch in -9000_i64..9000, by in 0_u64..200) {
            let first = Deadlines::of(&info(offset, 0, 0)).unwrap();
            let now = first.current(Epoch(epoch));
            let again = Deadlines::of(&now).unwrap();
            prop_assert_eq!(again.current(Epoch(epoch + 1)), first.current(Epoch(epoch + 1)));
            // Going `by` windows ahead in time goes `by` indices ahead, round and round.
            let later = first.current(now.open + 60 * i64::try_from(by).unwrap());
            prop_assert_eq!(first.after(now.index, by), later.index);
        }

        #[test]
        fn rubbish_never_panics(
            start in any::<i64>(), count in any::<u64>(), period in any::<i64>(), window in any::<i64>(),
            lookback in any::<i64>(), cutoff in any::<i64>(), epoch in any::<i64>(), index in any::<u64>(),
        ) {
            let mut seen = info(0, 0, 0);
            seen.period_start = Epoch(start);
            for (count, period, window) in [(count, period, window), (48, 2880, 60)] {
                seen.deadlines = count;
                seen.proving_period = period;
                seen.challenge_window = window;
                for (lookback, cutoff) in [(lookback, cutoff), (20, 70)] {
                    seen.challenge_lookback = lookback;
                    seen.fault_declaration_cutoff = cutoff;
                    if let Some(deadlines) = Deadlines::of(&seen) {
                        prop_assert!(deadlines.current(Epoch(epoch)).index.0 < count);
                        let next = deadlines.next(DeadlineIndex(index), Epoch(epoch));
                        prop_assert_eq!(next.is_some(), index < count);
                    }
                }
            }
        }
    }

    #[test]
    fn the_next_occurrence_wraps_into_the_next_period() {
        let deadlines = Deadlines::of(&info(100, 3, 280)).unwrap();
        let now = Epoch(100 + 47 * 60 + 5);
        assert_eq!(deadlines.current(now).index, DeadlineIndex(47));
        let next = deadlines.next(DeadlineIndex(0), now).unwrap();
        assert_eq!((next.period_start, next.open), (Epoch(2980), Epoch(2980)));
        assert_eq!(deadlines.after(DeadlineIndex(47), 2), DeadlineIndex(1));
        assert_eq!(deadlines.next(DeadlineIndex(48), now), None);
    }
}
