//! `[wallet]`: who holds the keys.

use super::{ConfigError, Endpoint, Source, quoted};
use serde::Deserialize;
use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

/// `[wallet]`. Paths that are not absolute are below the home directory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WalletSection {
    /// Where the keys are.
    pub kind: WalletKind,
    /// Of a file: where it is; `wallet` in the home directory if it is absent.
    pub path: Option<PathBuf>,
    /// Of a file: another one with its password, whose mode is 0600.
    pub password_file: Option<PathBuf>,
    /// Of a file: the environment variable with its password.
    pub password_env: Option<String>,
    /// Of a wallet elsewhere: its address, a URL or a multiaddr.
    pub endpoint: Option<Endpoint>,
    /// Of a wallet elsewhere: the file with its token, whose mode is 0600.
    pub token_file: Option<PathBuf>,
}

/// Where the keys are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletKind {
    /// In plain text in `keystore` of the home directory: for devnets only.
    #[default]
    Keystore,
    /// In an encrypted file, see `damocles-manager wallet`.
    File,
    /// In the wallet of the node.
    Node,
    /// Behind `damocles-manager wallet run`, or a remote wallet of Lotus or Venus.
    Remote,
}

impl WalletKind {
    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keystore => "keystore",
            Self::File => "file",
            Self::Node => "node",
            Self::Remote => "remote",
        }
    }
}

impl WalletSection {
    /// The encrypted file of the home directory.
    pub fn file() -> Self {
        Self { kind: WalletKind::File, ..Self::default() }
    }

    pub(super) fn check(&self, source: &Source) -> Result<(), ConfigError> {
        let of_file = self.kind == WalletKind::File;
        let of_remote = self.kind == WalletKind::Remote;
        for (key, there, meant, kind) in [
            ("path", self.path.is_some(), of_file, "file"),
            ("password_file", self.password_file.is_some(), of_file, "file"),
            ("password_env", self.password_env.is_some(), of_file, "file"),
            ("endpoint", self.endpoint.is_some(), of_remote, "remote"),
            ("token_file", self.token_file.is_some(), of_remote, "remote"),
        ] {
            if there && !meant {
                let what = format_args!("means nothing to a wallet of kind `{}`", self.kind.name()).to_string();
                let error = source.error_at(&format!("wallet.{key}"), what);
                return Err(error.hint_with(format!("remove it, or write `kind = \"{kind}\"`")));
            }
        }
        if self.password_file.is_some() && self.password_env.is_some() {
            let error = source.error_at("wallet.password_env", "there is a `password_file` too");
            return Err(error.hint_with("keep one of the two"));
        }
        if of_remote && self.endpoint.is_none() {
            let error = source.error_at("wallet.kind", "a wallet elsewhere has an address");
            return Err(error.hint_with("write `endpoint = \"http://HOST:PORT\"` and `token_file`"));
        }
        if self.token_file.is_some() && self.endpoint.as_ref().is_some_and(|e| e.token().is_some()) {
            let error = source.error_at("wallet.endpoint", "there is a token before the address, and another one");
            return Err(error.hint_with("keep one of the two"));
        }
        Ok(())
    }

    /// A token before the address is not written.
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n# Who holds the keys: \"keystore\" (plain text, devnets only), \"file\" (encrypted),")?;
        writeln!(out, "# \"node\" (the node's wallet), or \"remote\" (`wallet run` elsewhere: endpoint, token_file).")?;
        writeln!(out, "[wallet]\nkind = \"{}\"", self.kind.name())?;
        let path = |path: &PathBuf| quoted(&path.display().to_string());
        for (key, value) in [
            ("path", self.path.as_ref().map(path)),
            ("password_file", self.password_file.as_ref().map(path)),
            ("password_env", self.password_env.as_ref().map(|name| quoted(name))),
            ("endpoint", self.endpoint.as_ref().map(|e| quoted(e.url()))),
            ("token_file", self.token_file.as_ref().map(path)),
        ] {
            if let Some(value) = value {
                writeln!(out, "{key} = {value}")?;
            }
        }
        Ok(())
    }
}
