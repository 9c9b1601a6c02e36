//! Rules about memory: what is claimed adds up to no more than there is.

use super::{SlotClaim, Violation, ViolationKind};
use crate::machine::{Machine, figures::Step, size::gib};
use damocles_core::ByteSize;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

/// What is wrong with the memory of these slots, of which all share `shared` (the parent cache).
///
/// A slot counts with its limit, or with what its tasks keep if it has none. Of slots that hold one lock in turn, only the greatest
/// counts. Slots that name exactly one memory node have to fit into it; the shared part lies on no node in particular.
pub fn check_memory(machine: &Machine, slots: &[SlotClaim], shared: ByteSize) -> Vec<Violation> {
    let mut violations = Vec::new();
    for node in &machine.nodes {
        let ours: Vec<&SlotClaim> =
            slots.iter().filter(|slot| slot.mems.as_ref().is_some_and(|mems| mems.iter().eq([node.id]))).collect();
        let claimed = at_once(ours.iter().copied(), ByteSize(0));
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
    let claimed = at_once(slots, shared);
    let share = if shared.0 > 0 { format!(" {} of them for what all share,", gib(shared.0)) } else { String::new() };
    if let Some(memory) = machine.usable_memory().filter(|memory| claimed > memory.0) {
        violations.push(Violation {
            kind: ViolationKind::MachineMemory,
            of: names(&all),
            message: format!("{} are claimed,{share} and the machine has {}", gib(claimed), gib(memory.0)),
            remedy: "lower `concurrent` or a memory limit, or let slots take turns by a lock in common".to_owned(),
        });
    }
    violations
}

/// Slots of which one at a time runs, because all hold one lock.
#[derive(Debug, Default)]
struct Turns {
    greatest: u64,
    /// The greatest of those that do PC1, with what they share.
    greatest_pc1: u64,
}

/// The most memory that slots take at a time, with `shared` (the parent cache) on top of it: the sum, in which slots that hold one
/// lock in turn count as the greatest of them.
///
/// What is shared serves PC1. Where all PC1 take turns with other stages, the kernel gives the cache back while those run.
pub(in crate::machine) fn at_once<'s>(slots: impl IntoIterator<Item = &'s SlotClaim>, shared: ByteSize) -> u64 {
    let mut slots: Vec<&SlotClaim> = slots.into_iter().collect();
    // The greatest first: what takes turns with it adds nothing then.
    slots.sort_by_key(|slot| Reverse(slot.memory_at_once()));
    let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
    for lock in slots.iter().flat_map(|slot| &slot.locks) {
        *holders.entry(lock).or_default() += 1;
    }
    let mut turns: BTreeMap<&str, Turns> = BTreeMap::new();
    let mut locks_of_pc1: BTreeSet<Option<&str>> = BTreeSet::new();
    let mut sum = 0u64;
    for slot in slots {
        let memory = slot.memory_at_once().0;
        let is_pc1 = slot.kind.as_str() == Step::Pc1.name();
        // Every holder of a lock is in turn with every other one: one lock of a slot is enough to know.
        let mut locks = slot.locks.iter().map(String::as_str);
        let known = locks.clone().find(|lock| turns.contains_key(lock));
        let lock = known.or_else(|| locks.by_ref().max_by_key(|lock| holders.get(lock)));
        if is_pc1 {
            locks_of_pc1.insert(lock);
        }
        let Some(lock) = lock else {
            sum = sum.saturating_add(memory);
            continue;
        };
        let turn = turns.entry(lock).or_default();
        turn.greatest = turn.greatest.max(memory);
        if is_pc1 {
            turn.greatest_pc1 = turn.greatest_pc1.max(memory.saturating_add(shared.0));
        }
    }
    let all_pc1_in_turn = locks_of_pc1.len() == 1 && !locks_of_pc1.contains(&None);
    if !all_pc1_in_turn {
        sum = sum.saturating_add(shared.0);
    }
    turns.into_values().fold(sum, |sum, turn| {
        let with_cache = if all_pc1_in_turn { turn.greatest_pc1 } else { 0 };
        sum.saturating_add(turn.greatest.max(with_cache))
    })
}

/// Those that count.
fn names(slots: &[&SlotClaim]) -> Vec<String> {
    slots.iter().filter(|slot| slot.memory_at_once().0 > 0).map(|slot| slot.name.clone()).collect()
}
