//! Rules about CPUs and memory nodes.

use super::{SlotClaim, Violation, ViolationKind};
use crate::machine::{Machine, cpu_set};
use damocles_core::{CpuSet, NodeSet};
use std::collections::BTreeSet;

/// CPUs in the kernel's list format, for messages.
fn listed(cpus: &BTreeSet<u16>) -> String {
    cpu_set(cpus.iter().copied()).map_or_else(|| "none".to_owned(), |set| set.to_string())
}

fn one(slot: &SlotClaim, kind: ViolationKind, message: String, remedy: String) -> Violation {
    Violation { kind, of: vec![slot.name.clone()], message, remedy }
}

/// CPUs exist, are online and may be used.
pub(super) fn exist(machine: &Machine, slot: &SlotClaim) -> Vec<Violation> {
    let Some(cpus) = &slot.cpus else { return Vec::new() };
    let (online, offline, usable) = (machine.online_cpus(), machine.offline_cpus(), machine.usable_cpus());
    let (mut unknown, mut off, mut forbidden) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for cpu in cpus.iter() {
        if offline.contains(&cpu) {
            off.insert(cpu);
        } else if !online.contains(&cpu) {
            unknown.insert(cpu);
        } else if !usable.contains(&cpu) {
            forbidden.insert(cpu);
        }
    }
    let mut violations = Vec::new();
    if !unknown.is_empty() {
        let message = format!("CPUs {} are not there", listed(&unknown));
        let remedy = format!("choose among {}", listed(&usable));
        violations.push(one(slot, ViolationKind::UnknownCpu, message, remedy));
    }
    if !off.is_empty() {
        let message = format!("CPUs {} are offline", listed(&off));
        let remedy = "write 1 to /sys/devices/system/cpu/cpu<N>/online for each, or choose others".to_owned();
        violations.push(one(slot, ViolationKind::OfflineCpu, message, remedy));
    }
    if !forbidden.is_empty() {
        let message = format!("CPUs {} are kept from this process", listed(&forbidden));
        let remedy =
            format!("widen its affinity or the cpuset of its control group, or choose among {}", listed(&usable));
        violations.push(one(slot, ViolationKind::ForbiddenCpu, message, remedy));
    }
    violations
}

/// Named nodes exist, and the slot's CPUs lie in them.
pub(super) fn within_nodes(machine: &Machine, slot: &SlotClaim) -> Vec<Violation> {
    let Some(nodes) = &slot.mems else { return Vec::new() };
    // Without NUMA a kernel has the one node 0, and tells nothing of it.
    let known: BTreeSet<u16> =
        if machine.nodes.is_empty() { BTreeSet::from([0]) } else { machine.nodes.iter().map(|n| n.id).collect() };
    let unknown: BTreeSet<u16> = nodes.iter().filter(|id| !known.contains(id)).collect();
    let mut violations = Vec::new();
    if !unknown.is_empty() {
        let message = format!("memory nodes {} are not there", listed(&unknown));
        violations.push(one(slot, ViolationKind::UnknownNode, message, format!("choose among {}", listed(&known))));
    }
    if machine.nodes.is_empty() {
        return violations;
    }
    let near = near(machine, nodes);
    let online = machine.online_cpus();
    let outside: BTreeSet<u16> =
        slot.cpus.iter().flat_map(CpuSet::iter).filter(|cpu| online.contains(cpu) && !near.contains(cpu)).collect();
    // Nodes that are not there have no CPUs: that is one mistake, told once.
    if !outside.is_empty() && unknown.is_empty() {
        let message = format!("CPUs {} lie outside the memory node {nodes}", listed(&outside));
        let remedy = format!("name the node that they are near to, or choose CPUs among {}", listed(&near));
        violations.push(one(slot, ViolationKind::OutsideNode, message, remedy));
    }
    violations
}

fn near(machine: &Machine, nodes: &NodeSet) -> BTreeSet<u16> {
    let of = |id| machine.node(id).and_then(|node| node.cpus.as_ref());
    nodes.iter().filter_map(of).flat_map(CpuSet::iter).collect()
}

/// No CPU is claimed twice.
pub(super) fn not_twice(slots: &[SlotClaim]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (i, first) in slots.iter().enumerate() {
        for second in slots.iter().skip(i + 1) {
            let (Some(of_first), Some(of_second)) = (&first.cpus, &second.cpus) else { continue };
            if !of_first.overlaps(of_second) || !(first.exclusive || second.exclusive) {
                continue;
            }
            let same = of_first == of_second;
            if same && first.takes_turns_with(second) {
                continue;
            }
            let others: BTreeSet<u16> = of_second.iter().collect();
            let common: BTreeSet<u16> = of_first.iter().filter(|cpu| others.contains(cpu)).collect();
            let remedy = if same {
                "give both a lock in common, so that they take turns, or CPUs of their own"
            } else {
                "give each CPUs of its own, or both the very same CPUs and a lock in common"
            };
            violations.push(Violation {
                kind: ViolationKind::Overlap,
                of: vec![first.name.clone(), second.name.clone()],
                message: format!("CPUs {} are claimed by both", listed(&common)),
                remedy: remedy.to_owned(),
            });
        }
    }
    violations
}
