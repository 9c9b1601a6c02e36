//! Making and removing groups.

use super::{
    CgroupTree, Controller, Hierarchy, PlacementError, PlacementErrorKind,
    error::{differs, grant, is_denied, of_io},
    leaf::{Joined, Leaf, MemoryFiles},
    owner::Owner,
};
use crate::{
    pool::PlacementSpec,
    sys::{EndPaths, Freezer},
};
use damocles_core::{ByteSize, Error};
use fs_err as fs;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The kernel counts memory in pages of at most this many bytes and rounds a limit down to them.
const LARGEST_PAGE: u64 = 64 << 10;

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

    /// The directory in which this process has its slots' groups.
    pub fn dir(&self, hierarchy: Hierarchy) -> Option<PathBuf> {
        Some(self.base(hierarchy)?.join(&self.name).join(&self.owner))
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
        if hierarchy == Hierarchy::V2 && !controllers.is_empty() {
            enable(&owned, controllers).map_err(|e| of_io("enable controllers", e))?;
        }
        let slot_dir = owned.join(slot);
        self.make_dir(&slot_dir, hierarchy).map_err(|e| of_io(OP, e))?;
        limit(&slot_dir, hierarchy, controllers, wanted)?;
        if hierarchy == Hierarchy::V2 && controllers.contains(&Controller::Memory) {
            // So that it shows which child was killed for want of memory.
            enable(&slot_dir, &[Controller::Memory]).map_err(|e| of_io("enable controllers", e))?;
        }
        let dir = slot_dir.join(child);
        make_dir(&dir, hierarchy).map_err(|e| of_io(OP, e))?;
        let relative = PathBuf::from(&self.name).join(&self.owner).join(slot).join(child);
        if controllers.contains(&Controller::Memory) {
            leaf.memory = Some(MemoryFiles::new(hierarchy, &slot_dir, &dir));
            if hierarchy == Hierarchy::V2 {
                write_if_there(&dir.join("memory.oom.group"), "1").map_err(|e| of_io("set control file", e))?;
            }
        }
        leaf.binds |= controllers.contains(&Controller::Cpuset);
        leaf.joined.push(Joined { hierarchy, dir, relative, above: vec![slot_dir, owned] });
        leaf.note_start();
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
        let own = self.tree.own();
        if own.as_deref() != Some(base) || self.tree.mount(Hierarchy::V2) == Some(base) {
            return Ok(());
        }
        let inner = base.join(format!("{}-daemon", self.name));
        make_dir(&inner, Hierarchy::V2)?;
        let me = std::process::id().to_string();
        let members = fs::read_to_string(base.join("cgroup.procs"))?;
        if members.lines().any(|line| line.trim() == me) { fs::write(inner.join("cgroup.procs"), me) } else { Ok(()) }
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

    /// Ends and removes the groups below our name whose owner is gone.
    ///
    /// # Errors
    ///
    /// A directory cannot be read or removed. The others are cleaned all the same.
    pub fn clean_leftovers(&self) -> Result<usize, PlacementError> {
        let mut cleaned = 0;
        let mut failed = None;
        for hierarchy in self.tree.hierarchies() {
            let Some(ours) = self.base(hierarchy).map(|base| base.join(&self.name)) else { continue };
            for dir in dirs(&ours) {
                let owner = dir.file_name().and_then(|name| Owner::parse(name.to_str()?));
                if !owner.is_some_and(|owner| owner.is_gone(&self.proc)) {
                    continue;
                }
                match end_tree(&dir, hierarchy) {
                    Ok(()) => cleaned += 1,
                    // Somebody else cleans at the same time.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(cleaned), |error| Err(of_io("remove a dead worker's control groups", error)))
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

/// Ends a group and all below it, and removes the directories.
fn end_tree(dir: &Path, hierarchy: Hierarchy) -> io::Result<()> {
    for inner in dirs(dir) {
        end_tree(&inner, hierarchy)?;
    }
    end_paths(dir, hierarchy).open()?.end();
    remove(dir)
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

fn dirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
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
    if hierarchy != Hierarchy::V1(Controller::Cpuset) {
        return Ok(());
    }
    let Some(above) = dir.parent() else { return Ok(()) };
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = dir.join(name);
        let has = fs::read_to_string(&file).is_ok_and(|text| !text.trim().is_empty());
        if !has {
            fs::write(&file, fs::read_to_string(above.join(name))?.trim())?;
        }
    }
    Ok(())
}

/// Lets the groups below `dir` use controllers.
pub(super) fn enable(dir: &Path, controllers: &[Controller]) -> io::Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&file)?;
    let enabled: BTreeSet<&str> = enabled.split_ascii_whitespace().map(|name| name.trim_start_matches('+')).collect();
    let missing = controllers.iter().filter(|c| !enabled.contains(c.name()));
    let missing: Vec<String> = missing.map(|c| format!("+{c}")).collect();
    if missing.is_empty() { Ok(()) } else { fs::write(file, missing.join(" ")) }
}

fn limit(
    dir: &Path,
    hierarchy: Hierarchy,
    controllers: &[Controller],
    wanted: &PlacementSpec,
) -> Result<(), PlacementError> {
    let set = |name: &str, value: &str| fs::write(dir.join(name), value).map_err(|e| of_io("set control file", e));
    let v2 = hierarchy == Hierarchy::V2;
    if controllers.contains(&Controller::Cpuset) {
        let cpus = wanted.cpus.as_ref().map(ToString::to_string);
        let mems = wanted.mems.as_ref().map(ToString::to_string);
        for (name, effective, wanted) in [
            ("cpuset.cpus", if v2 { "cpuset.cpus.effective" } else { "cpuset.effective_cpus" }, cpus),
            ("cpuset.mems", if v2 { "cpuset.mems.effective" } else { "cpuset.effective_mems" }, mems),
        ] {
            let Some(wanted) = wanted else { continue };
            set(name, &wanted)?;
            // What is really given: CPUs that are offline or not in the groups above are left out without a word.
            let effective = Some(dir.join(effective)).filter(|path| path.exists()).unwrap_or_else(|| dir.join(name));
            let got = fs::read_to_string(&effective).map_err(|e| of_io("read back a setting", e))?;
            if got.trim() != wanted {
                return Err(differs(&effective, wanted, got.trim()));
            }
        }
    }
    if let Some(memory) = wanted.memory.filter(|_| controllers.contains(&Controller::Memory)) {
        limit_memory(dir, v2, memory)?;
    }
    if let Some(weight) = wanted.cpu_weight.filter(|_| controllers.contains(&Controller::Cpu)) {
        if !(1..=10_000).contains(&weight) {
            return Err(Error::new(PlacementErrorKind::Settings, "bind slot")
                .with("CPU weight", weight)
                .hint_with("a CPU weight is from 1 to 10000; without one it is 100"));
        }
        let (name, value) = if v2 {
            ("cpu.weight", u32::from(weight))
        } else {
            ("cpu.shares", (u32::from(weight) * 1024 / 100).max(2))
        };
        set(name, &value.to_string())?;
        read_back(&dir.join(name), u64::from(value), 0)?;
    }
    Ok(())
}

fn limit_memory(dir: &Path, v2: bool, memory: ByteSize) -> Result<(), PlacementError> {
    let failed = |e| of_io("set control file", e);
    let bytes = memory.0.to_string();
    let limit = dir.join(if v2 { "memory.max" } else { "memory.limit_in_bytes" });
    if !v2 && fs::read_to_string(dir.join("memory.use_hierarchy")).is_ok_and(|text| text.trim() == "0") {
        // An old kernel: otherwise the children's groups would not be counted.
        fs::write(dir.join("memory.use_hierarchy"), "1").map_err(failed)?;
    }
    fs::write(&limit, &bytes).map_err(failed)?;
    read_back(&limit, memory.0, LARGEST_PAGE)?;
    // Memory that is swapped out is memory: a limit that only swaps would make a proof take days instead of failing.
    if v2 {
        write_if_there(&dir.join("memory.swap.max"), "0").map_err(failed)
    } else {
        write_if_there(&dir.join("memory.memsw.limit_in_bytes"), &bytes).map_err(failed)
    }
}

fn read_back(path: &Path, wanted: u64, slack: u64) -> Result<(), PlacementError> {
    let got = fs::read_to_string(path).map_err(|e| of_io("read back a setting", e))?;
    let number: Option<u64> = got.trim().parse().ok();
    match number {
        Some(number) if number <= wanted && wanted - number <= slack => Ok(()),
        _ => Err(differs(path, wanted, got.trim())),
    }
}

fn write_if_there(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() { fs::write(path, text) } else { Ok(()) }
}

/// A slot's name as one name of a directory; two slots never get the same.
fn escaped(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.chars().map(|c| if plain(c) { c.to_string() } else { format!("%{:x}.", u32::from(c)) }).collect()
}
