//! Building the tree over a sector's data.

use damocles_core::{
    CommD, SealProofType,
    pool::{Task, TaskKind},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Builds `sc-02-data-tree-d.dat` from the staged file. An existing file is never trusted: it is built anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeD {
    /// How the sector is sealed.
    pub proof_type: SealProofType,
    /// The staged file.
    pub staged: PathBuf,
    /// Where to put the tree.
    pub dir: PathBuf,
}

impl Task for TreeD {
    const KIND: TaskKind = TaskKind::new("tree_d");
    type Output = TreeDOutput;
}

/// A finished tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeDOutput {
    /// Its root.
    pub comm_d: CommD,
    /// Its file.
    pub file: PathBuf,
}
