//! What holds for all children: `[processors.isolation]`, `[processors.backlog]` and `[processors.breaker]`.

use super::{ProcessorKind, Processors};
use crate::config::{Findings, HumanDuration};
use serde::Deserialize;
use std::path::PathBuf;

/// `[processors.isolation]`: what children are bound with.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IsolationConfig {
    /// Whether control groups are used; without, children are bound by affinity and memory policy alone.
    pub cgroups: Option<bool>,
    /// Where control groups are mounted.
    pub cgroup_root: Option<PathBuf>,
    /// The name below which our groups lie in each hierarchy.
    pub name: Option<String>,
    /// Whether children keep all capabilities of the daemon.
    pub keep_capabilities: bool,
    /// How often the placement of a child that works is read back.
    pub verify_interval: Option<HumanDuration>,
    /// Where GPUs, and CPUs that are `cgroup.exclusive`, are claimed against other programs on this machine.
    pub claims_dir: Option<PathBuf>,
}

/// `[processors.backlog]`: how far an earlier stage may run ahead of a later one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BacklogConfig {
    /// Whether PC1 waits while too many sectors are before the end of PC2.
    pub enable: Option<bool>,
    /// Sectors between the start of PC1 and the end of PC2, beyond those that the slots of both take.
    pub pc2: Option<u32>,
}

/// `[processors.breaker]`: when a slot that fails again and again rests for long.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// How many failures in a row it takes.
    pub failures: Option<u32>,
    /// For how long.
    pub rest: Option<HumanDuration>,
}

impl Processors {
    /// The name below which our control groups lie.
    pub fn group_name(&self) -> Option<&str> {
        let of_slots = ProcessorKind::ALL.iter().flat_map(|kind| self.entries(*kind));
        let named = of_slots.filter_map(|slot| slot.cgroup.group_name.as_deref()).next();
        self.isolation.name.as_deref().or(named)
    }

    pub(super) fn check_isolation(&self, found: &mut Findings<'_>) {
        let isolation = &self.isolation;
        if isolation.name.as_ref().is_some_and(|name| !is_group(name)) {
            found.error("processors.isolation.name", "is not the name of a control group", "");
        }
        if isolation.verify_interval.is_some_and(|time| time.0.is_zero()) {
            found.error("processors.isolation.verify_interval", "no time at all", "remove it for the default");
        }
        if isolation.cgroup_root.as_ref().is_some_and(|root| !root.is_absolute()) {
            found.error("processors.isolation.cgroup_root", "is no absolute path", "");
        }
        if self.breaker.failures == Some(0) {
            found.error("processors.breaker.failures", "0 would keep every slot at rest", "write at least 1");
        }
        for kind in ProcessorKind::ALL {
            for (i, slot) in self.entries(kind).iter().enumerate() {
                let path = format!("processors.{}[{i}].cgroup", kind.name());
                let other = slot.cgroup.group_name.as_deref().filter(|name| self.group_name() != Some(name));
                if let (Some(name), Some(common)) = (other, self.group_name()) {
                    let hint = "write it once, as `processors.isolation.name`";
                    let message = format_args!("`{name}` is not `{common}`: all children have one group above theirs");
                    found.error(&format!("{path}.group_name"), message, hint);
                }
                let needs =
                    [("memory", slot.cgroup.memory.is_some()), ("cpu_weight", slot.cgroup.cpu_weight.is_some())];
                for (key, _) in needs.into_iter().filter(|(_, asked)| *asked && isolation.cgroups == Some(false)) {
                    let hint = "remove it, or `processors.isolation.cgroups`";
                    found.error(&format!("{path}.{key}"), "cannot be had without control groups", hint);
                }
            }
        }
    }
}

/// Whether a control group can have this name: a path below the mount, without tricks.
pub(super) fn is_group(name: &str) -> bool {
    !name.split('/').any(|part| part.is_empty() || part == "." || part == "..")
}
