//! The wallet.

use super::{
    KdfParams, Password, WalletError, WalletErrorKind,
    attempts::Attempts,
    contents::Contents,
    files::{self, FileLock, Stamp},
    format::{self, FormatError, Lock, Sealed},
    kdf::SealKey,
    ledger::Ledger,
};
use damocles_core::{CancellationToken, Clock, Timestamp};
use parking_lot::Mutex;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;

/// How a wallet behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalletOptions {
    /// Locks the wallet when it was not used for so long; `None` for never.
    pub auto_lock: Option<Duration>,
    /// What a new password costs.
    pub kdf: KdfParams,
}

impl WalletOptions {
    /// Locks the wallet when it was not used for so long.
    #[must_use]
    pub fn with_auto_lock(mut self, idle: Duration) -> Self {
        self.auto_lock = Some(idle);
        self
    }

    /// Sets what a new password costs.
    #[must_use]
    pub fn with_kdf(mut self, kdf: KdfParams) -> Self {
        self.kdf = kdf;
        self
    }
}

/// Keys in one file that only its password opens.
///
/// - Clones are one wallet. Values over the same file, also in other processes, see each other's changes: each use looks
///   whether the file was written, and each change holds a lock.
/// - Methods work on files, and those that take a password work for as long as it costs: in async code call them from a
///   blocking thread. The wallet as a [`crate::signer::Signer`] does so itself.
/// - While it is locked there is neither a key nor the password in memory.
#[derive(Clone)]
pub struct Wallet {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    options: WalletOptions,
    clock: Arc<dyn Clock>,
    open: Mutex<Option<Open>>,
    /// Whether the keys are in memory.
    usable: watch::Sender<bool>,
}

/// What is in memory while the wallet is unlocked.
pub(super) struct Open {
    key: SealKey,
    lock: Lock,
    pub(super) contents: Contents,
    stamp: Stamp,
    used: Timestamp,
    ledger: Option<Ledger>,
}

/// Whether a wallet's keys can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockState {
    /// They cannot.
    Locked,
    /// They can, and no longer than until then if there is an automatic lock and nobody uses them.
    Unlocked {
        /// When the wallet locks itself.
        until: Option<Timestamp>,
    },
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("path", &self.inner.path).field("options", &self.inner.options).finish()
    }
}

impl Wallet {
    /// Makes a wallet without keys; it is unlocked.
    ///
    /// # Errors
    ///
    /// There is a file, the password is too short, or the file cannot be written.
    pub fn create(
        path: impl Into<PathBuf>,
        password: &Password,
        options: WalletOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WalletError> {
        const OP: &str = "make wallet";
        let path = path.into();
        password.check_strength()?;
        let _held = FileLock::take(OP, &path)?;
        if files::stamp(OP, &path)?.is_some() {
            return Err(WalletError::new(WalletErrorKind::Exists, OP).with("path", path.display()));
        }
        let lock = Lock::new(options.kdf);
        let key = options.kdf.derive(password, &lock.salt)?;
        let contents = Contents::new();
        let stamp = write(OP, &path, lock, &key, &contents)?;
        // What a wallet that was here before has left behind is not this one's.
        Attempts::of(&path)?.clear()?;
        Ledger::forget(&path)?;
        let open = Open { key, lock, contents, stamp, used: clock.now(), ledger: None };
        Ok(Self::with(path, options, clock, Some(open)))
    }

    /// A wallet that is there; it is locked.
    ///
    /// # Errors
    ///
    /// There is none, others can read it, or the file is none of a wallet's.
    pub fn open(path: impl Into<PathBuf>, options: WalletOptions, clock: Arc<dyn Clock>) -> Result<Self, WalletError> {
        let path = path.into();
        let (file, _) = files::read("open wallet", &path, format::MAX_FILE)?;
        parse("open wallet", &path, &file)?;
        Ok(Self::with(path, options, clock, None))
    }

    fn with(path: PathBuf, options: WalletOptions, clock: Arc<dyn Clock>, open: Option<Open>) -> Self {
        let usable = watch::Sender::new(open.is_some());
        let inner = Inner { path, options, clock, open: Mutex::new(open), usable };
        Self { inner: Arc::new(inner) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Reads the keys into memory. It takes as long as the password costs.
    ///
    /// # Errors
    ///
    /// The password is wrong, or came too soon after a wrong one.
    pub fn unlock(&self, password: &Password) -> Result<(), WalletError> {
        let mut open = self.inner.open.lock();
        let _held = FileLock::take("unlock wallet", self.path())?;
        *open = Some(self.try_password(password)?);
        self.inner.usable.send_replace(true);
        Ok(())
    }

    /// Wipes the keys from memory.
    pub fn lock(&self) {
        let mut open = self.inner.open.lock();
        *open = None;
        self.inner.usable.send_replace(false);
    }

    /// Tells whether the keys are in memory, whenever that changes.
    pub fn usable(&self) -> watch::Receiver<bool> {
        self.inner.usable.subscribe()
    }

    /// Whether the keys can be used.
    pub fn state(&self) -> LockState {
        let mut open = self.inner.open.lock();
        self.lock_if_idle(&mut open);
        match &*open {
            None => LockState::Locked,
            Some(open) => LockState::Unlocked { until: self.inner.options.auto_lock.map(|idle| open.used.plus(idle)) },
        }
    }

    /// Locks the wallet whenever it was not used for the time that the options name, until cancelled.
    pub async fn auto_lock(&self, cancel: CancellationToken) {
        let mut usable = self.usable();
        let watch = async {
            loop {
                usable.mark_unchanged();
                // Another thread may hold the wallet for as long as a password costs.
                match self.blocking(|wallet| Ok(wallet.state())).await {
                    Ok(LockState::Unlocked { until: Some(until) }) => {
                        let left = until.since(self.inner.clock.now()).max(Duration::from_millis(1));
                        tokio::time::sleep(left).await;
                    }
                    // The other end lives as long as this value.
                    _ => drop(usable.changed().await),
                }
            }
        };
        cancel.run_until_cancelled(watch).await;
    }

    /// Seals the file with another password. Wallets that are unlocked elsewhere have to be unlocked with it.
    ///
    /// # Errors
    ///
    /// The old password is wrong, the new one too short, or the file cannot be written.
    pub fn change_password(&self, old: &Password, new: &Password) -> Result<(), WalletError> {
        const OP: &str = "change password";
        new.check_strength()?;
        let mut open = self.inner.open.lock();
        let _held = FileLock::take(OP, self.path())?;
        let mut next = self.try_password(old)?;
        next.lock = Lock::new(self.inner.options.kdf);
        next.key = next.lock.params.derive(new, &next.lock.salt)?;
        next.stamp = write(OP, self.path(), next.lock, &next.key, &next.contents)?;
        if open.is_some() {
            *open = Some(next);
        }
        Ok(())
    }

    /// Looks at the unlocked wallet, which does not count as use.
    pub(super) fn look<T>(
        &self,
        op: &'static str,
        f: impl FnOnce(&mut Open) -> Result<T, WalletError>,
    ) -> Result<T, WalletError> {
        let mut open = self.inner.open.lock();
        f(self.fresh(op, &mut open)?)
    }

    /// Uses the unlocked wallet, which puts its automatic lock off.
    pub(super) fn used<T>(
        &self,
        op: &'static str,
        f: impl FnOnce(&mut Open) -> Result<T, WalletError>,
    ) -> Result<T, WalletError> {
        let now = self.now();
        self.look(op, |open| {
            open.used = now;
            f(open)
        })
    }

    /// Changes the file. An error leaves it as it was.
    pub(super) fn change<T>(
        &self,
        op: &'static str,
        f: impl FnOnce(&mut Contents, Timestamp) -> Result<T, WalletError>,
    ) -> Result<T, WalletError> {
        let mut open = self.inner.open.lock();
        let _held = FileLock::take(op, self.path())?;
        let open = self.fresh(op, &mut open)?;
        open.used = self.now();
        let mut next = open.contents.clone();
        let done = f(&mut next, open.used)?;
        open.stamp = write(op, self.path(), open.lock, &open.key, &next)?;
        open.contents = next;
        Ok(done)
    }

    fn lock_if_idle(&self, open: &mut Option<Open>) {
        let now = self.inner.clock.now();
        let idle = |open: &Open| self.inner.options.auto_lock.is_some_and(|most| now.since(open.used) >= most);
        if open.as_ref().is_some_and(idle) {
            *open = None;
            self.inner.usable.send_replace(false);
        }
    }

    /// The unlocked wallet as the file is now.
    fn fresh<'a>(&self, op: &'static str, open: &'a mut Option<Open>) -> Result<&'a mut Open, WalletError> {
        self.lock_if_idle(open);
        let Some(mut current) = open.take() else { return Err(self.locked(op)) };
        match self.reload(op, &mut current) {
            Ok(()) => Ok(open.insert(current)),
            // A disk that stutters is no reason to ask for the password again.
            Err(e) if e.kind() == WalletErrorKind::Io => {
                *open = Some(current);
                Err(e)
            }
            Err(e) => {
                self.inner.usable.send_replace(false);
                Err(e)
            }
        }
    }

    fn locked(&self, op: &'static str) -> WalletError {
        WalletError::new(WalletErrorKind::Locked, op).with("path", self.path().display())
    }

    /// Takes over what another process wrote.
    fn reload(&self, op: &'static str, current: &mut Open) -> Result<(), WalletError> {
        let path = self.path();
        if files::stamp(op, path)? == Some(current.stamp) {
            return Ok(());
        }
        let (file, stamp) = files::read(op, path, format::MAX_FILE)?;
        let sealed = parse(op, path, &file)?;
        if sealed.lock != current.lock {
            return Err(self.locked(op).hint_with("the password was changed: unlock the wallet with the new one"));
        }
        current.contents = unseal(op, path, &sealed, &current.key)?.ok_or_else(|| tampered(op, path))?;
        current.stamp = stamp;
        Ok(())
    }

    /// Tries a password, under the lock.
    fn try_password(&self, password: &Password) -> Result<Open, WalletError> {
        const OP: &str = "open wallet";
        let path = self.path();
        let (file, stamp) = files::read(OP, path, format::MAX_FILE)?;
        let sealed = parse(OP, path, &file)?;
        let mut attempts = Attempts::of(path)?;
        let now = self.inner.clock.now();
        attempts.begin(now).map_err(|e| e.with("path", path.display()))?;
        let key = sealed.lock.params.derive(password, &sealed.lock.salt)?;
        let contents = unseal(OP, path, &sealed, &key)?.ok_or_else(|| {
            WalletError::new(WalletErrorKind::WrongPassword, OP)
                .with("path", path.display())
                .with("next try in", format_args!("{} s", attempts.pause().as_secs()))
        })?;
        attempts.clear()?;
        Ok(Open { key, lock: sealed.lock, contents, stamp, used: now, ledger: None })
    }

    pub(super) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}

impl Open {
    /// The record of what was signed away, as it is now. To be used under the wallet's lock.
    pub(super) fn ledger(&mut self, wallet: &Path) -> Result<&mut Ledger, WalletError> {
        let fresh = match self.ledger.take() {
            Some(ledger) if ledger.is_fresh()? => ledger,
            _ => Ledger::load(wallet, &self.contents.ledger_key)?,
        };
        Ok(self.ledger.insert(fresh))
    }
}

fn parse<'a>(op: &'static str, path: &Path, file: &'a [u8]) -> Result<Sealed<'a>, WalletError> {
    Sealed::parse(file).map_err(|e| {
        let kind = match e {
            FormatError::Newer(_) => WalletErrorKind::Newer,
            _ => WalletErrorKind::Corrupt,
        };
        WalletError::new(kind, op).with("path", path.display()).because(e)
    })
}

/// What is in a file; `None` if the key does not open it.
fn unseal(op: &'static str, path: &Path, sealed: &Sealed<'_>, key: &SealKey) -> Result<Option<Contents>, WalletError> {
    let Some(plain) = sealed.open(key) else { return Ok(None) };
    let contents = Contents::read(&plain)
        .map_err(|e| WalletError::new(WalletErrorKind::Corrupt, op).with("path", path.display()).because(e))?;
    Ok(Some(contents))
}

fn tampered(op: &'static str, path: &Path) -> WalletError {
    WalletError::new(WalletErrorKind::Corrupt, op)
        .with("path", path.display())
        .with("what", "it was changed by somebody without the password")
}

fn write(op: &'static str, path: &Path, lock: Lock, key: &SealKey, contents: &Contents) -> Result<Stamp, WalletError> {
    let file = format::seal(lock, key, &contents.write()).ok_or_else(|| {
        WalletError::new(WalletErrorKind::BadSetting, op)
            .with("path", path.display())
            .with("keys", contents.keys.len())
            .hint_with("a wallet file has at most 16 MiB: make a second wallet")
    })?;
    files::replace(op, path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::testing::FakeClock;

    #[tokio::test]
    async fn the_automatic_lock_wipes_keys_that_nobody_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock::at(Timestamp(1_000)));
        let idle = Duration::from_millis(20);
        let options = WalletOptions::default().with_kdf(KdfParams::try_new(8, 1, 1).unwrap()).with_auto_lock(idle);
        let password = Password::new("correct horse");
        let wallet = Wallet::create(dir.path().join("w"), &password, options, clock.clone()).unwrap();
        wallet.lock();
        let cancel = CancellationToken::new();
        let watch = tokio::spawn({
            let (wallet, cancel) = (wallet.clone(), cancel.clone());
            async move { wallet.auto_lock(cancel).await }
        });
        for _ in 0..2 {
            wallet.unlock(&password).unwrap();
            tokio::time::sleep(idle).await;
            assert!(wallet.inner.open.lock().is_some(), "the clock stands");
            clock.advance(idle);
            while wallet.inner.open.lock().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        cancel.cancel();
        watch.await.unwrap();
    }
}
