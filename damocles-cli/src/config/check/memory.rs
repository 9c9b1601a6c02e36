//! Whether there is memory for what is configured.

use super::claims::Claimed;
use crate::config::{Findings, ProcessorKind, WorkerConfig};
use damocles_core::ByteSize;
use damocles_seal::machine::{
    Machine,
    figures::{Figures, Step},
    legal::{self, SlotClaim},
};

/// What cannot work is wrong: limits that add up to more than there is, layers that do not fit. What tasks are known to need may be
/// less on better hardware: that is told.
pub(super) fn check(config: &WorkerConfig, machine: Option<&Machine>, claims: &Claimed, found: &mut Findings<'_>) {
    if let Some((largest, smallest)) = &claims.figures {
        limits(config, largest, smallest, found);
    }
    let Some(machine) = machine else { return };
    let added = legal::check_memory(machine, &claims.limits_only(), ByteSize(0));
    let layers = claims.figures.as_ref().map(|(_, smallest)| layers(config, claims, smallest)).unwrap_or_default();
    let impossible: Vec<_> = added.into_iter().chain(legal::check_memory(machine, &layers, ByteSize(0))).collect();
    for violation in &impossible {
        claims.error(config, violation, found);
    }
    if impossible.is_empty() {
        for violation in legal::check_memory(machine, &claims.slots, claims.shared) {
            claims.warn(config, &violation, found);
        }
    }
    if claims.figures.is_none() {
        unknown(config, machine, found);
    }
}

/// A limit below what a task needs gets each of its children killed.
fn limits(config: &WorkerConfig, largest: &Figures, smallest: &Figures, found: &mut Findings<'_>) {
    for slot in config.slots() {
        let (Some(limit), Ok(step)) = (slot.memory, slot.kind.name().parse::<Step>()) else { continue };
        let (path, needed) = (format!("{}.cgroup.memory", slot.path), largest.cost(step).memory);
        if slot.kind == ProcessorKind::Pc1 && limit < smallest.pc1_layers() {
            let (layers, size) = (smallest.pc1_layers(), smallest.sector_size);
            let message = format_args!("{limit} hold no PC1 of {size}: its two layers alone are {layers}");
            found.error(&path, message, format!("write at least {needed}, or remove it"));
        } else if limit < needed {
            let (kind, size) = (slot.kind.name(), largest.sector_size);
            let message = format_args!("{kind} of {size} is known to take {needed}, and is killed at {limit}");
            found.warn(&path, message, format!("write at least {needed}, unless you measured less, or remove it"));
        }
    }
}

/// The PC1 slots with the layers of the smallest sectors, as the only memory that no hardware does without.
fn layers(config: &WorkerConfig, claims: &Claimed, smallest: &Figures) -> Vec<SlotClaim> {
    let pc1 = ProcessorKind::Pc1.task_kind();
    let slots = claims.slots.iter().filter(|slot| slot.kind == pc1 && slot.memory.is_none());
    let of = |slot: &SlotClaim| SlotClaim { task_memory: Some(smallest.pc1_layers()), ..slot.clone() };
    let mut slots: Vec<SlotClaim> = slots.map(of).collect();
    let sum = slots.iter().fold(0u32, |sum, slot| sum.saturating_add(slot.concurrent));
    let most = config.processors.limitation.concurrent.get(&ProcessorKind::Pc1).copied().filter(|most| *most < sum);
    if let Some(most) = most
        && let Some(last) = slots.pop()
    {
        // Whichever of them run, it is so many: where they lie is not known then.
        slots = vec![SlotClaim { concurrent: most, mems: None, locks: Vec::new(), ..last }];
    }
    slots
}

/// Memory that is not checked must not pass for memory that suffices.
fn unknown(config: &WorkerConfig, machine: &Machine, found: &mut Findings<'_>) {
    let threads = config.threads();
    let any = threads.iter().position(|thread| thread.allowed_sizes.is_empty());
    if let (Some(thread), Some(_)) = (any, machine.usable_memory()) {
        let message = "memory was not checked: this thread takes sectors of any size";
        found.warn(
            &format!("sealing_thread[{thread}]"),
            message,
            "write `allowed_sizes` in [sealing], or for the thread",
        );
    }
}
