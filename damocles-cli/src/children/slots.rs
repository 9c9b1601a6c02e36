//! From a configured slot to the children that serve it.

use super::OWN;
use crate::{
    config::{
        ChildProtocol, SlotSpec as Configured,
        check::sdr::{self, Multicore},
    },
    exit::{Exit, Failure},
};
use anyhow::anyhow;
use damocles_core::{CpuSet, GpuId};
use damocles_seal::{
    machine::Machine,
    placement::{gpu_env, missing_features, multicore_sdr_env},
    pool::{self, CommandSpec, Protocol, SlotSpec},
};
use std::path::PathBuf;

/// The children of a slot. `machine` is asked where the answer depends on it.
pub(super) fn of(slot: &Configured, machine: &dyn Fn() -> Machine) -> Result<Vec<SlotSpec>, Failure> {
    if slot.protocol == ChildProtocol::V1 && !pool::has_v1(&slot.kind.task_kind()) {
        let hint = "give this stage a program that speaks v2: the old protocol does it in other steps";
        return Err(refused(slot, "protocol = \"v1\"").hint(hint));
    }
    let mut spec = plain(slot);
    if !slot.gpus.is_empty() {
        spec.placement.gpus = gpus(slot, &machine())?;
        // The check of the file has seen that they name the same; the place sets them by identifier.
        for name in gpu_env(&spec.placement.gpus).keys() {
            spec.command.envs.remove(name);
        }
    }
    if slot.bin.is_none()
        && let Some(missing) = missing_features(&slot.envs, &spec.placement.gpus).into_iter().next()
    {
        let hint = missing.hint();
        return Err(Failure::new(Exit::Usage, missing).context(format_args!("slot `{}`", slot.name)).hint(hint));
    }
    match (sdr::multicore(slot), &slot.cpuset) {
        (Multicore::Off, _) | (_, None) => Ok(vec![spec]),
        (multicore, Some(cpus)) => multicore_sdr(slot, spec, multicore, cpus, &machine()),
    }
}

fn refused(slot: &Configured, key: &str) -> Failure {
    let error = anyhow!("slot `{}`: this version cannot honour `{key}`", slot.name);
    Failure::new(Exit::Usage, error)
}

fn plain(slot: &Configured) -> SlotSpec {
    let program = slot.bin.clone().unwrap_or_else(|| PathBuf::from(OWN));
    let mut command = CommandSpec::new(program, slot.args.clone());
    command.envs.clone_from(&slot.envs);
    command.inherit_envs = slot.inherit_envs;
    let mut spec = SlotSpec::new(slot.name.clone(), vec![slot.kind.task_kind()], command);
    spec.stable_wait = slot.stable_wait;
    spec.concurrent = usize::try_from(slot.concurrent.get()).unwrap_or(usize::MAX);
    spec.auto_restart = slot.auto_restart;
    spec.locks.clone_from(&slot.locks);
    spec.protocol = match slot.protocol {
        ChildProtocol::V1 => Protocol::V1,
        ChildProtocol::V2 => Protocol::V2,
    };
    // Made anew for every child, for it alone.
    spec.talk.payload_dir = Some(std::env::temp_dir());
    spec.placement.cpus.clone_from(&slot.cpuset);
    spec.placement.mems.clone_from(&slot.mems);
    spec.placement.exclusive_cpus = slot.claims_cpus;
    spec.placement.memory = slot.memory;
    spec.placement.cpu_weight = slot.cpu_weight;
    spec
}

/// The identifiers of the slot's cards: numbers change with the order of cards, and claims go by identifier.
fn gpus(slot: &Configured, machine: &Machine) -> Result<Vec<GpuId>, Failure> {
    let found = slot.gpus.iter().map(|name| {
        machine.gpu(name).map(|gpu| gpu.uuid.clone()).ok_or_else(|| {
            Failure::new(Exit::Usage, anyhow!("slot `{}`: there is no GPU `{name}`", slot.name))
                .hint("`damocles-worker hwinfo` lists those that the driver tells of")
        })
    });
    found.collect()
}

/// Children that use all their cores for one sector: each has its own cores of one cache.
fn multicore_sdr(
    slot: &Configured,
    spec: SlotSpec,
    multicore: Multicore,
    cpus: &CpuSet,
    machine: &Machine,
) -> Result<Vec<SlotSpec>, Failure> {
    let misfit = |why: String| {
        let hint = "name whole groups of cores of one L3 cache (`damocles-worker hwinfo` lists them), lower \
                    `concurrent`, or set FIL_PROOFS_USE_MULTICORE_SDR = \"0\"";
        Failure::new(Exit::Usage, anyhow!("slot `{}`: {why}", slot.name)).hint(hint)
    };
    let parts = if slot.concurrent.get() == 1 { Some(vec![cpus.clone()]) } else { sdr::divided(machine, slot) };
    // A kernel that tells of no cache breaks no rule about caches.
    let caches: Vec<CpuSet> = machine.cpu.l3.iter().map(|group| group.cpus.clone()).collect();
    let caches = if caches.is_empty() { vec![cpus.clone()] } else { caches };
    let cores: Vec<CpuSet> = machine.cpu.cores.iter().map(|core| core.cpus.clone()).collect();
    let children = parts.ok_or_else(|| format!("CPUs {cpus} hold no {} groups of cores of one cache", slot.concurrent));
    let children = children.and_then(|parts| {
        let place = |(number, part): (usize, CpuSet)| {
            let env = multicore_sdr_env(&part, &caches, &cores).map_err(|misfit| misfit.to_string())?;
            let mut child = spec.clone();
            if slot.concurrent.get() > 1 {
                child.name = format!("{}.{number}", slot.name);
                child.concurrent = 1;
            }
            child.placement.cpus = Some(part);
            for (name, value) in env {
                child.command.envs.entry(name).or_insert(value);
            }
            Ok(child)
        };
        parts.into_iter().enumerate().map(place).collect::<Result<Vec<_>, String>>()
    });
    match (children, multicore) {
        (Ok(children), _) => Ok(children),
        (Err(why), Multicore::Asked) => Err(misfit(why)),
        (Err(why), _) => {
            tracing::info!(slot = slot.name, why, "PC1 uses one core for each sector");
            Ok(vec![spec])
        }
    }
}
