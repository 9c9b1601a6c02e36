//! What a rule found.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A claim that the machine cannot give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// The rule.
    pub kind: ViolationKind,
    /// The slots, or the stores, that broke it, by name; more than one where they broke it together.
    pub of: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.of.join(", "), self.message)
    }
}

/// A rule that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ViolationKind {
    /// A CPU that is not there.
    UnknownCpu,
    /// A CPU that is switched off.
    OfflineCpu,
    /// A CPU that the affinity or control group of the recording process keeps from it.
    ForbiddenCpu,
    /// A CPU of two slots.
    Overlap,
    /// A memory node that is not there.
    UnknownNode,
    /// A CPU outside the memory nodes of its slot.
    OutsideNode,
    /// Too few cores within one level 3 cache for multicore SDR.
    SplitSdrGroup,
    /// Level 3 caches with different numbers of cores, which multicore SDR cannot divide.
    UnevenCaches,
    /// A GPU that is not there.
    UnknownGpu,
    /// A GPU that a slot names twice.
    RepeatedGpu,
    /// More memory than a node has.
    NodeMemory,
    /// More memory than the machine has.
    MachineMemory,
    /// A store on no known file system.
    NoFileSystem,
    /// A store on another disk than the one it was made on.
    OtherDisk,
    /// A store that cannot be written to.
    ReadOnly,
    /// More space than a file system has.
    Space,
}
