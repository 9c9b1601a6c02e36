//! Whether a child is still there.

use super::talk::TalkSpec;
use std::{fs, time::Duration};
use tokio::time::Instant;

/// When a child was heard, and what it owes.
#[derive(Debug)]
pub(super) struct Pulse {
    every: Duration,
    patience: Duration,
    next_look: Instant,
    last: u64,
    /// The ping that is not answered yet, and since when.
    unanswered: Option<(u64, Instant)>,
    /// Since when it has not read on in what it is sent.
    unread: Option<Instant>,
    /// Since when it is stopped by a signal.
    stopped: Option<Instant>,
}

impl Pulse {
    pub(super) fn new(talk: &TalkSpec, now: Instant) -> Self {
        Self {
            every: talk.ping_every,
            patience: talk.hung_after,
            next_look: now,
            last: 0,
            unanswered: None,
            unread: None,
            stopped: None,
        }
    }

    /// A job begins: it is looked at once. What it owed before is not held against it.
    pub(super) fn begin(&mut self, now: Instant) {
        self.next_look = now;
        (self.unread, self.stopped) = (None, None);
        self.unanswered = self.unanswered.map(|(n, _)| (n, now));
    }

    /// The number of the next ping, unless one is not answered yet.
    pub(super) fn ping(&mut self, now: Instant) -> Option<u64> {
        if self.unanswered.is_some() {
            return None;
        }
        self.last += 1;
        self.unanswered = Some((self.last, now));
        Some(self.last)
    }

    /// An answer to a ping; false if there was none of that number.
    pub(super) fn pong(&mut self, n: u64) -> bool {
        if self.unanswered.is_some_and(|(asked, _)| asked == n) {
            self.unanswered = None;
        }
        n <= self.last
    }

    /// Whether there is more to be sent, which it should read.
    pub(super) fn sent(&mut self, now: Instant, progress: bool, more: bool) {
        self.unread = match (more, progress, self.unread) {
            (false, ..) => None,
            (true, true, _) | (true, false, None) => Some(now),
            (true, false, since) => since,
        };
    }

    /// When to look again.
    pub(super) fn wakes_at(&self) -> Instant {
        let owes = [self.unanswered.map(|(_, since)| since), self.unread, self.stopped];
        let over = owes.into_iter().flatten().min().map(|since| since + self.patience);
        over.map_or(self.next_look, |over| over.min(self.next_look))
    }

    /// Looks whether it is there: whether to ping now, or in which way it hangs.
    pub(super) fn look(&mut self, now: Instant, pid: u32) -> Result<bool, String> {
        let over = |since: Option<Instant>| since.is_some_and(|since| now >= since + self.patience);
        let patience = self.patience;
        if over(self.stopped) {
            return Err(format!("it has been stopped by a signal for {patience:?}"));
        }
        if over(self.unanswered.map(|(_, since)| since)) {
            return Err(format!("it has not answered a ping for {patience:?}"));
        }
        if over(self.unread) {
            return Err(format!("it has not read on in its input for {patience:?}"));
        }
        if now < self.next_look {
            return Ok(false);
        }
        self.next_look = now + self.every;
        self.stopped = if is_stopped(pid) { self.stopped.or(Some(now)) } else { None };
        Ok(true)
    }
}

/// How often a child may tell that its job moved on. What comes faster is dropped.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    told: u32,
}

/// The most that is told in a second.
const MOST: u32 = 100;

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, told: 0 }
    }

    pub(super) fn allows(&mut self, now: Instant) -> bool {
        if now >= self.since + Duration::from_secs(1) {
            (self.since, self.told) = (now, 0);
        }
        self.told = self.told.saturating_add(1);
        self.told <= MOST
    }
}

/// Whether a process is stopped by a signal.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may hold anything, parentheses too.
    let state = stat.iter().rposition(|b| *b == b')').and_then(|at| stat.get(at + 2));
    matches!(state, Some(b'T' | b't'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: fn() -> u32 = std::process::id;

    fn pulse(now: Instant) -> Pulse {
        let mut talk = TalkSpec::default();
        (talk.ping_every, talk.hung_after) = (Duration::from_secs(1), Duration::from_secs(3));
        Pulse::new(&talk, now)
    }

    #[test]
    fn an_answer_in_time_is_a_life() {
        let mut now = Instant::now();
        let mut pulse = pulse(now);
        for _ in 0..10 {
            assert_eq!(pulse.look(now, ME()), Ok(true));
            let n = pulse.ping(now).unwrap();
            assert_eq!(pulse.ping(now), None, "one at a time");
            now = pulse.wakes_at();
            assert!(pulse.pong(n));
        }
        assert!(!pulse.pong(11), "nobody asked");
    }

    #[test]
    fn silence_and_a_full_pipe_are_death() {
        for owes in ["answered a ping", "read on"] {
            let begin = Instant::now();
            let (mut pulse, mut now) = (pulse(begin), begin);
            match owes {
                "read on" => pulse.sent(now, true, true),
                _ => assert!(pulse.ping(now).is_some()),
            }
            let error = loop {
                match pulse.look(now, ME()) {
                    Ok(_) => now = pulse.wakes_at(),
                    Err(error) => break error,
                }
            };
            assert!(error.contains(owes), "{error}");
            assert_eq!(now - begin, Duration::from_secs(3));
        }
    }

    #[test]
    fn a_flood_of_progress_is_thinned() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let told = |pace: &mut Pace, now| (0..1000).filter(|_| pace.allows(now)).count();
        assert_eq!(told(&mut pace, now), 100);
        assert_eq!(told(&mut pace, now + Duration::from_millis(999)), 0);
        assert_eq!(told(&mut pace, now + Duration::from_secs(1)), 100);
    }

    #[test]
    fn an_idle_hour_is_not_held_against_it() {
        let now = Instant::now();
        let mut pulse = pulse(now);
        assert!(pulse.ping(now).is_some());
        let later = now + Duration::from_secs(3600);
        pulse.begin(later);
        assert_eq!(pulse.look(later, ME()), Ok(true));
    }
}
