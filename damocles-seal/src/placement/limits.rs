//! What a slot's groups are limited to.

use super::{
    Controller, Hierarchy, PlacementError, PlacementErrorKind, cpuset,
    error::{differs, of_io},
};
use crate::pool::PlacementSpec;
use damocles_core::{ByteSize, Error};
use fs_err as fs;
use std::{
    io,
    path::{Path, PathBuf},
};

/// The kernel counts memory in pages of at most this many bytes and rounds a limit down to them.
const LARGEST_PAGE: u64 = 64 << 10;

/// A number that was written to a control file.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    file: PathBuf,
    wanted: u64,
    /// How much less the kernel may make of it.
    slack: u64,
}

impl Limit {
    /// Writes it and reads it back.
    fn set(file: PathBuf, wanted: u64, slack: u64) -> Result<Self, PlacementError> {
        fs::write(&file, wanted.to_string()).map_err(|e| of_io("set control file", e))?;
        let limit = Self { file, wanted, slack };
        limit.read_back().map(|()| limit)
    }

    pub(super) fn read_back(&self) -> Result<(), PlacementError> {
        let Self { file, wanted, slack } = self;
        let got = fs::read_to_string(file).map_err(|e| of_io("read back a setting", e))?;
        let number: Option<u64> = got.trim().parse().ok();
        match number {
            Some(number) if number <= *wanted && wanted - number <= *slack => Ok(()),
            _ => Err(differs(file, wanted, got.trim())),
        }
    }
}

/// Limits a slot's group, and gives what can be read back later. CPUs and nodes are read back from the threads.
pub(super) fn limit(
    dir: &Path,
    hierarchy: Hierarchy,
    controllers: &[Controller],
    wanted: &PlacementSpec,
) -> Result<Vec<Limit>, PlacementError> {
    let v2 = hierarchy == Hierarchy::V2;
    let mut limits = Vec::new();
    if controllers.contains(&Controller::Cpuset) {
        cpuset::bind(dir, hierarchy, wanted)?;
    }
    if let Some(memory) = wanted.memory.filter(|_| controllers.contains(&Controller::Memory)) {
        limits.push(limit_memory(dir, v2, memory)?);
    }
    if let Some(weight) = wanted.cpu_weight.filter(|_| controllers.contains(&Controller::Cpu)) {
        if !(1..=10_000).contains(&weight) {
            return Err(Error::new(PlacementErrorKind::Settings, "bind slot")
                .with("CPU weight", weight)
                .hint_with("a CPU weight is from 1 to 10000; without one it is 100"));
        }
        let (name, value) = if v2 {
            ("cpu.weight", u64::from(weight))
        } else {
            ("cpu.shares", (u64::from(weight) * 1024 / 100).max(2))
        };
        limits.push(Limit::set(dir.join(name), value, 0)?);
    }
    Ok(limits)
}

fn limit_memory(dir: &Path, v2: bool, memory: ByteSize) -> Result<Limit, PlacementError> {
    let failed = |e| of_io("set control file", e);
    if !v2 && fs::read_to_string(dir.join("memory.use_hierarchy")).is_ok_and(|text| text.trim() == "0") {
        // An old kernel: otherwise the children's groups would not be counted.
        fs::write(dir.join("memory.use_hierarchy"), "1").map_err(failed)?;
    }
    let name = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
    let limit = Limit::set(dir.join(name), memory.0, LARGEST_PAGE)?;
    // Memory that is swapped out is memory: a limit that only swaps would make a proof take days instead of failing.
    let (name, value) =
        if v2 { ("memory.swap.max", "0".to_owned()) } else { ("memory.memsw.limit_in_bytes", memory.0.to_string()) };
    write_if_there(&dir.join(name), &value).map_err(failed)?;
    Ok(limit)
}

pub(super) fn write_if_there(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() { fs::write(path, text) } else { Ok(()) }
}
