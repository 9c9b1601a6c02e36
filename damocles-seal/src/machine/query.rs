//! Questions to a record. Records may be written by hand: an answer never assumes that facts fit together.

use super::{Core, Disk, Gpu, L3Group, Machine, Mount, Node};
use damocles_core::{ByteSize, CpuSet};
use std::{collections::BTreeSet, path::Path};

/// The set of these CPUs; `None` if there are none.
pub fn cpu_set(cpus: impl IntoIterator<Item = u16>) -> Option<CpuSet> {
    let texts: Vec<String> = cpus.into_iter().map(|cpu| cpu.to_string()).collect();
    // An empty text is no list: it is the only one that cannot be read back.
    texts.join(",").parse().ok()
}

/// Part of the machine as a tree: the cores of one package, node and level 3 cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreGroup<'m> {
    /// The package.
    pub package: Option<u32>,
    /// The die of that package.
    pub die: Option<u32>,
    /// The memory node.
    pub node: Option<u16>,
    /// The cache, if the kernel told of one.
    pub l3: Option<&'m L3Group>,
    /// The cores in the order of their first CPU.
    pub cores: Vec<&'m Core>,
}

impl Machine {
    /// CPUs that run threads.
    pub fn online_cpus(&self) -> BTreeSet<u16> {
        match &self.cpu.online {
            Some(online) => online.iter().collect(),
            None => self.cpu.cores.iter().flat_map(|core| core.cpus.iter()).collect(),
        }
    }

    /// CPUs that are there and switched off.
    pub fn offline_cpus(&self) -> BTreeSet<u16> {
        self.cpu.offline.iter().flat_map(CpuSet::iter).collect()
    }

    /// Online CPUs that the process that made the record may use.
    pub fn usable_cpus(&self) -> BTreeSet<u16> {
        let mut cpus = self.online_cpus();
        if let Some(allowed) = &self.cpu.allowed {
            let allowed: BTreeSet<u16> = allowed.iter().collect();
            cpus.retain(|cpu| allowed.contains(cpu));
        }
        cpus
    }

    /// The core that a CPU is part of.
    pub fn core_of(&self, cpu: u16) -> Option<&Core> {
        self.cpu.cores.iter().find(|core| core.cpus.iter().any(|own| own == cpu))
    }

    /// The level 3 cache of a CPU.
    pub fn l3_of(&self, cpu: u16) -> Option<&L3Group> {
        self.cpu.l3.iter().find(|group| group.cpus.iter().any(|own| own == cpu))
    }

    /// A memory node by its number.
    pub fn node(&self, id: u16) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// A GPU by its identifier, by the beginning of one (as CUDA takes it), or by its number.
    pub fn gpu(&self, name: &str) -> Option<&Gpu> {
        let name = name.trim();
        if let Ok(index) = name.parse::<u32>() {
            return self.gpus.iter().find(|gpu| gpu.index == index);
        }
        if let Some(exact) = self.gpus.iter().find(|gpu| gpu.uuid.0 == name) {
            return Some(exact);
        }
        let mut found = self.gpus.iter().filter(|gpu| !name.is_empty() && gpu.uuid.0.starts_with(name));
        // The beginning of two identifiers names neither.
        found.next().filter(|_| found.next().is_none())
    }

    /// The mount that a path lies on: the one whose point is the longest beginning of it, and of two at one point the later one,
    /// which hides the other.
    pub fn mount_of(&self, path: &Path) -> Option<&Mount> {
        self.mounts.iter().filter(|m| path.starts_with(&m.point)).max_by_key(|m| m.point.components().count())
    }

    /// The disk that a mount lies on.
    pub fn disk_of(&self, mount: &Mount) -> Option<&Disk> {
        let name = mount.disk.as_deref()?;
        self.disks.iter().find(|disk| disk.name == name)
    }

    /// Memory that programs can have: all of it, or what the control group allows if that is less, without reserved huge pages.
    pub fn usable_memory(&self) -> Option<ByteSize> {
        let huge: u64 =
            self.memory.huge_pages.iter().fold(0, |sum, p| sum.saturating_add(p.size.0.saturating_mul(p.total)));
        let total = self.memory.total.map(|total| total.0.saturating_sub(huge));
        let limit = self.memory.limit.map(|limit| limit.0);
        total.into_iter().chain(limit).min().map(ByteSize)
    }

    /// The cores by package, node and level 3 cache, in the order of their first CPU.
    pub fn core_groups(&self) -> Vec<CoreGroup<'_>> {
        let mut groups: Vec<CoreGroup<'_>> = Vec::new();
        for core in &self.cpu.cores {
            let l3 = core.cpus.iter().next().and_then(|cpu| self.l3_of(cpu));
            let same = |g: &&mut CoreGroup<'_>| {
                (g.package, g.die, g.node) == (core.package, core.die, core.node) && g.l3 == l3
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.cores.push(core),
                None => groups.push(CoreGroup {
                    package: core.package,
                    die: core.die,
                    node: core.node,
                    l3,
                    cores: vec![core],
                }),
            }
        }
        groups
    }
}
