//! The wallet.

use super::{
    KdfParams, KeyRecord, Password, Policy, WalletError, WalletErrorKind,
    attempts::Attempts,
    contents::{Contents, canonical},
    files::{self, FileLock, Stamp},
    format::{self, FormatError, Lock, Sealed},
    kdf::SealKey,
    ledger::Ledger,
};
use crate::signer::{KeyKind, Keystore, PrivateKey};
use damocles_core::{Address, CancellationToken, Clock, Timestamp, TokenAmount};
use parking_lot::Mutex;
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use zeroize::Zeroizing;

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

/// A key that was found elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its address.
    pub address: Address,
    /// Whether the wallet did not have it.
    pub new: bool,
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

    /// All keys, those in the trash too.
    ///
    /// # Errors
    ///
    /// The wallet is locked.
    pub fn keys(&self) -> Result<Vec<KeyRecord>, WalletError> {
        self.look("list keys", |open| Ok(open.contents.records()))
    }

    /// The address that is used where none is named.
    ///
    /// # Errors
    ///
    /// The wallet is locked.
    pub fn default_address(&self) -> Result<Option<Address>, WalletError> {
        self.look("find default", |open| Ok(open.contents.default.clone()))
    }

    /// Sets the address that is used where none is named.
    ///
    /// # Errors
    ///
    /// The wallet is locked or has no such key.
    pub fn set_default(&self, address: &Address) -> Result<(), WalletError> {
        self.change("set default", |contents, _| {
            let (address, _) = contents.live(address)?;
            contents.default = Some(address.clone());
            Ok(())
        })
    }

    /// Makes a key.
    ///
    /// # Errors
    ///
    /// The wallet is locked or cannot be written.
    pub fn generate(&self, kind: KeyKind) -> Result<Address, WalletError> {
        self.change("make key", |contents, now| contents.add(PrivateKey::generate(kind), now))
    }

    /// Takes a key in Lotus' form: the hex of `wallet export`, or the JSON that it is the hex of.
    ///
    /// # Errors
    ///
    /// It is none, the wallet has it, or the wallet is locked.
    pub fn import(&self, text: &str) -> Result<Address, WalletError> {
        let bad = |e: crate::signer::SignerError| WalletError::new(WalletErrorKind::BadKey, "import key").because(e);
        let key = PrivateKey::from_lotus_text(text).map_err(bad)?;
        self.change("import key", |contents, now| contents.add(key, now))
    }

    /// Takes all keys of a Lotus keystore directory. Keys that the wallet has already are left as they are.
    ///
    /// # Errors
    ///
    /// The directory or a key in it cannot be read, others can read a key, or the wallet is locked. Then no key was
    /// taken.
    pub fn import_keystore(&self, dir: &Path) -> Result<Vec<Imported>, WalletError> {
        const OP: &str = "import keystore";
        if !dir.is_dir() {
            return Err(WalletError::new(WalletErrorKind::NotFound, OP)
                .with("path", dir.display())
                .hint_with("name the directory `keystore` of a Lotus repository"));
        }
        let failed = |e: crate::signer::SignerError| {
            let kind = match e.kind() {
                crate::signer::SignerErrorKind::Exposed => WalletErrorKind::Exposed,
                crate::signer::SignerErrorKind::Io => WalletErrorKind::Io,
                _ => WalletErrorKind::BadKey,
            };
            let hint = e.hint().map(str::to_owned);
            let error = WalletError::new(kind, OP).with("path", dir.display()).because(e);
            if let Some(hint) = hint { error.hint_with(hint) } else { error }
        };
        let keystore = Keystore::open(dir).map_err(failed)?;
        let mut keys = Vec::new();
        for address in keystore.list().map_err(failed)? {
            keys.push(keystore.get(&address).map_err(failed)?);
        }
        self.change(OP, |contents, now| {
            let mut imported = Vec::new();
            for key in keys {
                let address = crate::lotus_json::to_core(&key.address());
                let new = contents.live(&address).is_err();
                if new {
                    contents.add(key, now)?;
                }
                imported.push(Imported { address, new });
            }
            Ok(imported)
        })
    }

    /// The hex of Lotus' `wallet export`.
    ///
    /// # Errors
    ///
    /// The wallet is locked or has no such key.
    pub fn export(&self, address: &Address) -> Result<Zeroizing<String>, WalletError> {
        self.used("export key", |open| {
            let (_, entry) = open.contents.live(address)?;
            Ok(Zeroizing::new(hex::encode(entry.key.to_lotus().as_slice())))
        })
    }

    /// Moves a key to the trash, which stays in the file.
    ///
    /// # Errors
    ///
    /// The wallet is locked or has no such key.
    pub fn delete(&self, address: &Address) -> Result<(), WalletError> {
        self.change("delete key", |contents, now| {
            let (address, entry) = contents.live_mut(address)?;
            entry.deleted = Some(now);
            if contents.default.as_ref() == Some(&address) {
                contents.default = None;
            }
            Ok(())
        })
    }

    /// Takes a key back out of the trash.
    ///
    /// # Errors
    ///
    /// The wallet is locked or has no such key in the trash.
    pub fn restore(&self, address: &Address) -> Result<(), WalletError> {
        self.change("restore key", |contents, _| {
            let entry = canonical(address).and_then(|a| contents.keys.get_mut(&a));
            match entry.filter(|entry| entry.deleted.is_some()) {
                Some(entry) => entry.deleted = None,
                None => return Err(super::contents::unknown(address).with("where", "trash")),
            }
            Ok(())
        })
    }

    /// Sets what a key may sign; `None` for everything.
    ///
    /// # Errors
    ///
    /// The wallet is locked or has no such key.
    pub fn set_policy(&self, address: &Address, policy: Option<Policy>) -> Result<(), WalletError> {
        let path = self.path();
        self.change("set policy", |contents, _| {
            if policy.as_ref().is_some_and(|p| p.daily().is_some()) {
                Ledger::ensure(path, &contents.ledger_key)?;
            }
            contents.live_mut(address)?.1.policy = policy;
            Ok(())
        })
    }

    /// What a key with a daily limit has signed away today (UTC).
    ///
    /// # Errors
    ///
    /// The wallet is locked, has no such key, or the record of what was signed cannot be read.
    pub fn spent_today(&self, address: &Address) -> Result<TokenAmount, WalletError> {
        let now = self.inner.clock.now();
        self.look("count what was signed", |open| {
            let (address, entry) = open.contents.live(address)?;
            if entry.policy.as_ref().is_none_or(|p| p.daily().is_none()) {
                return Ok(TokenAmount::ZERO);
            }
            Ok(Ledger::load(self.path(), &open.contents.ledger_key)?.spent(address, now))
        })
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
    fn change<T>(
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
