//! Memory nodes: where a slot is bound to those of its CPUs, and where that would starve it.
//!
//! A bound child ends when its nodes are full, however much is free on others. One that is not bound takes near memory first too, and
//! then what there is.

use super::PlannedSlot;
use crate::machine::{
    Machine,
    legal::{SlotClaim, at_once},
    size::gib,
};
use damocles_core::{ByteSize, NodeSet};
use std::collections::BTreeSet;

/// The nodes of these cores, if all of them have memory. None where these are all the nodes of several: that binds nothing.
pub(super) fn nodes(machine: &Machine, of: impl Iterator<Item = Option<u16>>) -> Option<NodeSet> {
    let own: BTreeSet<u16> = of.collect::<Option<_>>()?;
    let has_memory = |id: &u16| machine.node(*id).is_some_and(|node| node.memory.is_none_or(|memory| memory.0 > 0));
    let all = own.len() > 1 && machine.nodes.iter().all(|node| own.contains(&node.id));
    let texts: Vec<String> = own.iter().filter(|id| has_memory(id)).map(u16::to_string).collect();
    if all || texts.len() < own.len() { None } else { texts.join(",").parse().ok() }
}

/// Unbinds the slots whose nodes could be full before they have what they need, and says so.
pub(super) fn release(machine: &Machine, slots: &mut [PlannedSlot], shared: ByteSize) -> Option<String> {
    let mut released: BTreeSet<String> = BTreeSet::new();
    loop {
        // What is released may lie on any node then, and crowd others out.
        let all: &[PlannedSlot] = slots;
        let crowded = all.iter().map(|slot| &slot.claim).filter(|claim| is_crowded(machine, all, claim, shared));
        let crowded: BTreeSet<String> = crowded.map(|claim| claim.name.clone()).collect();
        if crowded.is_empty() {
            break;
        }
        for slot in slots.iter_mut().filter(|slot| crowded.contains(&slot.claim.name)) {
            slot.claim.mems = None;
            released.insert(slot.claim.kind.to_string());
        }
    }
    let several = machine.nodes.len() > 1 && !released.is_empty();
    several.then(|| {
        let kinds: Vec<String> = released.into_iter().collect();
        format!(
            "slots of {} are not bound to memory nodes, because others could fill these up: near memory is taken first anyway",
            kinds.join(", ")
        )
    })
}

/// Whether all that may lie on the nodes of a slot is more than these have. The parent cache may lie on any.
fn is_crowded(machine: &Machine, slots: &[PlannedSlot], claim: &SlotClaim, shared: ByteSize) -> bool {
    let Some(own) = &claim.mems else { return false };
    let sizes: Option<Vec<u64>> = own.iter().map(|id| Some(machine.node(id)?.memory?.0)).collect();
    let Some(there) = sizes.map(|sizes| sizes.into_iter().fold(0, u64::saturating_add)) else { return false };
    let may = slots.iter().map(|slot| &slot.claim).filter(|c| c.mems.as_ref().is_none_or(|mems| mems.overlaps(own)));
    at_once(may, shared) > there
}

/// Why no slot is bound to a memory node, where that lets more PC1 run.
pub(super) fn why_far(machine: &Machine, pc1: ByteSize) -> String {
    let greatest = machine.nodes.iter().filter(|node| node.cpus.is_some()).filter_map(|node| node.memory).max();
    let why = match greatest.filter(|greatest| *greatest < pc1) {
        Some(greatest) => format!("PC1 needs {}, and the greatest has {}", gib(pc1.0), gib(greatest.0)),
        None => "fewer PC1 would fit".to_owned(),
    };
    format!("no slot is bound to a memory node: {why}; near memory is taken first anyway")
}
