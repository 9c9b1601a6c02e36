//! The incumbent's wire: names, casing and forms are those of damocles 0.13.

use super::method::method;
use crate::service::PieceTerms;
use base64::{Engine, prelude::BASE64_STANDARD};
use damocles_core::{ActorId, Epoch, SectorId, SectorNumber};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{collections::BTreeMap, time::Duration};

/// `{"Miner":1000,"Number":1}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WireSector {
    /// The miner.
    pub miner: u64,
    /// The number.
    pub number: u64,
}

impl From<SectorId> for WireSector {
    fn from(id: SectorId) -> Self {
        Self { miner: id.miner.0, number: id.number.0 }
    }
}

impl From<WireSector> for SectorId {
    fn from(id: WireSector) -> Self {
        Self::new(ActorId(id.miner), SectorNumber(id.number))
    }
}

/// Bytes as base64 text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Go writes an empty slice as null.
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        BASE64_STANDARD.decode(text).map(Self).map_err(de::Error::custom)
    }
}

/// `{"/":"baga6ea4seaq..."}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireCid {
    /// The CID's text.
    #[serde(rename = "/")]
    pub cid: String,
}

/// Which sectors a worker wants; empty or null means any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AllocateSpec {
    /// Of these miners.
    pub allowed_miners: Option<Vec<u64>>,
    /// Of these proof types, by registered number.
    pub allowed_proof_types: Option<Vec<i64>>,
}

/// A sector that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AllocatedSector {
    /// The sector.
    #[serde(rename = "ID")]
    pub id: WireSector,
    /// Its registered proof number.
    pub proof_type: i64,
}

/// Limits to the deals that a worker takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AcquireDealsSpec {
    /// At most this many.
    pub max_deals: Option<u64>,
    /// At least this much data.
    pub min_used_space: Option<u64>,
    /// Ours alone: a sector that gets none may ask again and be given some. Left out where it is not so.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
}

impl From<PieceTerms> for AcquireDealsSpec {
    fn from(terms: PieceTerms) -> Self {
        let PieceTerms { most, least, settles } = terms;
        Self { max_deals: most, min_used_space: (least > 0).then_some(least), waits: !settles }
    }
}

impl From<AcquireDealsSpec> for PieceTerms {
    fn from(spec: AcquireDealsSpec) -> Self {
        Self { most: spec.max_deals, least: spec.min_used_space.unwrap_or(0), settles: !spec.waits }
    }
}

/// A piece of a sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorPiece {
    /// The piece.
    pub piece: WirePiece,
    /// Where it comes from; all zero for a filler.
    #[serde(default)]
    pub deal_info: Option<DealInfo>,
}

/// A piece as the chain knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WirePiece {
    /// The padded size.
    pub size: u64,
    /// The commitment.
    #[serde(rename = "PieceCID")]
    pub piece_cid: WireCid,
}

/// Where a piece comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DealInfo {
    /// Not zero for a piece with data.
    #[serde(rename = "DealID")]
    pub deal_id: u64,
    /// The publishing message.
    #[serde(default)]
    pub publish_cid: Option<WireCid>,
    /// Not zero for a direct deal.
    #[serde(rename = "AllocationID", default)]
    pub allocation_id: u64,
    /// The commitment.
    #[serde(rename = "PieceCID")]
    pub piece_cid: WireCid,
    /// The padded size.
    pub piece_size: u64,
    /// The client's address.
    #[serde(default)]
    pub client: String,
    /// The miner's address.
    #[serde(default)]
    pub provider: String,
    /// Where the piece begins in the sector.
    #[serde(default)]
    pub offset: u64,
    /// Its length in the sector.
    #[serde(default)]
    pub length: u64,
    /// The bytes that are data.
    pub payload_size: u64,
    /// The deal's first epoch.
    #[serde(default)]
    pub start_epoch: i64,
    /// The deal's last epoch.
    #[serde(default)]
    pub end_epoch: i64,
    /// Whether it is a deal of the market actor.
    #[serde(default)]
    pub is_builtin_market: bool,
    /// Whether it comes from an older record.
    #[serde(default)]
    pub is_compatible: bool,
}

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WireTicket {
    /// The randomness.
    pub ticket: Base64,
    /// Its epoch.
    pub epoch: Epoch,
}

/// What a sector pre-commits to; commitments are lists of 32 numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WirePreCommit {
    /// The replica.
    pub comm_r: [u8; 32],
    /// The data.
    pub comm_d: [u8; 32],
    /// The ticket.
    pub ticket: WireTicket,
}

/// The answer to a submission: 1 accepted, 2 duplicate, 3 mismatched, 4 rejected, 5 files missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SubmitResponse {
    /// The result.
    pub res: u64,
    /// Why.
    #[serde(default)]
    pub desc: Option<String>,
}

/// Where a message stands: 1 pending, 2 packed, 3 landed, 4 not found, 5 failed, 6 failed for good, 7 should abort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PollResponse {
    /// The state.
    pub state: u64,
    /// Why.
    #[serde(default)]
    pub desc: Option<String>,
    /// The epoch at which it was executed; told only to callers that send a fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// A seed, or how long to wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WaitSeedResponse {
    /// Whether there is none yet.
    pub should_wait: bool,
    /// Seconds.
    #[serde(default)]
    pub delay: i64,
    /// The seed.
    #[serde(default)]
    pub seed: Option<WireSeed>,
    /// The epoch at which it will be there; told only to callers that send a fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
}

/// A seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WireSeed {
    /// The randomness.
    pub seed: Base64,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A seal proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WireProof {
    /// The proof.
    pub proof: Base64,
}

/// How a sector moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StateReport {
    /// Who reports.
    pub worker: WireWorker,
    /// From where to where.
    pub state_change: StateChange,
    /// What failed, if something did.
    #[serde(default)]
    pub failure: Option<Failure>,
}

/// A worker's sealing place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WireWorker {
    /// The worker.
    pub instance: String,
    /// Its store.
    pub location: String,
}

/// From where to where a sector moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StateChange {
    /// From here.
    pub prev: String,
    /// To here.
    pub next: String,
    /// Because of this.
    pub event: String,
}

/// What failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Failure {
    /// `temporary`, `permanent`, `critical` or `abort`.
    pub level: String,
    /// The error.
    pub desc: String,
}

/// The answer to a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorStateResponse {
    /// The sector.
    pub id: WireSector,
    /// Whether it is done with.
    #[serde(default)]
    pub finalized: bool,
    /// Why it was given up, or nothing.
    #[serde(default)]
    pub abort_reason: Option<String>,
}

/// What a worker tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WorkerInfo {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub dest: String,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// Its sealing places.
    pub summary: WorkerSummary,
    /// Ours alone: the error of one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The sealing places of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WorkerSummary {
    /// All.
    pub threads: u64,
    /// Without a sector.
    pub empty: u64,
    /// Paused.
    pub paused: u64,
    /// At work.
    pub running: u64,
    /// Waiting.
    pub waiting: u64,
    /// In error.
    pub errors: u64,
}

/// A persist store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StoreInfo {
    /// Its name.
    pub name: String,
    /// Where it is on the manager.
    #[serde(default)]
    pub path: String,
    /// The incumbent's flag.
    #[serde(default)]
    pub strict: bool,
    /// Whether nothing may be written to it.
    #[serde(default)]
    pub read_only: bool,
    /// The incumbent's weight.
    #[serde(default)]
    pub weight: u64,
    /// What else is known of it.
    #[serde(default)]
    pub meta: Option<BTreeMap<String, String>>,
}

/// What of a sector's record a worker of ours needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorRecord {
    /// The sector.
    #[serde(rename = "ID")]
    pub id: WireSector,
    /// Its registered proof number.
    pub sector_type: i64,
}

const DISK: Duration = Duration::from_secs(90);

method!(/// Hands out a sector.
    AllocateSector, "Venus.AllocateSector", (AllocateSpec,) => Option<AllocatedSector>);
method!(/// The pieces of a sector.
    AcquireDeals, "Venus.AcquireDeals", (WireSector, AcquireDealsSpec) => Option<Vec<SectorPiece>>);
method!(/// A ticket.
    AssignTicket, "Venus.AssignTicket", (WireSector,) => WireTicket);
method!(/// Submits a pre-commit; the flag asks for another attempt.
    SubmitPreCommit, "Venus.SubmitPreCommit", (AllocatedSector, WirePreCommit, bool) => SubmitResponse);
method!(/// Where the pre-commit stands.
    PollPreCommitState, "Venus.PollPreCommitState", (WireSector,) => PollResponse);
method!(/// Says that a replica is in a store; the flag is for snap-upgrades.
    SubmitPersistedEx, "Venus.SubmitPersistedEx", (WireSector, String, bool) => bool, DISK);
method!(/// The seed, or how long to wait for it.
    WaitSeed, "Venus.WaitSeed", (WireSector, i64) => WaitSeedResponse);
method!(/// Submits a proof; the flag asks for another attempt.
    SubmitProof, "Venus.SubmitProof", (WireSector, WireProof, bool) => SubmitResponse, DISK);
method!(/// Where the proof stands.
    PollProofState, "Venus.PollProofState", (WireSector,) => PollResponse);
method!(/// Tells how a sector moved.
    ReportState, "Venus.ReportState", (WireSector, StateReport) => SectorStateResponse);
method!(/// Tells that a sector is done with.
    ReportFinalized, "Venus.ReportFinalized", (WireSector,) => ());
method!(/// Tells that a sector cannot be saved.
    ReportAborted, "Venus.ReportAborted", (WireSector, String) => ());
method!(/// Tells that a worker is alive.
    WorkerPing, "Venus.WorkerPing", (WorkerInfo,) => ());
method!(/// Chooses a persist store.
    StoreReserveSpace, "Venus.StoreReserveSpace", (WireSector, u64, Option<Vec<String>>) => Option<StoreInfo>, DISK);
method!(/// What is known of a persist store.
    StoreBasicInfo, "Venus.StoreBasicInfo", (String,) => Option<StoreInfo>);
method!(/// A sector's record. Only asked of an incumbent's manager.
    FindSectorInAllStates, "Venus.FindSectorInAllStates", (WireSector,) => SectorRecord);
