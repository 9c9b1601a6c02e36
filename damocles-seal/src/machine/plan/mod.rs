//! What a machine should be made to seal: how many sectors at a time, and which CPUs, memory nodes, GPUs and disks each stage gets.
//!
//! The order of the rules is that of operators: memory first, then disk, then CPUs, then GPUs. Each rule says how many PC1 it allows,
//! and the least decides. What may run at a time beside PC1 is part of what memory has to hold. [`plan`] is pure; what it returns
//! breaks no rule of [`super::legal`].

mod bounds;
mod cores;
mod layout;
mod near;
mod places;
mod ways;

use super::{
    Machine,
    figures::Figures,
    legal::{Claims, SlotClaim, StoreClaim, Violation, check},
    size::gib,
};
use damocles_core::{ByteSize, GpuId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

pub use places::Place;

use bounds::Memory;
use cores::Cores;
use ways::{Draft, Site};

/// What the machine's record does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOptions {
    /// Whether the program that will do PC1 has multicore SDR.
    pub multicore_sdr: bool,
    /// Whether the program that will do PC2 and C2 can use GPUs.
    pub gpus: bool,
    /// GPUs that are left for WindowPoSt, first of all.
    pub post_gpus: usize,
    /// Memory that is left for everything but the parent cache and PC1, if that is more than the other stages take at a time.
    pub reserve: Option<ByteSize>,
}

/// A rule that bounds the number of PC1 at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Parent cache and working memory.
    Memory,
    /// Scratch space.
    Disk,
    /// Cores that share a cache.
    Cpu,
    /// Cards for the stages that follow.
    Gpu,
}

/// What one rule allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The rule.
    pub rule: Rule,
    /// The number of PC1 at a time; `None` if the rule does not bound it.
    pub allows: Option<u32>,
    /// The arithmetic.
    pub why: String,
    /// Whether this rule decided.
    pub decides: bool,
}

/// A slot, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSlot {
    /// What it claims of the machine.
    pub claim: SlotClaim,
    /// Variables of its child.
    pub envs: BTreeMap<String, String>,
    /// The reason.
    pub why: String,
}

/// What a machine should be made to seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The figures that it was made with.
    pub figures: Figures,
    /// PC1 at a time.
    pub pc1: u32,
    /// Sectors on their way at a time: sealing threads.
    pub sectors: u32,
    /// Why so many sectors.
    pub sectors_why: String,
    /// What each rule allows, in the order of the rules.
    pub bounds: Vec<Bound>,
    /// Where each sealing thread works; fewer than `sectors` places have a directory each.
    pub threads: Vec<Place>,
    /// Where finished sectors go.
    pub persist: Vec<Place>,
    /// The slots.
    pub slots: Vec<PlannedSlot>,
    /// Locks that one task at a time holds.
    pub locks: Vec<String>,
    /// The least time between two starts of PC1.
    pub stagger: Option<Duration>,
    /// GPUs that no slot uses.
    pub free_gpus: Vec<GpuId>,
    /// What else an operator should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// What it claims of the machine.
    pub fn claims(&self) -> Claims {
        let scratch = |place: &Place, name: String| StoreClaim {
            name,
            location: place.location.clone(),
            writable: true,
            on: place.device.clone(),
            space: Some(self.figures.scratch),
        };
        let threads = self.threads.iter().enumerate().filter(|(_, place)| place.is_known());
        Claims {
            slots: self.slots.iter().map(|slot| slot.claim.clone()).collect(),
            stores: threads.map(|(i, place)| scratch(place, format!("sealing_thread[{i}]"))).collect(),
            shared_memory: self.figures.parent_cache,
        }
    }
}

/// Why not even one sector fits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Too little memory.
    #[error("not one sector fits: its stages need {} of memory even in turn, and the machine has {}", gib(needed.0), gib(there.0))]
    Memory {
        /// What the stages of one sector take if no two of them run at a time, and what is to be left beside PC1.
        needed: ByteSize,
        /// What programs can have.
        there: ByteSize,
    },
    /// Too little scratch space.
    #[error(
        "not one sector fits: it needs {needed} of scratch space, and the most that is free on one disk is {there}"
    )]
    Disk {
        /// The scratch space of one sector.
        needed: ByteSize,
        /// The most that a local file system that can be written to has available.
        there: ByteSize,
        /// That file system.
        at: Option<PathBuf>,
    },
    /// No CPU at all.
    #[error("the record tells of no CPU that may be used")]
    Cpu,
    /// Facts of the record that do not go together: whatever is planned from some of them, others forbid.
    #[error("the record contradicts itself: {0}")]
    Contradiction(Box<Violation>),
}

impl Shortage {
    /// What an operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Memory { needed, there } => {
                let short = gib(needed.0.saturating_sub(there.0));
                format!(
                    "add {short} of memory, raise the limit of the control group, plan for smaller sectors, or plan with what stages \
                     were measured to take"
                )
            }
            Self::Disk { at: Some(at), .. } => {
                format!("free space at {}, or mount a larger disk, NVMe if possible", at.display())
            }
            Self::Disk { at: None, .. } => "mount a local disk that can be written to, NVMe if possible".to_owned(),
            Self::Cpu => "make the record anew on that machine, with sysfs mounted".to_owned(),
            Self::Contradiction(violation) => {
                format!("make the record anew on that machine, or correct it; as it is: {}", violation.remedy)
            }
        }
    }
}

/// Plans for a machine.
///
/// # Errors
///
/// Not even one sector fits, or the record contradicts itself.
pub fn plan(machine: &Machine, figures: &Figures, options: &PlanOptions) -> Result<Plan, Shortage> {
    let memory = Memory::of(machine, figures, options)?;
    let room = places::room(machine, figures)?;
    let cores = Cores::of(machine, options);
    let cards = bounds::cards(machine, options);
    let site = Site { machine, figures, memory: &memory, room: &room, cores: &cores, cards: &cards };
    let plan = of_draft(&site, site.best()?, options);
    // A record may be written by hand, or be read from files that do not go together.
    match check(machine, &plan.claims()).into_iter().next() {
        Some(violation) => Err(Shortage::Contradiction(Box::new(violation))),
        None => Ok(plan),
    }
}

fn of_draft(site: &Site<'_>, mut draft: Draft, options: &PlanOptions) -> Plan {
    let pc1 = draft.pc1();
    for bound in &mut draft.bounds {
        bound.decides = bound.allows == Some(pc1);
    }
    let (sectors, sectors_why) = bounds::sectors(site.figures, &draft, site.room);
    let mut notes = site.memory.notes(&draft.layout.slots, options);
    notes.extend(site.notes(&draft));
    notes.extend(site.room.notes.iter().cloned());
    notes.extend(draft.layout.notes);
    let locks: BTreeSet<String> = draft.layout.slots.iter().flat_map(|slot| slot.claim.locks.iter().cloned()).collect();
    Plan {
        figures: site.figures.clone(),
        pc1,
        sectors,
        sectors_why,
        threads: site.room.threads(sectors),
        persist: site.room.persist.clone(),
        locks: locks.into_iter().collect(),
        stagger: bounds::stagger(pc1, draft.divided.pc1_time(site.figures)),
        bounds: draft.bounds,
        slots: draft.layout.slots,
        free_gpus: draft.layout.free_gpus,
        notes,
    }
}
