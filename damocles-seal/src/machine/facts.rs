//! The record of a machine.

use damocles_core::{ByteSize, CpuSet, GpuId};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version of the JSON form of [`Machine`] that this program writes, and the only one that it reads.
pub const MACHINE_VERSION: u32 = 1;

/// One machine, as far as its kernel told.
///
/// A fact that could not be had is `None`, or left out of its list; whatever was there and could not be understood is in
/// [`problems`](Self::problems) with its path. The JSON form is what `hwinfo --json` prints and `--machine FILE` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The version of this form, [`MACHINE_VERSION`].
    pub version: u32,
    /// The machine's name in its network.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The release of the kernel, e.g. `6.8.0-45-generic`.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Its CPUs.
    #[serde(default)]
    pub cpu: CpuFacts,
    /// Its memory as a whole.
    #[serde(default)]
    pub memory: MemoryFacts,
    /// Its memory nodes by number; empty on a kernel without NUMA, where all memory is equally near to every CPU.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Its block devices, without partitions and without those that hold nothing.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Where file systems that can hold files are mounted, in the order of the kernel's list.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Its NVIDIA GPUs in the order of their driver.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// What this process can do with control groups.
    #[serde(default)]
    pub cgroups: CgroupFacts,
    /// What was there and could not be read or understood.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            version: MACHINE_VERSION,
            hostname: None,
            kernel: None,
            cpu: CpuFacts::default(),
            memory: MemoryFacts::default(),
            nodes: Vec::new(),
            disks: Vec::new(),
            mounts: Vec::new(),
            gpus: Vec::new(),
            cgroups: CgroupFacts::default(),
            problems: Vec::new(),
        }
    }
}

impl Machine {
    /// Reads a record.
    ///
    /// # Errors
    ///
    /// The text is no JSON, is of another version, or is not a record of a machine.
    pub fn from_json(text: &str) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        // The version first: a record of another one is told by its number, and not by the first key that differs.
        let Versioned { version } = serde_json::from_str(text).map_err(RecordError::Malformed)?;
        if version != MACHINE_VERSION {
            return Err(RecordError::Version { version });
        }
        serde_json::from_str(text).map_err(RecordError::Malformed)
    }
}

/// A text that is not the record of a machine.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is no JSON, or other JSON.
    #[error("this is no record of a machine")]
    Malformed(#[source] serde_json::Error),
    /// It was written by another version.
    #[error("the record is of version {version}, and this program reads version {MACHINE_VERSION}")]
    Version {
        /// The version of the record.
        version: u32,
    },
}

impl RecordError {
    /// What an operator can do about it.
    pub fn hint(&self) -> &'static str {
        "write it anew on that machine: `damocles-worker hwinfo --json >machine.json`"
    }
}

/// The CPUs of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CpuFacts {
    /// The name that the maker gave them.
    pub model: Option<String>,
    /// CPUs that run threads now.
    pub online: Option<CpuSet>,
    /// CPUs that are there and switched off; `None` if there are none.
    pub offline: Option<CpuSet>,
    /// CPUs that the process that made the record may use, by its affinity and its control group.
    pub allowed: Option<CpuSet>,
    /// Online CPUs by physical core, in the order of their first CPU.
    pub cores: Vec<Core>,
    /// Level 3 caches, in the order of their first CPU; empty if the kernel tells of none.
    pub l3: Vec<L3Group>,
    /// Instructions for SHA-256: `sha_ni` on x86, `sha2` on ARM. PC1 takes several times as long without them.
    pub sha_extensions: bool,
    /// AVX.
    pub avx: bool,
    /// AVX2.
    pub avx2: bool,
    /// AVX-512 Foundation.
    pub avx512f: bool,
}

/// One physical core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Core {
    /// Its online CPUs: more than one where SMT is on.
    pub cpus: CpuSet,
    /// The package (socket) that it is in.
    #[serde(default)]
    pub package: Option<u32>,
    /// The die of that package that it is on.
    #[serde(default)]
    pub die: Option<u32>,
    /// Its number in the package or die; not unique on the machine.
    #[serde(default)]
    pub core: Option<u32>,
    /// The memory node that is near to it.
    #[serde(default)]
    pub node: Option<u16>,
}

/// CPUs that share a level 3 cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L3Group {
    /// The online CPUs that share it.
    pub cpus: CpuSet,
    /// How much it holds.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// The kernel's number of it.
    #[serde(default)]
    pub id: Option<u32>,
}

/// The memory of a machine as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemoryFacts {
    /// All that the kernel manages.
    pub total: Option<ByteSize>,
    /// What could be had without swapping when the record was made.
    pub available: Option<ByteSize>,
    /// The most that the control group of the recording process may have; `None` if nothing less than `total` is set.
    pub limit: Option<ByteSize>,
    /// All swap space.
    pub swap_total: Option<ByteSize>,
    /// Swap space that was free.
    pub swap_free: Option<ByteSize>,
    /// Reserved huge pages by size; sizes of which none is reserved are left out.
    pub huge_pages: Vec<HugePages>,
}

/// Huge pages of one size on the whole machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HugePages {
    /// The size of one.
    pub size: ByteSize,
    /// How many are reserved. Their memory is of no use to programs that do not ask for them.
    pub total: u64,
    /// How many of these are free.
    #[serde(default)]
    pub free: Option<u64>,
}

/// A memory node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its number.
    pub id: u16,
    /// The online CPUs that are near to it; `None` for memory without CPUs.
    #[serde(default)]
    pub cpus: Option<CpuSet>,
    /// Its memory.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// What of it was free.
    #[serde(default)]
    pub free: Option<ByteSize>,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The kernel's name of it, e.g. `nvme0n1`.
    pub name: String,
    /// Its number as `major:minor`.
    #[serde(default)]
    pub number: Option<String>,
    /// The name that its maker gave it.
    #[serde(default)]
    pub model: Option<String>,
    /// How much it holds.
    #[serde(default)]
    pub size: Option<ByteSize>,
    /// Whether its heads have to move.
    #[serde(default)]
    pub rotational: Option<bool>,
    /// Whether it is attached by NVMe, itself or all the devices that it is made of.
    #[serde(default)]
    pub nvme: bool,
    /// The memory node that it is near to.
    #[serde(default)]
    pub node: Option<u16>,
    /// The devices that it is made of, for RAID, LVM and encryption.
    #[serde(default)]
    pub made_of: Vec<String>,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The directory that it is mounted at.
    pub point: PathBuf,
    /// What is mounted: a device, or `server:/export`.
    pub source: String,
    /// The kind of file system, e.g. `ext4` or `nfs4`.
    pub fs_type: String,
    /// The number of its device as `major:minor`.
    pub device: String,
    /// The disk of [`Machine::disks`] that it lies on.
    #[serde(default)]
    pub disk: Option<String>,
    /// Whether nothing can be written.
    #[serde(default)]
    pub read_only: bool,
    /// The size of the file system.
    #[serde(default)]
    pub total: Option<ByteSize>,
    /// What a user without privileges could write when the record was made.
    #[serde(default)]
    pub available: Option<ByteSize>,
    /// The identifier that the file system gives itself, in hexadecimal digits (`f_fsid` of statvfs).
    #[serde(default)]
    pub fs_id: Option<String>,
}

/// A GPU, as NVML tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its number now; another one after cards were moved.
    pub index: u32,
    /// Its identifier for ever.
    pub uuid: GpuId,
    /// The name that its maker gave it.
    #[serde(default)]
    pub name: Option<String>,
    /// Its memory.
    #[serde(default)]
    pub memory: Option<ByteSize>,
    /// Its place on the PCI bus, e.g. `00000000:41:00.0`.
    #[serde(default)]
    pub bus_id: Option<String>,
    /// The memory node that it is near to.
    #[serde(default)]
    pub node: Option<u16>,
}

/// What the recording process can do with control groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CgroupFacts {
    /// Mounted controllers of version 1.
    pub v1: Vec<V1Controller>,
    /// The hierarchy of version 2, if it is mounted.
    pub v2: Option<V2Facts>,
}

/// A mounted controller of version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct V1Controller {
    /// Its name, e.g. `cpuset`.
    pub name: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The group of the recording process below the mount, e.g. `/` or `/user.slice`.
    #[serde(default)]
    pub group: Option<String>,
    /// Whether that process may make groups below its own.
    pub writable: bool,
}

/// The hierarchy of version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct V2Facts {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The group of the recording process below the mount.
    #[serde(default)]
    pub group: Option<String>,
    /// Controllers that groups below it can be given (`cgroup.controllers`).
    #[serde(default)]
    pub controllers: Vec<String>,
    /// Controllers that groups below it are given (`cgroup.subtree_control`).
    #[serde(default)]
    pub delegated: Vec<String>,
    /// Whether that process may make groups below its own.
    pub writable: bool,
    /// Whether a whole group can be killed at once (`cgroup.kill`, Linux 5.14).
    #[serde(default)]
    pub kill: bool,
    /// Whether a whole group can be stopped (`cgroup.freeze`, Linux 5.2).
    #[serde(default)]
    pub freeze: bool,
}

/// Something that was there and could not be read or understood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The file, or the library.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}
