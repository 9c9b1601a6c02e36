//! The stages of a plan. One file a stage.

mod add_pieces;
mod c1;
mod c2;
mod clean_up;
mod contract;
mod deals;
mod deps;
mod fault;
mod files;
mod pc1;
mod pc2;
mod persist;
mod piece_source;
mod pieces;
mod pre_commit;
mod pre_commit_landed;
mod prove_commit;
mod prove_commit_landed;
mod seed;
mod stall;
mod ticket;
mod tree_d;

pub(crate) use fault::{of_service, of_store};

pub use add_pieces::{AddPiecesStage, AddedOutput};
pub use c1::{C1Stage, ChallengesOutput};
pub use c2::{C2Stage, ProofOutput};
pub use clean_up::CleanUpStage;
pub use contract::{Stage, StageOutcome};
pub use deals::{DealPolicy, DealSettings};
pub use deps::StageDeps;
pub use pc1::{LayersOutput, Pc1Stage};
pub use pc2::{Pc2Stage, ReplicaOutput};
pub use persist::{PersistStage, PersistedOutput};
pub use piece_source::{FirstOf, HttpPieces, LocalPieces, PieceSource};
pub use pieces::{PiecesOutput, PiecesStage};
pub use pre_commit::PreCommitStage;
pub use pre_commit_landed::{LandedOutput, PreCommitLandedStage};
pub use prove_commit::ProveCommitStage;
pub use prove_commit_landed::ProveCommitLandedStage;
pub use seed::SeedStage;
pub use ticket::TicketStage;
pub use tree_d::{TreeDStage, TreeOutput};

/// The names of the stages of interactive PoRep.
pub mod id {
    use damocles_core::pipeline::StageId;

    /// Asks for the pieces and fetches them.
    pub const PIECES: StageId = StageId::new("pieces");
    /// Writes the data.
    pub const ADD_PIECES: StageId = StageId::new("add_pieces");
    /// Builds the tree over the data.
    pub const TREE_D: StageId = StageId::new("tree_d");
    /// Draws the ticket.
    pub const TICKET: StageId = StageId::new("ticket");
    /// Computes the layers.
    pub const PC1: StageId = StageId::new("pc1");
    /// Encodes the replica.
    pub const PC2: StageId = StageId::new("pc2");
    /// Submits the pre-commit.
    pub const PRE_COMMIT: StageId = StageId::new("pre_commit");
    /// Waits until the pre-commit has landed.
    pub const PRE_COMMIT_LANDED: StageId = StageId::new("pre_commit_landed");
    /// Copies the replica to a persist store.
    pub const PERSIST: StageId = StageId::new("persist");
    /// Waits for the seed.
    pub const SEED: StageId = StageId::new("seed");
    /// Reads the challenged nodes.
    pub const C1: StageId = StageId::new("c1");
    /// Makes the proof.
    pub const C2: StageId = StageId::new("c2");
    /// Submits the proof.
    pub const PROVE_COMMIT: StageId = StageId::new("prove_commit");
    /// Waits until the proof has landed.
    pub const PROVE_COMMIT_LANDED: StageId = StageId::new("prove_commit_landed");
    /// Removes layers and trees.
    pub const CLEAN_UP: StageId = StageId::new("clean_up");
}
