//! What quickstart prints at its end: read from the chain, not from our own records.

use damocles_core::{CommD, CommR, DeadlineIndex, Epoch, PartitionIndex, PieceInfo, verify::VerifyingKeys};
use serde::{Deserialize, Serialize};

/// The whole document of `quickstart --json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of the programs.
    pub version: String,
    /// The network's name.
    pub network: String,
    /// Always `real`: quickstart has no other mode.
    pub proofs: String,
    /// Digests of the verifying keys.
    pub verifying_keys: VerifyingKeys,
    /// The miner, `t01000`.
    pub miner: String,
    /// The sectors by number.
    pub sectors: Vec<SectorReport>,
    /// How long it took.
    pub seconds: Seconds,
}

/// One sector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SectorReport {
    /// Its id, `s-t01000-1`.
    pub id: String,
    /// Whether it holds data.
    pub kind: SectorKind,
    /// The pieces that became active with it.
    pub pieces: Vec<PieceInfo>,
    /// To the data, as text.
    pub comm_d: CommD,
    /// To the replica, as text.
    pub comm_r: CommR,
    /// The pre-commit that landed.
    pub pre_commit: Landed,
    /// The prove-commit that landed; none before.
    pub prove_commit: Option<Landed>,
    /// When the sector became active; none if it is not.
    pub activation: Option<Epoch>,
    /// Its deadline.
    pub deadline: Option<DeadlineIndex>,
    /// Its partition.
    pub partition: Option<PartitionIndex>,
    /// The window PoSts that covered it.
    pub posts: Vec<PostReport>,
}

impl SectorReport {
    /// Whether the sector is active and a window PoSt that covers it landed and verifies.
    pub fn is_proven(&self) -> bool {
        self.activation.is_some() && self.posts.iter().any(|p| p.exit_code == 0 && p.verified)
    }
}

/// Whether a sector holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SectorKind {
    /// Committed capacity.
    Cc,
    /// Data.
    Data,
}

/// A message that landed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landed {
    /// Its CID.
    pub message: String,
    /// The epoch of its tipset.
    pub epoch: Epoch,
    /// The actor's exit code.
    pub exit_code: i64,
}

/// A window PoSt that covered a sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostReport {
    /// The message's CID.
    pub message: String,
    /// The epoch of its tipset.
    pub epoch: Epoch,
    /// The actor's exit code.
    pub exit_code: i64,
    /// Whether the proof in the message, checked here against what the chain says, proves the sector.
    pub verified: bool,
}

/// Durations in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Making proof parameters.
    pub parameters: f64,
    /// From the first allocation to the last activation.
    pub seal: f64,
    /// All of it.
    pub total: f64,
}

impl Report {
    /// Whether every one of `wanted` sectors is active and proven. One of several holds data.
    pub fn is_complete(&self, wanted: usize) -> bool {
        let data = self.sectors.iter().any(|s| s.kind == SectorKind::Data);
        self.sectors.len() >= wanted && (wanted < 2 || data) && self.sectors.iter().all(SectorReport::is_proven)
    }

    /// The header and rows of the table.
    pub fn table(&self) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let header = vec!["sector", "kind", "CommR", "active since", "deadline/partition", "PoSt verified"];
        let text = |v: Option<String>| v.unwrap_or_else(|| "-".to_owned());
        let rows = self.sectors.iter().map(|sector| {
            let place = sector.deadline.zip(sector.partition).map(|(d, p)| format!("{d}/{p}"));
            let post = sector.posts.iter().rev().find(|p| p.exit_code == 0 && p.verified);
            vec![
                sector.id.clone(),
                match sector.kind {
                    SectorKind::Cc => "cc".to_owned(),
                    SectorKind::Data => "data".to_owned(),
                },
                sector.comm_r.to_string(),
                text(sector.activation.map(|e| format!("epoch {e}"))),
                text(place),
                text(post.map(|p| format!("epoch {}", p.epoch))),
            ]
        });
        (header, rows.collect())
    }
}
