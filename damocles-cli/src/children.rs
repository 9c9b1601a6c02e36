//! From configured slots to a pool of children.

use crate::{
    config::{Processors, SlotSpec as Configured},
    exit::{Exit, Failure},
    worker::args::ProcessorArgs,
};
use anyhow::{Context as _, anyhow};
use damocles_core::pool::{ProcessorPool, Task as _, TaskKind};
use damocles_seal::{
    pool::{CommandSpec, Limits, LocalPool, PoolSpec, SlotSpec},
    processor::{self, ServeOptions, Served},
    task::Probe,
};
use std::{path::Path, sync::Arc};

/// This program. Not its path: that may name a newer build by the time a child starts, and all parts of one daemon must
/// be of one build.
pub(crate) const OWN: &str = "/proc/self/exe";

/// A pool with these slots, whose tasks have a limited time each. A slot without a program of its own runs this one.
///
/// # Errors
///
/// A slot cannot be had as it is configured.
pub fn pool(slots: &[Configured], processors: &Processors) -> Result<Arc<dyn ProcessorPool>, Failure> {
    let time = slots.iter().map(|slot| (slot.kind.task_kind(), processors.limitation.timeout_of(slot.kind))).collect();
    let own = Path::new(OWN);
    let slots = slots.iter().map(|slot| spec_of(slot, own)).collect::<Result<_, _>>()?;
    let mut spec = PoolSpec::new(slots);
    let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
    spec.limits = Limits {
        concurrent: processors.limitation.concurrent.iter().map(|(k, n)| (k.task_kind(), count(*n))).collect(),
        staggered: processors.limitation.staggered.iter().map(|(k, gap)| (k.task_kind(), gap.0)).collect(),
        time,
        ext_locks: processors.ext_locks.iter().map(|(name, n)| (name.clone(), count(*n))).collect(),
    };
    Ok(Arc::new(LocalPool::new(spec).context("set up processors")?))
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

/// Says which setting this version cannot honour: a slot that is not as it was asked for does not start.
fn refuse(slot: &Configured) -> Result<(), Failure> {
    let (key, instead) = if slot.numa_preferred.is_some() {
        ("numa_preferred", "bind the slot to the CPUs of that node with `cgroup.cpuset`")
    } else if slot.concurrent.get() > 1 {
        ("concurrent", "write one [[processors.<stage>]] entry for each task that may run at a time")
    } else if slot.group_name.is_some() {
        ("cgroup.group_name", "remove it: `cgroup.cpuset` alone binds the child")
    } else if !slot.auto_restart {
        ("auto_restart", "remove it: a child that died is started again with the next task")
    } else {
        return Ok(());
    };
    let error = anyhow!("slot `{}`: this version cannot honour `{key}`", slot.name);
    Err(Failure::new(Exit::Usage, error).hint(instead))
}

fn spec_of(slot: &Configured, own: &Path) -> Result<SlotSpec, Failure> {
    refuse(slot)?;
    let program = slot.bin.clone().unwrap_or_else(|| own.to_owned());
    let mut command = CommandSpec::new(program, slot.args.clone());
    command.envs.clone_from(&slot.envs);
    command.inherit_envs = slot.inherit_envs;
    let mut spec = SlotSpec::new(slot.name.clone(), vec![slot.kind.task_kind()], command);
    spec.stable_wait = slot.stable_wait;
    spec.locks.clone_from(&slot.locks);
    spec.placement.cpus.clone_from(&slot.cpuset);
    Ok(spec)
}

/// What the hidden command `processor <kind>` of both programs does.
///
/// # Errors
///
/// The kind is unknown or the protocol breaks.
pub fn serve(args: ProcessorArgs) -> Result<(), Failure> {
    let mut options = ServeOptions::default();
    options.kinds = Some(vec![TaskKind::read(args.kind)]);
    options.turn_lock = args.turn_lock;
    match processor::serve(processor::all(), &options).context("serve tasks")? {
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
mod tests {
    use super::*;
    use crate::config::{ManagerConfig, Source};

    fn refused(slot: &str) -> String {
        let text = format!("[chain]\nendpoint = \"http://h:1\"\n[[processors.window_post]]\n{slot}\n");
        let config = ManagerConfig::parse(&Source::of("manager.toml", text)).unwrap();
        let failure = pool(&config.slots(), &config.processors).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        failure.error.to_string()
    }

    #[tokio::test]
    async fn what_cannot_be_honoured_is_refused() {
        for (slot, key) in [
            ("numa_preferred = 0", "numa_preferred"),
            ("concurrent = 2", "concurrent"),
            ("auto_restart = false", "auto_restart"),
            ("cgroup = { cpuset = \"0\", group_name = \"vc-worker\" }", "cgroup.group_name"),
        ] {
            let error = refused(slot);
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }
}
