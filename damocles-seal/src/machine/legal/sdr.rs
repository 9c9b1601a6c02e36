//! Rules about multicore SDR.
//!
//! The proofs library divides the cores of each shared cache, from its first core on, into units of one consumer and its producers.
//! It asserts that all caches have as many cores, and a unit of which a core is missing runs with what is left of it.

use super::{SlotClaim, Violation, ViolationKind};
use crate::machine::Machine;
use std::collections::BTreeSet;

/// The units of `producers + 1` cores within one level 3 cache that lie in `cpus` with all their cores. A core is there if one of
/// its CPUs is. Cores of which no cache is known count as one group for each memory node.
pub fn sdr_units(machine: &Machine, cpus: &BTreeSet<u16>, producers: u16) -> Vec<BTreeSet<u16>> {
    let unit = usize::from(producers).saturating_add(1);
    let mut units = Vec::new();
    for group in machine.core_groups() {
        for cores in group.cores.chunks_exact(unit) {
            let ours = |core: &&crate::machine::Core| core.cpus.iter().any(|cpu| cpus.contains(&cpu));
            if cores.iter().all(ours) {
                units.push(cores.iter().flat_map(|core| core.cpus.iter()).filter(|cpu| cpus.contains(cpu)).collect());
            }
        }
    }
    units
}

/// A slot has a unit for each task that it takes at a time.
pub(super) fn fits(machine: &Machine, slot: &SlotClaim) -> Option<Violation> {
    let producers = slot.multicore_sdr?;
    let cpus = match &slot.cpus {
        Some(cpus) => cpus.iter().collect(),
        None => machine.usable_cpus(),
    };
    let units = sdr_units(machine, &cpus, producers).len();
    let wanted = usize::try_from(slot.concurrent).unwrap_or(usize::MAX);
    (units < wanted).then(|| Violation {
        kind: ViolationKind::SplitSdrGroup,
        of: vec![slot.name.clone()],
        message: format!(
            "with {} at a time it needs as many groups of {} cores within one L3 cache, and its CPUs hold {units}",
            slot.concurrent,
            u32::from(producers) + 1
        ),
        remedy: "name whole groups, from the first core of each L3 cache on (`damocles-worker hwinfo` lists them), or lower \
                 `concurrent` or FIL_PROOFS_MULTICORE_SDR_PRODUCERS"
            .to_owned(),
    })
}

/// All caches have as many cores, if anybody uses multicore SDR.
pub(super) fn even_caches(machine: &Machine, slots: &[SlotClaim]) -> Option<Violation> {
    let of: Vec<String> = slots.iter().filter(|s| s.multicore_sdr.is_some()).map(|s| s.name.clone()).collect();
    if of.is_empty() || machine.caches_are_even() {
        return None;
    }
    Some(Violation {
        kind: ViolationKind::UnevenCaches,
        of,
        message: "the L3 caches have different numbers of cores, and multicore SDR divides all alike".to_owned(),
        remedy: "switch as many cores on in each cache, or set FIL_PROOFS_USE_MULTICORE_SDR=0".to_owned(),
    })
}

impl Machine {
    /// Whether every level 3 cache serves as many online cores as every other. True if none is known.
    pub fn caches_are_even(&self) -> bool {
        let sizes: BTreeSet<usize> = self
            .cpu
            .l3
            .iter()
            .map(|l3| self.cpu.cores.iter().filter(|core| core.cpus.overlaps(&l3.cpus)).count())
            .collect();
        sizes.len() <= 1
    }
}
