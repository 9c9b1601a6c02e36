//! Commit phase 1: the challenged nodes.

use damocles_core::{
    CommD, CommR, PieceInfo, SealProofType, SectorId,
    pool::{Task, TaskKind},
    verify::Randomness,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Reads the challenged nodes of a replica and writes them to a file: they are too large for a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct C1 {
    /// The sector.
    pub sector: SectorId,
    /// How it is sealed.
    pub proof_type: SealProofType,
    /// The ticket.
    pub ticket: Randomness,
    /// The interactive seed.
    pub seed: Randomness,
    /// To the replica.
    pub comm_r: CommR,
    /// To the data.
    pub comm_d: CommD,
    /// The pieces in it.
    pub pieces: Vec<PieceInfo>,
    /// The sealed file.
    pub sealed: PathBuf,
    /// The cache directory.
    pub cache: PathBuf,
    /// The file to write; one that is there is replaced.
    pub output: PathBuf,
}

impl Task for C1 {
    const KIND: TaskKind = TaskKind::new("c1");
    type Output = C1Output;
}

/// Where the challenged nodes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct C1Output {
    /// The file.
    pub file: PathBuf,
    /// Its length.
    pub len: u64,
}
