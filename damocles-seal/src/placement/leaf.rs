//! The group of one child.

use super::{
    Hierarchy, PlacementError,
    error::of_io,
    group::{end_paths, remove},
};
use crate::sys::EndPaths;
use damocles_core::{ByteSize, Error, Kind};
use fs_err as fs;
use std::path::{Path, PathBuf};

/// The group of one child, in every hierarchy that it needs. Removed when dropped, if it is empty by then.
#[derive(Debug, Default)]
pub struct Leaf {
    pub(super) joined: Vec<Joined>,
    pub(super) memory: Option<MemoryFiles>,
    pub(super) end: Option<EndPaths>,
    /// Whether CPUs and nodes are bound by it.
    pub(super) binds: bool,
}

/// A group that the child is in.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) hierarchy: Hierarchy,
    pub(super) dir: PathBuf,
    /// From the top of the hierarchy down, as `/proc/<pid>/cgroup` ends.
    pub(super) relative: PathBuf,
    /// The groups above it that are ours, from below.
    pub(super) above: Vec<PathBuf>,
}

impl Leaf {
    /// Its directories, by hierarchy.
    pub fn dirs(&self) -> impl Iterator<Item = (Hierarchy, &Path)> {
        self.joined.iter().map(|joined| (joined.hierarchy, joined.dir.as_path()))
    }

    /// The files that a process writes `0` to in order to join.
    pub fn join_files(&self) -> Vec<PathBuf> {
        self.joined.iter().map(|joined| joined.dir.join("cgroup.procs")).collect()
    }

    /// Whether CPUs and memory nodes are bound by a group, and not by affinity and memory policy alone.
    pub fn binds(&self) -> bool {
        self.binds
    }

    /// Kills every process in it and waits until none is left.
    ///
    /// # Errors
    ///
    /// A file of the group cannot be opened.
    pub fn end(&self) -> Result<(), PlacementError> {
        let Some(end) = &self.end else { return Ok(()) };
        end.open().map(|end| end.end()).map_err(|e| of_io("end control group", e))
    }

    /// What is removed when nobody is left, from below.
    pub(super) fn removable(&self) -> Vec<PathBuf> {
        let joined = self.joined.iter();
        joined.flat_map(|joined| std::iter::once(joined.dir.clone()).chain(joined.above.clone())).collect()
    }

    pub(super) fn end_in(&self, hierarchy: Hierarchy) -> Option<EndPaths> {
        let joined = self.joined.iter().find(|joined| joined.hierarchy == hierarchy)?;
        Some(end_paths(&joined.dir, hierarchy))
    }

    pub(super) fn note_start(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.kills_at_start = memory.kills();
        }
    }

    /// Whether the kernel killed one of its processes for want of memory, and how much there was.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        let memory = self.memory.as_ref()?;
        let kills = memory.kills().checked_sub(memory.kills_at_start).filter(|kills| *kills > 0)?;
        Some(OutOfMemory { limit: number(&memory.limit), peak: number(&memory.peak), kills })
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        for joined in &self.joined {
            // One that is not empty is left to the next start.
            let _ = remove(&joined.dir);
        }
    }
}

/// What an end for want of memory looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The slot's limit.
    pub limit: Option<ByteSize>,
    /// The most that the slot has used.
    pub peak: Option<ByteSize>,
    /// How many of the child's processes were killed.
    pub kills: u64,
}

impl OutOfMemory {
    /// Adds it to an error.
    pub(crate) fn describe<K: Kind>(self, error: Error<K>) -> Error<K> {
        let error = match self.limit {
            Some(limit) => error.with("memory limit", limit),
            None => error,
        };
        let error = match self.peak {
            Some(peak) => error.with("most used", peak),
            None => error,
        };
        error.with("processes killed", self.kills)
    }
}

#[derive(Debug)]
pub(super) struct MemoryFiles {
    kills: PathBuf,
    limit: PathBuf,
    peak: PathBuf,
    kills_at_start: u64,
}

impl MemoryFiles {
    pub(super) fn new(hierarchy: Hierarchy, slot: &Path, child: &Path) -> Self {
        let (kills, limit, peak) = match hierarchy {
            Hierarchy::V2 => ("memory.events", "memory.max", "memory.peak"),
            Hierarchy::V1(_) => ("memory.oom_control", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        };
        // The kills are those of the child; the limit and what was used are the slot's.
        Self { kills: child.join(kills), limit: slot.join(limit), peak: slot.join(peak), kills_at_start: 0 }
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(&self.kills).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

fn number(path: &Path) -> Option<ByteSize> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(ByteSize)
}
