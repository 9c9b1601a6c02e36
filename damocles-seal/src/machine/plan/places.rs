//! Where sectors are worked on, and where they go. A record tells mounts, not intentions: every place is a proposal.

use super::Shortage;
use crate::machine::{Machine, Mount, figures::Figures, size::gib};
use damocles_core::ByteSize;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Where a store could lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its directory.
    pub location: PathBuf,
    /// The mount that it was derived from; `None` for a mere placeholder.
    pub mount: Option<PathBuf>,
    /// The number of the mounted device.
    pub device: Option<String>,
}

impl Place {
    /// Whether it was derived from a mount of the machine.
    pub fn is_known(&self) -> bool {
        self.mount.is_some()
    }

    fn on(mount: &Mount, directory: &str) -> Self {
        Self {
            location: mount.point.join(directory),
            mount: Some(mount.point.clone()),
            device: Some(mount.device.clone()),
        }
    }

    fn placeholder(location: impl Into<PathBuf>) -> Self {
        Self { location: location.into(), mount: None, device: None }
    }
}

/// Scratch space, and where finished sectors go.
#[derive(Debug)]
pub(super) struct Room<'m> {
    /// Each with the sectors that it holds; `None` where that is not known.
    scratch: Vec<(&'m Mount, Option<u32>)>,
    pub(super) persist: Vec<Place>,
    pub(super) notes: Vec<String>,
}

/// Directories of the system, on which nobody seals if there is anything else.
const SYSTEM: [&str; 9] = ["/", "/boot", "/efi", "/etc", "/home", "/nix", "/tmp", "/usr", "/var"];

/// A file system that is written full is slow: one twentieth stays free.
fn holds(available: ByteSize, scratch: ByteSize) -> u32 {
    let sectors = (available.0 / 20).saturating_mul(19).checked_div(scratch.0);
    sectors.map_or(u32::MAX, |sectors| u32::try_from(sectors).unwrap_or(u32::MAX))
}

fn is_system(point: &Path) -> bool {
    point == Path::new("/") || SYSTEM.iter().skip(1).any(|dir| point.starts_with(dir))
}

pub(super) fn room<'m>(machine: &'m Machine, figures: &Figures) -> Result<Room<'m>, Shortage> {
    let local = local(machine);
    let scratch = scratch(machine, &local, figures)?;
    let mut notes = Vec::new();
    let rotates = |mount: &Mount| machine.disk_of(mount).is_some_and(|disk| disk.rotational == Some(true));
    if scratch.iter().any(|(mount, _)| rotates(mount)) {
        notes.push(
            "scratch space lies on a rotating disk: PC1 and PC2 will wait for it; NVMe is what operators use"
                .to_owned(),
        );
    }
    if scratch.iter().any(|(mount, _)| is_system(&mount.point)) {
        notes.push(
            "scratch space lies on a file system of the system itself: full sectors can stop the machine".to_owned(),
        );
    }
    let persist = persist(machine, &scratch);
    let shared = persist.iter().any(|place| scratch.iter().any(|(m, _)| Some(&m.device) == place.device.as_ref()));
    if shared {
        notes.push(format!(
            "finished sectors go to a disk that sectors are worked on: each takes {} of it for good",
            gib(figures.kept.0)
        ));
    }
    Ok(Room { scratch, persist, notes })
}

/// Mounts of local disks that can be written to, each file system once, where it is mounted nearest to the root.
fn local(machine: &Machine) -> Vec<&Mount> {
    let mut seen = BTreeSet::new();
    let mut mounts: Vec<&Mount> = machine
        .mounts
        .iter()
        .filter(|m| {
            m.disk.is_some() && !m.read_only && machine.mount_of(&m.point).is_some_and(|top| top.device == m.device)
        })
        .filter(|m| !["/boot", "/efi", "/snap", "/proc", "/sys", "/dev"].iter().any(|dir| m.point.starts_with(dir)))
        .collect();
    mounts.sort_by_key(|m| (m.point.components().count(), m.point.clone()));
    mounts.retain(|m| seen.insert(m.device.as_str()));
    mounts
}

/// Fast disks of nobody else; else fast ones; else any.
fn scratch<'m>(
    machine: &Machine,
    local: &[&'m Mount],
    figures: &Figures,
) -> Result<Vec<(&'m Mount, Option<u32>)>, Shortage> {
    let fast = |m: &Mount| machine.disk_of(m).is_none_or(|disk| disk.nvme || disk.rotational != Some(true));
    let counted = |m: &&'m Mount| (*m, m.available.map(|available| holds(available, figures.scratch)));
    let fits = |(_, sectors): &(&Mount, Option<u32>)| sectors.is_none_or(|sectors| sectors > 0);
    let choices: [&dyn Fn(&Mount) -> bool; 3] = [&|m| fast(m) && !is_system(&m.point), &|m| fast(m), &|_| true];
    for choice in choices {
        let found: Vec<_> = local.iter().filter(|m| choice(m)).map(counted).filter(fits).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    // A record without any mount tells nothing; one with mounts that are all too small tells enough.
    match local.iter().max_by_key(|m| m.available) {
        None if machine.mounts.is_empty() => Ok(Vec::new()),
        largest => Err(Shortage::Disk {
            needed: figures.scratch,
            there: largest.and_then(|m| m.available).unwrap_or_default(),
            at: largest.map(|m| m.point.clone()),
        }),
    }
}

/// Mounts of other machines and rotating disks; else the largest local file system.
fn persist(machine: &Machine, scratch: &[(&Mount, Option<u32>)]) -> Vec<Place> {
    let is_scratch = |mount: &Mount| scratch.iter().any(|(m, _)| m.device == mount.device);
    let remote = |m: &&Mount| {
        m.disk.is_none() && ["nfs", "nfs4", "cifs", "ceph", "lustre", "beegfs"].contains(&m.fs_type.as_str())
    };
    let slow = |m: &&Mount| machine.disk_of(m).is_some_and(|disk| disk.rotational == Some(true)) && !is_scratch(m);
    let mut seen = BTreeSet::new();
    let mut places: Vec<Place> = machine
        .mounts
        .iter()
        .filter(|m| !m.read_only && !is_system(&m.point) && (remote(m) || slow(m)))
        .filter(|m| seen.insert((m.device.as_str(), m.source.as_str())))
        .map(|m| Place::on(m, "persist"))
        .collect();
    if places.is_empty() {
        let largest = scratch.iter().max_by_key(|(m, _)| m.total);
        places.push(largest.map_or_else(|| Place::placeholder("/mnt/persist"), |(m, _)| Place::on(m, "persist")));
    }
    places
}

impl Room<'_> {
    /// Sectors on their way that all scratch space holds; `None` if that is not known of every part.
    pub(super) fn sectors(&self) -> Option<u32> {
        if self.scratch.is_empty() {
            return None;
        }
        self.scratch.iter().try_fold(0u32, |sum, (_, sectors)| Some(sum.saturating_add((*sectors)?)))
    }

    /// The file systems, for the arithmetic.
    pub(super) fn described(&self) -> String {
        let of = |(mount, _): &(&Mount, Option<u32>)| {
            let free = mount.available.map(|available| format!(" ({} free)", gib(available.0))).unwrap_or_default();
            format!("{}{free}", mount.point.display())
        };
        self.scratch.iter().map(of).collect::<Vec<_>>().join(", ")
    }

    /// A directory for each sealing thread: disks in turn, as long as they hold more.
    pub(super) fn threads(&self, sectors: u32) -> Vec<Place> {
        let mut left: Vec<(&Mount, u32)> =
            self.scratch.iter().map(|(m, sectors)| (*m, sectors.unwrap_or(u32::MAX))).collect();
        let mut places = Vec::new();
        for number in 0..sectors {
            // The one that holds most has the turn, so that disks fill evenly.
            match left.iter_mut().rev().max_by_key(|(_, left)| *left).filter(|(_, left)| *left > 0) {
                Some((mount, left)) => {
                    places.push(Place::on(mount, &format!("sealing/{number}")));
                    *left -= 1;
                }
                None => places.push(Place::placeholder(format!("/mnt/sealing/{number}"))),
            }
        }
        places
    }
}
