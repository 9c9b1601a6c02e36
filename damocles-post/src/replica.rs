//! Where replicas lie.

use async_trait::async_trait;
use damocles_core::{BoxError, SectorId, post::ReplicaPaths};
use std::fmt;

/// Knows where replicas lie.
///
/// # Contract
///
/// - `None` means that no store is known to hold the replica: the sector is skipped in proofs and not declared
///   recovered.
/// - An error means that no answer could be found now. It costs no sector: the duty is tried again.
/// - Nothing is read: whether the files are good is found out by reading challenges.
#[async_trait]
pub trait ReplicaSource: fmt::Debug + Send + Sync + 'static {
    /// The files of a sector.
    async fn locate(&self, sector: SectorId) -> Result<Option<ReplicaPaths>, BoxError>;
}
