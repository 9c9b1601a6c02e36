//! Keys: made, taken, shown, listed, thrown away.

use super::{
    args::{DefaultArgs, ImportArgs, ListArgs, NewArgs, SetPasswordArgs},
    command::Desk,
    password::{self, Asked},
    policy,
};
use crate::{
    clock::SystemClock,
    exit::Failure,
    output::{Render, table},
};
use damocles_chain::wallet::{KdfParams, KeyRecord, Wallet, WalletOptions};
use damocles_core::Address;
use serde::Serialize;
use std::{
    io::{IsTerminal as _, Read as _},
    sync::Arc,
};
use zeroize::Zeroizing;

/// No file with a key is longer.
const MOST: u64 = 16 << 10;

/// An address and nothing else.
#[derive(Debug, Serialize)]
pub(super) struct Named {
    address: Address,
}

impl Render for Named {
    fn text(&self, _: bool) -> String {
        self.address.to_string()
    }
}

/// Makes the wallet, or seals it with another password.
pub(super) fn set_password(desk: &Desk<'_>, args: &SetPasswordArgs) -> Result<(), Failure> {
    let kdf = KdfParams::try_new(args.memory.saturating_mul(1024), args.passes, 1)?;
    let options = WalletOptions::default().with_kdf(kdf);
    let new = || password::new(args.new_password_file.as_deref(), args.new_password_env.as_deref(), Asked::NewSwitches);
    let file = desk.file();
    if file.exists() {
        let wallet = desk.wallet(options)?;
        let old = password::current(&desk.args.password, Asked::Switches)?;
        wallet.change_password(&old, &new()?)?;
        desk.printer.note(format_args!("the password of `{}` is changed", file.display()));
        return Ok(());
    }
    if let Some(dir) = file.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs_err::create_dir_all(dir)?;
    }
    // The password of a wallet that is made may be named either way.
    let named = desk.args.password.password_file.is_some() || desk.args.password.password_env.is_some();
    let first = if named { password::current(&desk.args.password, Asked::Switches)? } else { new()? };
    Wallet::create(&file, &first, options, Arc::new(SystemClock))?;
    desk.printer.note(format_args!("`{}` is made; without its password nobody can use its keys", file.display()));
    Ok(())
}

/// Makes a key.
pub(super) fn make(desk: &Desk<'_>, args: NewArgs) -> Result<(), Failure> {
    desk.printer.data(&Named { address: desk.unlocked()?.generate(args.kind)? })
}

/// Takes keys from elsewhere.
pub(super) fn import(desk: &Desk<'_>, args: &ImportArgs) -> Result<(), Failure> {
    if let Some(dir) = &args.keystore {
        let imported = desk.unlocked()?.import_keystore(dir)?;
        let keys = imported.into_iter().map(|key| ImportedKey { address: key.address, new: key.new }).collect();
        return desk.printer.data(&ImportedKeys { keys });
    }
    let text = match &args.file {
        Some(file) => password::private_text(file)?,
        None if std::io::stdin().is_terminal() => password::secret_line("Key: ", "a file as the argument")?,
        None => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin().lock().take(MOST).read_to_string(&mut text)?;
            text
        }
    };
    desk.printer.data(&Named { address: desk.unlocked()?.import(&text)? })
}

#[derive(Debug, Serialize)]
struct ImportedKeys {
    keys: Vec<ImportedKey>,
}

#[derive(Debug, Serialize)]
struct ImportedKey {
    address: Address,
    new: bool,
}

impl Render for ImportedKeys {
    fn text(&self, color: bool) -> String {
        let rows = self.keys.iter().map(|key| {
            let what = if key.new { "imported" } else { "was there" };
            [key.address.to_string(), what.to_owned()]
        });
        table(&["ADDRESS", "KEY"], rows, color)
    }
}

/// Prints a key.
pub(super) fn export(desk: &Desk<'_>, address: &Address) -> Result<(), Failure> {
    let key = desk.unlocked()?.export(address)?;
    desk.printer.note("whoever sees this key can spend what its address owns");
    desk.printer.data(&Exported { key: key.as_str() })
}

#[derive(Serialize)]
struct Exported<'a> {
    key: &'a str,
}

impl Render for Exported<'_> {
    fn text(&self, _: bool) -> String {
        self.key.to_owned()
    }
}

/// Lists keys.
pub(super) fn list(desk: &Desk<'_>, args: ListArgs) -> Result<(), Failure> {
    let mut keys = desk.unlocked()?.keys()?;
    keys.retain(|key| args.trash || key.deleted.is_none());
    desk.printer.data(&KeyList { keys })
}

#[derive(Debug, Serialize)]
struct KeyList {
    keys: Vec<KeyRecord>,
}

impl Render for KeyList {
    fn text(&self, color: bool) -> String {
        let rows = self.keys.iter().map(|key| {
            let mark = match (key.default, key.deleted) {
                (_, Some(_)) => "trash",
                (true, None) => "default",
                (false, None) => "",
            };
            let may = policy::text_of(key.policy.as_ref());
            [key.address.to_string(), key.kind.to_string(), mark.to_owned(), may]
        });
        table(&["ADDRESS", "KIND", "MARK", "MAY SIGN"], rows, color)
    }
}

/// Shows or sets the default.
pub(super) fn default(desk: &Desk<'_>, args: &DefaultArgs) -> Result<(), Failure> {
    let wallet = desk.unlocked()?;
    if let Some(address) = &args.address {
        wallet.set_default(address)?;
    }
    match wallet.default_address()? {
        Some(address) => desk.printer.data(&Named { address }),
        None => Err(Failure::new(crate::exit::Exit::Failed, anyhow::anyhow!("the wallet has no default address"))
            .hint("`wallet default ADDRESS` sets it")),
    }
}

/// Moves a key to the trash.
pub(super) fn delete(desk: &Desk<'_>, address: &Address) -> Result<(), Failure> {
    desk.unlocked()?.delete(address)?;
    desk.printer.note(format_args!("{address} is in the trash; `wallet restore` takes it back"));
    Ok(())
}

/// Takes a key out of the trash.
pub(super) fn restore(desk: &Desk<'_>, address: &Address) -> Result<(), Failure> {
    desk.unlocked()?.restore(address)?;
    desk.printer.note(format_args!("{address} is back"));
    Ok(())
}
