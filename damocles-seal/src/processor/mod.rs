//! What does the work of a task. One file a task, one line in a registry.
//!
//! A processor may be killed at any instant and run again with the same task. So each looks at its inputs before it
//! starts, removes what an earlier run may have left, and syncs what it leaves behind: the proofs library does none of
//! the three.

#[cfg(feature = "proofs")]
mod add_pieces;
#[cfg(feature = "proofs")]
mod c1;
#[cfg(feature = "proofs")]
mod c2;
mod contract;
pub(crate) mod files;
pub(crate) mod fillers;
mod jobs;
#[cfg(feature = "proofs")]
pub(crate) mod library;
pub(crate) mod names;
mod pace;
mod panic;
#[cfg(feature = "proofs")]
mod pc1;
#[cfg(feature = "proofs")]
mod pc2;
pub(crate) mod prepare;
mod probe;
#[cfg(feature = "proofs")]
mod prove_window_post;
#[cfg(feature = "proofs")]
mod read_challenges;
#[cfg(feature = "proofs")]
mod registry;
mod serve;
#[cfg(feature = "proofs")]
mod serve_v1;
mod transfer;
#[cfg(feature = "proofs")]
mod tree_d;
mod turn;
#[cfg(feature = "proofs")]
mod v1_work;

pub(crate) use panic::panic_text;

#[cfg(feature = "proofs")]
pub use add_pieces::AddPiecesProcessor;
#[cfg(feature = "proofs")]
pub use c1::C1Processor;
#[cfg(feature = "proofs")]
pub use c2::C2Processor;
pub use contract::{Processor, ProcessorError, ProgressSink, Registry};
#[cfg(feature = "proofs")]
pub use pc1::Pc1Processor;
#[cfg(feature = "proofs")]
pub use pc2::Pc2Processor;
pub use probe::ProbeProcessor;
#[cfg(feature = "proofs")]
pub use prove_window_post::ProveWindowPoStProcessor;
#[cfg(feature = "proofs")]
pub use read_challenges::ReadChallengesProcessor;
#[cfg(feature = "proofs")]
pub use registry::{all, sealing_registry};
pub use serve::{ServeError, ServeOptions, Served, serve};
#[cfg(feature = "proofs")]
pub use serve_v1::serve_v1;
pub use transfer::TransferProcessor;
#[cfg(feature = "proofs")]
pub use tree_d::TreeDProcessor;
pub use turn::ProofTurn;
