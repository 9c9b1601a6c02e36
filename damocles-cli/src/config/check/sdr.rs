//! How the CPUs of a PC1 slot are divided among its children, so that each has cores of one cache for itself.

use crate::config::{ProcessorKind, SlotSpec};
use damocles_core::CpuSet;
use damocles_seal::{
    BUILT_WITH_MULTICORE_SDR,
    machine::{Machine, cpu_set, legal::sdr_units},
    placement::needs_multicore_sdr,
};
use std::collections::BTreeSet;

/// The variable that switches multicore SDR on.
const MULTICORE: &str = "FIL_PROOFS_USE_MULTICORE_SDR";
/// The variable that says how many cores fetch parents for each that hashes.
pub(crate) const PRODUCERS: &str = "FIL_PROOFS_MULTICORE_SDR_PRODUCERS";

/// Whether a slot uses multicore SDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Multicore {
    /// Its settings say so.
    Asked,
    /// Nothing is said, and this program can: it does where the CPUs fit.
    IfItFits,
    /// Not.
    Off,
}

/// Whether this slot uses multicore SDR.
pub(crate) fn multicore(slot: &SlotSpec) -> Multicore {
    if slot.kind != ProcessorKind::Pc1 {
        return Multicore::Off;
    }
    if needs_multicore_sdr(&slot.envs).is_some() {
        return Multicore::Asked;
    }
    let own = slot.bin.is_none() && BUILT_WITH_MULTICORE_SDR;
    let said = slot.envs.contains_key(MULTICORE);
    if own && !said && slot.cpuset.is_some() { Multicore::IfItFits } else { Multicore::Off }
}

/// The producers that the slot's settings name, else the most with which each of its tasks has a group of cores.
pub(crate) fn producers(machine: &Machine, slot: &SlotSpec) -> Option<u16> {
    if let Some(said) = slot.envs.get(PRODUCERS) {
        return said.trim().parse().ok();
    }
    let cpus = cpus_of(machine, slot);
    let wanted = usize::try_from(slot.concurrent.get()).unwrap_or(usize::MAX);
    let most = u16::try_from(cpus.len() / wanted.max(1)).unwrap_or(u16::MAX);
    (1..most).rev().find(|producers| sdr_units(machine, &cpus, *producers).len() >= wanted)
}

/// The CPUs of each of the slot's children; `None` if they do not fall into as many groups of one cache.
pub(crate) fn divided(machine: &Machine, slot: &SlotSpec) -> Option<Vec<CpuSet>> {
    let wanted = usize::try_from(slot.concurrent.get()).unwrap_or(usize::MAX);
    let units = sdr_units(machine, &cpus_of(machine, slot), producers(machine, slot)?);
    let parts: Vec<CpuSet> = units.into_iter().take(wanted).filter_map(cpu_set).collect();
    (parts.len() == wanted).then_some(parts)
}

fn cpus_of(machine: &Machine, slot: &SlotSpec) -> BTreeSet<u16> {
    slot.cpuset.as_ref().map_or_else(|| machine.usable_cpus(), |cpus| cpus.iter().collect())
}
