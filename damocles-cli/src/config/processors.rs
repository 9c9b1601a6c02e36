//! `[processors]`: the children that do the heavy work, their limits and locks. Both files have it.

mod isolation;
mod slot;

use super::{Findings, HumanDuration};
use clap::ValueEnum;
use damocles_core::{SectorSize, pool::TaskKind};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub use isolation::{BacklogConfig, BreakerConfig, IsolationConfig};
pub use slot::{CgroupConfig, GpuName, SlotConfig, SlotSpec};

/// `[processors]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processors {
    /// Caps over all slots of a kind.
    pub limitation: Limitation,
    /// Named counting locks, and how many may hold each at a time.
    pub ext_locks: BTreeMap<String, u32>,
    /// What children are bound with.
    pub isolation: IsolationConfig,
    /// How far PC1 may run ahead of PC2.
    pub backlog: BacklogConfig,
    /// When a slot that fails again and again rests for long.
    pub breaker: BreakerConfig,
    /// Ready-made trees of committed-capacity sectors by sector size.
    pub static_tree_d: BTreeMap<SectorSize, PathBuf>,
    /// Slots that write unsealed data.
    pub add_pieces: Vec<SlotConfig>,
    /// Slots that build the tree of the data.
    pub tree_d: Vec<SlotConfig>,
    /// Slots that encode.
    pub pc1: Vec<SlotConfig>,
    /// Slots that build the trees of the replica.
    pub pc2: Vec<SlotConfig>,
    /// Slots that read the challenged parts of the layers.
    pub c1: Vec<SlotConfig>,
    /// Slots that make the seal proof.
    pub c2: Vec<SlotConfig>,
    /// Slots that copy a sector into a persist store.
    pub transfer: Vec<SlotConfig>,
    /// Slots that read the challenged parts of replicas.
    pub wdpost_read: Vec<SlotConfig>,
    /// Slots that make the WindowPoSt.
    pub window_post: Vec<SlotConfig>,
}

/// `[processors.limitation]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limitation {
    /// How many tasks of a kind run at a time on this machine.
    pub concurrent: BTreeMap<ProcessorKind, u32>,
    /// The least time between two starts of a kind.
    pub staggered: BTreeMap<ProcessorKind, HumanDuration>,
    /// How long one task of a kind may have its slot, instead of [`ProcessorKind::default_timeout`]. A child that takes
    /// longer is killed and its task tried again.
    pub timeout: BTreeMap<ProcessorKind, HumanDuration>,
}

impl Limitation {
    /// How long one task of this kind may take.
    pub fn timeout_of(&self, kind: ProcessorKind) -> Duration {
        self.timeout.get(&kind).map_or(kind.default_timeout(), |limit| limit.0)
    }

    fn check(&self, found: &mut Findings<'_>, kinds: &[ProcessorKind]) {
        let named = [
            ("concurrent", self.concurrent.keys().collect::<Vec<_>>()),
            ("staggered", self.staggered.keys().collect()),
            ("timeout", self.timeout.keys().collect()),
        ];
        for (key, of) in named {
            for kind in of.into_iter().filter(|kind| !kinds.contains(kind)) {
                not_here(found, &format!("processors.limitation.{key}.{}", kind.name()), kinds);
            }
        }
        for (kind, _) in self.concurrent.iter().filter(|(_, limit)| **limit == 0) {
            let path = format!("processors.limitation.concurrent.{}", kind.name());
            found.error(&path, "0 would block for ever", "remove it to set no limit");
        }
        for (key, times, hint) in [
            ("staggered", &self.staggered, "remove it to set no gap"),
            ("timeout", &self.timeout, "remove it for the default"),
        ] {
            for (kind, _) in times.iter().filter(|(_, time)| time.0.is_zero()) {
                found.error(&format!("processors.limitation.{key}.{}", kind.name()), "no time at all", hint);
            }
        }
    }
}

fn not_here(found: &mut Findings<'_>, path: &str, kinds: &[ProcessorKind]) {
    let known: Vec<_> = kinds.iter().map(|k| k.name()).collect();
    found.error(path, "this program runs no such processor", format!("known here: {}", known.join(", ")));
}

/// How a daemon and its child speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ChildProtocol {
    /// Lines, as damocles 0.13 speaks
    V1,
    /// Frames
    #[default]
    V2,
}

/// A stage that has processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessorKind {
    /// Writes unsealed data.
    AddPieces,
    /// Builds the tree of the data.
    TreeD,
    /// Encodes.
    Pc1,
    /// Builds the trees of the replica.
    Pc2,
    /// Reads the challenged parts of the layers.
    C1,
    /// Makes the seal proof.
    C2,
    /// Copies a sector into a persist store.
    Transfer,
    /// Reads the challenged parts of replicas.
    WdpostRead,
    /// Makes the WindowPoSt.
    WindowPost,
}

impl ProcessorKind {
    /// What a worker seals with.
    pub const SEALING: [Self; 7] =
        [Self::AddPieces, Self::TreeD, Self::Pc1, Self::Pc2, Self::C1, Self::C2, Self::Transfer];
    /// What a manager proves with.
    pub const PROVING: [Self; 2] = [Self::WdpostRead, Self::WindowPost];
    const ALL: [Self; 9] = [
        Self::AddPieces,
        Self::TreeD,
        Self::Pc1,
        Self::Pc2,
        Self::C1,
        Self::C2,
        Self::Transfer,
        Self::WdpostRead,
        Self::WindowPost,
    ];

    /// The name in files, on command lines and in tasks.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AddPieces => "add_pieces",
            Self::TreeD => "tree_d",
            Self::Pc1 => "pc1",
            Self::Pc2 => "pc2",
            Self::C1 => "c1",
            Self::C2 => "c2",
            Self::Transfer => "transfer",
            Self::WdpostRead => "wdpost_read",
            Self::WindowPost => "window_post",
        }
    }

    /// How long a task may take if the file does not say it: several times what old hardware needs for 32 GiB.
    pub const fn default_timeout(self) -> Duration {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        Duration::from_secs(match self {
            Self::Pc1 | Self::Transfer => 24 * HOUR,
            Self::AddPieces | Self::TreeD | Self::Pc2 => 12 * HOUR,
            Self::C2 => 6 * HOUR,
            Self::C1 => 2 * HOUR,
            Self::WdpostRead => 15 * MINUTE,
            Self::WindowPost => 40 * MINUTE,
        })
    }

    /// The kind of task that it serves.
    pub const fn task_kind(self) -> TaskKind {
        TaskKind::new(self.name())
    }
}

impl Processors {
    fn entries(&self, kind: ProcessorKind) -> &[SlotConfig] {
        match kind {
            ProcessorKind::AddPieces => &self.add_pieces,
            ProcessorKind::TreeD => &self.tree_d,
            ProcessorKind::Pc1 => &self.pc1,
            ProcessorKind::Pc2 => &self.pc2,
            ProcessorKind::C1 => &self.c1,
            ProcessorKind::C2 => &self.c2,
            ProcessorKind::Transfer => &self.transfer,
            ProcessorKind::WdpostRead => &self.wdpost_read,
            ProcessorKind::WindowPost => &self.window_post,
        }
    }

    /// The slots of `kinds` with every default filled in. A kind without an entry has one slot of this program; reading
    /// challenges has two, because a reader may hang in a disk that is gone, where not even a kill ends it.
    pub fn slots(&self, kinds: &[ProcessorKind]) -> Vec<SlotSpec> {
        let own = [SlotConfig::default(), SlotConfig::default()];
        let mut slots = Vec::new();
        for &kind in kinds {
            let count = if kind == ProcessorKind::WdpostRead { 2 } else { 1 };
            let entries = self.entries(kind);
            let entries = if entries.is_empty() { own.get(..count).unwrap_or_default() } else { entries };
            slots.extend(entries.iter().enumerate().map(|(i, entry)| entry.resolve(kind, i)));
        }
        slots
    }

    /// What the types alone cannot say.
    pub(super) fn check(&self, found: &mut Findings<'_>, kinds: &[ProcessorKind]) {
        self.limitation.check(found, kinds);
        for (lock, _) in self.ext_locks.iter().filter(|(_, count)| **count == 0) {
            found.error(&format!("processors.ext_locks.{lock}"), "0 would block for ever", "write at least 1");
        }
        self.check_isolation(found);
        for kind in ProcessorKind::ALL {
            for (i, entry) in self.entries(kind).iter().enumerate() {
                let path = format!("processors.{}[{i}]", kind.name());
                if kinds.contains(&kind) {
                    entry.check(found, &path, &self.ext_locks);
                } else {
                    not_here(found, &path, kinds);
                }
            }
        }
    }
}
