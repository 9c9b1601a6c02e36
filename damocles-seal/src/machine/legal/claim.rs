//! What a configuration claims of a machine.

use damocles_core::{ByteSize, CpuSet, NodeSet, pool::TaskKind};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How many producers a multicore SDR group has if `FIL_PROOFS_MULTICORE_SDR_PRODUCERS` is not set; with the consumer it takes one
/// core more. Default of storage-proofs-core.
pub const SDR_PRODUCERS: u16 = 3;

/// All that a configuration claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Claims {
    /// Its slots.
    pub slots: Vec<SlotClaim>,
    /// Its stores.
    pub stores: Vec<StoreClaim>,
    /// Memory that all slots share, on top of what each needs: the parent cache, if a slot does PC1.
    pub shared_memory: ByteSize,
}

/// What one slot claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotClaim {
    /// Its name, unique in the configuration, e.g. `pc1-0`.
    pub name: String,
    /// What it does.
    pub kind: TaskKind,
    /// The CPUs that it is bound to.
    #[serde(default)]
    pub cpus: Option<CpuSet>,
    /// The memory nodes that it allocates from, or prefers.
    #[serde(default)]
    pub mems: Option<NodeSet>,
    /// The GPUs that it is given: identifiers, beginnings of identifiers, or numbers.
    #[serde(default)]
    pub gpus: Vec<String>,
    /// The most memory that it may take.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// The memory that one of its tasks is known to keep for as long as it runs, for a slot without a limit.
    #[serde(default)]
    pub task_memory: Option<ByteSize>,
    /// Whether its CPUs are to be its own. A slot that names CPUs usually wants that.
    pub exclusive: bool,
    /// The producers of each of its multicore SDR groups, if it uses multicore SDR; see [`SDR_PRODUCERS`].
    #[serde(default)]
    pub multicore_sdr: Option<u16>,
    /// How many tasks it takes at a time.
    pub concurrent: u32,
    /// Locks that each of its tasks holds and that only one task on the machine can hold at a time.
    #[serde(default)]
    pub locks: Vec<String>,
}

impl SlotClaim {
    /// A slot for one task at a time that claims nothing.
    pub fn new(name: impl Into<String>, kind: TaskKind) -> Self {
        Self {
            name: name.into(),
            kind,
            cpus: None,
            mems: None,
            gpus: Vec::new(),
            memory: None,
            task_memory: None,
            exclusive: false,
            multicore_sdr: None,
            concurrent: 1,
            locks: Vec::new(),
        }
    }

    /// Whether the two never run at the same time.
    pub fn takes_turns_with(&self, other: &Self) -> bool {
        self.locks.iter().any(|lock| other.locks.contains(lock))
    }

    /// The memory that has to be there for it: its limit, else what its tasks keep.
    pub fn memory_at_once(&self) -> ByteSize {
        // Only one task at a time holds a lock, however many the slot could take.
        let tasks = if self.locks.is_empty() { self.concurrent } else { self.concurrent.min(1) };
        let at_once = |task: ByteSize| ByteSize(task.0.saturating_mul(u64::from(tasks)));
        self.memory.or_else(|| self.task_memory.map(at_once)).unwrap_or_default()
    }
}

/// What one store claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreClaim {
    /// Its name, or what the configuration calls it.
    pub name: String,
    /// Its directory.
    pub location: PathBuf,
    /// Whether files are written there.
    pub writable: bool,
    /// The disk, mounted device, mount point or file-system identifier that it was made on, if that was written down.
    #[serde(default)]
    pub on: Option<String>,
    /// The space that has to be there for it, full or not.
    #[serde(default)]
    pub space: Option<ByteSize>,
}
