//! Who signs for the manager.

use super::{
    chain,
    wallet::{
        args::PasswordArgs,
        password::{self, Asked},
        watch::Place,
    },
};
use crate::{
    clock::SystemClock,
    config::{
        ManagerConfig,
        manager::{Home, WalletKind, WalletSection},
    },
    exit::{Exit, Failure},
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{
    rpc::{Endpoint, RpcClient},
    signer::{KeyKind, Keystore, NodeWallet, Signer},
    wallet::{RemoteWallet, Wallet, WalletOptions},
};
use damocles_core::Address;
use std::{path::PathBuf, sync::Arc};

/// Who signs: a wallet of ours, or only the messager of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys(Option<Arc<dyn Signer>>);

impl Keys {
    /// The keys that the configuration wants used: none where a messager has them. A wallet that is a file is unlocked.
    ///
    /// # Errors
    ///
    /// Its keystore, file, password, address or token cannot be used.
    pub(super) fn open(config: &ManagerConfig, home: &Home) -> Result<Self, Failure> {
        let here = config.venus.as_ref().is_none_or(|venus| venus.serve_wallet);
        Ok(Self(if here { Some(open(config, home)?) } else { None }))
    }

    /// As [`Self::open`] for whoever only sends: keys that are served to a cluster stay shut.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub(super) fn to_send(config: &ManagerConfig, home: &Home) -> Result<Self, Failure> {
        Ok(Self(if config.venus.is_none() { Some(open(config, home)?) } else { None }))
    }

    /// No keys, for whoever signs nothing.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// The wallet of ours.
    pub(super) fn signer(&self) -> Option<&Arc<dyn Signer>> {
        self.0.as_ref()
    }
}

/// The wallet that the configuration names, unlocked if it is a file. Nothing is asked of a node or another machine.
///
/// # Errors
///
/// Its keystore, file, password, address or token cannot be used.
pub(super) fn open(config: &ManagerConfig, home: &Home) -> Result<Arc<dyn Signer>, Failure> {
    Ok(match config.wallet.kind {
        WalletKind::Keystore => Arc::new(Keystore::open(home.keystore())?),
        WalletKind::File => Arc::new(unlocked(&config.wallet, home)?),
        WalletKind::Node => Arc::new(NodeWallet::new(Arc::new(RpcClient::new(chain::endpoint(config, home)?)?))),
        WalletKind::Remote => Arc::new(RemoteWallet::new(elsewhere(&config.wallet, home)?)?),
    })
}

/// Where the keys of that wallet lie on this machine, if they do.
pub(super) fn place(config: &ManagerConfig, home: &Home) -> Option<Place> {
    match config.wallet.kind {
        WalletKind::Keystore => Some(Place::Directory(home.keystore())),
        WalletKind::File => Some(Place::File(file(&config.wallet, home))),
        WalletKind::Node | WalletKind::Remote => None,
    }
}

fn file(section: &WalletSection, home: &Home) -> PathBuf {
    home.path().join(section.path.clone().unwrap_or_else(|| "wallet".into()))
}

fn unlocked(section: &WalletSection, home: &Home) -> Result<Wallet, Failure> {
    let wallet = Wallet::open(file(section, home), WalletOptions::default(), Arc::new(SystemClock))?;
    let source = PasswordArgs {
        password_file: section.password_file.as_ref().map(|file| home.path().join(file)),
        password_env: section.password_env.clone(),
    };
    wallet.unlock(&password::current(&source, Asked::File)?)?;
    Ok(wallet)
}

fn elsewhere(section: &WalletSection, home: &Home) -> Result<Endpoint, Failure> {
    let named = section.endpoint.as_ref().context("the configuration was checked: a remote wallet has an address")?;
    // A wallet listens at the path of Lotus' wallets, which the type's own default is not.
    let text = named.url_or("/rpc/v0");
    let endpoint: Endpoint = text.parse().with_context(|| format!("use wallet `{named}`"))?;
    if let Some(file) = &section.token_file {
        let token = password::private_text(&home.path().join(file))?;
        return Ok(endpoint.with_token(token.trim()));
    }
    Ok(match named.token() {
        Some(token) => endpoint.with_token(token.reveal()),
        None => endpoint,
    })
}

/// The only key of a kind, for a role that nobody was named for: of several, none is more it than the others.
///
/// # Errors
///
/// There is none or more than one, or the wallet does not say.
pub(super) async fn only_key(signer: &dyn Signer, kind: KeyKind, instead: &str) -> Result<Address, Failure> {
    let held = signer.addresses().await?;
    let mut keys = held.into_iter().filter(|address| is_of_kind(address, kind));
    let refused =
        |what: &str, hint: String| Failure::new(Exit::Usage, anyhow!("{what} {kind} key in the wallet")).hint(hint);
    match (keys.next(), keys.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(refused("more than one", format!("name the one that is meant as {instead}"))),
        (None, _) => Err(refused("no", format!("`damocles-manager daemon init` makes keys; or name one as {instead}"))),
    }
}

/// Whether an address is a key's of this kind: workers are BLS accounts, owners secp256k1 ones as a rule.
pub(super) fn is_of_kind(address: &Address, kind: KeyKind) -> bool {
    let protocol = match kind {
        KeyKind::Bls => '3',
        KeyKind::Secp256k1 => '1',
    };
    address.as_str().chars().nth(1) == Some(protocol)
}
