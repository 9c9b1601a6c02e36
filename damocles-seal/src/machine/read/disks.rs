//! Block devices: `/sys/block`, see Documentation/ABI/stable/sysfs-block of the kernel.

use super::{Roots, files::Files};
use crate::machine::Disk;
use damocles_core::ByteSize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Devices in memory, without a medium of their own, or that nobody seals on.
const NOT_DISKS: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];

/// The kernel's unit of sizes, whatever the disk's own sectors are.
const SECTOR: u64 = 512;

/// All disks, and which numbers and names are parts of which.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub(super) disks: Vec<Disk>,
    by_number: BTreeMap<String, String>,
    by_name: BTreeMap<String, String>,
}

impl Devices {
    /// The disk of a mounted device. Its number is looked up first; btrfs and ZFS have one of their own, but tell a name.
    pub(super) fn disk_of(&self, number: &str, source: &str) -> Option<String> {
        let name = source.strip_prefix("/dev/").map(|name| name.strip_prefix("mapper/").unwrap_or(name));
        self.by_number.get(number).or_else(|| self.by_name.get(name?)).cloned()
    }

    fn know(&mut self, dir: &Path, name: &str, disk: &str, files: &mut Files) -> Option<String> {
        let number = files.line(&dir.join("dev"));
        if let Some(number) = &number {
            self.by_number.insert(number.clone(), disk.to_owned());
        }
        self.by_name.insert(name.to_owned(), disk.to_owned());
        number
    }
}

pub(super) fn read(roots: &Roots, files: &mut Files) -> Devices {
    let mut devices = Devices::default();
    let all = roots.sys.join("block");
    for name in files.names(&all) {
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let dir = all.join(&name);
        let sectors = files.value::<u64>(&dir.join("size"));
        if NOT_DISKS.contains(&kind) || sectors == Some(0) {
            continue;
        }
        let number = devices.know(&dir, &name, &name, files);
        if let Some(mapped) = files.line(&dir.join("dm/name")) {
            devices.by_name.insert(mapped, name.clone());
        }
        for part in files.names(&dir).into_iter().filter(|part| part.starts_with(&name)) {
            let _: Option<String> = devices.know(&dir.join(&part), &part, &name, files);
        }
        let disk = Disk {
            number,
            model: files.line(&dir.join("device/model")),
            size: sectors.map(|n| ByteSize(n.saturating_mul(SECTOR))),
            rotational: files.value::<u8>(&dir.join("queue/rotational")).map(|r| r != 0),
            nvme: name.starts_with("nvme"),
            node: near(&dir, files),
            made_of: files.names(&dir.join("slaves")),
            name,
        };
        devices.disks.push(disk);
    }
    resolve(&mut devices);
    devices
}

/// The node of the closest device above that tells one.
fn near(dir: &Path, files: &mut Files) -> Option<u16> {
    let device = std::fs::canonicalize(dir.join("device")).unwrap_or_else(|_| dir.join("device"));
    // The deepest bus has fewer steps than this.
    device.ancestors().take(12).find_map(|above| {
        let node: i32 = files.value(&above.join("numa_node"))?;
        u16::try_from(node).ok()
    })
}

/// Says of which whole disks a disk is made, and what it has of them.
fn resolve(devices: &mut Devices) {
    let whole = |part: &String| devices.by_name.get(part).unwrap_or(part).clone();
    let made_of: Vec<Vec<String>> = devices
        .disks
        .iter()
        .map(|disk| disk.made_of.iter().map(whole).collect::<BTreeSet<_>>().into_iter().collect())
        .collect();
    for (disk, made_of) in devices.disks.iter_mut().zip(made_of) {
        disk.made_of = made_of;
    }
    // LVM lies on encryption lies on RAID: each round settles one layer more, and no layer is settled twice.
    for _ in 0..devices.disks.len() {
        let known: BTreeMap<String, (bool, Option<u16>)> =
            devices.disks.iter().map(|d| (d.name.clone(), (d.nvme, d.node))).collect();
        let mut changed = false;
        for disk in devices.disks.iter_mut().filter(|disk| !disk.made_of.is_empty()) {
            let parts: Vec<_> = disk.made_of.iter().map(|part| known.get(part).copied().unwrap_or_default()).collect();
            let nvme = parts.iter().all(|(nvme, _)| *nvme);
            let nodes: BTreeSet<Option<u16>> = parts.iter().map(|(_, node)| *node).collect();
            let node = nodes.first().copied().flatten().filter(|_| nodes.len() == 1);
            changed |= (disk.nvme, disk.node) != (nvme, node);
            (disk.nvme, disk.node) = (nvme, node);
        }
        if !changed {
            return;
        }
    }
}

/// The directory of a PCI device by the bus identifier that NVML tells, whose domain has eight digits to sysfs' four.
pub(super) fn pci(roots: &Roots, bus_id: &str) -> Option<PathBuf> {
    let lower = bus_id.to_ascii_lowercase();
    let plain = lower.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, ':' | '.'));
    let short = lower.get(lower.len().checked_sub("0000:00:00.0".len())?..)?;
    plain.then(|| roots.sys.join("bus/pci/devices").join(short))
}
