//! From a configured slot to the children that serve it.

use super::OWN;
use crate::{
    config::{
        ChildProtocol, ProcessorKind, SlotSpec as Configured,
        check::sdr::{self, Multicore},
    },
    exit::{Exit, Failure},
};
use anyhow::anyhow;
use damocles_core::{CpuSet, GpuId};
use damocles_seal::{
    machine::Machine,
    placement::{gpu_env, missing_features},
    pool::{self, CommandSpec, Protocol, SlotSpec},
};
use std::path::PathBuf;

/// So many copies whose store hangs, and that not even a kill ends, are replaced by others. Each keeps some memory.
const LEFT_BEHIND: usize = 4;

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
    if slot.kind == ProcessorKind::Transfer {
        spec.leave_behind = LEFT_BEHIND;
    }
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
    let mut found: Vec<GpuId> = Vec::new();
    for name in &slot.gpus {
        let gpu = machine.gpu(name).ok_or_else(|| {
            Failure::new(Exit::Usage, anyhow!("slot `{}`: there is no GPU `{name}`", slot.name))
                .hint("`damocles-worker hwinfo` lists those that the driver tells of")
        })?;
        if found.contains(&gpu.uuid) {
            let error = anyhow!("slot `{}`: GPU `{name}` is {}, which it names already", slot.name, gpu.uuid);
            return Err(Failure::new(Exit::Usage, error).hint("name each GPU once"));
        }
        found.push(gpu.uuid.clone());
    }
    Ok(found)
}

/// Children that use all their cores for one sector: each has its own cores of one cache.
fn multicore_sdr(
    slot: &Configured,
    spec: SlotSpec,
    multicore: Multicore,
    cpus: &CpuSet,
    machine: &Machine,
) -> Result<Vec<SlotSpec>, Failure> {
    let children = match (sdr::children(machine, slot, cpus), multicore) {
        (Ok(children), _) => children,
        (Err(why), Multicore::Asked) => {
            return Err(Failure::new(Exit::Usage, anyhow!("slot `{}`: {why}", slot.name)).hint(sdr::REMEDY));
        }
        (Err(why), _) => {
            tracing::info!(slot = slot.name, why, "PC1 uses one core for each sector");
            return Ok(vec![spec]);
        }
    };
    let bound = |(number, place): (usize, sdr::SdrChild)| {
        let mut child = spec.clone();
        if slot.concurrent.get() > 1 {
            child.name = format!("{}.{number}", slot.name);
            child.concurrent = 1;
        }
        child.placement.cpus = Some(place.cpus);
        for (name, value) in place.envs {
            child.command.envs.entry(name).or_insert(value);
        }
        child
    };
    Ok(children.into_iter().enumerate().map(bound).collect())
}
