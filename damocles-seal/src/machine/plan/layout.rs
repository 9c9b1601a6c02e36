//! Slots: which child has which CPUs and which card.

use super::{
    PlannedSlot,
    bounds::{Cards, shares},
    cores::{Divided, Pc1Share, RestCore},
    near,
    ways::{Site, Turns, Way},
};
use crate::machine::{
    Gpu, Machine, cpu_set,
    figures::{Figures, Step},
    legal::SlotClaim,
};
use damocles_core::{GpuId, pool::TaskKind};
use std::collections::BTreeMap;

/// Everything that runs, and what it runs on.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) slots: Vec<PlannedSlot>,
    pub(super) free_gpus: Vec<GpuId>,
    pub(super) notes: Vec<String>,
}

/// With fewer cores than this beside PC1, all other stages take turns on them.
const LEAST_APART: usize = 4;

/// Held by whatever takes much memory where memory holds no two of these.
const MEMORY: &str = "memory";
/// Held by tree D and a PC2, where memory does not hold both.
const TREES: &str = "trees";

/// What slots are laid out with.
struct Plot<'p> {
    machine: &'p Machine,
    figures: &'p Figures,
    divided: &'p Divided,
    cards: &'p Cards<'p>,
    way: Way,
}

pub(super) fn layout(site: &Site<'_>, divided: &Divided, cards: &Cards<'_>, way: Way) -> Layout {
    let plot = Plot { machine: site.machine, figures: site.figures, divided, cards, way };
    let mut layout = Layout {
        free_gpus: cards.left.iter().map(|gpu| gpu.uuid.clone()).collect(),
        notes: cards.why_left.iter().cloned().collect(),
        ..Layout::default()
    };
    let alone = divided.rest.is_empty();
    layout.slots.extend(divided.pc1.iter().enumerate().map(|(i, share)| plot.pc1(i, share, alone)));
    if alone {
        layout.notes.push("one core only: no stage has CPUs of its own".to_owned());
        plot.in_turn(&mut layout, None);
    } else if divided.rest.len() < LEAST_APART {
        plot.in_turn(&mut layout, Some(&divided.rest));
    } else {
        plot.apart(&mut layout);
    }
    layout.notes.extend(near::release(site.machine, &mut layout.slots, site.figures.parent_cache));
    layout
}

fn kind(step: Step) -> TaskKind {
    TaskKind::new(step.name())
}

impl Plot<'_> {
    /// A slot for one task at a time on these cores; on any CPU without.
    fn claim(&self, step: Step, number: usize, cores: Option<&[RestCore]>) -> SlotClaim {
        let mut claim = SlotClaim::new(format!("{step}-{number}"), kind(step));
        claim.task_memory = Some(self.figures.cost(step).memory);
        if let Some(cores) = cores {
            claim.cpus = cpu_set(cores.iter().flat_map(|core| core.cpus.iter().copied()));
            claim.exclusive = true;
            let nodes = || near::nodes(self.machine, cores.iter().map(|core| core.node));
            claim.mems = self.way.near.then(nodes).flatten();
        }
        // Copying takes next to no memory, and goes on whatever else runs.
        if self.way.turns == Turns::All && step != Step::Transfer {
            claim.locks.push(MEMORY.to_owned());
        }
        claim
    }

    fn pc1(&self, index: usize, share: &Pc1Share, alone: bool) -> PlannedSlot {
        let cores = [RestCore { node: share.node, cpus: share.cpus.clone() }];
        let mut claim = self.claim(Step::Pc1, index, (!alone).then_some(&cores));
        claim.concurrent = share.concurrent;
        claim.multicore_sdr = self.divided.producers;
        let mut envs = BTreeMap::from([("FIL_PROOFS_MAXIMIZE_CACHING".to_owned(), "1".to_owned())]);
        let why = match self.divided.producers {
            Some(producers) => {
                envs.insert("FIL_PROOFS_USE_MULTICORE_SDR".to_owned(), "1".to_owned());
                envs.insert("FIL_PROOFS_MULTICORE_SDR_PRODUCERS".to_owned(), producers.to_string());
                format!("one SDR group: {} cores that share an L3 cache, {producers} of them producers", producers + 1)
            }
            None => {
                envs.insert("FIL_PROOFS_USE_MULTICORE_SDR".to_owned(), "0".to_owned());
                "without multicore SDR a PC1 keeps one and a half cores busy".to_owned()
            }
        };
        PlannedSlot { claim, envs, why }
    }

    /// A slot for a stage other than PC1 that holds these locks too.
    fn other(&self, step: Step, number: usize, cores: Option<&[RestCore]>, locks: &[&str]) -> SlotClaim {
        let mut claim = self.claim(step, number, cores);
        claim.locks.extend(locks.iter().map(|lock| (*lock).to_owned()));
        claim
    }
}

/// Variables of a child that makes proofs or trees.
fn proving(step: Step, gpu: Option<&Gpu>, cores: usize) -> BTreeMap<String, String> {
    let mut envs = BTreeMap::new();
    let mut set = |name: &str, value: String| envs.insert(name.to_owned(), value);
    match gpu {
        // Which card it sees follows from the card that the slot names.
        Some(_) if step == Step::Pc2 => {
            set("FIL_PROOFS_USE_GPU_COLUMN_BUILDER", "1".to_owned());
            set("FIL_PROOFS_USE_GPU_TREE_BUILDER", "1".to_owned());
        }
        Some(_) => {}
        None => {
            set("BELLMAN_NO_GPU", "1".to_owned());
        }
    }
    if cores > 0 {
        // The thread pool counts the CPUs of the machine otherwise.
        set("RAYON_NUM_THREADS", cores.to_string());
    }
    envs
}

const OTHERS: [Step; 6] = [Step::AddPieces, Step::TreeD, Step::Pc2, Step::C1, Step::C2, Step::Transfer];

fn with_gpu(mut claim: SlotClaim, gpu: Option<&Gpu>) -> SlotClaim {
    claim.gpus = gpu.iter().map(|gpu| gpu.uuid.to_string()).collect();
    claim
}

impl Plot<'_> {
    /// The first card, and those that stay free.
    fn first_card(&self, layout: &mut Layout) -> Option<&Gpu> {
        let (first, unused) = self.cards.used.split_first()?;
        layout.free_gpus.extend(unused.iter().map(|gpu| gpu.uuid.clone()));
        Some(*first)
    }

    fn in_turn(&self, layout: &mut Layout, cores: Option<&[RestCore]>) {
        let card = self.first_card(layout);
        for step in OTHERS {
            // Where everything takes turns anyway one lock is enough, and copying, which has no other cores, holds it too.
            let locks: &[&str] = match (self.way.turns, step) {
                (Turns::All, Step::Transfer) => &[MEMORY],
                (Turns::All, _) => &[],
                (Turns::Apart | Turns::Trees, _) => &["rest"],
            };
            let claim = self.other(step, 0, cores, locks);
            let heavy = matches!(step, Step::Pc2 | Step::C2);
            let (gpu, threads) = (card.filter(|_| heavy), cores.map_or(0, <[RestCore]>::len));
            let envs = if heavy { proving(step, gpu, threads) } else { BTreeMap::new() };
            let claim = with_gpu(claim, gpu);
            let why = "too few cores to keep these stages apart: they take turns".to_owned();
            layout.slots.push(PlannedSlot { claim, envs, why });
        }
    }

    fn apart(&self, layout: &mut Layout) {
        // The last core does what must go on whatever else runs; a few do what prepares a sector; most do the proofs.
        let rest = self.divided.rest.as_slice();
        let (heavy, house) = rest.split_at(rest.len() - 1);
        let (heavy, prepare) = heavy.split_at(heavy.len() - rest.len().div_ceil(8));
        let one_lock = (self.cards.used.len() < 2 || heavy.len() < 2).then_some(if self.cards.used.is_empty() {
            "proofs"
        } else {
            "gpu0"
        });
        for step in [Step::AddPieces, Step::TreeD, Step::C1] {
            let with_trees = step == Step::TreeD && self.way.turns == Turns::Trees;
            let trees = with_trees.then(|| one_lock.unwrap_or(TREES));
            let locks: Vec<&str> = ["prepare"].into_iter().chain(trees).collect();
            let claim = self.other(step, 0, Some(prepare), &locks);
            let why = match trees {
                Some(_) => "takes turns with what would not fit into memory beside it",
                None => "short stages take turns, so that none of them slows a PC1",
            };
            layout.slots.push(PlannedSlot { claim, envs: BTreeMap::new(), why: why.to_owned() });
        }
        let claim = self.other(Step::Transfer, 0, Some(house), &[]);
        let why = "copying waits for disks: one core, apart from all that computes".to_owned();
        layout.slots.push(PlannedSlot { claim, envs: BTreeMap::new(), why });
        match one_lock {
            Some(lock) => self.proofs_in_turn(layout, heavy, lock),
            None => self.proofs_apart(layout, heavy),
        }
    }

    /// PC2 and C2 in turn, on one card or on none.
    fn proofs_in_turn(&self, layout: &mut Layout, cores: &[RestCore], lock: &str) {
        let card = self.first_card(layout);
        for step in [Step::Pc2, Step::C2] {
            let claim = with_gpu(self.other(step, 0, Some(cores), &[lock]), card);
            let why = match card {
                Some(_) => "PC2 and C2 share one card and its CPUs by a lock".to_owned(),
                None => "no card: PC2 and C2 take turns on these CPUs".to_owned(),
            };
            layout.slots.push(PlannedSlot { claim, envs: proving(step, card, cores.len()), why });
        }
    }

    /// Each card with CPUs of its own.
    fn proofs_apart(&self, layout: &mut Layout, cores: &[RestCore]) {
        let needed = |step: Step| {
            let pc1 = self.divided.pc1_time(self.figures).as_millis().max(1);
            let needed = (u128::from(self.divided.pc1()) * self.figures.cost(step).time.as_millis()).div_ceil(pc1);
            usize::try_from(needed).unwrap_or(usize::MAX).max(1)
        };
        let (for_c2, for_pc2) = shares(self.cards.used.len(), self.figures);
        let c2 = for_c2.min(needed(Step::C2)).min(cores.len() - 1);
        let pc2 = for_pc2.min(needed(Step::Pc2)).min(cores.len() - c2);
        let (used, unused) = self.cards.used.split_at(c2 + pc2);
        layout.free_gpus.extend(unused.iter().map(|gpu| gpu.uuid.clone()));
        let steps = std::iter::repeat_n(Step::C2, c2).chain(std::iter::repeat_n(Step::Pc2, pc2));
        // Operators give C2 three times the CPUs of PC2.
        let weight = |step: Step| if step == Step::C2 { 3 } else { 1 };
        let mut weights = 3 * c2 + pc2;
        let mut numbers: BTreeMap<Step, usize> = BTreeMap::new();
        let mut cores: Vec<&RestCore> = cores.iter().collect();
        for (left, (step, gpu)) in (1..=used.len()).rev().zip(steps.zip(used)) {
            // Those near to the card first.
            cores.sort_by_key(|core| core.node != gpu.node);
            let most = (cores.len() + 1).saturating_sub(left).max(1);
            let share = (cores.len() * weight(step) / weights.max(1)).clamp(1, most);
            // A few cores less are better than cores on two nodes.
            let near = cores.iter().filter(|core| core.node == gpu.node).count();
            let share = if near * 2 >= share { share.min(near).max(1) } else { share };
            weights = weights.saturating_sub(weight(step));
            let mine: Vec<RestCore> = cores.drain(..share.min(cores.len())).cloned().collect();
            let number = numbers.entry(step).or_default();
            let with_tree_d = self.way.turns == Turns::Trees && step == Step::Pc2 && *number == 0;
            let locks: &[&str] = if with_tree_d { &[TREES] } else { &[] };
            let claim = with_gpu(self.other(step, *number, Some(&mine), locks), Some(gpu));
            *number += 1;
            let why = format!("a card of its own, and {} cores, near to it where there are any", mine.len());
            layout.slots.push(PlannedSlot { claim, envs: proving(step, Some(gpu), mine.len()), why });
        }
    }
}
