//! `daemon init`: the directory of a manager.

use super::{args::InitArgs, chain};
use crate::{
    config::{Endpoint, ManagerConfig, manager::Home},
    exit::{Exit, Failure},
    output::Render,
};
use damocles_chain::signer::{KeyKind, Keystore};
use damocles_core::Address;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
/// The directory cannot be written, or plain-text keys were not asked for.
pub fn init(args: &InitArgs, home: &Home) -> Result<Initialised, Failure> {
    if !args.devnet {
        let error = anyhow::anyhow!("keys in plain text are for devnets only");
        return Err(Failure::new(Exit::Usage, error).hint("add --devnet if this home is for a devnet"));
    }
    let chain = args.chain.as_deref().unwrap_or("http://127.0.0.1:1234/rpc/v1");
    let endpoint: Endpoint = chain.parse().map_err(Failure::usage)?;
    if endpoint.token().is_some() {
        let error = anyhow::anyhow!("a token stands before the address of the node");
        let hint = "give the address alone, put the token into a file and name it as `chain.token_file`";
        return Err(Failure::new(Exit::Usage, error).hint(hint));
    }
    fs_err::create_dir_all(home.path().join("pieces"))?;
    let keystore = Keystore::open(home.keystore())?;
    let key = |kind| match chain::key_of_kind(&keystore, kind)? {
        Some(address) => Ok::<_, Failure>(address),
        None => Ok(keystore.create(kind)?),
    };
    let (owner, worker) = (key(KeyKind::Secp256k1)?, key(KeyKind::Bls)?);
    if !home.config().exists() {
        let mut config = ManagerConfig::new(endpoint);
        config.senders.default = Some(worker.clone());
        write_config(home, &config)?;
    }
    Ok(Initialised { home: home.path().to_owned(), owner, worker })
}

/// Writes `manager.toml` whole: a crash leaves the old one.
///
/// # Errors
///
/// The directory cannot be written.
pub fn write_config(home: &Home, config: &ManagerConfig) -> Result<(), Failure> {
    write_text(home, &config.to_toml())
}

pub(super) fn write_text(home: &Home, text: &str) -> Result<(), Failure> {
    let temporary = home.path().join(".manager.toml.new");
    fs_err::write(&temporary, text)?;
    fs_err::File::open(&temporary)?.sync_all()?;
    fs_err::rename(&temporary, home.config())?;
    Ok(())
}
