//! CPUs and memory nodes of a group.

use super::{
    Controller, Hierarchy, PlacementError,
    error::{differs, of_io},
};
use crate::pool::PlacementSpec;
use damocles_core::CpuSet;
use fs_err as fs;
use std::{collections::BTreeSet, io, path::Path};

const CPUS: &str = "cpuset.cpus";
const MEMS: &str = "cpuset.mems";

/// Gives a new group of version 1, which starts with nothing and which nobody can enter, all that the one above has.
pub(super) fn fill(dir: &Path) -> io::Result<()> {
    let Some(above) = dir.parent() else { return Ok(()) };
    for name in [CPUS, MEMS] {
        let file = dir.join(name);
        let has = fs::read_to_string(&file).is_ok_and(|text| !text.trim().is_empty());
        if !has {
            fs::write(&file, fs::read_to_string(above.join(name))?.trim())?;
        }
    }
    Ok(())
}

/// Gives a group of version 1 that is not limited itself all that the one above has, if it lacks some of what is wanted.
///
/// The kernel takes a CPU that goes offline out of every group, and gives it back to the top alone.
///
/// # Errors
///
/// A file cannot be read or written.
pub(super) fn refill(dir: &Path, wanted: &PlacementSpec) -> io::Result<()> {
    let cpus = wanted.cpus.iter().flat_map(|cpus| cpus.iter()).collect();
    let mems = wanted.mems.iter().flat_map(|mems| mems.iter()).collect();
    refill_one(dir, CPUS, &cpus)?;
    refill_one(dir, MEMS, &mems)
}

/// The same for whatever the group above has.
///
/// # Errors
///
/// A file cannot be read or written.
pub(super) fn refill_all(dir: &Path) -> io::Result<()> {
    let Some(above) = dir.parent() else { return Ok(()) };
    for name in [CPUS, MEMS] {
        refill_one(dir, name, &members(&fs::read_to_string(above.join(name))?))?;
    }
    Ok(())
}

fn refill_one(dir: &Path, name: &str, wanted: &BTreeSet<u16>) -> io::Result<()> {
    let (Some(above), file) = (dir.parent(), dir.join(name)) else { return Ok(()) };
    let has = members(&fs::read_to_string(&file)?);
    if wanted.is_subset(&has) {
        return Ok(());
    }
    let above = fs::read_to_string(above.join(name))?;
    // A group never has what the one above has not.
    if members(&above) == has { Ok(()) } else { fs::write(&file, above.trim()) }
}

/// Both kinds of number are written alike.
fn members(list: &str) -> BTreeSet<u16> {
    list.trim().parse::<CpuSet>().map(|set| set.iter().collect()).unwrap_or_default()
}

/// Binds a slot's group, and reads back what it was given.
pub(super) fn bind(dir: &Path, hierarchy: Hierarchy, wanted: &PlacementSpec) -> Result<(), PlacementError> {
    let v2 = hierarchy == Hierarchy::V2;
    let cpus = wanted.cpus.as_ref().map(ToString::to_string);
    let mems = wanted.mems.as_ref().map(ToString::to_string);
    for (name, effective, wanted) in [
        (CPUS, if v2 { "cpuset.cpus.effective" } else { "cpuset.effective_cpus" }, cpus),
        (MEMS, if v2 { "cpuset.mems.effective" } else { "cpuset.effective_mems" }, mems),
    ] {
        let Some(wanted) = wanted else { continue };
        fs::write(dir.join(name), &wanted).map_err(|e| refused(dir, hierarchy, name, &wanted, e))?;
        // What is really given: CPUs that are offline or not in the groups above are left out without a word.
        let effective = Some(dir.join(effective)).filter(|path| path.exists()).unwrap_or_else(|| dir.join(name));
        let got = fs::read_to_string(&effective).map_err(|e| of_io("read back a setting", e))?;
        if got.trim() != wanted {
            return Err(differs(&effective, wanted, got.trim()));
        }
    }
    Ok(())
}

/// Why a list was not taken. Version 1 says that access is denied when the group above lacks something: nobody is told by
/// that what to do.
fn refused(dir: &Path, hierarchy: Hierarchy, name: &str, wanted: &str, error: io::Error) -> PlacementError {
    let above = dir.parent().map(|above| above.join(name)).filter(|_| hierarchy == Hierarchy::V1(Controller::Cpuset));
    let got = above.as_deref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
    match above.filter(|_| !got.is_empty() && !members(wanted).is_subset(&members(&got))) {
        Some(above) => differs(&above, wanted, got.trim())
            .hint_with(format!(
                "take what is missing out of the slot, bring it online, or add it to `{name}` of each group above as root"
            ))
            .because(error),
        None => of_io("set control file", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group in a group, as files.
    fn groups(above: &str, inner: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("inner")).unwrap();
        for name in [CPUS, MEMS] {
            fs::write(root.path().join(name), format!("{above}\n")).unwrap();
            fs::write(root.path().join("inner").join(name), format!("{inner}\n")).unwrap();
        }
        root
    }

    #[test]
    fn a_group_gets_back_what_came_back_online() {
        let wanted = PlacementSpec { cpus: Some("2-3".parse().unwrap()), ..PlacementSpec::default() };
        for (above, inner, after) in [("0-3", "0-2", "0-3"), ("0-3", "2-3\n", "2-3"), ("0-2", "0-2", "0-2")] {
            let root = groups(above, inner);
            let dir = root.path().join("inner");
            refill(&dir, &wanted).unwrap();
            assert_eq!(fs::read_to_string(dir.join(CPUS)).unwrap().trim(), after, "{inner} below {above}");
            assert_eq!(fs::read_to_string(dir.join(MEMS)).unwrap().trim(), inner.trim(), "nobody wants other nodes");
        }
        let root = groups("0-3", "0-1");
        refill_all(&root.path().join("inner")).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("inner").join(MEMS)).unwrap(), "0-3");
    }
}
