//! Sectors on chain.

use super::form;
use cid::Cid;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use serde::{Deserialize, Serialize};

/// A proven sector: the answer of `StateSectorGetInfo`, an item of that of `StateMinerSectors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorOnChainInfo {
    /// Its number.
    pub sector_number: u64,
    /// The registered seal proof.
    pub seal_proof: i64,
    /// Its replica.
    #[serde(rename = "SealedCID", with = "form")]
    pub sealed_cid: Cid,
    /// Deals of before direct data onboarding.
    #[serde(rename = "DeprecatedDealIDs", default, deserialize_with = "form::plain_null_is_default")]
    pub deprecated_deal_ids: Vec<u64>,
    /// When it was proven.
    pub activation: i64,
    /// When it ends.
    pub expiration: i64,
    /// Deals times epochs.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub deal_weight: BigInt,
    /// Verified deals times epochs.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub verified_deal_weight: BigInt,
    /// What is pledged for it.
    #[serde(with = "form")]
    pub initial_pledge: TokenAmount,
    /// Unused since FIP-0098.
    #[serde(default, with = "form")]
    pub expected_day_reward: Option<TokenAmount>,
    /// Unused since FIP-0098.
    #[serde(default, with = "form")]
    pub expected_storage_pledge: Option<TokenAmount>,
    /// When its power last changed.
    #[serde(default)]
    pub power_base_epoch: i64,
    /// Unused since FIP-0098.
    #[serde(default, with = "form")]
    pub replaced_day_reward: Option<TokenAmount>,
    /// The replica before the first update.
    #[serde(rename = "SectorKeyCID", default, with = "form")]
    pub sector_key_cid: Option<Cid>,
    /// Bits of the protocol.
    #[serde(default)]
    pub flags: u64,
    /// The fee of a day.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub daily_fee: TokenAmount,
}

/// What a pre-commit says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorPreCommitInfo {
    /// The registered seal proof.
    pub seal_proof: i64,
    /// The sector's number.
    pub sector_number: u64,
    /// Its replica.
    #[serde(rename = "SealedCID", with = "form")]
    pub sealed_cid: Cid,
    /// The epoch of the ticket.
    pub seal_rand_epoch: i64,
    /// Deals of before direct data onboarding.
    #[serde(rename = "DealIDs", default, deserialize_with = "form::plain_null_is_default")]
    pub deal_ids: Vec<u64>,
    /// When the sector is to expire.
    pub expiration: i64,
    /// Its data; none for zeros.
    #[serde(default, with = "form")]
    pub unsealed_cid: Option<Cid>,
}

/// A pre-committed sector: the answer of `StateSectorPreCommitInfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorPreCommitOnChainInfo {
    /// What the pre-commit said.
    pub info: SectorPreCommitInfo,
    /// What was deposited.
    #[serde(with = "form")]
    pub pre_commit_deposit: TokenAmount,
    /// When it landed.
    pub pre_commit_epoch: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{CommD, CommR};
    use serde_json::{from_value, json, to_value};

    #[test]
    fn sectors_are_lotus() {
        let comm_r = CommR([7; 32]).to_string();
        let json = json!({
            "SectorNumber": 1, "SealProof": 5, "SealedCID": {"/": comm_r}, "DeprecatedDealIDs": [],
            "Activation": 1100, "Expiration": 700000, "DealWeight": "0", "VerifiedDealWeight": "0",
            "InitialPledge": "12", "ExpectedDayReward": null, "ExpectedStoragePledge": null, "PowerBaseEpoch": 1100,
            "ReplacedDayReward": null, "SectorKeyCID": null, "Flags": 1, "DailyFee": "3"
        });
        let sector: SectorOnChainInfo = from_value(json.clone()).unwrap();
        assert_eq!(to_value(sector).unwrap(), json);
        let old = json!({
            "SectorNumber": 1, "SealProof": 5, "SealedCID": {"/": comm_r}, "DealIDs": null, "DealWeight": null,
            "Activation": 1, "Expiration": 2, "InitialPledge": "12", "ExpectedDayReward": "1"
        });
        assert!(from_value::<SectorOnChainInfo>(old).is_ok());
        assert!(from_value::<SectorOnChainInfo>(json!({"SectorNumber": -1})).is_err());
    }

    #[test]
    fn pre_commits_are_lotus() {
        let comm_r = CommR([7; 32]).to_string();
        for unsealed in [json!(null), json!({"/": CommD([1; 32]).to_string()})] {
            let json = json!({
                "Info": {"SealProof": 5, "SectorNumber": 1, "SealedCID": {"/": comm_r}, "SealRandEpoch": 100,
                    "DealIDs": [], "Expiration": 1000000, "UnsealedCid": unsealed},
                "PreCommitDeposit": "5", "PreCommitEpoch": 1050
            });
            let info: SectorPreCommitOnChainInfo = from_value(json.clone()).unwrap();
            assert_eq!(to_value(info).unwrap(), json);
        }
    }
}
