//! Errors of wallets.

use crate::signer::{SignerError, SignerErrorKind};
use damocles_core::{Error, Kind, Recovery};
use std::fmt;

/// An error of a wallet.
pub type WalletError = Error<WalletErrorKind>;

/// What went wrong with a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalletErrorKind {
    /// There is no wallet.
    NotFound,
    /// There is something already.
    Exists,
    /// Others can read or change a file of the wallet.
    Exposed,
    /// A file is damaged, or is none of the wallet's.
    Corrupt,
    /// The file was written by a newer version.
    Newer,
    /// The password is another one.
    WrongPassword,
    /// The password is too easy to guess.
    WeakPassword,
    /// Wrong passwords came too fast.
    RateLimited,
    /// The keys are not in memory.
    Locked,
    /// There is no key of that address.
    UnknownAddress,
    /// The key is not of a form that is known.
    BadKey,
    /// The key's policy does not allow it.
    Refused,
    /// The key has signed away all that its policy allows in a day.
    OverLimit,
    /// A setting is out of its bounds.
    BadSetting,
    /// Another process holds the wallet.
    Busy,
    /// A file could not be read or written.
    Io,
}

impl fmt::Display for WalletErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "there is no wallet",
            Self::Exists => "it is there already",
            Self::Exposed => "others can read or change the file",
            Self::Corrupt => "the file is damaged or not the wallet's",
            Self::Newer => "the file was written by a newer version",
            Self::WrongPassword => "the password does not open the wallet",
            Self::WeakPassword => "the password is too short",
            Self::RateLimited => "wrong passwords came too fast",
            Self::Locked => "the wallet is locked",
            Self::UnknownAddress => "the wallet has no such key",
            Self::BadKey => "the key could not be understood",
            Self::Refused => "the key's policy does not allow it",
            Self::OverLimit => "the key's daily limit is reached",
            Self::BadSetting => "a setting is out of its bounds",
            Self::Busy => "another process holds the wallet",
            Self::Io => "a file could not be read or written",
        })
    }
}

impl Kind for WalletErrorKind {
    fn recovery(self) -> Recovery {
        match self {
            Self::RateLimited | Self::Locked | Self::OverLimit | Self::Busy | Self::Io => Recovery::RETRY,
            Self::NotFound
            | Self::Exists
            | Self::Exposed
            | Self::Corrupt
            | Self::Newer
            | Self::WrongPassword
            | Self::WeakPassword
            | Self::UnknownAddress
            | Self::BadKey
            | Self::Refused
            | Self::BadSetting => Recovery::Park,
        }
    }

    fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound => "make one with `wallet setpwd`, or name the right file",
            Self::Exists => "choose another name, or use what is there",
            Self::Exposed => "give the file mode 0600 and, if others may have read it, move the funds to new keys",
            Self::Corrupt => {
                "restore the file from a backup; keys that were exported can be imported into a new wallet"
            }
            Self::Newer => "use the version that wrote the file, or a later one",
            Self::WrongPassword => "try again after a pause that grows with every wrong password",
            Self::WeakPassword => "choose one of at least 8 characters",
            Self::RateLimited => "wait as long as the error says",
            Self::Locked => "unlock it with `wallet unlock`",
            Self::UnknownAddress => "`wallet list` shows the addresses; `wallet import` adds a key",
            Self::BadKey => "give the text of `lotus wallet export`: a secp256k1 or BLS key as hex or JSON",
            Self::Refused => "`wallet list` shows what each key may sign; an operator can change it",
            Self::OverLimit => "wait for the next day (UTC), or raise the limit",
            Self::BadSetting => "see the bounds in the message",
            Self::Busy => "end the other process, or wait until it is done",
            Self::Io => return None,
        })
    }
}

/// The error of a wallet as that of a signer.
pub(super) fn of_signer(error: WalletError) -> SignerError {
    let kind = match error.kind() {
        WalletErrorKind::NotFound | WalletErrorKind::UnknownAddress => SignerErrorKind::NoKey,
        WalletErrorKind::Exists => SignerErrorKind::Exists,
        WalletErrorKind::Exposed => SignerErrorKind::Exposed,
        WalletErrorKind::Corrupt | WalletErrorKind::Newer | WalletErrorKind::BadKey => SignerErrorKind::Malformed,
        WalletErrorKind::Locked
        | WalletErrorKind::WrongPassword
        | WalletErrorKind::WeakPassword
        | WalletErrorKind::RateLimited => SignerErrorKind::Locked,
        WalletErrorKind::Refused | WalletErrorKind::OverLimit => SignerErrorKind::Refused,
        WalletErrorKind::BadSetting | WalletErrorKind::Busy | WalletErrorKind::Io => SignerErrorKind::Io,
    };
    let recovery = error.recovery();
    let hint = error.hint().map(str::to_owned);
    let signer = SignerError::new(kind, "use wallet").recover_by(recovery).because(error);
    match hint {
        Some(hint) => signer.hint_with(hint),
        None => signer,
    }
}
