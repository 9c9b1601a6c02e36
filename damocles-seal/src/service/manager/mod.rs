//! The manager's own [`SealingService`](super::SealingService), over a chain and a database.

mod expiration;
mod giving_up;
mod intent;
mod piece_dirs;
mod pieces;
mod pre_commit;
mod probes;
mod prove_commit;
mod replicas;
mod reports;
mod service;
mod workers;

pub use piece_dirs::PieceDirs;
pub use pieces::QueuedPiece;
pub use replicas::ReplicaStores;
pub use service::{ManagerConfig, ManagerParts, ManagerService};
pub use workers::KnownWorker;
