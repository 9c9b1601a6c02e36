//! Writing the data of a sector.

use damocles_core::{
    CommD, PieceInfo, SealProofType,
    pool::{Task, TaskKind},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Writes the pieces of a sector, Fr32-padded and in order, into its staged file, and checks each against its
/// commitment. A sector without pieces gets a sparse file of zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddPieces {
    /// How the sector is sealed.
    pub proof_type: SealProofType,
    /// The pieces in order.
    pub pieces: Vec<PieceInput>,
    /// The file to write; one that is there is replaced.
    pub staged: PathBuf,
}

/// One piece and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PieceInput {
    /// What the piece must be.
    pub piece: PieceInfo,
    /// Where its bytes are.
    pub content: PieceContent,
}

/// Where the bytes of a piece are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PieceContent {
    /// In this file; what it lacks up to the unpadded piece size is zeros.
    File(PathBuf),
    /// Nothing but zeros.
    Zeros,
}

impl Task for AddPieces {
    const KIND: TaskKind = TaskKind::new("add_pieces");
    type Output = AddedPieces;
}

/// What the staged file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedPieces {
    /// All pieces in order, alignment fillers included: what the proofs library is told about the sector.
    pub pieces: Vec<PieceInfo>,
    /// The data commitment that follows from them.
    pub comm_d: CommD,
}
