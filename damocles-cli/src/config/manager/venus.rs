//! `[venus]`: the cluster that sends messages.

use super::{ChainKind, ConfigError, Endpoint, ManagerConfig, Source, WalletKind, WalletSection, quoted};
use serde::Deserialize;
use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

/// `[venus]`. Paths that are not absolute are below the home directory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VenusSection {
    /// The messager: a URL or a multiaddr, either of them after `TOKEN:`.
    pub messager: Endpoint,
    /// The gateway, if signatures are served to the cluster.
    #[serde(default)]
    pub gateway: Option<Endpoint>,
    /// The file with the token of this manager's account in sophon-auth, whose mode is 0600. It is used for the node
    /// too, unless that has one of its own.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Whether the cluster signs with the keys of `[wallet]`, through the gateway.
    #[serde(default)]
    pub serve_wallet: bool,
    /// The accounts of the cluster for whom those keys are.
    #[serde(default)]
    pub accounts: Vec<String>,
}

/// Whether the sections that a cluster is used by fit together.
pub(super) fn check(config: &ManagerConfig, source: &Source) -> Result<(), ConfigError> {
    match (config.chain.kind, &config.venus) {
        (ChainKind::Lotus, None) => Ok(()),
        (ChainKind::Lotus, Some(_)) => {
            let error = source.error_at("venus", "means nothing to a chain of kind `lotus`");
            Err(error.hint_with("write `kind = \"venus\"` into [chain], or remove the section"))
        }
        (ChainKind::Venus, None) => {
            let error = source.error_at("chain.kind", "no messager is named that would send");
            Err(error.hint_with("write `[venus]` with `messager = \"http://HOST:39812\"` and `token_file`"))
        }
        (ChainKind::Venus, Some(venus)) => check_cluster(config, venus, source),
    }
}

fn check_cluster(config: &ManagerConfig, venus: &VenusSection, source: &Source) -> Result<(), ConfigError> {
    if !config.chain.others.is_empty() {
        let error = source.error_at("chain.endpoints", "are several nodes, and a cluster has one");
        return Err(error.hint_with("name the node that the messager uses"));
    }
    if config.senders.default.is_none() {
        let error = source.error_at("senders.default", "is missing: the keys are not here, so none can be chosen");
        return Err(error.hint_with("name an address that is bound to this manager's account in sophon-auth"));
    }
    let own = std::iter::once(&venus.messager).chain(&venus.gateway).any(|e| e.token().is_some());
    if own && venus.token_file.is_some() {
        let error = source.error_at("venus.token_file", "there is a token before an address, and this one");
        return Err(error.hint_with("keep one of the two"));
    }
    let refused = |key: &str, what: &str, hint: &str| Err(source.error_at(key, what).hint_with(hint));
    if !venus.serve_wallet {
        if config.wallet != WalletSection::default() {
            let hint = "remove the section; or serve its keys to the cluster: `serve_wallet = true` in [venus]";
            return refused("wallet", "means nothing to a chain of kind `venus`: the messager signs", hint);
        }
        if !venus.accounts.is_empty() {
            let hint = "write `serve_wallet = true`, or remove it";
            return refused("venus.accounts", "nothing is served to them", hint);
        }
        return Ok(());
    }
    if venus.gateway.is_none() {
        let hint = "write `gateway = \"ws://HOST:45132\"`";
        return refused("venus.serve_wallet", "no gateway is named by which the cluster would ask", hint);
    }
    if venus.accounts.is_empty() {
        let hint = "write `accounts = [\"NAME\"]`, the accounts of sophon-auth that may have messages signed";
        return refused("venus.serve_wallet", "no account is named that the keys are for", hint);
    }
    if !matches!(config.wallet.kind, WalletKind::File | WalletKind::Keystore) {
        let hint = "write `kind = \"file\"`, or connect that wallet to the gateway itself";
        return refused("wallet.kind", "the keys that are served lie in this home", hint);
    }
    Ok(())
}

impl VenusSection {
    /// The messager at an address, and nothing else.
    pub fn new(messager: Endpoint) -> Self {
        Self { messager, gateway: None, token_file: None, serve_wallet: false, accounts: Vec::new() }
    }

    /// Tokens before addresses are not written.
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n# The cluster that sends messages, and the token of this manager's account in it.")?;
        writeln!(out, "[venus]\nmessager = {}", quoted(self.messager.url()))?;
        if let Some(gateway) = &self.gateway {
            writeln!(out, "gateway = {}", quoted(gateway.url()))?;
        }
        if let Some(file) = &self.token_file {
            writeln!(out, "token_file = {}", quoted(&file.display().to_string()))?;
        }
        if self.serve_wallet {
            let accounts = self.accounts.iter().map(|name| toml::Value::String(name.clone()));
            writeln!(out, "serve_wallet = true\naccounts = {}", toml::Value::Array(accounts.collect()))?;
        }
        Ok(())
    }
}
