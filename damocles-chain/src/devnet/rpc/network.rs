//! The network and the node.

use super::args::{Args, RpcFault, plain};
use crate::{
    devnet::{
        block::{BLOCK_DELAY_SECS, GENESIS_TIMESTAMP},
        node::Devnet,
    },
    lotus_json::{NetworkParams, Version},
};
use serde_json::{Value, json};

/// The chain ID that Lotus' own devnets have.
const CHAIN_ID: u64 = 31_415_926;

/// Version 2.3.0 of Lotus' full-node API.
const API_VERSION: u32 = 131_840;

pub(super) fn version(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let tipset = super::view::tipset(devnet, args, 0)?;
    Ok(json!(devnet.chain.read().version_at(tipset.height)))
}

pub(super) fn name(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    Ok(json!(devnet.config.network_name))
}

pub(super) fn params(devnet: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    plain(&NetworkParams {
        network_name: devnet.config.network_name.clone(),
        block_delay_secs: BLOCK_DELAY_SECS,
        consensus_miner_min_power: devnet.policy.minimum_consensus_power.clone(),
        pre_commit_challenge_delay: devnet.policy.pre_commit_challenge_delay,
        fork_upgrade_params: json!({}),
        eip155_chain_id: CHAIN_ID,
        genesis_timestamp: GENESIS_TIMESTAMP,
    })
}

pub(super) fn node_version(_: &Devnet, _: &Args) -> Result<Value, RpcFault> {
    plain(&Version {
        version: format!("{}+damocles-devnet", env!("CARGO_PKG_VERSION")),
        api_version: API_VERSION,
        block_delay: BLOCK_DELAY_SECS,
        agent: "damocles-devnet".to_owned(),
    })
}

/// One sync that is always complete.
pub(super) fn sync_state(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let head = super::chain::head(devnet, args)?;
    let height = devnet.chain.read().head().height;
    Ok(json!({
        "ActiveSyncs": [{
            "WorkerID": 0, "Base": head, "Target": head, "Stage": 4, "Height": height,
            "Start": "0001-01-01T00:00:00Z", "End": "0001-01-01T00:00:00Z", "Message": ""
        }],
        "VMApplied": 0
    }))
}
