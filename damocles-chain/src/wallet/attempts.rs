//! Wrong passwords, counted across processes and restarts.

use super::{
    WalletError, WalletErrorKind,
    files::{self, beside},
};
use damocles_core::{Recovery, Timestamp};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const LIMIT: usize = 100;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(900);

/// The wrong passwords since the last right one. To be used under the wallet's lock.
///
/// It slows down whoever guesses through a wallet's programs. Whoever has a copy of the file guesses without them: that
/// is what the costs of the password are for.
#[derive(Debug)]
pub(super) struct Attempts {
    path: PathBuf,
    wrong: u32,
    last: Timestamp,
}

impl Attempts {
    pub(super) fn of(wallet: &Path) -> Result<Self, WalletError> {
        let path = beside(wallet, ".attempts");
        let text = match files::read("read wrong passwords", &path, LIMIT) {
            Ok((bytes, _)) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == WalletErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        // Whoever can spoil this file could as well remove it: rubbish counts as one wrong password.
        let fallback = (u32::from(!text.is_empty()), Timestamp(0));
        let mut words = text.split_ascii_whitespace();
        let (wrong, last) = match (words.next().map(str::parse), words.next().map(str::parse)) {
            (Some(Ok(wrong)), Some(Ok(last))) => (wrong, Timestamp(last)),
            _ => fallback,
        };
        Ok(Self { path, wrong, last })
    }

    /// Counts an attempt as wrong before it is tried: one that is broken off counts.
    pub(super) fn begin(&mut self, now: Timestamp) -> Result<(), WalletError> {
        // A clock that was set back must not shut the wallet for as long as it had been ahead.
        let last = self.last.min(now);
        let pause = self.pause();
        if let Some(left) = pause.checked_sub(now.since(last)).filter(|left| !left.is_zero()) {
            if last != self.last {
                self.last = last;
                self.save()?;
            }
            return Err(WalletError::new(WalletErrorKind::RateLimited, "open wallet")
                .with("wrong passwords", self.wrong)
                .with("wait", format_args!("{} s", left.as_millis().div_ceil(1000)))
                .recover_by(Recovery::Retry { after: Some(left) }));
        }
        self.wrong = self.wrong.saturating_add(1);
        self.last = now;
        self.save()
    }

    /// The password was right.
    pub(super) fn clear(&mut self) -> Result<(), WalletError> {
        self.wrong = 0;
        match fs_err::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(files::io_error("forget wrong passwords", &self.path, e))
            }
            _ => Ok(()),
        }
    }

    /// How long after the last wrong password the next one may come.
    pub(super) fn pause(&self) -> Duration {
        match self.wrong {
            0 => Duration::ZERO,
            wrong => LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow((wrong - 1).min(20))),
        }
    }

    fn save(&self) -> Result<(), WalletError> {
        let text = format!("{} {}\n", self.wrong, self.last.0);
        files::replace("count wrong password", &self.path, text.as_bytes()).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_quarter_of_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let wallet = dir.path().join("w");
        let mut now = Timestamp(1_000_000);
        let mut pauses = Vec::new();
        for _ in 0..13 {
            // Each turn is another process.
            let mut attempts = Attempts::of(&wallet).unwrap();
            attempts.begin(now).unwrap();
            let pause = attempts.pause();
            pauses.push(pause.as_secs());
            let early = now.plus(pause - Duration::from_millis(1));
            let error = Attempts::of(&wallet).unwrap().begin(early).unwrap_err();
            assert_eq!(error.recovery(), Recovery::Retry { after: Some(Duration::from_millis(1)) });
            now = now.plus(pause);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        Attempts::of(&wallet).unwrap().clear().unwrap();
        Attempts::of(&wallet).unwrap().begin(now).unwrap();
    }

    #[test]
    fn a_clock_set_back_does_not_shut_the_wallet() {
        let dir = tempfile::tempdir().unwrap();
        let wallet = dir.path().join("w");
        Attempts::of(&wallet).unwrap().begin(Timestamp(1_000_000_000)).unwrap();
        let mut attempts = Attempts::of(&wallet).unwrap();
        assert_eq!(attempts.begin(Timestamp(5_000)).unwrap_err().kind(), WalletErrorKind::RateLimited);
        Attempts::of(&wallet).unwrap().begin(Timestamp(6_000)).unwrap();
    }

    #[test]
    fn rubbish_is_a_wrong_password() {
        let dir = tempfile::tempdir().unwrap();
        let wallet = dir.path().join("w");
        for rubbish in [&b"\xff\xfe"[..], b"many", b"-1 5", b"3"] {
            files::replace("x", &beside(&wallet, ".attempts"), rubbish).unwrap();
            assert_eq!(Attempts::of(&wallet).unwrap().wrong, 1);
        }
    }
}
