//! Rules about stores.

use super::{StoreClaim, Violation, ViolationKind};
use crate::machine::{Machine, Mount, size::gib};
use std::collections::BTreeMap;

/// What is wrong with the places of these stores.
///
/// - Each lies on a file system of the record that can be written to, if it is to be written to.
/// - Each lies where it was made, if that was written down.
/// - The space of all stores on one file system is at most its size.
pub fn check_stores(machine: &Machine, stores: &[StoreClaim]) -> Vec<Violation> {
    let mut violations = Vec::new();
    // A record that leaves all file systems out tells nothing about any.
    if machine.mounts.is_empty() {
        return violations;
    }
    let mut claimed: BTreeMap<&str, (Vec<&StoreClaim>, &Mount)> = BTreeMap::new();
    for store in stores {
        let Some(mount) = machine.mount_of(&store.location) else {
            let message = format!("`{}` lies on no known file system", store.location.display());
            let remedy = "give an absolute path; if the record is of another machine, mount the disk there first";
            violations.push(one(store, ViolationKind::NoFileSystem, message, remedy.to_owned()));
            continue;
        };
        violations.extend(place(store, mount));
        // One file system may be mounted at several places; its device tells.
        claimed.entry(&mount.device).or_insert_with(|| (Vec::new(), mount)).0.push(store);
    }
    for (stores, mount) in claimed.into_values() {
        let space = stores.iter().filter_map(|s| s.space).fold(0u64, |sum, space| sum.saturating_add(space.0));
        let Some(total) = mount.total.filter(|total| space > total.0) else { continue };
        violations.push(Violation {
            kind: ViolationKind::Space,
            of: stores.iter().filter(|s| s.space.is_some()).map(|s| s.name.clone()).collect(),
            message: format!(
                "{} are needed on the file system at {}, which has {}",
                gib(space),
                mount.point.display(),
                gib(total.0)
            ),
            remedy: "move stores to other disks, or configure fewer".to_owned(),
        });
    }
    violations
}

fn place(store: &StoreClaim, mount: &Mount) -> Vec<Violation> {
    let mut violations = Vec::new();
    if store.writable && mount.read_only {
        let message = format!("the file system at {} is mounted read-only", mount.point.display());
        let remedy = format!("mount -o remount,rw {}, or set `readonly = true`", mount.point.display());
        violations.push(one(store, ViolationKind::ReadOnly, message, remedy));
    }
    let Some(on) = &store.on else { return violations };
    let point = mount.point.to_string_lossy();
    let names = [mount.disk.as_deref(), mount.fs_id.as_deref(), Some(&mount.source), Some(&mount.device), Some(&point)];
    if !names.into_iter().flatten().any(|name| name == on) {
        let found = mount.disk.as_deref().unwrap_or(&mount.source);
        let message = format!("it was made on {on}, and `{}` lies on {found}", store.location.display());
        let remedy = format!("mount {on} at {}", store.location.display());
        violations.push(one(store, ViolationKind::OtherDisk, message, remedy));
    }
    violations
}

fn one(store: &StoreClaim, kind: ViolationKind, message: String, remedy: String) -> Violation {
    Violation { kind, of: vec![store.name.clone()], message, remedy }
}
