//! Blocks, tipsets and head changes.

use super::form;
use cid::Cid;
use damocles_core::{
    Epoch,
    chain::{ChainError, ChainErrorKind, TipsetKey, TipsetRef},
};
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

/// A tipset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", try_from = "Told")]
pub struct TipSet {
    /// The CIDs of its blocks, of which there is one at least: without, it would name the node's current head.
    #[serde(serialize_with = "form::serialize")]
    pub cids: Vec<Cid>,
    /// Its blocks.
    pub blocks: Vec<BlockHeader>,
    /// Its height.
    pub height: i64,
}

/// A tipset as it was told.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    #[serde(deserialize_with = "at_least_one")]
    cids: Vec<Cid>,
    #[serde(default, deserialize_with = "form::plain_null_is_default")]
    blocks: Vec<BlockHeader>,
    height: i64,
}

impl TryFrom<Told> for TipSet {
    type Error = String;

    fn try_from(Told { cids, blocks, height }: Told) -> Result<Self, String> {
        match blocks.iter().find(|block| block.height != height) {
            Some(block) => Err(format!("a tipset at {height} with a block at {}", block.height)),
            None => Ok(Self { cids, blocks, height }),
        }
    }
}

impl TipSet {
    /// Its name.
    pub fn to_ref(&self) -> TipsetRef {
        TipsetRef { epoch: Epoch(self.height), key: TipsetKey(self.cids.clone()) }
    }

    /// Refuses another tipset than the one that was asked for.
    pub(crate) fn must_be(&self, key: &TipsetKey) -> Result<(), ChainError> {
        if self.cids == key.0 {
            return Ok(());
        }
        Err(another().with("asked", key).with("answered", TipsetKey(self.cids.clone())))
    }

    /// Refuses a tipset above the epoch that was asked for; one below is there after null rounds.
    pub(crate) fn must_be_at_most(&self, epoch: Epoch) -> Result<(), ChainError> {
        if (0..=epoch.0.max(0)).contains(&self.height) {
            return Ok(());
        }
        Err(another().with("asked", epoch).with("answered", self.height))
    }

    /// The key of the tipset before it; none if there are no blocks in it.
    pub fn parents(&self) -> Option<TipsetKey> {
        self.blocks.first().map(|block| TipsetKey(block.parents.clone()))
    }
}

fn another() -> ChainError {
    ChainError::new(ChainErrorKind::Malformed, "read answer").with("what", "another tipset than asked for")
}

fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Cid>, D::Error> {
    let cids: Vec<Cid> = form::deserialize(deserializer)?;
    if cids.is_empty() {
        return Err(de::Error::custom("a tipset without blocks"));
    }
    Ok(cids)
}

/// A block's header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlockHeader {
    /// Who made it.
    #[serde(with = "form")]
    pub miner: Address,
    /// Its ticket.
    #[serde(default)]
    pub ticket: Option<Ticket>,
    /// The proof that its maker was elected.
    #[serde(default)]
    pub election_proof: Option<ElectionProof>,
    /// New entries of the beacon.
    #[serde(default, deserialize_with = "form::plain_null_is_default")]
    pub beacon_entries: Vec<BeaconEntry>,
    /// The WinningPoSt.
    #[serde(default, rename = "WinPoStProof", deserialize_with = "form::plain_null_is_default")]
    pub win_post_proof: Vec<PoStProof>,
    /// The tipset before it.
    #[serde(with = "form")]
    pub parents: Vec<Cid>,
    /// The weight of the chain up to its parents.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub parent_weight: BigInt,
    /// Its height.
    pub height: i64,
    /// The state after its parents' messages.
    #[serde(default, with = "form")]
    pub parent_state_root: Option<Cid>,
    /// The receipts of its parents' messages.
    #[serde(default, with = "form")]
    pub parent_message_receipts: Option<Cid>,
    /// Its messages.
    #[serde(default, with = "form")]
    pub messages: Option<Cid>,
    /// The aggregate of the BLS signatures of its messages.
    #[serde(default, rename = "BLSAggregate")]
    pub bls_aggregate: Option<Value>,
    /// Seconds since the Unix epoch.
    #[serde(default)]
    pub timestamp: u64,
    /// Its maker's signature.
    #[serde(default)]
    pub block_sig: Option<Value>,
    /// Unused by the protocol.
    #[serde(default)]
    pub fork_signaling: u64,
    /// The base fee of its parents' messages.
    #[serde(default, serialize_with = "form::serialize", deserialize_with = "form::null_is_default")]
    pub parent_base_fee: TokenAmount,
}

/// A block's ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The VRF proof that it is.
    #[serde(rename = "VRFProof", default, with = "form")]
    pub vrf_proof: Vec<u8>,
}

/// The proof that a block's maker was elected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ElectionProof {
    /// How often it won.
    pub win_count: i64,
    /// The VRF proof.
    #[serde(rename = "VRFProof", default, with = "form")]
    pub vrf_proof: Vec<u8>,
}

/// An entry of the randomness beacon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BeaconEntry {
    /// The round.
    pub round: u64,
    /// Its signature.
    #[serde(default, with = "form")]
    pub data: Vec<u8>,
}

/// A proof of spacetime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PoStProof {
    /// The registered kind.
    #[serde(rename = "PoStProof")]
    pub post_proof: i64,
    /// The proof.
    #[serde(default, with = "form")]
    pub proof_bytes: Vec<u8>,
}

/// One change in a `ChainNotify` notification.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HeadChange {
    /// What happened to the tipset.
    #[serde(rename = "Type")]
    pub kind: HeadChangeKind,
    /// The tipset.
    pub val: TipSet,
}

/// What happened to a tipset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadChangeKind {
    /// It is the head as the subscription starts.
    Current,
    /// It became the head.
    Apply,
    /// It is no longer part of the chain.
    Revert,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    const CID: &str = "bafy2bzaceaa43et73tgxsoh2xizd4mxhbrcfig4kqp25zfa5scdgkzppllyuu";

    #[test]
    fn a_head_change_is_lotus() {
        let block = json!({
            "Miner": "t01000", "Ticket": {"VRFProof": "AQID"}, "ElectionProof": {"WinCount": 1, "VRFProof": "AQID"},
            "BeaconEntries": [{"Round": 7, "Data": "AQID"}], "WinPoStProof": [{"PoStProof": 3, "ProofBytes": "AQID"}],
            "Parents": [{"/": CID}], "ParentWeight": "100", "Height": 12, "ParentStateRoot": {"/": CID},
            "ParentMessageReceipts": {"/": CID}, "Messages": {"/": CID},
            "BLSAggregate": {"Type": 2, "Data": "AQID"}, "Timestamp": 5,
            "BlockSig": {"Type": 2, "Data": "AQID"}, "ForkSignaling": 0, "ParentBaseFee": "100"
        });
        let json = json!({"Type": "apply", "Val": {"Cids": [{"/": CID}], "Blocks": [block], "Height": 12}});
        let change: HeadChange = from_value(json.clone()).unwrap();
        assert_eq!(change.kind, HeadChangeKind::Apply);
        assert_eq!(change.val.to_ref().epoch, Epoch(12));
        assert_eq!(change.val.parents().unwrap().to_string(), CID);
        assert_eq!(to_value(change).unwrap(), json);
    }

    #[test]
    fn sparse_headers_are_read_and_broken_ones_are_not() {
        let sparse = json!({"Cids": [{"/": CID}], "Blocks": [{"Miner": "f01", "Parents": null, "Height": 1, "New": {}}], "Height": 1});
        assert!(from_value::<TipSet>(sparse).is_ok());
        for bad in [
            json!({}),
            json!({"Cids": [], "Blocks": [], "Height": "1"}),
            json!(null),
            json!({"Cids": [null], "Height": 1}),
            json!({"Cids": [], "Blocks": [], "Height": 1}),
            json!({"Cids": null, "Blocks": [], "Height": 1}),
            json!({"Cids": [{"/": CID}], "Blocks": [{"Miner": "f01", "Parents": null, "Height": 1}], "Height": 2}),
        ] {
            assert!(from_value::<TipSet>(bad.clone()).is_err(), "{bad}");
        }
    }
}
