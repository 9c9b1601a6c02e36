//! `damocles-worker hwinfo`: what this machine is made of.

use crate::{
    exit::Failure,
    output::{Printer, Render, table},
};
use clap::Args;
use damocles_core::{ByteSize, CpuSet};
use damocles_seal::{
    machine::{CoreGroup, Machine, Roots, cpu_set},
    placement::own_capabilities,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    path::{Path, PathBuf},
};

/// Which machine.
#[derive(Clone, Debug, Default, Args)]
pub struct HwinfoArgs {
    /// Show this record, made by `hwinfo --json` on another machine
    #[arg(long, value_name = "FILE")]
    pub machine: Option<PathBuf>,
}

/// The machine that a command is about: a recorded one, else this one.
///
/// # Errors
///
/// The record cannot be read.
pub(super) fn machine(record: Option<&Path>) -> Result<Machine, Failure> {
    let Some(path) = record else { return Ok(Machine::read(&Roots::host())) };
    let text = fs_err::read_to_string(path)?;
    Machine::from_json(&text).map_err(|e| {
        let hint = e.hint();
        Failure::new(crate::exit::Exit::Usage, e).context(format_args!("read `{}`", path.display())).hint(hint)
    })
}

pub(super) fn hwinfo(args: &HwinfoArgs, printer: Printer) -> Result<(), Failure> {
    let capabilities = if args.machine.is_some() { None } else { Some(own_capabilities()?) };
    printer.data(&Hardware { machine: machine(args.machine.as_deref())?, capabilities })
}

/// A record as it is shown. Its JSON is the record.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Hardware {
    machine: Machine,
    /// What this process may do: it is no fact about the machine.
    #[serde(skip)]
    capabilities: Option<Vec<String>>,
}

impl Render for Hardware {
    fn text(&self, color: bool) -> String {
        let machine = &self.machine;
        let mut parts = vec![head(machine), tree(machine)];
        parts.push(memory(machine));
        parts.push(disks(machine, color));
        parts.push(mounts(machine, color));
        parts.push(gpus(machine, color));
        parts.push(cgroups(machine));
        parts.extend(self.capabilities.as_ref().map(|have| capabilities(have)));
        if !machine.problems.is_empty() {
            let problems = machine.problems.iter().map(|p| vec![p.path.display().to_string(), p.what.clone()]);
            parts.push(table(&["NOT UNDERSTOOD", "WHY"], problems, color));
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n\n")
    }
}

/// A fact, or `-` for one that is not known.
fn known(fact: Option<impl Display>) -> String {
    fact.map_or_else(|| "-".to_owned(), |fact| fact.to_string())
}

/// A size with one decimal: nobody reads bytes.
fn size(size: ByteSize) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((name, unit)) = UNITS.into_iter().find(|(_, unit)| size.0 >= *unit) else { return format!("{}B", size.0) };
    let tenths = u128::from(size.0) * 10 / u128::from(unit);
    if tenths.is_multiple_of(10) {
        format!("{}{name}", tenths / 10)
    } else {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    }
}

fn head(machine: &Machine) -> String {
    let cpu = &machine.cpu;
    let online = cpu.online.as_ref().map_or(0, CpuSet::len);
    let yes = |has: bool| if has { "yes" } else { "no" };
    let mut text = format!(
        "{} (kernel {})\n{}: {} cores, {online} CPUs online, {} offline, {} allowed\n",
        known(machine.hostname.as_ref()),
        known(machine.kernel.as_ref()),
        known(cpu.model.as_ref()),
        cpu.cores.len(),
        known(cpu.offline.as_ref()),
        known(cpu.allowed.as_ref()),
    );
    let _ = write!(
        text,
        "SHA extensions: {}, AVX: {}, AVX2: {}, AVX-512: {}",
        yes(cpu.sha_extensions),
        yes(cpu.avx),
        yes(cpu.avx2),
        yes(cpu.avx512f)
    );
    text
}

/// Packages, their nodes, their level 3 caches, and the cores of these.
fn tree(machine: &Machine) -> String {
    let mut packages: BTreeMap<_, BTreeMap<_, Vec<CoreGroup<'_>>>> = BTreeMap::new();
    for group in machine.core_groups() {
        packages.entry(group.package).or_default().entry(group.node).or_default().push(group);
    }
    let mut lines = Vec::new();
    for (package, nodes) in packages {
        lines.push(format!("package {}", known(package)));
        for (node, groups) in nodes {
            let fact = node.and_then(|id| machine.node(id));
            let cpus = cpu_set(groups.iter().flat_map(|g| &g.cores).flat_map(|core| core.cpus.iter()));
            let mut line = format!("  node {}: CPUs {}", known(node), known(cpus));
            if let Some(memory) = fact.and_then(|node| node.memory) {
                let _ = write!(line, ", {}", size(memory));
            }
            lines.push(line);
            let dies = groups.iter().any(|g| g.die != groups.first().and_then(|first| first.die));
            lines.extend(groups.iter().map(|group| leaf(group, dies)));
        }
    }
    // Memory without CPUs hangs on no package.
    for node in machine.nodes.iter().filter(|node| node.cpus.is_none()) {
        lines.push(format!("node {}: no CPUs, {}", node.id, known(node.memory.map(size))));
    }
    lines.join("\n")
}

fn leaf(group: &CoreGroup<'_>, dies: bool) -> String {
    let die = if dies { format!("die {} ", known(group.die)) } else { String::new() };
    let cache = match group.l3 {
        Some(l3) => format!("L3 {}", known(l3.size.map(size))),
        None => "no L3 known".to_owned(),
    };
    let single = group.cores.iter().all(|core| core.cpus.len() == 1);
    let cores = if single {
        known(cpu_set(group.cores.iter().flat_map(|core| core.cpus.iter())))
    } else {
        let siblings = |core: &&damocles_seal::machine::Core| {
            core.cpus.iter().map(|cpu| cpu.to_string()).collect::<Vec<_>>().join("+")
        };
        group.cores.iter().map(siblings).collect::<Vec<_>>().join(" ")
    };
    format!("    {die}{cache}, {} cores: {cores}", group.cores.len())
}

fn memory(machine: &Machine) -> String {
    let memory = &machine.memory;
    let mut text = format!(
        "memory {}, {} available, swap {}",
        known(memory.total.map(size)),
        known(memory.available.map(size)),
        known(memory.swap_total.map(size))
    );
    if let Some(limit) = memory.limit {
        let _ = write!(text, "\n  the control group of this process may have {}", size(limit));
    }
    for pages in &memory.huge_pages {
        let _ = write!(text, "\n  {} huge pages of {}, {} free", pages.total, size(pages.size), known(pages.free));
    }
    text
}

fn disks(machine: &Machine, color: bool) -> String {
    let kind = |disk: &damocles_seal::machine::Disk| match (disk.nvme, disk.rotational) {
        (true, _) => "NVMe",
        (false, Some(true)) => "rotational",
        (false, Some(false)) => "solid state",
        (false, None) => "-",
    };
    let rows = machine.disks.iter().map(|disk| {
        let made_of = Some(disk.made_of.join(" ")).filter(|made_of| !made_of.is_empty());
        let (kind, size) = (kind(disk).to_owned(), known(disk.size.map(size)));
        vec![disk.name.clone(), kind, size, known(disk.node), known(disk.model.as_ref()), known(made_of)]
    });
    titled(&["DISK", "KIND", "SIZE", "NODE", "MODEL", "MADE OF"], rows.collect(), color)
}

fn mounts(machine: &Machine, color: bool) -> String {
    let shown = machine.mounts.iter().filter(|mount| mount.fs_type != "tmpfs");
    let rows = shown.map(|mount| {
        let (total, available) = (known(mount.total.map(size)), known(mount.available.map(size)));
        let access = if mount.read_only { "ro" } else { "rw" };
        let disk = mount.disk.as_ref().unwrap_or(&mount.source).clone();
        vec![mount.point.display().to_string(), disk, mount.fs_type.clone(), access.to_owned(), total, available]
    });
    titled(&["MOUNT", "DISK", "TYPE", "", "SIZE", "AVAILABLE"], rows.collect(), color)
}

fn gpus(machine: &Machine, color: bool) -> String {
    let rows = machine.gpus.iter().map(|gpu| {
        let (memory, bus) = (known(gpu.memory.map(size)), known(gpu.bus_id.as_ref()));
        vec![gpu.index.to_string(), gpu.uuid.to_string(), known(gpu.name.as_ref()), memory, known(gpu.node), bus]
    });
    let text = titled(&["GPU", "UUID", "NAME", "MEMORY", "NODE", "BUS"], rows.collect(), color);
    if text.is_empty() { "no GPUs".to_owned() } else { text }
}

/// A table, or nothing where it would have no rows.
fn titled(header: &[&str], rows: Vec<Vec<String>>, color: bool) -> String {
    if rows.is_empty() { String::new() } else { table(header, rows, color) }
}

fn cgroups(machine: &Machine) -> String {
    let may = |writable| if writable { "groups can be made" } else { "no groups can be made" };
    let mut lines = Vec::new();
    for v1 in &machine.cgroups.v1 {
        let (mount, group) = (v1.mount.display(), known(v1.group.as_ref()));
        lines.push(format!("cgroup v1 {} at {mount}, group {group}: {}", v1.name, may(v1.writable)));
    }
    if let Some(v2) = &machine.cgroups.v2 {
        let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        lines.push(format!(
            "cgroup v2 at {}, group {}: {}; controllers {}, delegated {}; kill {}, freeze {}",
            v2.mount.display(),
            known(v2.group.as_ref()),
            may(v2.writable),
            list(&v2.controllers),
            list(&v2.delegated),
            v2.kill,
            v2.freeze
        ));
    }
    if lines.is_empty() { "no control groups".to_owned() } else { lines.join("\n") }
}

/// With what this program was started. What a worker file needs of it is said by `config check`.
fn capabilities(have: &[String]) -> String {
    let list = if have.is_empty() { "none".to_owned() } else { have.join(" ") };
    format!(
        "capabilities of this user: {list}\n  `damocles-worker config check` says which a worker file needs and lacks"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_the_record() {
        let read = Machine::read(&Roots::host());
        let capabilities = Some(vec!["CAP_SETPCAP".to_owned()]);
        let shown = Hardware { machine: read.clone(), capabilities };
        assert!(shown.text(false).contains("capabilities of this user: CAP_SETPCAP"));
        let json = serde_json::to_string_pretty(&shown).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine.json");
        std::fs::write(&file, json).unwrap();
        assert_eq!(machine(Some(&file)).unwrap(), read);
    }

    #[test]
    fn a_file_that_is_no_record_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("machine.json");
        std::fs::write(&file, r#"{"version": 7, "cores": []}"#).unwrap();
        let failure = machine(Some(&file)).unwrap_err();
        let said = crate::exit::render(&failure).replace(dir.path().to_str().unwrap(), "DIR");
        insta::assert_snapshot!(said, @r"
        error: read `DIR/machine.json`
          caused by: the record is of version 7, and this program reads version 1
        hint: write it anew on that machine: `damocles-worker hwinfo --json >machine.json`
        ");
    }

    #[test]
    fn sizes_are_short() {
        let texts = [7, 1536, 24_684_096 << 10, 1 << 40].map(|bytes| size(ByteSize(bytes))).join(" ");
        assert_eq!(texts, "7B 1.5KiB 23.5GiB 1TiB");
    }
}
