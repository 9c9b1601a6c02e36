//! Miner actors.

use super::{address, form};
use fvm_ipld_bitfield::BitField;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use serde::{Deserialize, Serialize};

/// The answer of `StateMinerInfo`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MinerInfo {
    /// The owner.
    #[serde(with = "form")]
    pub owner: Address,
    /// The worker.
    #[serde(with = "form")]
    pub worker: Address,
    /// The worker that takes over at `worker_change_epoch`.
    #[serde(default, with = "address::maybe")]
    pub new_worker: Option<Address>,
    /// The control addresses.
    #[serde(default, with = "form")]
    pub control_addresses: Vec<Address>,
    /// When the new worker takes over; -1 for never.
    #[serde(default)]
    pub worker_change_epoch: i64,
    /// The libp2p identity.
    #[serde(default)]
    pub peer_id: Option<String>,
    /// Where it listens.
    #[serde(default, with = "form")]
    pub multiaddrs: Vec<Vec<u8>>,
    /// The registered WindowPoSt proof.
    #[serde(rename = "WindowPoStProofType")]
    pub window_post_proof_type: i64,
    /// The size of its sectors.
    pub sector_size: u64,
    /// The most sectors in a partition.
    #[serde(rename = "WindowPoStPartitionSectors", default)]
    pub window_post_partition_sectors: u64,
    /// Until when it may not mine after a fault; -1 for never.
    #[serde(default)]
    pub consensus_fault_elapsed: i64,
    /// Who was offered the ownership.
    #[serde(default, with = "form")]
    pub pending_owner_address: Option<Address>,
    /// Who receives withdrawals.
    #[serde(default, with = "address::maybe")]
    pub beneficiary: Option<Address>,
    /// How much and how long.
    #[serde(default)]
    pub beneficiary_term: Option<BeneficiaryTerm>,
    /// A change of the beneficiary that waits for approval, in the node's own form.
    #[serde(default)]
    pub pending_beneficiary_term: serde_json::Value,
}

/// The terms of a beneficiary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BeneficiaryTerm {
    /// The most it may receive.
    #[serde(with = "form")]
    pub quota: TokenAmount,
    /// What it received.
    #[serde(with = "form")]
    pub used_quota: TokenAmount,
    /// Until when.
    pub expiration: i64,
}

/// The answer of `StateMinerProvingDeadline`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeadlineInfo {
    /// The epoch for which it was computed.
    pub current_epoch: i64,
    /// The first epoch of the proving period.
    pub period_start: i64,
    /// Its index.
    pub index: u64,
    /// The first epoch at which a proof is accepted.
    pub open: i64,
    /// The first epoch at which a proof is no longer accepted.
    pub close: i64,
    /// The epoch of the challenge.
    pub challenge: i64,
    /// From here on, faults and recoveries count for the next period.
    pub fault_cutoff: i64,
    /// Deadlines in a period.
    #[serde(rename = "WPoStPeriodDeadlines")]
    pub w_post_period_deadlines: u64,
    /// Epochs in a period.
    #[serde(rename = "WPoStProvingPeriod")]
    pub w_post_proving_period: i64,
    /// Epochs in a window.
    #[serde(rename = "WPoStChallengeWindow")]
    pub w_post_challenge_window: i64,
    /// Epochs between challenge and opening.
    #[serde(rename = "WPoStChallengeLookback")]
    pub w_post_challenge_lookback: i64,
    /// Epochs between the cut-off and the opening.
    pub fault_declaration_cutoff: i64,
}

/// One item of the answer of `StateMinerDeadlines`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Deadline {
    /// The partitions that were proven in the current window.
    #[serde(with = "form")]
    pub post_submissions: BitField,
    /// Proofs that can be disputed.
    #[serde(default)]
    pub disputable_proof_count: u64,
    /// The fee of a day for its sectors.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub daily_fee: TokenAmount,
}

/// One item of the answer of `StateMinerPartitions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Partition {
    /// All sectors, terminated ones included.
    #[serde(with = "form")]
    pub all_sectors: BitField,
    /// Faulty sectors.
    #[serde(with = "form")]
    pub faulty_sectors: BitField,
    /// Faulty sectors that were declared recovered.
    #[serde(with = "form")]
    pub recovering_sectors: BitField,
    /// Sectors that are not terminated.
    #[serde(with = "form")]
    pub live_sectors: BitField,
    /// Live sectors that are proven and not faulty.
    #[serde(with = "form")]
    pub active_sectors: BitField,
}

/// The answer of `StateMinerPower`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MinerPower {
    /// The miner's power.
    pub miner_power: Claim,
    /// The network's power.
    pub total_power: Claim,
    /// Whether the miner has the least power that may mine.
    #[serde(default)]
    pub has_min_power: bool,
}

/// An amount of power.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Claim {
    /// Bytes.
    #[serde(with = "form")]
    pub raw_byte_power: BigInt,
    /// Bytes, weighted by quality.
    #[serde(with = "form")]
    pub quality_adj_power: BigInt,
}

/// The answer of `StateMinerSectorCount`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MinerSectors {
    /// Sectors that are not terminated.
    pub live: u64,
    /// Live sectors that are proven and not faulty.
    pub active: u64,
    /// Faulty sectors.
    pub faulty: u64,
}

/// The answer of `StateSectorPartition`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorLocation {
    /// The deadline.
    pub deadline: u64,
    /// The partition.
    pub partition: u64,
}

/// The answer of `StateSectorExpiration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorExpiration {
    /// When it expires as agreed.
    pub on_time: i64,
    /// When it is terminated for being faulty; 0 if it is not faulty.
    pub early: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn miners_are_lotus() {
        let json = json!({
            "Owner": "t0100", "Worker": "t0101", "NewWorker": "<empty>", "ControlAddresses": ["t0102"],
            "WorkerChangeEpoch": -1, "PeerId": null, "Multiaddrs": ["AQID"], "WindowPoStProofType": 10,
            "SectorSize": 2048, "WindowPoStPartitionSectors": 2, "ConsensusFaultElapsed": -1,
            "PendingOwnerAddress": null, "Beneficiary": "t0100",
            "BeneficiaryTerm": {"Quota": "0", "UsedQuota": "0", "Expiration": 0}, "PendingBeneficiaryTerm": null
        });
        let info: MinerInfo = from_value(json.clone()).unwrap();
        assert_eq!(info.control_addresses, [Address::new_id(102)]);
        assert_eq!(info.new_worker, None);
        assert_eq!(to_value(info).unwrap(), json);
        let sparse = json!({"Owner": "f01", "Worker": "f02", "ControlAddresses": null, "Multiaddrs": null,
            "WindowPoStProofType": 8, "SectorSize": 34359738368u64});
        assert!(from_value::<MinerInfo>(sparse).is_ok());
        assert!(from_value::<MinerInfo>(json!({"Owner": "f01"})).is_err());
    }

    #[test]
    fn deadlines_are_lotus() {
        let json = json!({
            "CurrentEpoch": 1005, "PeriodStart": -100, "Index": 18, "Open": 980, "Close": 1040, "Challenge": 960,
            "FaultCutoff": 910, "WPoStPeriodDeadlines": 48, "WPoStProvingPeriod": 2880, "WPoStChallengeWindow": 60,
            "WPoStChallengeLookback": 20, "FaultDeclarationCutoff": 70
        });
        let info: DeadlineInfo = from_value(json.clone()).unwrap();
        assert_eq!(to_value(info).unwrap(), json);

        let json = json!({"PostSubmissions": [0, 2], "DisputableProofCount": 1, "DailyFee": "7"});
        assert_eq!(to_value(from_value::<Deadline>(json.clone()).unwrap()).unwrap(), json);
        assert!(from_value::<Deadline>(json!({"PostSubmissions": [0, 2]})).is_ok(), "before FIP-0100");

        let json = json!({"AllSectors": [1, 2], "FaultySectors": [0], "RecoveringSectors": [0],
            "LiveSectors": [1, 2], "ActiveSectors": [1, 1]});
        assert_eq!(to_value(from_value::<Partition>(json.clone()).unwrap()).unwrap(), json);

        let json = json!({"MinerPower": {"RawBytePower": "2048", "QualityAdjPower": "2048"},
            "TotalPower": {"RawBytePower": "2048", "QualityAdjPower": "2048"}, "HasMinPower": true});
        assert_eq!(to_value(from_value::<MinerPower>(json.clone()).unwrap()).unwrap(), json);
    }
}
