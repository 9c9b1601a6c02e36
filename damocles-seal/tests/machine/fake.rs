//! Fake machines: sysfs and procfs as files in a directory.

use damocles_core::{ByteSize, GpuId};
use damocles_seal::machine::{Gpu, Machine, Roots};
use std::{fmt::Write as _, fs, path::Path};

/// A machine to be faked.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) nodes: u16,
    pub(crate) cores: u16,
    pub(crate) l3: u16,
    pub(crate) smt: bool,
    pub(crate) numa: bool,
    pub(crate) offline: Vec<u16>,
    pub(crate) memory_gib: u64,
    pub(crate) gpus: u32,
    pub(crate) nvme_gib: Vec<u64>,
}

impl Fake {
    /// So many nodes, each one package, with so many cores, so many of them to a cache.
    pub(crate) fn new(nodes: u16, cores: u16, l3: u16) -> Self {
        Self {
            nodes,
            cores,
            l3,
            smt: false,
            numa: true,
            offline: Vec::new(),
            memory_gib: 512,
            gpus: 0,
            nvme_gib: vec![7680],
        }
    }

    fn all_cores(&self) -> u16 {
        self.nodes * self.cores
    }

    /// Linux numbers the second threads of all cores after the first ones.
    fn cpus(&self) -> u16 {
        self.all_cores() * if self.smt { 2 } else { 1 }
    }

    fn online(&self) -> Vec<u16> {
        (0..self.cpus()).filter(|cpu| !self.offline.contains(cpu)).collect()
    }

    /// Writes the files.
    pub(crate) fn write(&self, dir: &Path) {
        let put = |path: String, text: String| {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text + "\n").unwrap();
        };
        let cpu = "sys/devices/system/cpu";
        put(format!("{cpu}/present"), format!("0-{}", self.cpus() - 1));
        put(format!("{cpu}/online"), list(self.online()));
        put(format!("{cpu}/offline"), list(self.offline.clone()));
        for id in self.online() {
            let core = id % self.all_cores();
            let first = core / self.l3 * self.l3;
            let threads = |core: u16| if self.smt { vec![core, core + self.all_cores()] } else { vec![core] };
            let shown = |cpus: Vec<u16>| list(cpus.into_iter().filter(|c| !self.offline.contains(c)).collect());
            put(format!("{cpu}/cpu{id}/topology/core_cpus_list"), shown(threads(core)));
            put(format!("{cpu}/cpu{id}/topology/physical_package_id"), (core / self.cores).to_string());
            put(format!("{cpu}/cpu{id}/topology/die_id"), "0".into());
            put(format!("{cpu}/cpu{id}/topology/core_id"), (core % self.cores).to_string());
            put(format!("{cpu}/cpu{id}/cache/index0/level"), "1".into());
            put(format!("{cpu}/cpu{id}/cache/index3/level"), "3".into());
            put(format!("{cpu}/cpu{id}/cache/index3/size"), "16384K".into());
            put(format!("{cpu}/cpu{id}/cache/index3/id"), (core / self.l3).to_string());
            let end = (first + self.l3).min((core / self.cores + 1) * self.cores);
            let shared = (first..end).flat_map(threads).collect();
            put(format!("{cpu}/cpu{id}/cache/index3/shared_cpu_list"), shown(shared));
        }
        let kib = self.memory_gib << 20;
        for node in 0..self.nodes {
            if self.numa {
                let cpus = (0..self.cpus()).filter(|id| id % self.all_cores() / self.cores == node);
                let at = format!("sys/devices/system/node/node{node}");
                put(format!("{at}/cpulist"), list(cpus.collect()));
                let each = kib / u64::from(self.nodes);
                put(
                    format!("{at}/meminfo"),
                    format!("Node {node} MemTotal: {each} kB\nNode {node} MemFree: {each} kB"),
                );
            }
        }
        put("proc/meminfo".into(), format!("MemTotal: {kib} kB\nMemAvailable: {kib} kB\nSwapTotal: 0 kB"));
        put("proc/cpuinfo".into(), "processor : 0\nmodel name : Fake CPU\nflags : avx avx2 sha_ni".into());
        put("proc/self/status".into(), format!("Name: x\nCpus_allowed_list:\t0-{}", self.cpus() - 1));
        put("proc/self/cgroup".into(), "0::/".into());
        put("proc/sys/kernel/hostname".into(), "fake".into());
        let mut mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
        self.disk(&put, "sda", "8:0", 480);
        put("sys/block/sda/sda1/dev".into(), "8:1".into());
        for (i, gib) in self.nvme_gib.iter().enumerate() {
            self.disk(&put, &format!("nvme{i}n1"), &format!("259:{i}"), *gib);
            writeln!(mounts, "{} 1 259:{i} / /mnt/nvme{i} rw - xfs /dev/nvme{i}n1 rw", i + 2).unwrap();
        }
        mounts += "90 1 0:50 / /mnt/remote rw - nfs4 nas:/export rw\n";
        put("proc/self/mountinfo".into(), mounts);
    }

    fn disk(&self, put: &impl Fn(String, String), name: &str, number: &str, gib: u64) {
        put(format!("sys/block/{name}/dev"), number.into());
        put(format!("sys/block/{name}/size"), (gib << 21).to_string());
        put(format!("sys/block/{name}/queue/rotational"), "0".into());
        put(format!("sys/block/{name}/device/model"), "Fake Disk".into());
        put(format!("sys/block/{name}/device/numa_node"), if self.numa { "0" } else { "-1" }.into());
    }

    /// Reads the files, and adds what no file tells: cards, and space on disks.
    pub(crate) fn read(&self) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        let mut machine = Machine::read(&Roots::below(dir.path()));
        // The mount points of a fake are not there: that is told, and belongs to no record.
        machine.problems.retain(|problem| problem.path.starts_with(dir.path()));
        for mount in &mut machine.mounts {
            let size = mount.disk.as_ref().and_then(|d| machine.disks.iter().find(|disk| disk.name == *d)?.size);
            (mount.total, mount.available) = (size, size);
        }
        machine.gpus = (0..self.gpus)
            .map(|index| Gpu {
                index,
                uuid: GpuId(format!("GPU-fake-{index}")),
                name: Some("Fake RTX".into()),
                memory: Some(ByteSize(24 << 30)),
                bus_id: None,
                node: self.numa.then(|| u16::try_from(index).unwrap() % self.nodes),
            })
            .collect();
        machine
    }
}

pub(crate) fn list(cpus: Vec<u16>) -> String {
    cpus.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}
