//! Which control groups a host has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

/// What a hierarchy of control groups can do for a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// CPUs and memory nodes.
    Cpuset,
    /// The memory limit.
    Memory,
    /// The CPU weight.
    Cpu,
    /// Version 1 only: holding a group still. Version 2 can without a controller.
    Freezer,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cpuset, Self::Memory, Self::Cpu, Self::Freezer];

    /// The kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Freezer => "freezer",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One hierarchy of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hierarchy {
    /// The one of version 2.
    V2,
    /// One of version 1, by its controller.
    V1(Controller),
}

/// The control groups of a host, wherever they are mounted.
///
/// On a hybrid host (controllers in version 1, version 2 mounted without them) each hierarchy is used for what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupTree {
    v2: Option<Unified>,
    v1: BTreeMap<Controller, PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Unified {
    mount: PathBuf,
    /// The group that this process is in, relative to the mount.
    own: PathBuf,
    controllers: BTreeSet<Controller>,
}

impl CgroupTree {
    /// A host without control groups.
    pub fn none() -> Self {
        Self::default()
    }

    /// Looks at what is mounted below `root`, usually `/sys/fs/cgroup`; `own` is the text of `/proc/self/cgroup`.
    ///
    /// What cannot be read is not there: a slot that needs it says so when it starts.
    pub fn detect(root: &Path, own: &str) -> Self {
        let v2 = [root.to_owned(), root.join("unified")].into_iter().find_map(|mount| {
            let controllers = fs_err::read_to_string(mount.join("cgroup.controllers")).ok()?;
            let names: BTreeSet<&str> = controllers.split_ascii_whitespace().collect();
            let controllers = Controller::ALL.into_iter().filter(|c| names.contains(c.name())).collect();
            let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().into();
            Some(Unified { mount, own, controllers })
        });
        // Only version 1 has `tasks`: a group of version 2 may be named like a controller.
        let mounted = |c: &Controller| root.join(c.name()).join("tasks").exists();
        let v1 = Controller::ALL.into_iter().filter(mounted).map(|c| (c, root.join(c.name()))).collect();
        Self { v2, v1 }
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.v2.is_none() && self.v1.is_empty()
    }

    /// The hierarchy that has a controller.
    pub fn with(&self, controller: Controller) -> Option<Hierarchy> {
        if self.v1.contains_key(&controller) {
            Some(Hierarchy::V1(controller))
        } else {
            self.v2.as_ref().filter(|v2| v2.controllers.contains(&controller)).map(|_| Hierarchy::V2)
        }
    }

    /// Every hierarchy, version 2 first.
    pub fn hierarchies(&self) -> impl Iterator<Item = Hierarchy> {
        self.v2.iter().map(|_| Hierarchy::V2).chain(self.v1.keys().copied().map(Hierarchy::V1))
    }

    /// Where a hierarchy is mounted.
    pub fn mount(&self, hierarchy: Hierarchy) -> Option<&Path> {
        match hierarchy {
            Hierarchy::V2 => self.v2.as_ref().map(|v2| v2.mount.as_path()),
            Hierarchy::V1(controller) => self.v1.get(&controller).map(PathBuf::as_path),
        }
    }

    /// The directory of version 2 that this process is in.
    pub(super) fn own(&self) -> Option<PathBuf> {
        self.v2.as_ref().map(|v2| v2.mount.join(&v2.own))
    }

    /// The controllers of version 2 that slots use.
    pub(super) fn unified_controllers(&self) -> impl Iterator<Item = Controller> {
        self.v2.iter().flat_map(|v2| v2.controllers.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    #[test]
    fn each_hierarchy_is_used_for_what_it_has() {
        let root = tempfile::tempdir().unwrap();
        let at = root.path();
        assert!(CgroupTree::detect(at, "").is_empty());
        assert_eq!(CgroupTree::detect(&at.join("none"), ""), CgroupTree::none());

        file(at, "unified/cgroup.controllers", "hugetlb\n");
        file(at, "cpuset/tasks", "");
        file(at, "memory/tasks", "");
        let hybrid = CgroupTree::detect(at, "4:memory:/x\n0::/user/1\n");
        assert_eq!(hybrid.with(Controller::Cpuset), Some(Hierarchy::V1(Controller::Cpuset)));
        assert_eq!(hybrid.with(Controller::Cpu), None);
        assert_eq!(hybrid.mount(Hierarchy::V2), Some(at.join("unified").as_path()));
        assert_eq!(hybrid.own(), Some(at.join("unified/user/1")));

        let root = tempfile::tempdir().unwrap();
        file(root.path(), "cgroup.controllers", "cpuset cpu io memory\n");
        // A group of version 2 that is named like a controller of version 1.
        file(root.path(), "memory/cgroup.procs", "");
        let v2 = CgroupTree::detect(root.path(), "0::/\n");
        assert_eq!(v2.with(Controller::Memory), Some(Hierarchy::V2));
        assert_eq!(v2.hierarchies().collect::<Vec<_>>(), [Hierarchy::V2]);
    }
}
