//! Pre-commit phase 1: the layers.

use damocles_core::{
    ByteSize, PieceInfo, SealProofType, SectorId,
    pool::{Needs, Task, TaskKind},
    verify::Randomness,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Computes the layers of a replica (SDR).
///
/// The cache directory is emptied first, but for the tree named in `tree_d`, which is linked in, or copied from another disk: layers of an earlier
/// run were renamed without being synced and cannot be told from whole ones. All files are synced before it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pc1 {
    /// The sector.
    pub sector: SectorId,
    /// How it is sealed.
    pub proof_type: SealProofType,
    /// The ticket.
    pub ticket: Randomness,
    /// The pieces in it.
    pub pieces: Vec<PieceInfo>,
    /// The staged file.
    pub staged: PathBuf,
    /// The sealed file to be; PC1 creates it.
    pub sealed: PathBuf,
    /// The cache directory.
    pub cache: PathBuf,
    /// A tree that a recorded stage built; without one the library builds it.
    pub tree_d: Option<PathBuf>,
}

impl Task for Pc1 {
    const KIND: TaskKind = TaskKind::new("pc1");
    type Output = Pc1Output;

    fn needs(&self) -> Needs {
        // The layer that is computed and the one before it are in memory, whole.
        Needs::memory(ByteSize(2 * self.proof_type.sector_size().bytes()))
    }
}

/// What PC1 hands to PC2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pc1Output {
    /// The proofs library's own output; it embeds absolute paths of the cache directory.
    pub library: serde_json::Value,
    /// The files that PC1 left in the cache directory, by name.
    pub files: Vec<String>,
}
