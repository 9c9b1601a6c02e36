//! What a machine should be made to seal: how many sectors at a time, and which CPUs, memory nodes, GPUs and disks each stage gets.
//!
//! The order of the rules is that of operators: memory first, then disk, then CPUs, then GPUs. Each rule says how many PC1 it allows,
//! and the least decides. [`plan`] is pure; what it returns breaks no rule of [`super::legal`].

mod bounds;
mod cores;
mod layout;
mod places;

use super::{
    Machine,
    figures::Figures,
    legal::{Claims, SlotClaim, StoreClaim},
    size::gib,
};
use damocles_core::{ByteSize, GpuId};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

pub use places::Place;

/// What the machine's record does not tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOptions {
    /// Whether the program that will do PC1 has multicore SDR.
    pub multicore_sdr: bool,
    /// Whether the program that will do PC2 and C2 can use GPUs.
    pub gpus: bool,
    /// GPUs that are left for WindowPoSt, first of all.
    pub post_gpus: usize,
    /// Memory that is left for everything but the parent cache and PC1; that of one PC2 or tree D if it is absent.
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
    #[error("not one sector fits: PC1 needs {} of memory, parent cache included, and the machine has {}", gib(needed.0), gib(there.0))]
    Memory {
        /// Parent cache and one PC1.
        needed: ByteSize,
        /// What programs can have.
        there: ByteSize,
    },
    /// No memory node that holds one PC1.
    #[error("not one sector fits: PC1 needs {} of one memory node, and the greatest has {}", gib(needed.0), gib(there.0))]
    Node {
        /// One PC1.
        needed: ByteSize,
        /// The greatest node that has CPUs.
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
}

impl Shortage {
    /// What an operator can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Memory { needed, there } => {
                let short = gib(needed.0.saturating_sub(there.0));
                format!("add {short} of memory, raise the limit of the control group, or plan for smaller sectors")
            }
            Self::Node { .. } => "add memory to a node, or let the firmware interleave the nodes".to_owned(),
            Self::Disk { at: Some(at), .. } => {
                format!("free space at {}, or mount a larger disk, NVMe if possible", at.display())
            }
            Self::Disk { at: None, .. } => "mount a local disk that can be written to, NVMe if possible".to_owned(),
            Self::Cpu => "make the record anew on that machine, with sysfs mounted".to_owned(),
        }
    }
}

/// Plans for a machine.
///
/// # Errors
///
/// Not even one sector fits.
pub fn plan(machine: &Machine, figures: &Figures, options: &PlanOptions) -> Result<Plan, Shortage> {
    let memory = bounds::memory(machine, figures, options)?;
    let room = places::room(machine, figures)?;
    let disk = bounds::disk(&room, figures);
    let cores = cores::Cores::of(machine, options);
    let divided = cores.divide(figures, memory.at_most(), &memory.of_nodes).ok_or(Shortage::Cpu)?;
    if divided.pc1() == 0 {
        let there = machine.nodes.iter().filter_map(|node| node.memory).max().unwrap_or_default();
        return Err(Shortage::Node { needed: figures.cost(super::figures::Step::Pc1).memory, there });
    }
    let cpu = bounds::cpu(&cores, &divided, figures, &memory.of_nodes);
    let cards = bounds::cards(machine, options);
    let gpu = bounds::gpu(&cards, figures, divided.pc1_time(figures));
    let mut all = vec![memory.bound.clone(), disk, cpu, gpu];
    let pc1 = all.iter().filter_map(|bound| bound.allows).min().unwrap_or(1).min(divided.pc1()).max(1);
    for bound in &mut all {
        bound.decides = bound.allows == Some(pc1);
    }
    let divided = cores.divide(figures, pc1, &memory.of_nodes).ok_or(Shortage::Cpu)?;
    let (sectors, sectors_why) = bounds::sectors(figures, divided.pc1(), divided.pc1_time(figures), &memory, &room);
    let layout = layout::layout(machine, figures, &divided, &cards);
    let pc1 = divided.pc1();
    let mut notes = memory.notes;
    notes.extend(room.notes.iter().cloned());
    notes.extend(layout.notes);
    Ok(Plan {
        figures: figures.clone(),
        pc1,
        sectors,
        sectors_why,
        bounds: all,
        threads: room.threads(sectors),
        persist: room.persist.clone(),
        slots: layout.slots,
        locks: layout.locks,
        stagger: bounds::stagger(pc1, divided.pc1_time(figures)),
        free_gpus: layout.free_gpus,
        notes,
    })
}
