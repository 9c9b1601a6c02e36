//! Keys in one encrypted file, what each may sign, and signing for other machines.
//!
//! A [`Wallet`] is a file that only its password opens. Beside it lie, under its name and another ending: `.lock`
//! (held while the file is changed), `.attempts` (wrong passwords) and `.spent` (what keys with a daily limit have
//! signed away).

mod attempts;
mod contents;
mod error;
mod files;
mod format;
mod kdf;
mod keys;
mod ledger;
mod method;
mod password;
mod policy;
mod remote;
mod rpc;
mod signing;
mod store;

pub use contents::KeyRecord;
pub use error::{WalletError, WalletErrorKind};
pub use kdf::KdfParams;
pub use keys::Imported;
pub use method::Method;
pub use password::Password;
pub use policy::Policy;
pub use remote::RemoteWallet;
pub use rpc::{METHODS as RPC_METHODS, WalletCaller, WalletRpc};
pub use store::{LockState, Wallet, WalletOptions};
