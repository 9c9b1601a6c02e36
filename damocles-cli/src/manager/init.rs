//! `daemon init`: the directory of a manager.

use super::{
    args::InitArgs,
    signer::is_of_kind,
    wallet::{
        args::PasswordArgs,
        password::{self, Asked},
    },
};
use crate::{
    clock::SystemClock,
    config::{
        Endpoint, ManagerConfig, Secret,
        manager::{ChainSection, Home, WalletSection},
    },
    exit::{Exit, Failure},
    output::Render,
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{
    signer::{KeyKind, Keystore},
    wallet::{Wallet, WalletOptions},
};
use damocles_core::Address;
use serde::{Deserialize, Serialize};
use std::{
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The variable in which Lotus' tools look for the node.
const API_INFO: &str = "FULLNODE_API_INFO";

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Initialised {
    /// The directory.
    pub home: PathBuf,
    /// The owner's key address, secp256k1.
    pub owner: Address,
    /// The worker's key address, BLS: the actor demands it.
    pub worker: Address,
}

impl Render for Initialised {
    fn text(&self, _: bool) -> String {
        format!("home    {}\nowner   {}\nworker  {}", self.home.display(), self.owner, self.worker)
    }
}

/// Makes keys and configuration. What is there already is kept, so a second call changes nothing.
///
/// # Errors
///
/// The directory cannot be written, no node is named, or there is no password for the keys.
pub fn init(args: &InitArgs, home: &Home) -> Result<Initialised, Failure> {
    let nodes = nodes(args)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(home.path())?;
    fs_err::create_dir_all(home.path().join("pieces"))?;
    let (owner, worker) = if args.devnet { plain_keys(home)? } else { encrypted_keys(args, home)? };
    if !home.config().exists() {
        let chain = chain_section(nodes, home)?;
        let mut config = ManagerConfig::new(chain.endpoint.clone());
        config.chain = chain;
        config.senders.default = Some(worker.clone().into());
        config.chain.network.clone_from(&args.network);
        if !args.devnet {
            config.wallet = wallet_section(args)?;
        }
        write_config(home, &config)?;
    }
    Ok(Initialised { home: home.path().to_owned(), owner, worker })
}

/// A node and the token that stood with it.
struct Node {
    endpoint: Endpoint,
    token: Option<Secret>,
}

/// The nodes of the arguments, else those of the environment.
fn nodes(args: &InitArgs) -> Result<Vec<Node>, Failure> {
    if let Some(chain) = &args.chain {
        let is_token_shown = |item: &str| item.trim().parse::<Endpoint>().is_ok_and(|e| e.token().is_some());
        if chain.split(',').any(is_token_shown) {
            let error = anyhow!("a token stands before the address of the node");
            let hint = format!(
                "give the address alone, put the token into a file and name it as `chain.token_file`; or set {API_INFO}"
            );
            return Err(Failure::new(Exit::Usage, error).hint(hint));
        }
        return listed(chain).map_err(|e| Failure::usage(format_args!("--chain: {e}")));
    }
    if args.devnet {
        return listed("http://127.0.0.1:1234/rpc/v1").map_err(Failure::usage);
    }
    #[expect(clippy::disallowed_methods, reason = "the program reads its environment")]
    let variable = std::env::var(API_INFO).ok().filter(|text| !text.trim().is_empty());
    let Some(variable) = variable else {
        return Err(Failure::usage("no node is named").hint(format!(
            "give its address with --chain, or set {API_INFO}; --devnet is for a chain of this machine"
        )));
    };
    listed(&variable).map_err(|e| Failure::usage(format_args!("{API_INFO}: {e}")))
}

/// The nodes of a list: URLs, multiaddrs, and repositories of nodes. The error never holds what could be a token.
fn listed(text: &str) -> Result<Vec<Node>, String> {
    let items: Vec<_> = text.split(',').map(at_home).collect();
    let nodes = damocles_chain::rpc::Endpoint::parse_list(&items.join(",")).map_err(|e| e.to_string())?;
    let node = |node: &damocles_chain::rpc::Endpoint| {
        let endpoint = node.url().parse().map_err(|_| format!("{node} cannot stand in manager.toml"))?;
        Ok(Node { endpoint, token: node.token().map(Secret::new) })
    };
    nodes.iter().map(node).collect()
}

/// A path as a shell would write it out.
fn at_home(item: &str) -> String {
    let item = item.trim();
    match (item.strip_prefix('~'), std::env::home_dir()) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", home.display()),
        _ => item.to_owned(),
    }
}

/// The section of these nodes. Each token goes into a file of its own.
fn chain_section(nodes: Vec<Node>, home: &Home) -> Result<ChainSection, Failure> {
    let several = nodes.len() > 1;
    let mut files = Vec::new();
    for (place, node) in (1..).zip(&nodes) {
        files.push(match &node.token {
            Some(token) => {
                let name = if several { format!("node-token-{place}") } else { "node-token".to_owned() };
                let file = std::path::absolute(home.path())?.join(name);
                write_secret(&file, token.reveal())?;
                file
            }
            None => PathBuf::new(),
        });
    }
    let mut endpoints = nodes.into_iter().map(|node| node.endpoint);
    let first = endpoints.next().context("a list that was read names a node")?;
    let mut section = ChainSection::new(first);
    section.others = endpoints.collect();
    if files.iter().all(|file| file.as_os_str().is_empty()) {
        return Ok(section);
    }
    if several {
        section.token_files = files;
    } else {
        section.token_file = files.pop();
    }
    Ok(section)
}

fn plain_keys(home: &Home) -> Result<(Address, Address), Failure> {
    let keystore = Keystore::open(home.keystore())?;
    let key = |kind| match keystore.list()?.into_iter().find(|address| is_of_kind(address, kind)) {
        Some(address) => Ok::<_, Failure>(address),
        None => Ok(keystore.create(kind)?),
    };
    Ok((key(KeyKind::Secp256k1)?, key(KeyKind::Bls)?))
}

fn encrypted_keys(args: &InitArgs, home: &Home) -> Result<(Address, Address), Failure> {
    let file = home.path().join("wallet");
    let options = WalletOptions::default();
    let wallet = if file.exists() {
        let wallet = Wallet::open(&file, options, Arc::new(SystemClock))?;
        wallet.unlock(&password::current(&args.password, Asked::Switches)?)?;
        wallet
    } else {
        let PasswordArgs { password_file, password_env } = &args.password;
        let password = password::new(password_file.as_deref(), password_env.as_deref(), Asked::Switches)?;
        Wallet::create(&file, &password, options, Arc::new(SystemClock))?
    };
    let held: Vec<_> = wallet.keys()?.into_iter().filter(|key| key.deleted.is_none()).collect();
    let key = |kind| match held.iter().find(|key| key.kind == kind) {
        Some(key) => Ok::<_, Failure>(key.address.clone()),
        None => Ok(wallet.generate(kind)?),
    };
    Ok((key(KeyKind::Secp256k1)?, key(KeyKind::Bls)?))
}

/// The wallet's section: where the daemon finds the password that was given now.
fn wallet_section(args: &InitArgs) -> Result<WalletSection, Failure> {
    let mut section = WalletSection::file();
    if let Some(file) = &args.password.password_file {
        section.password_file = Some(std::path::absolute(file)?);
    }
    section.password_env.clone_from(&args.password.password_env);
    Ok(section)
}

fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs_err::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file.sync_all()?)
}

/// Writes `manager.toml` whole: a crash leaves the old one.
///
/// # Errors
///
/// The directory cannot be written.
pub fn write_config(home: &Home, config: &ManagerConfig) -> Result<(), Failure> {
    write_text(home, &config.to_toml())
}

/// As [`write_config`], with this text. The file keeps its mode, and stays where a link says that it lies: tokens may stand
/// in it. A new one is for its owner only.
pub(super) fn write_text(home: &Home, text: &str) -> Result<(), Failure> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    let named = home.config();
    let file = match fs_err::canonicalize(&named) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => named,
        found => found?,
    };
    let dir = file.parent().context("a file lies in a directory")?;
    let temporary = dir.join(".manager.toml.new");
    // One that a crash left may have another mode than it is to have from its first byte on.
    match fs_err::remove_file(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let mut new = fs_err::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    new.write_all(text.as_bytes())?;
    if let Ok(about) = fs_err::metadata(&file) {
        new.set_permissions(about.permissions())?;
    }
    new.sync_all()?;
    fs_err::rename(&temporary, &file)?;
    Ok(fs_err::File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn a_file_with_tokens_stays_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(dir.path().join("home"))).unwrap();
        fs_err::create_dir(home.path()).unwrap();
        let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode() & 0o777;
        write_text(&home, "a").unwrap();
        assert_eq!(mode(&home.config()), 0o600);
        fs_err::set_permissions(home.config(), std::fs::Permissions::from_mode(0o640)).unwrap();
        write_text(&home, "b").unwrap();
        assert_eq!(mode(&home.config()), 0o640);

        let elsewhere = dir.path().join("etc.toml");
        fs_err::rename(home.config(), &elsewhere).unwrap();
        symlink(&elsewhere, home.config()).unwrap();
        write_text(&home, "c").unwrap();
        assert!(fs_err::symlink_metadata(home.config()).unwrap().is_symlink());
        assert_eq!((fs_err::read_to_string(&elsewhere).unwrap().as_str(), mode(&elsewhere)), ("c", 0o640));
    }
}
