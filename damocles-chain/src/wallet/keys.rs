//! The keys of a wallet: what is asked of them and done to them.

use super::{
    KeyRecord, Policy, Wallet, WalletError, WalletErrorKind,
    contents::{canonical, unknown},
    ledger::Ledger,
};
use crate::{
    lotus_json::to_core,
    signer::{KeyKind, Keystore, PrivateKey, SignerError, SignerErrorKind},
};
use damocles_core::{Address, TokenAmount};
use std::path::Path;
use zeroize::Zeroizing;

/// A key that was found elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Its address.
    pub address: Address,
    /// Whether the wallet did not have it.
    pub new: bool,
}

impl Wallet {
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
        let bad = |e: SignerError| WalletError::new(WalletErrorKind::BadKey, "import key").because(e);
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
        let failed = |e: SignerError| {
            let kind = match e.kind() {
                SignerErrorKind::Exposed => WalletErrorKind::Exposed,
                SignerErrorKind::Io => WalletErrorKind::Io,
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
                let address = to_core(&key.address());
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
                None => return Err(unknown(address).with("where", "trash")),
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
        let now = self.now();
        self.look("count what was signed", |open| {
            let (address, entry) = open.contents.live(address)?;
            if entry.policy.as_ref().is_none_or(|p| p.daily().is_none()) {
                return Ok(TokenAmount::ZERO);
            }
            Ok(Ledger::load(self.path(), &open.contents.ledger_key)?.spent(address, now))
        })
    }
}
