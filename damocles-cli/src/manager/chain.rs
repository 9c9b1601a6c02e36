//! The manager's way to its node.

use crate::{
    config::{ManagerConfig, Secret, manager::Home},
    exit::{Exit, Failure},
};
use anyhow::Context as _;
use damocles_chain::{
    LotusClient, LotusConfig, Senders,
    rpc::Endpoint,
    signer::{KeyKind, Keystore},
};
use damocles_core::{Address, EventSink};
use sqlx::AnyPool;
use std::sync::Arc;

/// The node that the configuration names.
///
/// # Errors
///
/// The address or the token cannot be used.
pub(super) fn endpoint(config: &ManagerConfig) -> Result<Endpoint, Failure> {
    let text = config.chain.endpoint.to_string();
    let endpoint: Endpoint = text.parse().with_context(|| format!("use endpoint `{text}`"))?;
    Ok(match config.token()? {
        Some(token) => endpoint.with_token(Secret::reveal(&token)),
        None => endpoint,
    })
}

/// A client of that node, over the outbox in `database` and the keys of `home`.
///
/// # Errors
///
/// A sender has no key, or the database cannot be used.
pub(super) async fn connect(
    config: &ManagerConfig,
    home: &Home,
    database: AnyPool,
    events: Arc<dyn EventSink>,
) -> Result<Arc<LotusClient>, Failure> {
    let keystore = Keystore::open(home.keystore())?;
    let senders = senders(config, &keystore)?;
    let mut lotus = LotusConfig::new(endpoint(config)?, senders);
    lotus.events = events;
    Ok(LotusClient::connect(lotus, Arc::new(keystore), database).await?)
}

fn senders(config: &ManagerConfig, keystore: &Keystore) -> Result<Senders, Failure> {
    let default = match &config.senders.default {
        Some(address) => address.clone(),
        None => only_worker(keystore)?,
    };
    let mut senders = Senders::all(default);
    senders.post.clone_from(&config.senders.post);
    senders.commit.clone_from(&config.senders.commit);
    Ok(senders)
}

/// The only BLS key: of several, none is more the sender than the others.
fn only_worker(keystore: &Keystore) -> Result<Address, Failure> {
    let mut keys = keystore.list()?.into_iter().filter(|address| is_of_kind(address, KeyKind::Bls));
    let refused = |what: &str, hint: &str| {
        let error = anyhow::anyhow!("{what} in `{}`", keystore.dir().display());
        Failure::new(Exit::Usage, error).hint(hint)
    };
    match (keys.next(), keys.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(refused("several BLS keys", "name the one that pays as `senders.default`")),
        (None, _) => Err(refused("no BLS key", "`damocles-manager daemon init` makes keys; [senders] names them")),
    }
}

/// The first key of a kind: workers are BLS accounts, owners secp256k1 ones.
///
/// # Errors
///
/// The keystore cannot be read.
pub(super) fn key_of_kind(keystore: &Keystore, kind: KeyKind) -> Result<Option<Address>, Failure> {
    Ok(keystore.list()?.into_iter().find(|address| is_of_kind(address, kind)))
}

fn is_of_kind(address: &Address, kind: KeyKind) -> bool {
    let protocol = match kind {
        KeyKind::Bls => '3',
        KeyKind::Secp256k1 => '1',
    };
    address.as_str().chars().nth(1) == Some(protocol)
}
