//! The manager's own [`SealingService`](super::SealingService), over a chain and a database.

mod expiration;
mod intent;
mod pieces;
mod pre_commit;
mod prove_commit;
mod replicas;
mod reports;
mod service;
mod workers;

pub use pieces::QueuedPiece;
pub use replicas::ReplicaStores;
pub use service::{ManagerConfig, ManagerParts, ManagerService};
