//! What may be placed on a machine: rules that take a record and claims, and name everything that does not fit.
//!
//! A rule whose fact is missing from the record says nothing: a machine that tells no memory breaks no rule about memory. That a
//! CPU, a node or a GPU is *not there* is told, because these are claimed by name.

mod claim;
mod cpus;
mod gpus;
mod memory;
mod sdr;
mod stores;
mod violation;

use super::Machine;

pub use claim::{Claims, SDR_PRODUCERS, SlotClaim, StoreClaim};
pub(super) use memory::at_once;
pub use memory::check_memory;
pub use sdr::sdr_units;
pub use stores::check_stores;
pub use violation::{Violation, ViolationKind};

/// Everything in `claims` that the machine cannot give: [`check_slots`], [`check_memory`] and [`check_stores`], in this order.
pub fn check(machine: &Machine, claims: &Claims) -> Vec<Violation> {
    let mut violations = check_slots(machine, &claims.slots);
    violations.extend(check_memory(machine, &claims.slots, claims.shared_memory));
    violations.extend(check_stores(machine, &claims.stores));
    violations
}

/// What is wrong with the CPUs, memory nodes and GPUs of these slots. No violation is told twice.
///
/// - CPUs exist, are online, and the recording process may use them.
/// - No CPU is in two slots of which one is [exclusive](SlotClaim::exclusive), unless both have the very same CPUs and a lock in
///   common, so that they take turns.
/// - Named memory nodes exist, and the CPUs of a slot lie in the nodes that it names.
/// - A slot that runs multicore SDR has, for each task that it takes at a time, a group of cores within one level 3 cache.
/// - GPUs exist, and a slot names each of them once.
pub fn check_slots(machine: &Machine, slots: &[SlotClaim]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for slot in slots {
        violations.extend(cpus::exist(machine, slot));
        violations.extend(cpus::within_nodes(machine, slot));
        violations.extend(sdr::fits(machine, slot));
        violations.extend(gpus::exist(machine, slot));
        violations.extend(gpus::not_twice(machine, slot));
    }
    violations.extend(sdr::even_caches(machine, slots));
    violations.extend(cpus::not_twice(slots));
    violations
}
