//! `[[processors.<stage>]]`: what a slot is, as it is written and with every default filled in.

use super::{ChildProtocol, ProcessorKind};
use crate::config::{Findings, HumanDuration, nearest::nearest};
use damocles_core::{ByteSize, CpuSet, NodeSet};
use damocles_seal::placement::against_gpus;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    path::PathBuf,
    time::Duration,
};

/// `[[processors.<stage>]]`: one slot, with one child or some of one make.
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
    /// The one memory node that the child allocates from.
    pub numa_preferred: Option<u16>,
    /// The memory nodes that the child allocates from.
    pub numa: Option<NodeSet>,
    /// The GPUs that the child sees, and that nobody else uses while it works.
    pub gpus: Vec<GpuName>,
    /// How many tasks it takes at a time, each in a child of its own.
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
    /// The most memory that the child and all it starts may take.
    pub memory: Option<ByteSize>,
    /// The child's share of CPUs that others want too, from 1 to 10,000.
    pub cpu_weight: Option<u16>,
    /// Whether no other slot may have one of these CPUs; true if it is absent.
    pub exclusive: Option<bool>,
    /// The control group below which our groups lie, as `processors.isolation.name`.
    pub group_name: Option<String>,
}

/// A GPU: its identifier, the beginning of one, or its number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum GpuName {
    /// The number that the driver gives it now.
    Index(u32),
    /// The identifier, as `hwinfo` shows it, or the beginning of it.
    Id(String),
}

impl fmt::Display for GpuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Id(id) => f.write_str(id),
        }
    }
}

/// One slot with every default filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotSpec {
    /// Unique among all slots, e.g. `pc1-0`.
    pub name: String,
    /// The stage.
    pub kind: ProcessorKind,
    /// Its place in the file, e.g. `processors.pc1[0]`.
    pub path: String,
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
    /// Whether these CPUs are its own.
    pub exclusive: bool,
    /// Whether other programs on this machine are kept off its CPUs too while it has a task.
    pub claims_cpus: bool,
    /// The most memory that the child and all it starts may take.
    pub memory: Option<ByteSize>,
    /// The child's share of CPUs that others want too.
    pub cpu_weight: Option<u16>,
    /// Environment, on top of what is inherited.
    pub envs: BTreeMap<String, String>,
    /// Whether the child inherits the daemon's environment.
    pub inherit_envs: bool,
    /// The memory nodes that the child allocates from.
    pub mems: Option<NodeSet>,
    /// The GPUs of the child, as they are named.
    pub gpus: Vec<String>,
    /// How many tasks it takes at a time.
    pub concurrent: NonZeroU32,
    /// Named locks that each task holds while it runs.
    pub locks: Vec<String>,
    /// Whether a child that died is started again.
    pub auto_restart: bool,
}

/// A machine that is busy with proofs takes its time to start a process.
const STABLE_WAIT: Duration = Duration::from_secs(30);

impl SlotConfig {
    pub(super) fn resolve(&self, kind: ProcessorKind, index: usize) -> SlotSpec {
        let own_args = || {
            // A program of somebody else's is called as damocles 0.13 calls it.
            let tell = self.bin.is_none() && self.protocol == ChildProtocol::V1;
            let protocol = if tell { &["--protocol", "v1"][..] } else { &[] };
            ["processor", kind.name()].iter().chain(protocol).map(|arg| (*arg).to_owned()).collect()
        };
        let preferred = self.numa_preferred.and_then(|node| node.to_string().parse().ok());
        SlotSpec {
            name: format!("{}-{index}", kind.name()),
            kind,
            path: format!("processors.{}[{index}]", kind.name()),
            bin: self.bin.clone(),
            args: self.args.clone().unwrap_or_else(own_args),
            stable_wait: self.stable_wait.map_or(STABLE_WAIT, |w| w.0),
            protocol: self.protocol,
            cpuset: self.cgroup.cpuset.clone(),
            exclusive: self.cgroup.exclusive.unwrap_or(self.cgroup.cpuset.is_some()),
            claims_cpus: self.cgroup.exclusive == Some(true),
            memory: self.cgroup.memory,
            cpu_weight: self.cgroup.cpu_weight,
            envs: self.envs.clone(),
            inherit_envs: self.inherit_envs.unwrap_or(true),
            mems: self.numa.clone().or(preferred),
            gpus: self.gpus.iter().map(ToString::to_string).collect(),
            concurrent: self.concurrent.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN),
            locks: self.locks.clone(),
            auto_restart: self.auto_restart.unwrap_or(true),
        }
    }

    pub(super) fn check(&self, found: &mut Findings<'_>, path: &str, locks: &BTreeMap<String, u32>) {
        if self.concurrent == Some(0) {
            found.error(&format!("{path}.concurrent"), "0 would block for ever", "write at least 1");
        }
        if self.bin.as_ref().is_some_and(|b| b.as_os_str().is_empty()) {
            found.error(&format!("{path}.bin"), "names no program", "");
        }
        if self.stable_wait.is_some_and(|w| w.0.is_zero()) {
            found.error(&format!("{path}.stable_wait"), "no child can be ready at once", "");
        }
        self.cgroup.check(found, &format!("{path}.cgroup"));
        if self.numa.is_some() && self.numa_preferred.is_some() {
            found.error(&format!("{path}.numa"), "there is a `numa_preferred` too", "keep one of the two");
        }
        self.check_gpus(found, path);
        if let Some(name) = self.envs.iter().find(|(k, v)| !is_env(k, v)).map(|(k, _)| k) {
            found.error(&format!("{path}.envs"), format_args!("`{name}` cannot be set"), "");
        }
        self.check_locks(found, path, locks);
    }

    fn check_gpus(&self, found: &mut Findings<'_>, path: &str) {
        let mut cards = BTreeSet::new();
        for (i, gpu) in self.gpus.iter().enumerate() {
            let name = gpu.to_string();
            if name.trim().is_empty() || name.contains(',') {
                let hint = "write each as a text of its own; `damocles-worker hwinfo` lists them";
                found.error(&format!("{path}.gpus[{i}]"), format_args!("`{name}` names no GPU"), hint);
            } else if !cards.insert(name) {
                found.error(&format!("{path}.gpus[{i}]"), format_args!("GPU `{gpu}` is named twice"), "");
            }
        }
        let names: Vec<String> = self.gpus.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (name, value) in against_gpus(&self.envs, &names) {
            let hint = "`gpus` says what the child sees: remove the variable, or `gpus`";
            found.error(&format!("{path}.envs.{name}"), format_args!("`{value}` contradicts `gpus`"), hint);
        }
    }

    fn check_locks(&self, found: &mut Findings<'_>, path: &str, locks: &BTreeMap<String, u32>) {
        let mut seen = BTreeSet::new();
        for (i, lock) in self.locks.iter().enumerate() {
            let lock_path = format!("{path}.locks[{i}]");
            if !locks.contains_key(lock) {
                let known: Vec<_> = locks.keys().map(String::as_str).collect();
                let hint = nearest(lock, &known).map_or_else(
                    || format!("add `{lock} = 1` to [processors.ext_locks]"),
                    |near| format!("did you mean `{near}`?"),
                );
                found.error(&lock_path, format_args!("unknown lock `{lock}`"), hint);
            }
            if !seen.insert(lock) {
                found.error(&lock_path, format_args!("lock `{lock}` is named twice"), "");
            }
        }
    }
}

impl CgroupConfig {
    fn check(&self, found: &mut Findings<'_>, path: &str) {
        if let Some(weight) = self.cpu_weight
            && !(1..=10_000).contains(&weight)
        {
            let hint = "write 1 to 10000; a group without has 100";
            found.error(&format!("{path}.cpu_weight"), format_args!("{weight} is no weight"), hint);
        }
        if self.memory.is_some_and(|memory| memory.0 == 0) {
            found.error(&format!("{path}.memory"), "no program runs without memory", "remove it to set no limit");
        }
        if self.exclusive.is_some() && self.cpuset.is_none() {
            let hint = "add `cgroup.cpuset` or remove it";
            found.error(&format!("{path}.exclusive"), "has no effect without a cpuset", hint);
        }
        if let Some(group) = &self.group_name
            && !super::isolation::is_group(group)
        {
            found.error(&format!("{path}.group_name"), "is not the name of a control group", "");
        }
    }
}

/// What the kernel takes as a variable.
fn is_env(name: &str, value: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
}
