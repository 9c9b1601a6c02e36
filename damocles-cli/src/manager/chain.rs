//! The manager's way to its nodes, and to the cluster that sends for it.

use super::{
    client::ManagerChain,
    signer::{self, Keys},
    wallet::password::private_text,
};
use crate::{
    config::{
        ManagerConfig, Secret,
        manager::{Home, VenusSection},
    },
    exit::{Exit, Failure},
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{
    LotusClient, LotusConfig, Senders, VenusClient, VenusConfig,
    rpc::Endpoint,
    signer::KeyKind,
    venus::{FeesByClass, MessageFees},
};
use damocles_core::{EventSink, Network, chain::CallKind};
use sqlx::AnyPool;
use std::{path::Path, sync::Arc};

/// The nodes that the configuration names, the preferred one first. In a cluster its token is the node's too, unless that
/// has one of its own.
///
/// # Errors
///
/// An address or a token cannot be used.
pub(super) fn endpoints(config: &ManagerConfig, home: &Home) -> Result<Vec<Endpoint>, Failure> {
    let mut endpoints = Vec::new();
    for (node, token) in config.chain.nodes(|file| token_of(home, file))? {
        let endpoint: Endpoint = node.url().parse().with_context(|| format!("use endpoint `{node}`"))?;
        let shared = config.venus.as_ref().and_then(|venus| venus.token_file.as_ref());
        let token = match (token, shared) {
            (None, Some(file)) => Some(token_of(home, file)?),
            (own, _) => own,
        };
        endpoints.push(match token {
            Some(token) => endpoint.with_token(Secret::reveal(&token)),
            None => endpoint,
        });
    }
    Ok(endpoints)
}

/// The token in a file that is for its owner only.
fn token_of(home: &Home, file: &Path) -> Result<Secret, Failure> {
    let path = home.path().join(file);
    let text = private_text(&path).map_err(|failure| Failure { exit: Exit::Usage, ..failure })?;
    match text.trim() {
        "" => Err(Failure::usage(format_args!("no token is in `{}`", path.display()))),
        token => Ok(Secret::new(token)),
    }
}

/// The preferred node.
///
/// # Errors
///
/// As [`endpoints`].
pub(super) fn endpoint(config: &ManagerConfig, home: &Home) -> Result<Endpoint, Failure> {
    let first = endpoints(config, home)?.into_iter().next();
    Ok(first.context("the configuration was checked: it names a node")?)
}

/// A client of those nodes, over the messages in `database`. `keys` sign what the manager itself sends; a messager signs
/// by itself.
///
/// # Errors
///
/// A sender has no key, or the database, an address or a token cannot be used.
pub(super) async fn connect(
    config: &ManagerConfig,
    home: &Home,
    keys: &Keys,
    database: AnyPool,
    events: Arc<dyn EventSink>,
) -> Result<ManagerChain, Failure> {
    let senders = senders(config, keys).await?;
    if let Some(section) = &config.venus {
        let mut venus = cluster(config, section, home, senders)?;
        venus.events = events;
        return Ok(ManagerChain::Venus(VenusClient::connect(venus, database).await?));
    }
    let signer = Arc::clone(keys.signer().context("the configuration was checked: a node has keys beside it")?);
    let mut lotus = LotusConfig::with_endpoints(endpoints(config, home)?, senders);
    lotus.events = events;
    lotus.limits.fees.clone_from(&config.fees);
    Ok(ManagerChain::Lotus(LotusClient::connect(lotus, signer, database).await?))
}

/// How the cluster is used that `[venus]` names.
///
/// # Errors
///
/// An address or a token cannot be used.
pub(super) fn cluster(
    config: &ManagerConfig,
    section: &VenusSection,
    home: &Home,
    senders: Senders,
) -> Result<VenusConfig, Failure> {
    let token = section.token_file.as_ref().map(|file| token_of(home, file)).transpose()?;
    let of = |named: &crate::config::Endpoint| -> Result<Endpoint, Failure> {
        let endpoint: Endpoint = named.url().parse().with_context(|| format!("use endpoint `{named}`"))?;
        Ok(match named.token().or(token.as_ref()) {
            Some(token) => endpoint.with_token(token.reveal()),
            None => endpoint,
        })
    };
    let mut venus = VenusConfig::new(endpoint(config, home)?, of(&section.messager)?, senders);
    if let Some(gateway) = &section.gateway {
        venus = venus.with_gateway(of(gateway)?);
    }
    let most = |kind| MessageFees::up_to(config.fees.policy(kind).max_fee);
    venus.fees = FeesByClass {
        create_miner: most(CallKind::CreateMiner),
        pre_commit: most(CallKind::PreCommit),
        prove_commit: most(CallKind::ProveCommit),
        post: most(CallKind::PoSt),
        terminate: most(CallKind::Terminate),
        other: most(CallKind::Other),
    };
    venus.limits.fees.clone_from(&config.fees);
    Ok(venus)
}

/// Who sends what.
///
/// # Errors
///
/// No default sender is named, and the wallet has not exactly one BLS key.
pub(super) async fn senders(config: &ManagerConfig, keys: &Keys) -> Result<Senders, Failure> {
    let only = match (&config.senders.default, keys.signer()) {
        (Some(_), _) => None,
        (None, Some(signer)) => Some(signer::only_key(signer.as_ref(), KeyKind::Bls, "`senders.default`").await?),
        (None, None) => return Err(Failure::usage("manager.toml names no `senders.default`")),
    };
    Ok(config.senders.senders(only)?)
}

/// Whether the node's network is the one that the configuration wants, and one that the keys may be used on.
///
/// # Errors
///
/// It is not: nothing must be sent.
pub(super) fn admit(config: &ManagerConfig, keys: &Keys, told: &str) -> Result<Network, Failure> {
    let network = admit_network(config, told, &config.chain.endpoint.to_string())?;
    if let Some(signer) = keys.signer() {
        signer.suits(told)?;
    }
    Ok(network)
}

/// Whether the node's network is the one that the configuration wants.
///
/// # Errors
///
/// It is not.
pub(super) fn admit_network(config: &ManagerConfig, told: &str, node: &str) -> Result<Network, Failure> {
    let network: Network = told.parse().map_err(|e| Failure::new(Exit::Failed, anyhow::Error::new(e)))?;
    if let Some(wanted) = &config.chain.network
        && !wanted.admits(&network)
    {
        let error = anyhow!("the node at {node} is on network `{network}`, not on `{wanted}`");
        let hint = "name a node of the right network as `chain.endpoint`, or correct `chain.network`";
        return Err(Failure::new(Exit::Usage, error).hint(hint));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "http://127.0.0.1:1234";

    #[test]
    fn a_node_of_another_network_is_refused() {
        let mut config = ManagerConfig::new(NODE.parse().unwrap());
        assert_eq!(admit_network(&config, "testnetnet", NODE).unwrap(), Network::Mainnet);
        config.chain.network = Some(Network::Calibration);
        assert_eq!(admit_network(&config, "calibrationnet", NODE).unwrap(), Network::Calibration);
        let failure = admit_network(&config, "mainnet", NODE).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let said = crate::exit::render(&failure);
        assert!(said.contains(NODE) && said.contains("`mainnet`, not on `calibrationnet`"), "{said}");
        assert!(admit_network(&config, "", NODE).is_err());
    }

    #[test]
    fn the_token_of_a_cluster_is_its_nodes_too() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let home = Home::resolve(Some(dir.path().to_owned())).unwrap();
        let file = dir.path().join("cluster-token");
        fs_err::write(&file, "hunter2\n").unwrap();
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut config = ManagerConfig::new(NODE.parse().unwrap());
        assert_eq!(endpoint(&config, &home).unwrap().token(), None);
        let mut venus = VenusSection::new(NODE.parse().unwrap());
        venus.token_file = Some("cluster-token".into());
        config.venus = Some(venus);
        assert_eq!(endpoint(&config, &home).unwrap().token(), Some("hunter2"));
        config.chain.token = Some(Secret::new("its.own"));
        assert_eq!(endpoint(&config, &home).unwrap().token(), Some("its.own"));
        fs_err::write(&file, "\n").unwrap();
        config.chain.token = None;
        assert_eq!(endpoint(&config, &home).unwrap_err().exit, Exit::Usage);
    }
}
