//! Whether a slot can do a job at all.

use crate::pool::SlotSpec;
use damocles_core::{
    ByteSize,
    pool::{Needs, TaskKind},
};

/// What a slot lacks for a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// It is for other kinds.
    #[error("slot {slot} does not take {kind}")]
    Kind {
        /// The slot.
        slot: String,
        /// The kind of the job.
        kind: TaskKind,
    },
    /// It may use less memory than the job fills.
    #[error("slot {slot} may use {limit} of memory, and the job needs {needs}")]
    Memory {
        /// The slot.
        slot: String,
        /// What it may use.
        limit: ByteSize,
        /// What the job fills.
        needs: ByteSize,
    },
}

/// Whether `slot` can do a job of this kind with these needs, whatever it does now.
///
/// # Errors
///
/// What it lacks.
pub fn fits(kind: &TaskKind, needs: &Needs, slot: &SlotSpec) -> Result<(), Misfit> {
    if !slot.kinds.contains(kind) {
        return Err(Misfit::Kind { slot: slot.name.clone(), kind: kind.clone() });
    }
    match (needs.memory, slot.placement.memory) {
        (Some(needs), Some(limit)) if needs > limit => Err(Misfit::Memory { slot: slot.name.clone(), limit, needs }),
        _ => Ok(()),
    }
}
