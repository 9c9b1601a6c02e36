//! How the CPUs of a PC1 slot are divided among its children, so that each has cores of one cache for itself.

use crate::config::{Findings, ProcessorKind, SlotSpec, WorkerConfig};
use damocles_core::CpuSet;
use damocles_seal::{
    BUILT_WITH_MULTICORE_SDR,
    machine::{Machine, cpu_set, legal::sdr_units},
    placement::{multicore_sdr_env, needs_multicore_sdr},
};
use std::collections::{BTreeMap, BTreeSet};

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

/// The producers that the slot's settings name, if they name a number of them.
fn said(slot: &SlotSpec) -> Option<Result<u16, &str>> {
    let text = slot.envs.get(PRODUCERS)?.as_str();
    Some(text.trim().parse().ok().filter(|producers| *producers > 0).ok_or(text))
}

/// The producers that the slot's settings name, else those with which its children have all their cores at work: one child all
/// cores of its slot, of several each a group of one cache.
pub(crate) fn producers(machine: &Machine, slot: &SlotSpec) -> Option<u16> {
    if let Some(said) = said(slot) {
        return said.ok();
    }
    let cpus = cpus_of(machine, slot);
    let wanted = usize::try_from(slot.concurrent.get()).unwrap_or(usize::MAX);
    if let (1, Some(cpus)) = (wanted, &slot.cpuset) {
        let cores = machine.cpu.cores.iter().filter(|core| core.cpus.overlaps(cpus)).count();
        return u16::try_from(cores.saturating_sub(1)).ok().filter(|producers| *producers > 0);
    }
    let most = u16::try_from(cpus.len() / wanted.max(1)).unwrap_or(u16::MAX);
    (1..most).rev().find(|producers| sdr_units(machine, &cpus, *producers).len() >= wanted)
}

/// The CPUs of each of the slot's children; `None` if they do not fall into as many groups of one cache.
fn divided(machine: &Machine, slot: &SlotSpec) -> Option<Vec<CpuSet>> {
    let wanted = usize::try_from(slot.concurrent.get()).unwrap_or(usize::MAX);
    let units = sdr_units(machine, &cpus_of(machine, slot), producers(machine, slot)?);
    let parts: Vec<CpuSet> = units.into_iter().take(wanted).filter_map(cpu_set).collect();
    (parts.len() == wanted).then_some(parts)
}

fn cpus_of(machine: &Machine, slot: &SlotSpec) -> BTreeSet<u16> {
    slot.cpuset.as_ref().map_or_else(|| machine.usable_cpus(), |cpus| cpus.iter().collect())
}

/// One child that uses all its cores for one sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SdrChild {
    /// Its cores, all of one cache.
    pub(crate) cpus: CpuSet,
    /// The variables that fit them.
    pub(crate) envs: BTreeMap<String, String>,
}

/// The children of a slot that is bound to `cpus`: one for each task that it takes at a time, each with its own cores of one cache.
///
/// # Errors
///
/// The CPUs do not fall into as many groups: why.
pub(crate) fn children(machine: &Machine, slot: &SlotSpec, cpus: &CpuSet) -> Result<Vec<SdrChild>, String> {
    let parts = if slot.concurrent.get() == 1 { Some(vec![cpus.clone()]) } else { divided(machine, slot) };
    let parts = parts.ok_or_else(|| format!("CPUs {cpus} hold no {} groups of cores of one cache", slot.concurrent))?;
    // A kernel that tells of no cache breaks no rule about caches.
    let caches: Vec<CpuSet> = machine.cpu.l3.iter().map(|group| group.cpus.clone()).collect();
    let caches = if caches.is_empty() { vec![cpus.clone()] } else { caches };
    let cores: Vec<CpuSet> = machine.cpu.cores.iter().map(|core| core.cpus.clone()).collect();
    let child = |part: CpuSet| {
        let envs = multicore_sdr_env(&part, &caches, &cores).map_err(|misfit| misfit.to_string())?;
        Ok(SdrChild { cpus: part, envs })
    };
    parts.into_iter().map(child).collect()
}

/// What an operator can do about a slot whose CPUs do not fit.
pub(crate) const REMEDY: &str = "name whole groups of cores of one L3 cache (`damocles-worker hwinfo` lists them), lower \
                                 `concurrent`, or set FIL_PROOFS_USE_MULTICORE_SDR = \"0\"";

/// Why the daemon would refuse a slot that asks for multicore SDR. Not if its CPUs are not there: that is told of themselves.
pub(super) fn refused(machine: &Machine, slot: &SlotSpec) -> Option<String> {
    let cpus = slot.cpuset.as_ref().filter(|_| multicore(slot) == Multicore::Asked)?;
    let online = machine.online_cpus();
    let there = cpus.iter().all(|cpu| online.contains(&cpu));
    let unclear = !there || matches!(said(slot), Some(Err(_)));
    if unclear { None } else { children(machine, slot, cpus).err() }
}

pub(super) fn check(config: &WorkerConfig, machine: Option<&Machine>, found: &mut Findings<'_>) {
    for slot in config.slots().iter().filter(|slot| slot.kind == ProcessorKind::Pc1) {
        if let Some(Err(text)) = said(slot) {
            let message = format_args!("`{text}` is no number of producers");
            let hint = "write 1 or more: a group has one core more than that, all of one L3 cache";
            found.error(&format!("{}.envs.{PRODUCERS}", slot.path), message, hint);
        }
        if let Some(why) = machine.and_then(|machine| refused(machine, slot)) {
            found.error(&slot.path, why, REMEDY);
        }
    }
}
