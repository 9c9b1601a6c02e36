//! The network, the node and actors in general.

use super::form;
use cid::Cid;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer of `StateGetNetworkParams`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkParams {
    /// The network's name.
    pub network_name: String,
    /// The least seconds between two epochs.
    pub block_delay_secs: u64,
    /// The least power that may mine.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub consensus_miner_min_power: BigInt,
    /// Epochs between a pre-commit and its seed.
    pub pre_commit_challenge_delay: i64,
    /// The heights of the network's upgrades, in the node's own form.
    #[serde(default)]
    pub fork_upgrade_params: Value,
    /// The chain ID of its Ethereum API.
    #[serde(rename = "Eip155ChainID", default)]
    pub eip155_chain_id: u64,
    /// Seconds since the Unix epoch.
    #[serde(default)]
    pub genesis_timestamp: u64,
}

/// The answer of `Version`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// The node's version.
    pub version: String,
    /// The API's version: a byte each for major, minor and patch.
    #[serde(rename = "APIVersion", default)]
    pub api_version: u32,
    /// The least seconds between two epochs.
    #[serde(default)]
    pub block_delay: u64,
    /// The node's name.
    #[serde(default)]
    pub agent: String,
}

/// The answer of `StateGetActor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ActorState {
    /// The actor's code.
    #[serde(with = "form")]
    pub code: Cid,
    /// Its state.
    #[serde(with = "form")]
    pub head: Cid,
    /// The nonce of its next message.
    pub nonce: u64,
    /// What it owns.
    #[serde(with = "form")]
    pub balance: TokenAmount,
    /// Its delegated address.
    #[serde(default, with = "form")]
    pub delegated_address: Option<Address>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn networks_are_lotus() {
        let json = json!({
            "NetworkName": "devnet-2k", "BlockDelaySecs": 1, "ConsensusMinerMinPower": "2048",
            "PreCommitChallengeDelay": 10, "ForkUpgradeParams": {"UpgradeSmokeHeight": -1},
            "Eip155ChainID": 31415926, "GenesisTimestamp": 5
        });
        assert_eq!(to_value(from_value::<NetworkParams>(json.clone()).unwrap()).unwrap(), json);
        let json = json!({"Version": "damocles-devnet", "APIVersion": 131840, "BlockDelay": 1, "Agent": "damocles"});
        assert_eq!(to_value(from_value::<Version>(json.clone()).unwrap()).unwrap(), json);
        let cid = "bafy2bzaceaa43et73tgxsoh2xizd4mxhbrcfig4kqp25zfa5scdgkzppllyuu";
        let json =
            json!({"Code": {"/": cid}, "Head": {"/": cid}, "Nonce": 3, "Balance": "9", "DelegatedAddress": null});
        assert_eq!(to_value(from_value::<ActorState>(json.clone()).unwrap()).unwrap(), json);
        assert!(from_value::<ActorState>(json!({"Nonce": 3})).is_err());
    }
}
