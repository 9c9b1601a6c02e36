//! Which command does what.

use super::{
    args::{WalletArgs, WalletCommand},
    balance, keys, offer,
    password::{self, Asked},
    policy, remote, serve, sign,
};
use crate::{
    clock::SystemClock,
    config::manager::Home,
    exit::{Exit, Failure},
    output::Printer,
};
use damocles_chain::wallet::{Wallet, WalletOptions};
use std::{path::PathBuf, sync::Arc};

/// A wallet's file and where the rest is.
#[derive(Debug)]
pub(super) struct Desk<'a> {
    pub(super) home: &'a Home,
    pub(super) args: &'a WalletArgs,
    pub(super) printer: Printer,
}

impl Desk<'_> {
    /// The wallet's file.
    pub(super) fn file(&self) -> PathBuf {
        self.args.wallet.clone().unwrap_or_else(|| self.home.path().join("wallet"))
    }

    /// The wallet, locked.
    pub(super) fn wallet(&self, options: WalletOptions) -> Result<Wallet, Failure> {
        Ok(Wallet::open(self.file(), options, Arc::new(SystemClock))?)
    }

    /// The wallet, unlocked with the password that the arguments name.
    pub(super) fn unlocked(&self) -> Result<Wallet, Failure> {
        let wallet = self.wallet(WalletOptions::default())?;
        wallet.unlock(&password::current(&self.args.password, Asked::Switches)?)?;
        Ok(wallet)
    }
}

/// Does what the arguments say.
///
/// # Errors
///
/// What the command could not do.
pub(in crate::manager) fn run(args: &WalletArgs, home: &Home, printer: Printer) -> Result<Exit, Failure> {
    let desk = Desk { home, args, printer };
    match &args.command {
        WalletCommand::Setpwd(args) => keys::set_password(&desk, args)?,
        WalletCommand::New(args) => keys::make(&desk, *args)?,
        WalletCommand::Import(args) => keys::import(&desk, args)?,
        WalletCommand::Export(args) => keys::export(&desk, &args.address)?,
        WalletCommand::List(args) => keys::list(&desk, *args)?,
        WalletCommand::Balance(args) => balance::show(&desk, args)?,
        WalletCommand::Default(args) => keys::default(&desk, args)?,
        WalletCommand::Policy(args) => policy::run(&desk, args)?,
        WalletCommand::Lock(args) => remote::lock(&desk, args)?,
        WalletCommand::Unlock(args) => remote::unlock(&desk, args)?,
        WalletCommand::LockState(args) => remote::state(&desk, args)?,
        WalletCommand::Support(args) => offer::support(&desk, args)?,
        WalletCommand::Sign(args) => sign::sign(&desk, args)?,
        WalletCommand::Verify(args) => return sign::verify(&desk, args),
        WalletCommand::Delete(args) => keys::delete(&desk, &args.address)?,
        WalletCommand::Restore(args) => keys::restore(&desk, &args.address)?,
        WalletCommand::Run(args) => serve::run(&desk, args)?,
    }
    Ok(Exit::Ok)
}
