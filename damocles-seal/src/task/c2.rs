//! Commit phase 2: the SNARK.

use damocles_core::{
    SealProofType, SectorId,
    pool::{Task, TaskKind},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Turns the output of C1 into the proof that goes on chain, and verifies it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct C2 {
    /// The sector.
    pub sector: SectorId,
    /// How it is sealed.
    pub proof_type: SealProofType,
    /// The file that C1 wrote.
    pub c1: PathBuf,
}

impl Task for C2 {
    const KIND: TaskKind = TaskKind::new("c2");
    type Output = C2Output;
}

/// A finished seal proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct C2Output {
    /// The proof.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
}
