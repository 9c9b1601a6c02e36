//! Rules about memory: what is claimed adds up to no more than there is.

use super::{SlotClaim, Violation, ViolationKind};
use crate::machine::{Machine, size::gib};
use damocles_core::ByteSize;
use std::collections::BTreeMap;

/// What is wrong with the memory of these slots, of which all share `shared` (the parent cache).
///
/// A slot counts with its limit, or with what its tasks keep if it has none. Of slots that hold one lock in turn, only the greatest
/// counts. Slots that name exactly one memory node have to fit into it; the shared part lies on no node in particular.
pub fn check_memory(machine: &Machine, slots: &[SlotClaim], shared: ByteSize) -> Vec<Violation> {
    let mut violations = Vec::new();
    for node in &machine.nodes {
        let ours: Vec<&SlotClaim> =
            slots.iter().filter(|slot| slot.mems.as_ref().is_some_and(|mems| mems.iter().eq([node.id]))).collect();
        let claimed = at_once(&ours);
        if let Some(memory) = node.memory.filter(|memory| claimed > memory.0) {
            violations.push(Violation {
                kind: ViolationKind::NodeMemory,
                of: names(&ours),
                message: format!(
                    "{} are claimed of memory node {}, which has {}",
                    gib(claimed),
                    node.id,
                    gib(memory.0)
                ),
                remedy: "lower `concurrent` or a memory limit, or move a slot to another node".to_owned(),
            });
        }
    }
    let all: Vec<&SlotClaim> = slots.iter().collect();
    let claimed = at_once(&all).saturating_add(shared.0);
    if let Some(memory) = machine.usable_memory().filter(|memory| claimed > memory.0) {
        violations.push(Violation {
            kind: ViolationKind::MachineMemory,
            of: names(&all),
            message: format!(
                "{} are claimed, {} of them for what all share, and the machine has {}",
                gib(claimed),
                gib(shared.0),
                gib(memory.0)
            ),
            remedy: "lower `concurrent` or a memory limit, or let slots take turns by a lock in common".to_owned(),
        });
    }
    violations
}

/// The memory of slots that may all run at once: the sum, in which slots that hold one lock in turn count as the greatest of them.
fn at_once(slots: &[&SlotClaim]) -> u64 {
    let mut turns: BTreeMap<&str, u64> = BTreeMap::new();
    let mut sum = 0u64;
    for slot in slots {
        let memory = slot.memory_at_once().0;
        match slot.locks.iter().min() {
            // Every holder of the lock is in turn with every other one: one lock of a slot is enough to know.
            Some(lock) => {
                let greatest = turns.entry(lock).or_default();
                *greatest = memory.max(*greatest);
            }
            None => sum = sum.saturating_add(memory),
        }
    }
    turns.values().fold(sum, |sum, greatest| sum.saturating_add(*greatest))
}

/// Those that count.
fn names(slots: &[&SlotClaim]) -> Vec<String> {
    slots.iter().filter(|slot| slot.memory_at_once().0 > 0).map(|slot| slot.name.clone()).collect()
}
