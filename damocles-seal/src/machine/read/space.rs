//! File systems that can hold files, and how much.

use super::{Roots, disks::Devices, files::Files, mounts::Line};
use crate::machine::Mount;
use damocles_core::ByteSize;
use nix::sys::statvfs::statvfs;
use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

/// How long a file system on another machine may take to tell its size.
const PATIENCE: Duration = Duration::from_secs(5);

/// File systems of the kernel itself, which hold no files of anybody.
const PSEUDO: [&str; 27] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "fuse.gvfsd-fuse",
    "fuse.lxcfs",
    "fuse.portal",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "resctrl",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// File systems that may be on another machine, and then answer when they like.
const REMOTE: [&str; 12] =
    ["9p", "afs", "beegfs", "ceph", "cifs", "fuse", "glusterfs", "gpfs", "lustre", "nfs", "smb3", "virtiofs"];

pub(super) fn mounts(roots: &Roots, table: Vec<Line>, devices: &Devices, files: &mut Files) -> Vec<Mount> {
    let mut mounts = Vec::new();
    for line in table {
        if PSEUDO.contains(&line.fs_type.as_str()) {
            continue;
        }
        let at = roots.host.join(line.point.strip_prefix("/").unwrap_or(&line.point));
        let family = line.fs_type.split(['.', '4']).next().unwrap_or_default();
        let space = if REMOTE.contains(&family) { patiently(&at) } else { local(&at) };
        let space = match space {
            Ok(Some(space)) => space,
            Ok(None) => continue,
            Err(what) => {
                files.problem(&line.point, what);
                Space::default()
            }
        };
        mounts.push(Mount {
            disk: devices.disk_of(&line.device, &line.source),
            point: line.point,
            source: line.source,
            fs_type: line.fs_type,
            device: line.device,
            read_only: line.read_only,
            total: space.total,
            available: space.available,
            fs_id: space.fs_id,
        });
    }
    mounts
}

#[derive(Debug, Default)]
struct Space {
    total: Option<ByteSize>,
    available: Option<ByteSize>,
    fs_id: Option<String>,
}

/// `None` for a file that something is mounted over, as containers do.
fn local(at: &Path) -> Result<Option<Space>, String> {
    if at.is_file() {
        return Ok(None);
    }
    space(at).map(Some)
}

/// Asks from a thread of its own: a server that is gone would hold this one for ever. The thread ends with the process at the
/// latest, because the kernel lets a process that waits for a server die.
fn patiently(at: &Path) -> Result<Option<Space>, String> {
    let (tell, told) = mpsc::channel();
    let path = PathBuf::from(at);
    let asking = std::thread::Builder::new().name("statvfs".to_owned()).spawn(move || tell.send(local(&path)));
    asking.map_err(|e| e.to_string())?;
    told.recv_timeout(PATIENCE).unwrap_or_else(|_| Err(format!("does not answer within {} s", PATIENCE.as_secs())))
}

fn space(at: &Path) -> Result<Space, String> {
    let stat = statvfs(at).map_err(|e| e.desc().to_owned())?;
    let block = wide(stat.fragment_size());
    let bytes = |blocks: u64| Some(ByteSize(blocks.saturating_mul(block)));
    let fs_id = Some(wide(stat.filesystem_id())).filter(|id| *id != 0).map(|id| format!("{id:016x}"));
    Ok(Space { total: bytes(wide(stat.blocks())), available: bytes(wide(stat.blocks_available())), fs_id })
}

/// The kernel's numbers are as wide as its words, which differ.
fn wide(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}
