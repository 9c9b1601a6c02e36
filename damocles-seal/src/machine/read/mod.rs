//! Reading the record of the machine that this process runs on.
//!
//! Whatever the kernel, a container or a disk says is taken as it is: a file that is not there is a missing fact, one that says
//! something odd is a [`Problem`], and neither stops the rest from being read.

mod cgroups;
mod cpus;
mod disks;
mod files;
mod gpus;
mod memory;
mod mounts;
mod space;

use super::{MACHINE_VERSION, Machine};
use files::Files;
use std::path::{Path, PathBuf};

/// Where the kernel is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Where sysfs is mounted.
    pub sys: PathBuf,
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// What mount points are below: `/`, except where a whole machine is faked in a directory.
    pub host: PathBuf,
    /// NVIDIA's management library: a path, or a name that the dynamic linker looks up. Without it no GPU is looked for.
    pub nvml: Option<PathBuf>,
}

impl Roots {
    /// The machine that this process runs on.
    pub fn host() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), host: "/".into(), nvml: Some("libnvidia-ml.so.1".into()) }
    }

    /// A machine that is laid out below a directory: `sys`, `proc`, and mount points. It has no GPUs.
    pub fn below(dir: &Path) -> Self {
        Self { sys: dir.join("sys"), proc: dir.join("proc"), host: dir.into(), nvml: None }
    }
}

impl Machine {
    /// Reads a machine.
    ///
    /// Blocks for as long as the kernel does, at most five seconds for each file system that lies on another machine. Never fails:
    /// see [`Machine::problems`].
    pub fn read(roots: &Roots) -> Self {
        let mut files = Files::default();
        let cpu = cpus::read(roots, &mut files);
        let online: Vec<u16> = cpu.online.iter().flat_map(|online| online.iter()).collect();
        let nodes = memory::nodes(roots, &online, &mut files);
        let cpu = cpus::with_nodes(cpu, &nodes);
        let table = mounts::table(roots, &mut files);
        let cgroups = cgroups::read(roots, &table, &mut files);
        let memory = memory::read(roots, &cgroups, &mut files);
        let devices = disks::read(roots, &mut files);
        let mounts = space::mounts(roots, table, &devices, &mut files);
        let gpus = gpus::read(roots, &mut files);
        Self {
            version: MACHINE_VERSION,
            hostname: files.line(&roots.proc.join("sys/kernel/hostname")),
            kernel: files.line(&roots.proc.join("sys/kernel/osrelease")),
            cpu,
            memory,
            nodes,
            disks: devices.disks,
            mounts,
            gpus,
            cgroups,
            problems: files.into_problems(),
        }
    }
}
