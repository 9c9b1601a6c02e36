//! The group of one child.

use super::{
    Hierarchy, PlacementError,
    error::of_io,
    group::{end_paths, remove},
    limits::Limit,
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
    /// What was written to its slot's groups.
    pub(super) limits: Vec<Limit>,
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

    /// Counts from now on who is killed for want of memory.
    pub fn note_start(&mut self) {
        if let Some(memory) = &mut self.memory {
            if memory.hits.is_none() {
                // In version 1 the peak tells whether the limit was met; it begins anew.
                let _ = fs::write(&memory.peak, "0");
            }
            memory.at_start = memory.counts();
        }
    }

    /// Whether the kernel has killed one of its processes for want of memory since [`Self::note_start`], and how much
    /// there was.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        let memory = self.memory.as_ref()?;
        let (now, before) = (memory.counts(), memory.at_start);
        let kills = now.kills.checked_sub(before.kills).filter(|kills| *kills > 0)?;
        let (limit, peak) = (memory.limit.as_deref().and_then(number), number(&memory.peak));
        let met = match (&memory.hits, now.hits) {
            (Some(_), Some(hits)) => hits > before.hits.unwrap_or(0),
            (Some(_), None) => true,
            (None, _) => peak.zip(limit).is_none_or(|(peak, limit)| peak.0.saturating_add(NEAR) >= limit.0),
        };
        let limit = limit.filter(|_| met);
        Some(OutOfMemory { limit, peak, kills })
    }

    /// Reads back the limits of its slot.
    ///
    /// # Errors
    ///
    /// One is another than was set, or cannot be read.
    pub fn verify(&self) -> Result<(), PlacementError> {
        self.limits.iter().try_for_each(Limit::read_back)
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
    /// The slot's limit, if that was met. None when the memory of the whole machine ran out.
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
            None => error.with("memory of", "the machine, not of the slot").hint_with(
                "let fewer tasks run at a time on this machine, or give the slots memory limits that fit it",
            ),
        };
        let error = match self.peak {
            Some(peak) => error.with("most used", peak),
            None => error,
        };
        error.with("processes killed", self.kills)
    }
}

/// How far below its limit memory may be when it runs out: a huge page did not fit.
const NEAR: u64 = 2 << 20;

#[derive(Debug)]
pub(super) struct MemoryFiles {
    kills: PathBuf,
    /// What the slot is limited by, if it is.
    limit: Option<PathBuf>,
    /// How often the limit was met, where the kernel counts that.
    hits: Option<PathBuf>,
    peak: PathBuf,
    at_start: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    kills: u64,
    /// None where nothing tells.
    hits: Option<u64>,
}

impl MemoryFiles {
    /// The kills are those of the child; the limit and what was used are the slot's.
    pub(super) fn new(hierarchy: Hierarchy, slot: &Path, child: &Path, limited: bool) -> Self {
        let (kills, limit, hits, peak) = match hierarchy {
            Hierarchy::V2 => ("memory.events", "memory.max", Some("memory.events"), "memory.peak"),
            // It has `memory.failcnt`, which newer kernels leave at 0.
            Hierarchy::V1(_) => ("memory.oom_control", "memory.limit_in_bytes", None, "memory.max_usage_in_bytes"),
        };
        Self {
            kills: child.join(kills),
            limit: limited.then(|| slot.join(limit)),
            hits: hits.map(|name| slot.join(name)),
            peak: slot.join(peak),
            at_start: Counts::default(),
        }
    }

    fn counts(&self) -> Counts {
        let hits = self.hits.as_deref().and_then(|file| count(file, "oom "));
        Counts { kills: count(&self.kills, "oom_kill ").unwrap_or(0), hits }
    }
}

/// The number in the line that begins so.
fn count(file: &Path, line: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|text| text.strip_prefix(line)?.trim().parse().ok())
}

fn number(path: &Path) -> Option<ByteSize> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(ByteSize)
}
