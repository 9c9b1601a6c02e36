//! How a pool binds its children.

use super::{
    Bound, CgroupTree, Groups, Leaf, PlacementError, PlacementErrorKind, environment::slot_env, leftovers::clean_apart,
};
use crate::{
    pool::{PlacementSpec, SlotSpec},
    sys::{Placement, kept_capabilities},
};
use damocles_core::Error;
use parking_lot::Mutex;
use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

/// What a pool binds its children with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IsolationSpec {
    /// Where control groups are mounted; without, children are bound by affinity and memory policy only.
    pub cgroup_root: Option<PathBuf>,
    /// The name below which our groups lie in each hierarchy.
    pub name: String,
    /// Where the kernel shows processes.
    pub proc: PathBuf,
    /// Whether children keep all capabilities that they would get. A `bin` that changes its user (`sudo`) needs it;
    /// otherwise they keep what files need and, in slots that name GPUs, what GPU drivers need.
    pub keep_capabilities: bool,
    /// How often the placement of a child that works is read back.
    pub verify_every: Duration,
}

impl Default for IsolationSpec {
    fn default() -> Self {
        Self {
            cgroup_root: Some("/sys/fs/cgroup".into()),
            name: "damocles".into(),
            proc: "/proc".into(),
            keep_capabilities: false,
            verify_every: Duration::from_secs(30),
        }
    }
}

/// The means to bind children. The host is looked at when the first child starts.
#[derive(Debug)]
pub struct Isolation {
    spec: IsolationSpec,
    groups: Mutex<Option<Arc<Groups>>>,
}

/// A place that is made for one child.
#[derive(Debug)]
pub struct Placed {
    leaf: Leaf,
    bound: Bound,
    spec: PlacementSpec,
    proc: PathBuf,
    keep_capabilities: bool,
    env: Vec<(String, Option<String>)>,
    // The groups are removed after the leaf.
    _groups: Arc<Groups>,
}

impl Isolation {
    /// The means that `spec` names.
    pub fn new(spec: IsolationSpec) -> Self {
        Self { spec, groups: Mutex::new(None) }
    }

    /// How often the placement of a child that works is read back; not more often than the clock ticks.
    pub fn verify_every(&self) -> Duration {
        self.spec.verify_every.max(Duration::from_millis(1))
    }

    /// The groups of this process. What a dead one left is removed when they are asked for first; nobody waits for that.
    ///
    /// # Errors
    ///
    /// `/proc/self/cgroup` cannot be read.
    pub fn groups(&self) -> Result<Arc<Groups>, PlacementError> {
        let mut groups = self.groups.lock();
        if let Some(groups) = &*groups {
            return Ok(Arc::clone(groups));
        }
        let found = Arc::new(self.look()?);
        // With a set of its own, which never has a group: ours are removed when the pool is gone, and not later.
        clean_apart(self.look()?);
        *groups = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The groups as the host has them. Nothing is made or removed.
    fn look(&self) -> Result<Groups, PlacementError> {
        let tree = match &self.spec.cgroup_root {
            None => CgroupTree::none(),
            Some(root) => {
                let own = fs_err::read_to_string(self.spec.proc.join("self/cgroup")).map_err(|e| {
                    Error::new(PlacementErrorKind::Kernel, "find this process's control group").because(e)
                })?;
                CgroupTree::detect(root, &own)
            }
        };
        Ok(Groups::new(tree, &self.spec.name, &self.spec.proc))
    }

    /// Whether this user may make the groups without which these slots cannot be had. It does not try.
    ///
    /// # Errors
    ///
    /// `/proc/self/cgroup` cannot be read.
    pub fn may_make_groups(&self, slots: &[SlotSpec]) -> Result<bool, PlacementError> {
        let groups = self.look()?;
        Ok(slots.iter().all(|slot| groups.may_make(&slot.placement)))
    }

    /// Makes the place of one child of a slot.
    ///
    /// # Errors
    ///
    /// Something that the slot asks for cannot be had; the error names what is missing and who grants it.
    pub fn place(&self, slot: &SlotSpec) -> Result<Placed, PlacementError> {
        let env = slot_env(slot)?;
        let groups = self.groups()?;
        let leaf = groups.leaf(&slot.name, &slot.placement)?;
        Ok(Placed {
            bound: Bound::new(&slot.placement, &leaf),
            leaf,
            spec: slot.placement.clone(),
            proc: self.spec.proc.clone(),
            keep_capabilities: self.spec.keep_capabilities,
            env,
            _groups: groups,
        })
    }
}

impl Placed {
    /// Gives the child the environment of its place.
    pub(crate) fn prepare(&self, command: &mut Command) {
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }

    /// What its parent does between fork and exec.
    pub(crate) fn placement(&self) -> Placement {
        Placement {
            cpus: self.spec.cpus.clone(),
            policy: self.spec.mems.clone().filter(|_| !self.leaf.binds()),
            join: self.leaf.join_files(),
            end: self.leaf.end.clone(),
            remove: self.leaf.removable(),
            keep: (!self.keep_capabilities).then(|| kept_capabilities(!self.spec.gpus.is_empty())),
        }
    }

    /// Reads back where every thread of the child runs, and what its slot is limited to.
    ///
    /// # Errors
    ///
    /// Something is otherwise than it should be, or cannot be read.
    pub fn verify(&self, pid: u32) -> Result<(), PlacementError> {
        self.bound.verify(&self.proc, pid)?;
        self.leaf.verify()
    }

    /// A job begins: who is killed for want of memory counts from now on.
    pub(crate) fn job_begins(&mut self) {
        self.leaf.note_start();
    }

    /// The child's group.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }
}
