//! What a pool is made of, as data.

use super::TalkSpec;
use crate::placement::IsolationSpec;
use damocles_core::{ByteSize, CpuSet, GpuId, NodeSet, pool::TaskKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

/// A pool of child processes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolSpec {
    /// The slots.
    pub slots: Vec<SlotSpec>,
    /// How much of each kind may run at a time, whatever the slots.
    pub limits: Limits,
    /// The most jobs at a time, of all kinds together.
    pub at_once: Option<usize>,
    /// The order of the stages that a sector goes through.
    pub plan: Vec<TaskKind>,
    /// By a stage of the plan, how many sectors may be between its start and the end of a later one.
    pub backlog: BTreeMap<TaskKind, Backlog>,
    /// How long a child that was asked to stop has for it.
    pub grace: Duration,
    /// How long the end of a child that was killed is waited for. One that the kernel does not let die is left alone
    /// then; its slot stays taken until it is gone.
    pub last_wait: Duration,
    /// How long a slot rests after its child has failed; doubled with every failure in a row, up to 64 times this.
    pub rest: Duration,
    /// When a slot rests for longer than that.
    pub breaker: Breaker,
    /// Whether a proof of spacetime takes a GPU from a running C2 or PC2 when no other slot serves. That is stopped, and
    /// waits again; the hours of a PC1 are never thrown away.
    pub preempt: bool,
    /// What the children are bound with.
    pub isolation: IsolationSpec,
}

/// How many sectors a later stage may have ahead of it.
///
/// A sector counts from its start of the earlier stage to its end of the later one, whether it works or waits. There
/// may be as many as the later stage has slots in service, and `most` more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The later stage.
    pub next: TaskKind,
    /// How many there may be beyond those that its slots take.
    pub most: usize,
}

/// When a slot whose child fails again and again is left alone for long. After that it gets one job as a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// How many failures in a row it takes; at least 1.
    pub failures: u32,
    /// For how long.
    pub rest: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, rest: Duration::from_secs(600) }
    }
}

/// The stages of a sector in their order, for a pool that is not told another one.
const PLAN: [TaskKind; 7] = [
    TaskKind::new("add_pieces"),
    TaskKind::new("tree_d"),
    TaskKind::new("pc1"),
    TaskKind::new("pc2"),
    TaskKind::new("c1"),
    TaskKind::new("c2"),
    TaskKind::new("transfer"),
];

impl PoolSpec {
    /// A pool of these slots without limits.
    pub fn new(slots: Vec<SlotSpec>) -> Self {
        Self {
            slots,
            limits: Limits::default(),
            at_once: None,
            plan: PLAN.to_vec(),
            backlog: BTreeMap::new(),
            grace: Duration::from_secs(10),
            last_wait: Duration::from_secs(5),
            rest: Duration::from_secs(1),
            breaker: Breaker::default(),
            preempt: true,
            isolation: IsolationSpec::default(),
        }
    }

    /// Checks what no single slot can know.
    ///
    /// # Errors
    ///
    /// The first thing that does not fit together.
    pub fn check(&self) -> Result<(), SpecError> {
        let mut names = BTreeSet::new();
        for slot in &self.slots {
            let name = || slot.name.clone();
            if slot.concurrent == 0 {
                return Err(SpecError::Zero { what: name() });
            }
            if let Some(twice) = slot.places().map(|place| place.name).find(|name| !names.insert(name.clone())) {
                return Err(SpecError::Twice { slot: twice });
            }
            if slot.kinds.is_empty() {
                return Err(SpecError::NoKind { slot: name() });
            }
        }
        self.limits.check(&self.slots)?;
        for (what, zero) in [("at_once", self.at_once == Some(0)), ("breaker.failures", self.breaker.failures == 0)] {
            if zero {
                return Err(SpecError::Zero { what: what.to_owned() });
            }
        }
        self.backlog.iter().try_for_each(|(kind, backlog)| self.check_backlog(kind, backlog))
    }

    fn check_backlog(&self, kind: &TaskKind, backlog: &Backlog) -> Result<(), SpecError> {
        let next = &backlog.next;
        let place = |stage: &TaskKind| self.plan.iter().position(|planned| planned == stage);
        if !matches!((place(kind), place(next)), (Some(from), Some(to)) if from < to) {
            return Err(SpecError::Backwards { kind: kind.clone(), next: next.clone() });
        }
        if !self.slots.iter().any(|slot| slot.kinds.contains(next)) {
            return Err(SpecError::NoNext { kind: kind.clone(), next: next.clone() });
        }
        Ok(())
    }

    /// What the slots come to: each place with the number of its slot.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, SlotSpec)> + '_ {
        self.slots.iter().enumerate().flat_map(|(number, slot)| slot.places().map(move |place| (number, place)))
    }
}

/// A child, or some of one make, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotSpec {
    /// Its name, unique in the pool, e.g. `pc1-0`.
    pub name: String,
    /// The kinds of job that it takes.
    pub kinds: Vec<TaskKind>,
    /// How to start it.
    pub command: CommandSpec,
    /// How long it may take to say that it is ready.
    pub stable_wait: Duration,
    /// How many children it has, each with a job of its own. They share its GPUs. More than one are told apart by a
    /// number after the name, e.g. `pc1-0.1`.
    pub concurrent: usize,
    /// Whether a child that failed is started again by itself. One that is not waits for [`super::LocalPool::resume`].
    pub auto_restart: bool,
    /// Locks of [`Limits::ext_locks`] that each of its jobs holds.
    pub locks: Vec<String>,
    /// What it is bound to.
    pub placement: PlacementSpec,
    /// How it is spoken with.
    pub protocol: Protocol,
    /// What is expected of the talk with it.
    pub talk: TalkSpec,
}

/// What a child is bound to. What is not named is not bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlacementSpec {
    /// The CPUs that it runs on.
    pub cpus: Option<CpuSet>,
    /// The memory nodes that it allocates from.
    pub mems: Option<NodeSet>,
    /// The most memory that it and all it starts may take together. Needs a control group.
    pub memory: Option<ByteSize>,
    /// Its share of contended CPUs, from 1 to 10,000; the kernel's default is 100. Needs a control group.
    pub cpu_weight: Option<u16>,
    /// Whether nobody else on this machine, who claims CPUs too, has these CPUs while it has a job.
    pub exclusive_cpus: bool,
    /// The GPUs that it sees, and that nobody else uses while it has a job.
    pub gpus: Vec<GpuId>,
}

/// How a pool and a child speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// Frames, see [`super::wire`].
    #[default]
    V2,
    /// Lines, as processors made for damocles 0.13 speak.
    V1,
}

impl SlotSpec {
    /// A slot that is bound to nothing and has 30 seconds to become ready.
    pub fn new(name: impl Into<String>, kinds: Vec<TaskKind>, command: CommandSpec) -> Self {
        let stable_wait = Duration::from_secs(30);
        Self {
            name: name.into(),
            kinds,
            command,
            stable_wait,
            concurrent: 1,
            auto_restart: true,
            locks: Vec::new(),
            placement: PlacementSpec::default(),
            protocol: Protocol::V2,
            talk: TalkSpec::default(),
        }
    }

    /// One slot for each of its children.
    fn places(&self) -> impl Iterator<Item = Self> + '_ {
        (0..self.concurrent).map(|number| {
            let name = if self.concurrent == 1 { self.name.clone() } else { format!("{}.{number}", self.name) };
            Self { name, concurrent: 1, ..self.clone() }
        })
    }
}

/// A program and how to start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSpec {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables that it gets.
    pub envs: BTreeMap<String, String>,
    /// Whether it also gets the variables of this process; those in `envs` win.
    pub inherit_envs: bool,
}

impl CommandSpec {
    /// A program that inherits the environment.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { program: program.into(), args, envs: BTreeMap::new(), inherit_envs: true }
    }

    pub(super) fn to_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        if !self.inherit_envs {
            command.env_clear();
        }
        command.args(&self.args).envs(&self.envs);
        command
    }
}

/// How much may run at a time, whatever the slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most jobs of a kind at a time.
    pub concurrent: BTreeMap<TaskKind, usize>,
    /// The least time between two starts of a kind.
    pub staggered: BTreeMap<TaskKind, Duration>,
    /// How long a job of a kind may have its slot. One that takes longer is stopped and fails; waiting for a slot does
    /// not count.
    pub time: BTreeMap<TaskKind, Duration>,
    /// How many slots may hold a lock at a time, e.g. one GPU shared by two kinds.
    pub ext_locks: BTreeMap<String, usize>,
}

impl Limits {
    /// Whether these slots can work under them.
    pub(super) fn check(&self, slots: &[SlotSpec]) -> Result<(), SpecError> {
        let locks = slots.iter().flat_map(|slot| slot.locks.iter().map(move |lock| (slot, lock)));
        if let Some((slot, lock)) = locks.into_iter().find(|(_, lock)| !self.ext_locks.contains_key(*lock)) {
            return Err(SpecError::UnknownLock { slot: slot.name.clone(), lock: lock.clone() });
        }
        let locks = self.ext_locks.iter().map(|(lock, n)| (lock.clone(), *n));
        let kinds = self.concurrent.iter().map(|(kind, n)| (kind.to_string(), *n));
        match locks.chain(kinds).find(|(_, n)| *n == 0) {
            Some((what, _)) => Err(SpecError::Zero { what }),
            None => Ok(()),
        }
    }
}

/// Something in a [`PoolSpec`] that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Two slots of one name.
    #[error("two slots are named `{slot}`")]
    Twice {
        /// The name.
        slot: String,
    },
    /// A slot for nothing.
    #[error("slot `{slot}` takes no kind of job")]
    NoKind {
        /// The slot.
        slot: String,
    },
    /// A lock that is not declared.
    #[error("slot `{slot}` holds the lock `{lock}`, which is not declared")]
    UnknownLock {
        /// The slot.
        slot: String,
        /// The lock.
        lock: String,
    },
    /// A backlog between stages that do not follow each other.
    #[error("the backlog of `{kind}` ends with `{next}`, which does not come after it in the plan")]
    Backwards {
        /// The earlier stage.
        kind: TaskKind,
        /// What is to be the later one.
        next: TaskKind,
    },
    /// A backlog that never empties.
    #[error("the backlog of `{kind}` ends with `{next}`, which has no slot here: it would never end")]
    NoNext {
        /// The earlier stage.
        kind: TaskKind,
        /// The later one.
        next: TaskKind,
    },
    /// A limit that lets nothing run.
    #[error("the limit of `{what}` is zero: nothing would ever run")]
    Zero {
        /// The kind or lock.
        what: String,
    },
}
