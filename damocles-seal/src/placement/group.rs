//! Making and removing groups.

use super::{
    CgroupTree, Controller, Hierarchy, PlacementError, PlacementErrorKind, cpuset,
    error::{grant, is_denied, of_io},
    leaf::{Joined, Leaf, MemoryFiles},
    limits::{limit, write_if_there},
    owner::Owner,
};
use crate::{
    pool::PlacementSpec,
    sys::{EndPaths, Freezer},
};
use damocles_core::Error;
use fs_err as fs;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The groups of one pool: `<name>/<owner>/<slot>/<child>` in each hierarchy that its slots need.
///
/// Limits are set at the slot's group, so that all its children share them; a child has a group of its own below, so that
/// it can be ended alone. Empty groups are removed when this is dropped.
#[derive(Debug)]
pub struct Groups {
    tree: CgroupTree,
    name: String,
    owner: String,
    proc: PathBuf,
    children: AtomicU64,
    made: Mutex<BTreeSet<PathBuf>>,
}

impl Groups {
    /// The groups of this process below `name` in every hierarchy of `tree`. Makes none yet. `proc` is usually `/proc`.
    pub fn new(tree: CgroupTree, name: impl Into<String>, proc: impl Into<PathBuf>) -> Self {
        let proc = proc.into();
        let owner = Owner::new(&proc).to_string();
        Self { tree, name: name.into(), owner, proc, children: AtomicU64::new(0), made: Mutex::default() }
    }

    /// The hierarchies.
    pub fn tree(&self) -> &CgroupTree {
        &self.tree
    }

    /// Where the kernel shows processes.
    pub(super) fn proc(&self) -> &Path {
        &self.proc
    }

    /// The directory below which every process of this name has its groups.
    pub(super) fn named(&self, hierarchy: Hierarchy) -> Option<PathBuf> {
        Some(self.base(hierarchy)?.join(&self.name))
    }

    /// The directory in which this process has its slots' groups.
    pub fn dir(&self, hierarchy: Hierarchy) -> Option<PathBuf> {
        Some(self.named(hierarchy)?.join(&self.owner))
    }

    /// Makes the group of one more child of a slot, with the slot's limits set.
    ///
    /// CPUs and nodes are left to affinity and memory policy where no hierarchy can be used for them.
    ///
    /// # Errors
    ///
    /// Something that only a group can give cannot be had; the error names what is missing and who grants it.
    pub fn leaf(&self, slot: &str, wanted: &PlacementSpec) -> Result<Leaf, PlacementError> {
        let mut needed: BTreeMap<Hierarchy, Vec<Controller>> = BTreeMap::new();
        let binds_cpus = wanted.cpus.is_some() || wanted.mems.is_some();
        let binds = self.tree.with(Controller::Cpuset).filter(|hierarchy| binds_cpus && self.usable(*hierarchy));
        if let Some(hierarchy) = binds {
            needed.entry(hierarchy).or_default().push(Controller::Cpuset);
        }
        let musts = [(wanted.memory.is_some(), Controller::Memory), (wanted.cpu_weight.is_some(), Controller::Cpu)];
        for (_, controller) in musts.into_iter().filter(|(asked, _)| *asked) {
            let hierarchy = self.tree.with(controller).ok_or_else(|| missing(slot, controller))?;
            needed.entry(hierarchy).or_default().push(controller);
        }
        // Without a limit only to know who was killed for want of memory.
        let reports = self.tree.with(Controller::Memory).filter(|h| wanted.memory.is_none() && self.can_report(*h));
        if let Some(hierarchy) = reports {
            needed.entry(hierarchy).or_default().push(Controller::Memory);
        }
        // Whoever ends the child has to know all that it started.
        let trackers = [Hierarchy::V2, Hierarchy::V1(Controller::Freezer)];
        let tracker = trackers.into_iter().find(|h| self.tree.mount(*h).is_some() && self.usable(*h));
        if let Some(tracker) = tracker {
            needed.entry(tracker).or_default();
        }
        let slot_name = format!("slot-{}", escaped(slot));
        let child = format!("child-{}", self.children.fetch_add(1, Ordering::Relaxed));
        let mut leaf = Leaf::default();
        for (hierarchy, controllers) in &needed {
            self.enter(&mut leaf, *hierarchy, controllers, [&slot_name, &child], wanted)
                .map_err(|e| e.with("slot", slot))?;
        }
        leaf.end = tracker.or_else(|| needed.keys().next().copied()).and_then(|h| leaf.end_in(h));
        Ok(leaf)
    }

    fn enter(
        &self,
        leaf: &mut Leaf,
        hierarchy: Hierarchy,
        controllers: &[Controller],
        [slot, child]: [&str; 2],
        wanted: &PlacementSpec,
    ) -> Result<(), PlacementError> {
        const OP: &str = "make control group";
        let owned = self.make(hierarchy, controllers).map_err(|e| of_io(OP, e))?;
        if hierarchy == Hierarchy::V1(Controller::Cpuset) {
            for dir in owned.parent().into_iter().chain([owned.as_path()]) {
                // What the slot cannot get without it is said where it is bound.
                let _ = cpuset::refill(dir, wanted);
            }
        }
        if hierarchy == Hierarchy::V2 && !controllers.is_empty() {
            enable(&owned, controllers).map_err(|e| of_io("enable controllers", e))?;
        }
        let slot_dir = owned.join(slot);
        self.make_dir(&slot_dir, hierarchy).map_err(|e| of_io(OP, e))?;
        leaf.limits.extend(limit(&slot_dir, hierarchy, controllers, wanted)?);
        if hierarchy == Hierarchy::V2 && controllers.contains(&Controller::Memory) {
            // So that it shows which child was killed for want of memory.
            enable(&slot_dir, &[Controller::Memory]).map_err(|e| of_io("enable controllers", e))?;
        }
        let dir = slot_dir.join(child);
        make_dir(&dir, hierarchy).map_err(|e| of_io(OP, e))?;
        let relative = PathBuf::from(&self.name).join(&self.owner).join(slot).join(child);
        // From here on it goes with the leaf, whatever fails.
        let above = vec![slot_dir.clone(), owned];
        leaf.joined.push(Joined { hierarchy, dir: dir.clone(), relative, above });
        leaf.binds |= controllers.contains(&Controller::Cpuset);
        if controllers.contains(&Controller::Memory) {
            let limited = wanted.memory.is_some();
            leaf.memory = Some(MemoryFiles::new(hierarchy, &slot_dir, &dir, limited));
            leaf.note_start();
            if hierarchy == Hierarchy::V2 && limited {
                write_if_there(&dir.join("memory.oom.group"), "1").map_err(|e| of_io("set control file", e))?;
            }
        }
        Ok(())
    }

    /// Makes our directory in a hierarchy, with what has to be so from our own level down.
    fn make(&self, hierarchy: Hierarchy, controllers: &[Controller]) -> io::Result<PathBuf> {
        let base = self.base(hierarchy).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let ours = base.join(&self.name);
        if hierarchy == Hierarchy::V2 && !controllers.is_empty() {
            self.leave_inner_group(&base)?;
            enable(&base, controllers)?;
        }
        make_dir(&ours, hierarchy)?;
        if hierarchy == Hierarchy::V2 && !controllers.is_empty() {
            enable(&ours, controllers)?;
        }
        let owned = ours.join(&self.owner);
        self.make_dir(&owned, hierarchy)?;
        Ok(owned)
    }

    fn make_dir(&self, dir: &Path, hierarchy: Hierarchy) -> io::Result<()> {
        make_dir(dir, hierarchy)?;
        self.made.lock().insert(dir.to_owned());
        Ok(())
    }

    /// A group of version 2 that hands out controllers has no processes of its own: if it is the one that was given to
    /// us, we go one level down.
    fn leave_inner_group(&self, base: &Path) -> io::Result<()> {
        if !self.is_inner_group(base) {
            return Ok(());
        }
        let inner = base.join(format!("{}-daemon", self.name));
        make_dir(&inner, Hierarchy::V2)?;
        let me = std::process::id().to_string();
        let members = fs::read_to_string(base.join("cgroup.procs"))?;
        if members.lines().any(|line| line.trim() == me) { fs::write(inner.join("cgroup.procs"), me) } else { Ok(()) }
    }

    fn is_inner_group(&self, base: &Path) -> bool {
        self.tree.own().as_deref() == Some(base) && self.tree.mount(Hierarchy::V2) != Some(base)
    }

    /// Whether memory can be counted there for a slot that has no limit, at no cost to anybody.
    fn can_report(&self, hierarchy: Hierarchy) -> bool {
        const MEMORY: [Controller; 1] = [Controller::Memory];
        let Some(base) = self.base(hierarchy).filter(|_| self.usable(hierarchy)) else { return false };
        if hierarchy != Hierarchy::V2 {
            return true;
        }
        // This process does not change its group for it, unless it already has.
        let already = enabled(&base).is_ok_and(|names| names.contains(Controller::Memory.name()));
        let can = || self.make(hierarchy, &MEMORY).and_then(|owned| enable(&owned, &MEMORY)).is_ok();
        (already || !self.is_inner_group(&base)) && can()
    }

    /// Where our own directory lies. Version 1 and whoever may move processes anywhere: at the top. In version 2 others
    /// can only move processes within what was given to them.
    fn base(&self, hierarchy: Hierarchy) -> Option<PathBuf> {
        let mount = self.tree.mount(hierarchy)?;
        if hierarchy != Hierarchy::V2 {
            return Some(mount.to_owned());
        }
        let own = self.tree.own()?;
        if own.starts_with(mount.join(&self.name)) || is_writable(&mount.join("cgroup.procs")) {
            Some(mount.to_owned())
        } else {
            let inner = own.file_name().is_some_and(|name| *name == *format!("{}-daemon", self.name));
            own.parent().filter(|_| inner).map(Path::to_owned).or(Some(own))
        }
    }

    /// Whether this user can make groups in a hierarchy; asked by making ours.
    fn usable(&self, hierarchy: Hierarchy) -> bool {
        match self.make(hierarchy, &[]) {
            Ok(_) => {
                // A process is moved by who may write to the lowest group above both its old and its new place.
                hierarchy != Hierarchy::V2
                    || self.base(hierarchy).is_some_and(|base| {
                        is_writable(&base.join("cgroup.procs"))
                            || is_writable(&base.join(&self.name).join("cgroup.procs"))
                    })
            }
            Err(error) => {
                if !is_denied(&error) {
                    tracing::warn!(?hierarchy, %error, "a hierarchy of control groups cannot be used");
                }
                false
            }
        }
    }

    /// Whether this user seems to be allowed the groups without which a placement cannot be had. Nothing is made. A
    /// hierarchy that is not there is no matter of permission.
    pub(super) fn may_make(&self, wanted: &PlacementSpec) -> bool {
        let musts = [(wanted.memory.is_some(), Controller::Memory), (wanted.cpu_weight.is_some(), Controller::Cpu)];
        let hierarchies = musts.into_iter().filter(|(asked, _)| *asked).filter_map(|(_, c)| self.tree.with(c));
        hierarchies.filter_map(|hierarchy| self.base(hierarchy)).all(|base| {
            let ours = base.join(&self.name);
            is_writable(if ours.exists() { &ours } else { &base })
        })
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        // The deepest first; one that is not empty is left to the next start.
        for dir in self.made.lock().iter().rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn missing(slot: &str, controller: Controller) -> PlacementError {
    let (what, key) = match controller {
        Controller::Memory => ("a memory limit", "memory limit"),
        _ => ("a CPU weight", "CPU weight"),
    };
    Error::new(PlacementErrorKind::Missing, "bind slot").with("slot", slot).with("needs", what).with("missing", controller)
        .hint_with(format!(
            "no hierarchy of control groups has the controller `{controller}`: mount one and {}, or remove the slot's {key}",
            grant()
        ))
}

/// How a group is ended.
pub(super) fn end_paths(dir: &Path, hierarchy: Hierarchy) -> EndPaths {
    let there = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    let kill = there("cgroup.kill").filter(|_| hierarchy == Hierarchy::V2);
    let freezer = match hierarchy {
        Hierarchy::V2 => there("cgroup.freeze").filter(|_| kill.is_none()).map(Freezer::V2),
        Hierarchy::V1(Controller::Freezer) => there("freezer.state").map(Freezer::V1),
        Hierarchy::V1(_) => None,
    };
    EndPaths { procs: dir.join("cgroup.procs"), kill, freezer }
}

/// Removes a group whose members have ended. The kernel lets go of a process a moment after its end has shown, and tells
/// nobody when.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    const TRIES: u32 = 50;
    for _ in 0..TRIES {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(Duration::from_millis(2)),
            other => return other,
        }
    }
    fs::remove_dir(dir)
}

fn is_writable(path: &Path) -> bool {
    nix::unistd::eaccess(path, nix::unistd::AccessFlags::W_OK).is_ok()
}

/// Makes a directory if it is not there. Those of version 1's cpuset start with nothing, and nobody can enter them.
pub(super) fn make_dir(dir: &Path, hierarchy: Hierarchy) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    if hierarchy == Hierarchy::V1(Controller::Cpuset) { cpuset::fill(dir) } else { Ok(()) }
}

fn enabled(dir: &Path) -> io::Result<BTreeSet<String>> {
    let names = fs::read_to_string(dir.join("cgroup.subtree_control"))?;
    Ok(names.split_ascii_whitespace().map(|name| name.trim_start_matches('+').to_owned()).collect())
}

/// Lets the groups below `dir` use controllers.
pub(super) fn enable(dir: &Path, controllers: &[Controller]) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let enabled = enabled(dir)?;
    let missing = controllers.iter().filter(|c| !enabled.contains(c.name()));
    let missing: Vec<String> = missing.map(|c| format!("+{c}")).collect();
    if missing.is_empty() { Ok(()) } else { fs::write(file, missing.join(" ")) }
}

/// A slot's name as one name of a directory; two slots never get the same.
fn escaped(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().map(|c| if plain(c) { c.to_string() } else { format!("%{:x}.", u32::from(c)) }).collect()
}
