//! CPUs: `/sys/devices/system/cpu`, see Documentation/admin-guide/cputopology.rst of the kernel, and `/proc/cpuinfo`.

use super::{
    Roots,
    files::{Files, among},
};
use crate::machine::{Core, CpuFacts, L3Group, Node, cpu_set};
use damocles_core::{ByteSize, CpuSet};
use std::{collections::BTreeSet, path::Path};

pub(super) fn read(roots: &Roots, files: &mut Files) -> CpuFacts {
    let dir = roots.sys.join("devices/system/cpu");
    let info = files.text(&roots.proc.join("cpuinfo")).unwrap_or_default();
    let present = files.list(&dir.join("present"));
    let online = online(&dir, &info, files);
    let offline = files.list(&dir.join("offline")).and_then(|offline| {
        // The kernel lists every CPU that could ever be plugged in; only those in a socket are of interest.
        let present: BTreeSet<u16> = present.iter().flat_map(CpuSet::iter).collect();
        cpu_set(offline.iter().filter(|cpu| present.contains(cpu) && !online.contains(cpu)))
    });
    let flags = instructions(&info);
    let has = |flag: &str| flags.contains(flag);
    CpuFacts {
        model: field(&info, &["model name", "Model", "Hardware"]).map(str::to_owned),
        allowed: allowed(roots, files),
        cores: cores(&dir, &online, files),
        l3: caches(&dir, &online, files),
        online: cpu_set(online),
        offline,
        sha_extensions: has("sha_ni") || has("sha2"),
        avx: has("avx"),
        avx2: has("avx2"),
        avx512f: has("avx512f"),
    }
}

/// Tells each core its memory node.
pub(super) fn with_nodes(mut cpu: CpuFacts, nodes: &[Node]) -> CpuFacts {
    for core in &mut cpu.cores {
        let near = |node: &&Node| node.cpus.as_ref().is_some_and(|cpus| cpus.overlaps(&core.cpus));
        core.node = nodes.iter().find(near).map(|node| node.id);
    }
    cpu
}

fn online(dir: &Path, info: &str, files: &mut Files) -> Vec<u16> {
    if let Some(online) = files.list(&dir.join("online")) {
        return online.iter().collect();
    }
    // Without sysfs, as in some containers, only the running ones are told.
    let mut listed: Vec<u16> = info
        .lines()
        .filter_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == "processor")?.1.trim().parse().ok())
        .collect();
    listed.sort_unstable();
    listed.dedup();
    listed
}

fn field<'i>(info: &'i str, keys: &[&str]) -> Option<&'i str> {
    let of = |key: &&str| {
        let value =
            info.lines().find_map(|line| line.split_once(':').filter(|(k, _)| k.trim() == *key)).map(|(_, v)| v);
        value.map(str::trim).filter(|v| !v.is_empty())
    };
    keys.iter().find_map(of)
}

fn instructions(info: &str) -> BTreeSet<&str> {
    field(info, &["flags", "Features"]).unwrap_or_default().split_whitespace().collect()
}

fn allowed(roots: &Roots, files: &mut Files) -> Option<CpuSet> {
    let path = roots.proc.join("self/status");
    let status = files.text(&path)?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?.trim();
    let allowed = list.parse().ok();
    if allowed.is_none() {
        files.odd(&path, list);
    }
    allowed
}

fn cores(dir: &Path, online: &[u16], files: &mut Files) -> Vec<Core> {
    let mut taken = BTreeSet::new();
    let mut cores = Vec::new();
    for &cpu in online {
        if taken.contains(&cpu) {
            continue;
        }
        let topology = dir.join(format!("cpu{cpu}/topology"));
        // The second is the name before Linux 5.3.
        let siblings = files
            .list(&topology.join("core_cpus_list"))
            .or_else(|| files.list(&topology.join("thread_siblings_list")))
            .and_then(|siblings| among(&siblings, online));
        let siblings = siblings.iter().flat_map(CpuSet::iter).filter(|other| !taken.contains(other));
        let Some(cpus) = cpu_set(siblings.chain([cpu])) else { continue };
        taken.extend(cpus.iter());
        cores.push(Core {
            cpus,
            package: number(files, &topology.join("physical_package_id")),
            die: number(files, &topology.join("die_id")),
            core: number(files, &topology.join("core_id")),
            node: None,
        });
    }
    cores
}

/// A number; -1 is how the kernel says that there is none.
fn number(files: &mut Files, path: &Path) -> Option<u32> {
    files.value::<i64>(path).and_then(|number| u32::try_from(number).ok())
}

fn caches(dir: &Path, online: &[u16], files: &mut Files) -> Vec<L3Group> {
    let mut known: BTreeSet<u16> = BTreeSet::new();
    let mut groups = Vec::new();
    for &cpu in online {
        if known.contains(&cpu) {
            continue;
        }
        let caches = dir.join(format!("cpu{cpu}/cache"));
        for index in files.numbered(&caches, "index") {
            let cache = caches.join(format!("index{index}"));
            if files.value::<u32>(&cache.join("level")) != Some(3) {
                continue;
            }
            let shared = files.list(&cache.join("shared_cpu_list")).and_then(|shared| among(&shared, online));
            let cpus = shared.iter().flat_map(CpuSet::iter).filter(|other| !known.contains(other));
            let Some(cpus) = cpu_set(cpus.chain([cpu])) else { continue };
            known.extend(cpus.iter());
            groups.push(L3Group { cpus, size: size(files, &cache.join("size")), id: number(files, &cache.join("id")) });
            break;
        }
    }
    groups
}

/// The size of a cache, e.g. `32768K`: the kernel's K is 1,024.
fn size(files: &mut Files, path: &Path) -> Option<ByteSize> {
    let line = files.line(path)?;
    let (digits, unit) = line.split_at(line.find(|c: char| !c.is_ascii_digit()).unwrap_or(line.len()));
    let unit = match unit {
        "" => Some(1u64),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        _ => None,
    };
    let size = digits.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    if size.is_none() {
        files.odd(path, &line);
    }
    size.map(ByteSize)
}
