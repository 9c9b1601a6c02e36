//! Protocol v1, as processors made for damocles 0.13 speak it: lines of JSON.
//!
//! It has no version, no ping, no progress and no request to stop: a child that hangs is found by the time limit of its
//! job, or because a signal stopped it, and a job is cancelled by a signal.

mod files;
mod line;
mod lines;
#[cfg(feature = "proofs")]
pub(crate) mod post_words;
mod translate;
pub(crate) mod words;

#[cfg(feature = "proofs")]
pub(crate) use line::{MAX_LINE, excerpt, next_line};
pub(super) use lines::Lines;

use damocles_core::pool::TaskKind;
use std::{collections::BTreeMap, process::Command};

/// The variables by which the old daemon asks a child to place itself. Ours is placed before it runs.
const PLACES_ITSELF: [&str; 3] = ["VC_CG_NAME", "VC_CG_CPUSET", "VENUS_WORKER_NUMA_PREFERRED"];

/// Keeps variables that this process inherited itself from making a child place itself.
pub(super) fn let_be_placed(command: &mut Command, envs: &BTreeMap<String, String>) {
    for name in PLACES_ITSELF.iter().filter(|name| !envs.contains_key(**name)) {
        command.env_remove(name);
    }
}

/// Whether tasks of this kind can be given to a processor of protocol v1.
pub fn has_v1(kind: &TaskKind) -> bool {
    words::KINDS.contains(&kind.as_str())
}

/// What a processor of a stage says first.
pub(crate) fn banner(stage: &str) -> String {
    format!("{stage} processor ready")
}
