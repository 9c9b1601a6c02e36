//! What keys have signed away, day by day.
//!
//! A line each time a key signs for more than before: `day address nonce attoFIL proof`. Each proof is a keyed hash of
//! the line and the proof before it, so that no line can be changed, added or taken out of the middle without the
//! wallet's key. A line that was not written to its end belongs to a signature that was never given out. Lines at the end
//! can be taken away by whoever may write to the file: it guards against callers, not against the machine.

use super::{
    WalletError, WalletErrorKind,
    contents::Secret,
    files::{self, Stamp, beside},
    policy::Cost,
};
use damocles_core::{Address, Recovery, Timestamp, TokenAmount};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// Some hundred thousand messages a day.
const LIMIT: usize = 64 << 20;
/// From this size on, past days are dropped.
const TIDY: u64 = 64 << 10;
const DAY_MS: i64 = 86_400_000;
const PROOF: usize = 16;
const FIRST_PROOF: [u8; PROOF] = *b"damocles-spent-1";
const OP: &str = "count what was signed away";

/// What keys have signed away on the newest day that was recorded. To be used under the wallet's lock.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    key: Secret,
    stamp: Stamp,
    /// The bytes that are whole lines.
    length: u64,
    proof: [u8; PROOF],
    day: i64,
    spent: HashMap<Address, Spent>,
}

/// What a key has signed away on one day.
#[derive(Debug, Default)]
struct Spent {
    total: TokenAmount,
    by_nonce: HashMap<u64, TokenAmount>,
}

impl Ledger {
    /// Begins a record if there is none. A record that is there is kept: a new limit does not forget the day.
    pub(super) fn ensure(wallet: &Path, key: &Secret) -> Result<(), WalletError> {
        let path = beside(wallet, ".spent");
        if files::stamp(OP, &path)?.is_some() {
            return Ok(());
        }
        let line = line_of(key, &FIRST_PROOF, "begin").0;
        files::replace(OP, &path, line.as_bytes()).map(|_| ())
    }

    /// Removes the record of a wallet that is no more.
    pub(super) fn forget(wallet: &Path) -> Result<(), WalletError> {
        let path = beside(wallet, ".spent");
        match fs_err::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(files::io_error(OP, &path, e)),
            _ => Ok(()),
        }
    }

    /// Reads the record.
    pub(super) fn load(wallet: &Path, key: &Secret) -> Result<Self, WalletError> {
        let path = beside(wallet, ".spent");
        let (bytes, stamp) = files::read(OP, &path, LIMIT).map_err(|e| match e.kind() {
            WalletErrorKind::NotFound => WalletError::new(WalletErrorKind::Corrupt, OP)
                .with("path", path.display())
                .with("what", "the record of keys with a daily limit is gone")
                .hint_with("put it back, or set the policy of the key again, which begins a new record"),
            _ => e,
        })?;
        let mut ledger =
            Self { path, key: key.clone(), stamp, length: 0, proof: FIRST_PROOF, day: i64::MIN, spent: HashMap::new() };
        let mut began = false;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            let Some(whole) = line.strip_suffix(b"\n") else { break };
            ledger.read_line(whole, began).ok_or_else(|| ledger.corrupt("a line was changed or taken out"))?;
            began = true;
            ledger.length = ledger.length.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        }
        if began { Ok(ledger) } else { Err(ledger.corrupt("it does not begin as a record does")) }
    }

    /// Whether nobody else has written since.
    pub(super) fn is_fresh(&self) -> Result<bool, WalletError> {
        Ok(files::stamp(OP, &self.path)? == Some(self.stamp))
    }

    /// What a key has signed away on the day of `now`.
    pub(super) fn spent(&self, address: &Address, now: Timestamp) -> TokenAmount {
        if self.day < day_of(now) {
            return TokenAmount::ZERO;
        }
        self.spent.get(address).map(|spent| spent.total).unwrap_or_default()
    }

    /// Counts a message, unless that would be more than `most`. When it returns, the count lies on the disk.
    pub(super) fn charge(
        &mut self,
        address: &Address,
        cost: Cost,
        most: TokenAmount,
        now: Timestamp,
    ) -> Result<(), WalletError> {
        // A clock that is set back does not begin a day again.
        let day = day_of(now).max(self.day);
        let (total, before) = match self.spent.get(address) {
            Some(spent) if self.day == day => (spent.total, spent.by_nonce.get(&cost.nonce).copied()),
            _ => (TokenAmount::ZERO, None),
        };
        // Of messages with one nonce only one lands.
        let more = cost.amount - before.unwrap_or_default();
        if more <= TokenAmount::ZERO && before.is_some() {
            return Ok(());
        }
        if total + more > most {
            return Err(WalletError::new(WalletErrorKind::OverLimit, "sign")
                .with("key", address)
                .with("signed away today", total)
                .with("message", cost.amount)
                .with("limit", most)
                .recover_by(Recovery::Retry { after: Some(until_next(day, now)) }));
        }
        if day > self.day && self.length > TIDY {
            self.begin_again()?;
        }
        let entry = format!("{day} {address} {} {}", cost.nonce, cost.amount.atto());
        let (line, proof) = line_of(&self.key, &self.proof, &entry);
        self.stamp = files::append(OP, &self.path, self.length, line.as_bytes())?;
        self.length = self.length.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        self.proof = proof;
        self.note(day, address.clone(), cost);
        Ok(())
    }

    /// Drops the past days.
    fn begin_again(&mut self) -> Result<(), WalletError> {
        let (line, proof) = line_of(&self.key, &FIRST_PROOF, "begin");
        self.stamp = files::replace(OP, &self.path, line.as_bytes())?;
        self.length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.proof = proof;
        Ok(())
    }

    fn note(&mut self, day: i64, address: Address, cost: Cost) {
        if day > self.day {
            self.day = day;
            self.spent.clear();
        }
        let spent = self.spent.entry(address).or_default();
        let of_nonce = spent.by_nonce.entry(cost.nonce).or_default();
        if cost.amount > *of_nonce {
            spent.total = spent.total + (cost.amount - *of_nonce);
            *of_nonce = cost.amount;
        }
    }

    fn read_line(&mut self, line: &[u8], began: bool) -> Option<()> {
        let (entry, proof) = std::str::from_utf8(line).ok()?.rsplit_once(' ')?;
        let expected = proof_of(&self.key, &self.proof, entry);
        if hex::decode(proof).ok()? != expected {
            return None;
        }
        self.proof = expected;
        if !began {
            return (entry == "begin").then_some(());
        }
        let mut words = entry.split(' ');
        let day: i64 = words.next()?.parse().ok()?;
        let address: Address = words.next()?.parse().ok()?;
        let nonce = words.next()?.parse().ok()?;
        let amount = TokenAmount::from_atto(words.next()?.parse().ok()?);
        if words.next().is_some() || day < self.day {
            return None;
        }
        self.note(day, address, Cost { nonce, amount });
        Some(())
    }

    fn corrupt(&self, what: &'static str) -> WalletError {
        WalletError::new(WalletErrorKind::Corrupt, OP).with("path", self.path.display()).with("what", what).hint_with(
            "restore the file; or move it away and set the policy of the key again, which begins a new record",
        )
    }
}

fn day_of(now: Timestamp) -> i64 {
    now.0.div_euclid(DAY_MS)
}

fn until_next(day: i64, now: Timestamp) -> Duration {
    Timestamp(day.saturating_add(1).saturating_mul(DAY_MS)).since(now)
}

fn proof_of(key: &Secret, before: &[u8; PROOF], entry: &str) -> [u8; PROOF] {
    let hash = blake2b_simd::Params::new()
        .hash_length(PROOF)
        .key(key.expose())
        .to_state()
        .update(before)
        .update(entry.as_bytes())
        .finalize();
    hash.as_bytes().try_into().expect("the hash was asked for so many bytes")
}

fn line_of(key: &Secret, before: &[u8; PROOF], entry: &str) -> (String, [u8; PROOF]) {
    let proof = proof_of(key, before, entry);
    (format!("{entry} {}\n", hex::encode(proof)), proof)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::contents::Contents;
    use tempfile::TempDir;

    struct Desk {
        dir: TempDir,
        key: Secret,
        address: Address,
        limit: TokenAmount,
    }

    impl Desk {
        fn new() -> Self {
            let desk = Self {
                dir: tempfile::tempdir().unwrap(),
                key: Contents::new().ledger_key,
                address: "t1abc".parse().unwrap(),
                limit: TokenAmount::from_fil(10),
            };
            Ledger::ensure(&desk.wallet(), &desk.key).unwrap();
            desk
        }

        fn wallet(&self) -> PathBuf {
            self.dir.path().join("w")
        }

        fn file(&self) -> PathBuf {
            self.dir.path().join("w.spent")
        }

        fn load(&self) -> Result<Ledger, WalletError> {
            Ledger::load(&self.wallet(), &self.key)
        }

        /// Each charge is another process.
        fn charge(&self, nonce: u64, fil: i64, now: Timestamp) -> Result<(), WalletError> {
            self.load()?.charge(&self.address, Cost { nonce, amount: TokenAmount::from_fil(fil) }, self.limit, now)
        }
    }

    const NOON: Timestamp = Timestamp(20_000 * DAY_MS + DAY_MS / 2);

    #[test]
    fn a_limit_holds_over_restarts_until_the_day_ends() {
        let desk = Desk::new();
        desk.charge(0, 6, NOON).unwrap();
        let error = desk.charge(1, 5, NOON).unwrap_err();
        assert_eq!(error.kind(), WalletErrorKind::OverLimit);
        assert_eq!(error.recovery(), Recovery::Retry { after: Some(Duration::from_secs(43_200)) });
        desk.charge(1, 4, NOON).unwrap();
        assert!(desk.charge(2, 1, NOON).is_err());
        desk.charge(2, 0, NOON).unwrap();
        assert_eq!(desk.load().unwrap().spent(&desk.address, NOON), TokenAmount::from_fil(10));

        let yesterday = Timestamp(NOON.0 - DAY_MS);
        assert!(desk.charge(3, 1, yesterday).is_err(), "a clock that is set back begins no new day");
        let tomorrow = Timestamp(NOON.0 + DAY_MS / 2);
        assert_eq!(desk.load().unwrap().spent(&desk.address, tomorrow), TokenAmount::ZERO);
        desk.charge(3, 10, tomorrow).unwrap();
        assert!(desk.charge(4, 1, tomorrow).is_err());
    }

    #[test]
    fn a_replacement_counts_for_its_nonce_once() {
        let desk = Desk::new();
        desk.charge(0, 6, NOON).unwrap();
        desk.charge(0, 6, NOON).unwrap();
        desk.charge(0, 8, NOON).unwrap();
        desk.charge(0, 3, NOON).unwrap();
        assert_eq!(desk.load().unwrap().spent(&desk.address, NOON), TokenAmount::from_fil(8));
        assert!(desk.charge(0, 11, NOON).is_err());
    }

    #[test]
    fn a_torn_line_is_dropped_and_a_changed_one_refused() {
        let desk = Desk::new();
        for nonce in 0..3 {
            desk.charge(nonce, 2, NOON).unwrap();
        }
        let good = fs_err::read(desk.file()).unwrap();
        let last = good.split_inclusive(|b| *b == b'\n').next_back().unwrap().len();
        for cut in 1..=last {
            fs_err::write(desk.file(), &good[..good.len() - cut]).unwrap();
            assert_eq!(desk.load().unwrap().spent(&desk.address, NOON), TokenAmount::from_fil(4), "{cut}");
        }
        desk.charge(9, 6, NOON).unwrap();
        assert!(desk.charge(10, 1, NOON).is_err());

        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs_err::write(desk.file(), &bad).unwrap();
            let error = desk.load().map(|_| at).unwrap_err();
            assert_eq!(error.kind(), WalletErrorKind::Corrupt, "{at}");
        }
        let text = String::from_utf8(good).unwrap();
        let lines: Vec<_> = text.lines().collect();
        fs_err::write(desk.file(), format!("{}\n{}\n", lines[0], lines[2])).unwrap();
        assert!(desk.load().is_err(), "a line was taken out");
        fs_err::remove_file(desk.file()).unwrap();
        assert_eq!(desk.load().unwrap_err().kind(), WalletErrorKind::Corrupt);
        assert!(Ledger::load(&desk.wallet(), &Contents::new().ledger_key).is_err());
    }

    #[test]
    fn the_record_does_not_grow_for_ever() {
        let desk = Desk::new();
        let mut ledger = desk.load().unwrap();
        let cost = |nonce| Cost { nonce, amount: TokenAmount::from_atto(1) };
        for nonce in 0..1_500 {
            ledger.charge(&desk.address, cost(nonce), desk.limit, NOON).unwrap();
        }
        assert!(ledger.length > TIDY);
        let tomorrow = Timestamp(NOON.0 + DAY_MS);
        ledger.charge(&desk.address, cost(1), desk.limit, tomorrow).unwrap();
        assert!(ledger.length < 1_000);
        assert!(ledger.is_fresh().unwrap());
        let again = desk.load().unwrap();
        assert_eq!(again.spent(&desk.address, tomorrow), TokenAmount::from_atto(1));
        assert_eq!(again.length, ledger.length);
    }
}
