//! What crosses between a worker and a manager.

use damocles_core::{
    CommD, CommR, Epoch, PieceInfo, Recovery, SealProofType, pipeline::StageId, pipeline::Wake, verify::Randomness,
    verify::VerifyingKeys,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The verifying keys of each kind of sector.
pub type KeyTable = BTreeMap<SealProofType, VerifyingKeys>;

/// Who the manager is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its version.
    pub version: String,
    /// What it can do beyond the incumbent's interface, e.g. `leases`, `events`; empty for an incumbent.
    pub capabilities: Vec<String>,
    /// The name of its network, if it tells.
    pub network: Option<String>,
    /// The verifying keys that it checks proofs with, if it tells. A worker with others refuses to seal.
    #[serde(default)]
    pub keys: KeyTable,
}

/// A piece that a sector must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DealPiece {
    /// The piece.
    pub piece: PieceInfo,
    /// The bytes that are data; the rest is zeros. Zero for a filler.
    pub payload_size: u64,
}

/// A ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The randomness.
    pub randomness: Randomness,
    /// Its epoch.
    pub epoch: Epoch,
}

/// An interactive seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The randomness.
    pub randomness: Randomness,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A seed, or when to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedAnswer {
    /// It is here.
    Ready(Seed),
    /// It is not drawn yet, or could still change.
    Wait(Wake),
}

/// What a sector pre-commits to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreCommitRequest {
    /// The replica.
    pub comm_r: CommR,
    /// The data.
    pub comm_d: CommD,
    /// The ticket that the replica was made with.
    pub ticket: Ticket,
}

/// What a manager says to a submission. A repeat of the same submission is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SubmitAnswer {
    /// Recorded; it will be sent.
    Accepted,
    /// Something else was submitted for this sector before.
    Mismatched {
        /// What differs.
        reason: String,
    },
    /// It can never be accepted.
    Rejected {
        /// Why.
        reason: String,
    },
    /// Files are missing in the store that was named.
    FilesMissed {
        /// Which.
        reason: String,
    },
}

/// Where a commitment stands on chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CommitState {
    /// Nothing was submitted.
    NotFound,
    /// Recorded or sent, not landed with confidence yet.
    Pending {
        /// When to ask again, at the latest.
        until: Wake,
    },
    /// On chain with confidence, and the actor accepted it.
    Landed {
        /// The epoch at which it was executed.
        epoch: Epoch,
    },
    /// It failed for a reason that may pass: submit again.
    Failed {
        /// Why.
        reason: String,
    },
    /// The actor refused it, and will refuse it again.
    Refused {
        /// Why.
        reason: String,
    },
    /// The sector cannot be saved.
    ShouldAbort {
        /// Why.
        reason: String,
    },
}

/// A persist store that the manager chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreChoice {
    /// Its name, known to both sides.
    pub name: String,
}

/// What a worker tells about a sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Report {
    /// A stage ended or is next.
    Moved {
        /// The stage that ended last.
        done: Option<StageId>,
        /// The stage that is next.
        next: Option<StageId>,
    },
    /// A stage failed.
    Failed {
        /// The stage.
        stage: StageId,
        /// The error with its causes.
        error: String,
        /// What the worker does about it.
        recovery: Recovery,
    },
    /// The plan ended: the sector is proven, its work files are gone.
    Finalized,
    /// The sector cannot be saved.
    Aborted {
        /// Why.
        reason: String,
    },
}

/// What a manager answers to a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// The manager holds the sector to be done with, e.g. because an operator ended it.
    pub finalized: bool,
    /// Why it was aborted, if it was.
    pub abort_reason: Option<String>,
}
