//! The manager's way to its node.

use super::signer;
use crate::{
    config::{ManagerConfig, Secret},
    exit::{Exit, Failure},
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{
    LotusClient, LotusConfig, Senders,
    rpc::Endpoint,
    signer::{KeyKind, Signer},
};
use damocles_core::{EventSink, Network};
use sqlx::AnyPool;
use std::sync::Arc;

/// The nodes that the configuration names, the preferred one first.
///
/// # Errors
///
/// An address or the token cannot be used.
pub(super) fn endpoints(config: &ManagerConfig) -> Result<Vec<Endpoint>, Failure> {
    let mut endpoints = Vec::new();
    for (node, token) in config.chain.nodes()? {
        let text = node.to_string();
        let endpoint: Endpoint = text.parse().with_context(|| format!("use endpoint `{text}`"))?;
        endpoints.push(match token {
            Some(token) => endpoint.with_token(Secret::reveal(&token)),
            None => endpoint,
        });
    }
    Ok(endpoints)
}

/// The preferred node.
///
/// # Errors
///
/// As [`endpoints`].
pub(super) fn endpoint(config: &ManagerConfig) -> Result<Endpoint, Failure> {
    let first = endpoints(config)?.into_iter().next();
    Ok(first.context("the configuration was checked: it names a node")?)
}

/// A client of that node, over the outbox in `database` and the keys of `signer`.
///
/// # Errors
///
/// A sender has no key, or the database cannot be used.
pub(super) async fn connect(
    config: &ManagerConfig,
    signer: Arc<dyn Signer>,
    database: AnyPool,
    events: Arc<dyn EventSink>,
) -> Result<Arc<LotusClient>, Failure> {
    let senders = senders(config, signer.as_ref()).await?;
    let mut lotus = LotusConfig::new(endpoint(config)?, senders);
    lotus.events = events;
    lotus.limits.fees.clone_from(&config.fees);
    Ok(LotusClient::connect(lotus, signer, database).await?)
}

/// Who sends what.
///
/// # Errors
///
/// No default sender is named, and the wallet has not exactly one BLS key.
pub(super) async fn senders(config: &ManagerConfig, signer: &dyn Signer) -> Result<Senders, Failure> {
    let default = match &config.senders.default {
        Some(address) => address.clone(),
        None => signer::only_key(signer, KeyKind::Bls, "`senders.default`").await?,
    };
    let mut senders = Senders::all(default);
    senders.post.clone_from(&config.senders.post);
    senders.commit.clone_from(&config.senders.commit);
    senders.create_miner.clone_from(&config.senders.create_miner);
    Ok(senders)
}

/// Whether the node's network is the one that the configuration wants, and one that the keys may be used on.
///
/// # Errors
///
/// It is not: nothing must be sent.
pub(super) fn admit(config: &ManagerConfig, signer: &dyn Signer, told: &str) -> Result<Network, Failure> {
    let network = admit_network(config, told)?;
    signer.suits(told)?;
    Ok(network)
}

/// Whether the node's network is the one that the configuration wants.
///
/// # Errors
///
/// It is not.
pub(super) fn admit_network(config: &ManagerConfig, told: &str) -> Result<Network, Failure> {
    let network: Network = told.parse().map_err(|e| Failure::new(Exit::Failed, anyhow::Error::new(e)))?;
    if let Some(wanted) = &config.chain.network
        && !wanted.admits(&network)
    {
        let error = anyhow!("the node at {} is on network `{network}`, not on `{wanted}`", config.chain.endpoint);
        let hint = "name a node of the right network as `chain.endpoint`, or correct `chain.network`";
        return Err(Failure::new(Exit::Usage, error).hint(hint));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_another_network_is_refused() {
        let mut config = ManagerConfig::new("http://127.0.0.1:1234".parse().unwrap());
        assert_eq!(admit_network(&config, "testnetnet").unwrap(), Network::Mainnet);
        config.chain.network = Some(Network::Calibration);
        assert_eq!(admit_network(&config, "calibrationnet").unwrap(), Network::Calibration);
        let failure = admit_network(&config, "mainnet").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        let said = crate::exit::render(&failure);
        assert!(
            said.contains("http://127.0.0.1:1234") && said.contains("`mainnet`, not on `calibrationnet`"),
            "{said}"
        );
        assert!(admit_network(&config, "").is_err());
    }
}
