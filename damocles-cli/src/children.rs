//! From configured slots to a pool of children.

mod asker;
mod slots;

use crate::{
    clock::SystemClock,
    config::{ChildProtocol, ProcessorKind, Processors, SlotSpec as Configured},
    exit::Failure,
    server::default_run_dir,
    worker::args::ProcessorArgs,
};
use anyhow::Context as _;
use asker::SocketAsker;
use damocles_core::pool::{ProcessorPool, Task as _, TaskKind};
use damocles_seal::{
    claims::{ClaimGate, Claims, resources_of},
    machine::{Machine, Roots},
    pool::{Backlog, Breaker, CommandSpec, Hooks, Limits, LocalPool, PoolSpec, SlotSpec},
    processor::{self, ServeOptions, Served},
    task::Probe,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// This program. Not its path: that may name a newer build by the time a child starts, and all parts of one daemon must
/// be of one build.
pub(crate) const OWN: &str = "/proc/self/exe";

/// A pool with these slots, whose tasks have a limited time each. A slot without a program of its own runs this one.
/// `program` is what others on this machine see when it holds a GPU; `socket` is where they ask it to yield.
///
/// # Errors
///
/// A slot cannot be had as it is configured.
pub fn pool(
    slots: &[Configured],
    processors: &Processors,
    program: &str,
    socket: Option<PathBuf>,
) -> Result<Arc<LocalPool>, Failure> {
    let spec = pool_spec(slots, processors, &|| Machine::read(&Roots::host()))?;
    let mut hooks = Hooks::default();
    if spec.slots.iter().any(|slot| !resources_of(slot).is_empty()) {
        let own = || default_run_dir().map(|dir| dir.join("claims"));
        let dir = processors.isolation.claims_dir.clone().or_else(own).ok_or_else(|| {
            let hint = "set XDG_RUNTIME_DIR, or `processors.isolation.claims_dir`, the same for all programs here";
            Failure::usage("no directory for the claims of GPUs").hint(hint)
        })?;
        let claims = Claims::at(dir, program, socket, Arc::new(SystemClock)).context("claim hardware")?;
        hooks.gate = Some(Arc::new(ClaimGate::new(claims).asking(Arc::new(SocketAsker))));
    }
    Ok(Arc::new(LocalPool::with(spec, hooks).context("set up processors")?))
}

/// The pool as data. `machine` is asked only where a slot depends on it: GPUs by number, cores by cache.
///
/// # Errors
///
/// A slot cannot be had as it is configured.
pub fn pool_spec(
    slots: &[Configured],
    processors: &Processors,
    machine: &dyn Fn() -> Machine,
) -> Result<PoolSpec, Failure> {
    let mut children = Vec::new();
    for slot in slots {
        children.extend(slots::of(slot, machine)?);
    }
    let mut spec = PoolSpec::new(children);
    (spec.limits, spec.backlog) = limits(slots, processors);
    spec.breaker = Breaker {
        failures: processors.breaker.failures.unwrap_or(spec.breaker.failures),
        rest: processors.breaker.rest.map_or(spec.breaker.rest, |rest| rest.0),
    };
    let asked = &processors.isolation;
    if asked.cgroups == Some(false) {
        spec.isolation.cgroup_root = None;
    } else if let Some(root) = &asked.cgroup_root {
        spec.isolation.cgroup_root = Some(root.clone());
    }
    if let Some(name) = processors.group_name() {
        spec.isolation.name = name.to_owned();
    }
    spec.isolation.keep_capabilities = asked.keep_capabilities;
    if let Some(every) = asked.verify_interval {
        spec.isolation.verify_every = every.0;
    }
    Ok(spec)
}

/// How much may run at a time, and how far PC1 runs ahead.
pub(crate) fn limits(slots: &[Configured], processors: &Processors) -> (Limits, BTreeMap<TaskKind, Backlog>) {
    let limitation = &processors.limitation;
    let limits = Limits {
        concurrent: limitation.concurrent.iter().map(|(k, n)| (k.task_kind(), count(*n))).collect(),
        staggered: limitation.staggered.iter().map(|(k, gap)| (k.task_kind(), gap.0)).collect(),
        time: slots.iter().map(|slot| (slot.kind.task_kind(), limitation.timeout_of(slot.kind))).collect(),
        ext_locks: processors.ext_locks.iter().map(|(name, n)| (name.clone(), count(*n))).collect(),
    };
    let backlog = backlog(slots, processors).map(|backlog| (ProcessorKind::Pc1.task_kind(), backlog));
    (limits, backlog.into_iter().collect())
}

fn count(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// How far PC1 runs ahead of PC2. As many sectors as PC1 works on are always in between, or its slots would stand
/// idle; one more for each slot of PC2 keeps that busy.
fn backlog(slots: &[Configured], processors: &Processors) -> Option<Backlog> {
    let at_once = |kind: ProcessorKind| {
        let sum = slots.iter().filter(|slot| slot.kind == kind).map(|slot| slot.concurrent.get()).sum::<u32>();
        processors.limitation.concurrent.get(&kind).map_or(sum, |limit| sum.min(*limit))
    };
    let (first, next) = (at_once(ProcessorKind::Pc1), at_once(ProcessorKind::Pc2));
    if first == 0 || next == 0 || processors.backlog.enable == Some(false) {
        return None;
    }
    let most = processors.backlog.pc2.unwrap_or_else(|| first.saturating_add(next));
    Some(Backlog { next: ProcessorKind::Pc2.task_kind(), most: count(most) })
}

/// A child that looks at one persist store: one that waits for a disk that is gone keeps no other store's child.
///
/// # Errors
///
/// The pool cannot be set up.
pub fn prober(index: usize) -> Result<Arc<dyn ProcessorPool>, Failure> {
    let command = CommandSpec::new(OWN, ["processor", Probe::KIND.as_str()]);
    let slot = SlotSpec::new(format!("probe-{index}"), vec![Probe::KIND], command);
    Ok(Arc::new(LocalPool::new(PoolSpec::new(vec![slot])).context("set up the child that looks at a store")?))
}

/// What the hidden command `processor <kind>` of both programs does.
///
/// # Errors
///
/// The kind is unknown or the protocol breaks.
pub fn serve(args: ProcessorArgs) -> Result<(), Failure> {
    let kind = TaskKind::read(args.kind);
    let served = match args.protocol {
        ChildProtocol::V1 => processor::serve_v1(&kind, args.turn_lock),
        ChildProtocol::V2 => {
            let mut options = ServeOptions::default();
            options.kinds = Some(vec![kind]);
            options.turn_lock = args.turn_lock;
            processor::serve(processor::all(), &options)
        }
    };
    match served.context("serve tasks")? {
        Served::Shutdown => Ok(()),
        // Work may still be running on a thread: only the end of the process stops it.
        Served::InputEnded | Served::Cancelled => end_now(),
    }
}

#[expect(clippy::exit, clippy::disallowed_methods, reason = "a thread that proves cannot be joined or stopped")]
fn end_now() -> ! {
    std::process::exit(0)
}

#[cfg(test)]
mod tests;
