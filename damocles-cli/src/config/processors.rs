//! `[processors]`: the children that do the heavy work, their limits and locks. Both files have it.

use super::{ConfigError, HumanDuration, Source};
use clap::ValueEnum;
use damocles_core::{CpuSet, SectorSize, pool::TaskKind};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

/// `[processors]`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processors {
    /// Caps over all slots of a kind.
    pub limitation: Limitation,
    /// Named counting locks, and how many may hold each at a time.
    pub ext_locks: BTreeMap<String, u32>,
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

    fn check(&self, source: &Source, kinds: &[ProcessorKind]) -> Result<(), ConfigError> {
        let named = [
            ("concurrent", self.concurrent.keys().collect::<Vec<_>>()),
            ("staggered", self.staggered.keys().collect()),
            ("timeout", self.timeout.keys().collect()),
        ];
        for (key, of) in named {
            if let Some(kind) = of.into_iter().find(|kind| !kinds.contains(kind)) {
                return Err(not_here(source, &format!("processors.limitation.{key}.{}", kind.name()), kinds));
            }
        }
        let none = self.concurrent.iter().find(|(_, limit)| **limit == 0);
        if let Some((kind, _)) = none {
            let path = format!("processors.limitation.concurrent.{}", kind.name());
            return Err(source.error_at(&path, "0 would block for ever").hint_with("remove it to set no limit"));
        }
        let at_once = |times: &BTreeMap<ProcessorKind, HumanDuration>| {
            times.iter().find(|(_, time)| time.0.is_zero()).map(|(kind, _)| kind.name())
        };
        if let Some(kind) = at_once(&self.staggered) {
            let path = format!("processors.limitation.staggered.{kind}");
            return Err(source.error_at(&path, "no time at all").hint_with("remove it to set no gap"));
        }
        if let Some(kind) = at_once(&self.timeout) {
            let path = format!("processors.limitation.timeout.{kind}");
            return Err(source.error_at(&path, "no time at all").hint_with("remove it for the default"));
        }
        Ok(())
    }
}

fn not_here(source: &Source, path: &str, kinds: &[ProcessorKind]) -> ConfigError {
    let known: Vec<_> = kinds.iter().map(|k| k.name()).collect();
    let error = source.error_at(path, "this program runs no such processor");
    error.hint_with(format!("known here: {}", known.join(", ")))
}

/// `[[processors.<stage>]]`: one slot, one child.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlotConfig {
    /// The program; this program itself if it is absent.
    pub bin: Option<PathBuf>,
    /// Its arguments; `processor <stage>` if they are absent.
    pub args: Option<Vec<String>>,
    /// How long the child may take to say that it is ready.
    pub stable_wait: Option<HumanDuration>,
    /// What the child is bound to.
    pub cgroup: CgroupConfig,
    /// How the child is spoken with: `v2`, or `v1` for a program that was made for damocles 0.13.
    pub protocol: ChildProtocol,
    /// Environment, on top of what is inherited.
    pub envs: BTreeMap<String, String>,
    /// Whether the child inherits the daemon's environment.
    pub inherit_envs: Option<bool>,
    /// The memory node that the child allocates from first.
    pub numa_preferred: Option<u16>,
    /// How many tasks the child takes at a time.
    pub concurrent: Option<u32>,
    /// Named locks that each task holds while it runs.
    pub locks: Vec<String>,
    /// Whether a child that died is started again.
    pub auto_restart: Option<bool>,
}

/// `cgroup.*` of a slot.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CgroupConfig {
    /// The CPUs of the child.
    pub cpuset: Option<CpuSet>,
    /// The control group above the child's own.
    pub group_name: Option<String>,
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

/// One slot with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSpec {
    /// Unique among all slots, e.g. `pc1-0`.
    pub name: String,
    /// The stage.
    pub kind: ProcessorKind,
    /// The program; `None` is this program itself.
    pub bin: Option<PathBuf>,
    /// Its arguments.
    pub args: Vec<String>,
    /// How long the child may take to say that it is ready.
    pub stable_wait: Duration,
    /// How the child is spoken with.
    pub protocol: ChildProtocol,
    /// The CPUs of the child.
    pub cpuset: Option<CpuSet>,
    /// The control group above the child's own, if one is asked for.
    pub group_name: Option<String>,
    /// Environment, on top of what is inherited.
    pub envs: BTreeMap<String, String>,
    /// Whether the child inherits the daemon's environment.
    pub inherit_envs: bool,
    /// The memory node that the child allocates from first.
    pub numa_preferred: Option<u16>,
    /// How many tasks the child takes at a time.
    pub concurrent: NonZeroU32,
    /// Named locks that each task holds while it runs.
    pub locks: Vec<String>,
    /// Whether a child that died is started again.
    pub auto_restart: bool,
}

/// A machine that is busy with proofs takes its time to start a process.
const STABLE_WAIT: Duration = Duration::from_secs(30);

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
    pub(super) fn check(&self, source: &Source, kinds: &[ProcessorKind]) -> Result<(), ConfigError> {
        self.limitation.check(source, kinds)?;
        for (lock, count) in &self.ext_locks {
            if *count == 0 {
                let path = format!("processors.ext_locks.{lock}");
                return Err(source.error_at(&path, "0 would block for ever").hint_with("write at least 1"));
            }
        }
        for kind in ProcessorKind::ALL {
            for (i, entry) in self.entries(kind).iter().enumerate() {
                let path = format!("processors.{}[{i}]", kind.name());
                if !kinds.contains(&kind) {
                    return Err(not_here(source, &path, kinds));
                }
                entry.check(source, &path, &self.ext_locks)?;
            }
        }
        Ok(())
    }
}

impl SlotConfig {
    fn resolve(&self, kind: ProcessorKind, index: usize) -> SlotSpec {
        let own_args = || {
            // A program of somebody else's is called as damocles 0.13 calls it.
            let tell = self.bin.is_none() && self.protocol == ChildProtocol::V1;
            let protocol = if tell { &["--protocol", "v1"][..] } else { &[] };
            ["processor", kind.name()].iter().chain(protocol).map(|arg| (*arg).to_owned()).collect()
        };
        SlotSpec {
            name: format!("{}-{index}", kind.name()),
            kind,
            bin: self.bin.clone(),
            args: self.args.clone().unwrap_or_else(own_args),
            stable_wait: self.stable_wait.map_or(STABLE_WAIT, |w| w.0),
            protocol: self.protocol,
            cpuset: self.cgroup.cpuset.clone(),
            group_name: self.cgroup.group_name.clone(),
            envs: self.envs.clone(),
            inherit_envs: self.inherit_envs.unwrap_or(true),
            numa_preferred: self.numa_preferred,
            concurrent: self.concurrent.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN),
            locks: self.locks.clone(),
            auto_restart: self.auto_restart.unwrap_or(true),
        }
    }

    fn check(&self, source: &Source, path: &str, locks: &BTreeMap<String, u32>) -> Result<(), ConfigError> {
        if self.concurrent == Some(0) {
            let error = source.error_at(&format!("{path}.concurrent"), "0 would block for ever");
            return Err(error.hint_with("write at least 1"));
        }
        if self.bin.as_ref().is_some_and(|b| b.as_os_str().is_empty()) {
            return Err(source.error_at(&format!("{path}.bin"), "names no program"));
        }
        if self.stable_wait.is_some_and(|w| w.0.is_zero()) {
            return Err(source.error_at(&format!("{path}.stable_wait"), "no child can be ready at once"));
        }
        if let Some(group) = &self.cgroup.group_name {
            let group_path = format!("{path}.cgroup.group_name");
            if group.is_empty() || group.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                return Err(source.error_at(&group_path, "is not the name of a control group"));
            }
            if self.cgroup.cpuset.is_none() {
                let error = source.error_at(&group_path, "has no effect without a cpuset");
                return Err(error.hint_with("add `cgroup.cpuset` or remove it"));
            }
        }
        if let Some(name) = self.envs.iter().find(|(k, v)| !is_env(k, v)).map(|(k, _)| k) {
            return Err(source.error_at(&format!("{path}.envs"), format_args!("`{name}` cannot be set")));
        }
        let mut seen = BTreeSet::new();
        for (i, lock) in self.locks.iter().enumerate() {
            let lock_path = format!("{path}.locks[{i}]");
            if !locks.contains_key(lock) {
                let known: Vec<_> = locks.keys().map(String::as_str).collect();
                let hint = super::nearest::nearest(lock, &known).map_or_else(
                    || format!("add `{lock} = 1` to [processors.ext_locks]"),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(source.error_at(&lock_path, format_args!("unknown lock `{lock}`")).hint_with(hint));
            }
            if !seen.insert(lock) {
                return Err(source.error_at(&lock_path, format_args!("lock `{lock}` is named twice")));
            }
        }
        Ok(())
    }
}

/// What the kernel takes as a variable.
fn is_env(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}
