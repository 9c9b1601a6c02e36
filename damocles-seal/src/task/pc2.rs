//! Pre-commit phase 2: the replica and its trees.

use damocles_core::{
    CommD, CommR, SealProofType, SectorId,
    pool::{Task, TaskKind},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use super::Pc1Output;

/// Encodes the replica and builds its trees.
///
/// May be repeated at any instant: it first removes what an earlier run left and copies the staged file over the
/// sealed one, so it never edits its only input in place. All files are synced before it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pc2 {
    /// The sector.
    pub sector: SectorId,
    /// How it is sealed.
    pub proof_type: SealProofType,
    /// What PC1 gave.
    pub pc1: Pc1Output,
    /// The staged file, which is left as it is.
    pub staged: PathBuf,
    /// The sealed file, which is written anew.
    pub sealed: PathBuf,
    /// The cache directory.
    pub cache: PathBuf,
}

impl Task for Pc2 {
    const KIND: TaskKind = TaskKind::new("pc2");
    type Output = Pc2Output;
}

/// The commitments of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pc2Output {
    /// To the replica.
    pub comm_r: CommR,
    /// To the data.
    pub comm_d: CommD,
}
