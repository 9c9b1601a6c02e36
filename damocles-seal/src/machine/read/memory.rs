//! Memory: `/proc/meminfo`, `/sys/devices/system/node`, huge pages, and the limit of the control group.

use super::{
    Roots,
    files::{Files, among},
};
use crate::machine::{CgroupFacts, HugePages, MemoryFacts, Node};
use damocles_core::ByteSize;
use std::path::{Path, PathBuf};

pub(super) fn read(roots: &Roots, cgroups: &CgroupFacts, files: &mut Files) -> MemoryFacts {
    let path = roots.proc.join("meminfo");
    let info = files.text(&path).unwrap_or_default();
    let mut amount = |key: &str| amount(files, &path, &info, key);
    let (total, available) = (amount("MemTotal:"), amount("MemAvailable:"));
    let (swap_total, swap_free) = (amount("SwapTotal:"), amount("SwapFree:"));
    let limit = limit(roots, cgroups, files).filter(|limit| total.is_none_or(|total| *limit < total));
    MemoryFacts { total, available, limit, swap_total, swap_free, huge_pages: huge_pages(roots, files) }
}

/// The memory nodes, with those of their CPUs that are online.
pub(super) fn nodes(roots: &Roots, online: &[u16], files: &mut Files) -> Vec<Node> {
    let dir = roots.sys.join("devices/system/node");
    let mut nodes = Vec::new();
    for id in files.numbered(&dir, "node") {
        let node = dir.join(format!("node{id}"));
        let path = node.join("meminfo");
        let info = files.text(&path).unwrap_or_default();
        let mut amount = |key: &str| amount(files, &path, &info, key);
        let (memory, free) = (amount("MemTotal:"), amount("MemFree:"));
        let cpus = files.list(&node.join("cpulist")).and_then(|cpus| among(&cpus, online));
        nodes.push(Node { id, cpus, memory, free });
    }
    nodes
}

/// A line such as `MemTotal:  24684096 kB` or `Node 0 MemTotal: 24684096 kB`. The kernel's kB is 1,024 bytes.
fn amount(files: &mut Files, path: &Path, info: &str, key: &str) -> Option<ByteSize> {
    let line = info.lines().find(|line| line.split_whitespace().any(|word| word == key))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != key).skip(1);
    let bytes = words.next().and_then(|n| n.parse::<u64>().ok()).and_then(|n| n.checked_mul(1024));
    if bytes.is_none() {
        files.odd(path, line);
    }
    bytes.map(ByteSize)
}

fn huge_pages(roots: &Roots, files: &mut Files) -> Vec<HugePages> {
    let dir = roots.sys.join("kernel/mm/hugepages");
    let mut pages = Vec::new();
    for name in files.names(&dir) {
        let kib = name.strip_prefix("hugepages-").and_then(|n| n.strip_suffix("kB")?.parse::<u64>().ok());
        let Some(size) = kib.and_then(|kib| kib.checked_mul(1024)) else { continue };
        let total = files.value(&dir.join(&name).join("nr_hugepages")).unwrap_or(0);
        if total > 0 {
            let free = files.value(&dir.join(&name).join("free_hugepages"));
            pages.push(HugePages { size: ByteSize(size), total, free });
        }
    }
    pages.sort_by_key(|pages| pages.size);
    pages
}

/// The least limit of the group of this process and of the groups above it.
fn limit(roots: &Roots, cgroups: &CgroupFacts, files: &mut Files) -> Option<ByteSize> {
    let v1 = cgroups.v1.iter().find(|c| c.name == "memory").and_then(|c| {
        // The kernel adds up the hierarchy by itself.
        let path = super::cgroups::dir(roots, &c.mount, c.group.as_deref()).join("memory.stat");
        let stat = files.text(&path)?;
        let line = stat.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "))?;
        line.trim().parse().ok()
    });
    let v2 = cgroups.v2.as_ref().and_then(|v2| {
        let mut group = PathBuf::from(v2.group.as_deref().unwrap_or("/"));
        let mut least: Option<u64> = None;
        loop {
            let path = super::cgroups::dir(roots, &v2.mount, group.to_str()).join("memory.max");
            let max = files.line(&path).and_then(|max| max.parse().ok());
            least = least.into_iter().chain(max).min();
            if !group.pop() {
                return least;
            }
        }
    });
    v1.into_iter().chain(v2).min().map(ByteSize)
}
