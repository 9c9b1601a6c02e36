//! Slots: which child has which CPUs and which card.

use super::{
    PlannedSlot,
    bounds::{Cards, shares},
    cores::{Divided, Pc1Share, RestCore},
};
use crate::machine::{
    Gpu, Machine, cpu_set,
    figures::{Figures, Step},
    legal::SlotClaim,
};
use damocles_core::{CpuSet, GpuId, pool::TaskKind};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that runs, and what it runs on.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) slots: Vec<PlannedSlot>,
    pub(super) locks: Vec<String>,
    pub(super) free_gpus: Vec<GpuId>,
    pub(super) notes: Vec<String>,
}

/// With fewer cores than this beside PC1, all other stages take turns on them.
const LEAST_APART: usize = 4;

pub(super) fn layout(machine: &Machine, figures: &Figures, divided: &Divided, cards: &Cards<'_>) -> Layout {
    let mut layout = Layout {
        free_gpus: cards.left.iter().map(|gpu| gpu.uuid.clone()).collect(),
        notes: cards.why_left.iter().cloned().collect(),
        ..Layout::default()
    };
    let alone = divided.rest.is_empty();
    for (i, share) in divided.pc1.iter().enumerate() {
        layout.slots.push(pc1(machine, figures, divided, share, (i, alone)));
    }
    if alone {
        layout.notes.push("one core only: no stage has CPUs of its own".to_owned());
        others_in_turn(&mut layout, machine, None, cards);
    } else if divided.rest.len() < LEAST_APART {
        others_in_turn(&mut layout, machine, Some(&divided.rest), cards);
    } else {
        others_apart(&mut layout, machine, figures, divided, cards);
    }
    layout
}

/// The node that all these cores are near to, if it has memory.
fn node_of<'r>(machine: &Machine, nodes: impl IntoIterator<Item = &'r Option<u16>>) -> Option<u16> {
    let nodes: BTreeSet<&Option<u16>> = nodes.into_iter().collect();
    let only = nodes.first().copied().copied().flatten().filter(|_| nodes.len() == 1)?;
    machine.node(only).filter(|node| node.memory.is_none_or(|memory| memory.0 > 0)).map(|node| node.id)
}

fn kind(step: Step) -> TaskKind {
    TaskKind::new(step.name())
}

fn pc1(
    machine: &Machine,
    figures: &Figures,
    divided: &Divided,
    share: &Pc1Share,
    (index, alone): (usize, bool),
) -> PlannedSlot {
    let mut claim = SlotClaim::new(format!("pc1-{index}"), kind(Step::Pc1));
    claim.concurrent = share.concurrent;
    claim.task_memory = Some(figures.cost(Step::Pc1).memory);
    claim.multicore_sdr = divided.producers;
    if !alone {
        claim.cpus = cpu_set(share.cpus.iter().copied());
        claim.exclusive = true;
        claim.mems = node_of(machine, [&share.node]).and_then(|node| node.to_string().parse().ok());
    }
    let mut envs = BTreeMap::from([("FIL_PROOFS_MAXIMIZE_CACHING".to_owned(), "1".to_owned())]);
    let why = match divided.producers {
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

/// A slot for a stage other than PC1 on these cores; on any CPU without.
fn other(machine: &Machine, name: String, step: Step, cores: Option<&[RestCore]>, lock: Option<&str>) -> SlotClaim {
    let mut claim = SlotClaim::new(name, kind(step));
    if let Some(cores) = cores {
        claim.cpus = cpus(cores);
        claim.exclusive = true;
        claim.mems = node_of(machine, cores.iter().map(|core| &core.node)).and_then(|n| n.to_string().parse().ok());
    }
    claim.locks = lock.map(str::to_owned).into_iter().collect();
    claim
}

fn cpus(cores: &[RestCore]) -> Option<CpuSet> {
    cpu_set(cores.iter().flat_map(|core| core.cpus.iter().copied()))
}

/// Variables of a child that makes proofs or trees.
fn proving(step: Step, gpu: Option<&Gpu>, cores: usize) -> BTreeMap<String, String> {
    let mut envs = BTreeMap::new();
    let mut set = |name: &str, value: String| envs.insert(name.to_owned(), value);
    match gpu {
        Some(gpu) => {
            set("CUDA_VISIBLE_DEVICES", gpu.uuid.to_string());
            if step == Step::Pc2 {
                set("FIL_PROOFS_USE_GPU_COLUMN_BUILDER", "1".to_owned());
                set("FIL_PROOFS_USE_GPU_TREE_BUILDER", "1".to_owned());
            }
        }
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

fn others_in_turn(layout: &mut Layout, machine: &Machine, cores: Option<&[RestCore]>, cards: &Cards<'_>) {
    let lock = "rest";
    layout.locks.push(lock.to_owned());
    let (card, unused) = cards.used.split_first().map_or((None, [].as_slice()), |(card, unused)| (Some(*card), unused));
    for step in OTHERS {
        let claim = other(machine, format!("{step}-0"), step, cores, Some(lock));
        let heavy = matches!(step, Step::Pc2 | Step::C2);
        let (gpu, threads) = (card.filter(|_| heavy), cores.map_or(0, <[RestCore]>::len));
        let envs = if heavy { proving(step, gpu, threads) } else { BTreeMap::new() };
        let claim = with_gpu(claim, gpu);
        let why = "too few cores to keep these stages apart: they take turns".to_owned();
        layout.slots.push(PlannedSlot { claim, envs, why });
    }
    layout.free_gpus.extend(unused.iter().map(|gpu| gpu.uuid.clone()));
}

fn with_gpu(mut claim: SlotClaim, gpu: Option<&Gpu>) -> SlotClaim {
    claim.gpus = gpu.iter().map(|gpu| gpu.uuid.to_string()).collect();
    claim
}

fn others_apart(layout: &mut Layout, machine: &Machine, figures: &Figures, divided: &Divided, cards: &Cards<'_>) {
    // The last core does what must go on whatever else runs; a few do what prepares a sector; most do the proofs.
    let rest = divided.rest.as_slice();
    let (heavy, house) = rest.split_at(rest.len() - 1);
    let (heavy, prepare) = heavy.split_at(heavy.len() - rest.len().div_ceil(8));
    layout.locks.push("prepare".to_owned());
    for step in [Step::AddPieces, Step::TreeD, Step::C1] {
        let claim = other(machine, format!("{step}-0"), step, Some(prepare), Some("prepare"));
        let why = "short stages take turns, so that none of them slows a PC1".to_owned();
        layout.slots.push(PlannedSlot { claim, envs: BTreeMap::new(), why });
    }
    let claim = other(machine, "transfer-0".to_owned(), Step::Transfer, Some(house), None);
    let why = "copying waits for disks: one core, apart from all that computes".to_owned();
    layout.slots.push(PlannedSlot { claim, envs: BTreeMap::new(), why });
    proofs(layout, machine, figures, divided, (heavy, cards));
}

/// PC2 and C2: in turn on one card or on none, else each card with CPUs of its own.
fn proofs(
    layout: &mut Layout,
    machine: &Machine,
    figures: &Figures,
    divided: &Divided,
    (cores, cards): (&[RestCore], &Cards<'_>),
) {
    if cards.used.len() < 2 || cores.len() < 2 {
        let (card, unused) = cards.used.split_first().map_or((None, [].as_slice()), |(card, rest)| (Some(*card), rest));
        layout.free_gpus.extend(unused.iter().map(|gpu| gpu.uuid.clone()));
        let lock = if card.is_some() { "gpu0" } else { "proofs" };
        layout.locks.push(lock.to_owned());
        for step in [Step::Pc2, Step::C2] {
            let claim = with_gpu(other(machine, format!("{step}-0"), step, Some(cores), Some(lock)), card);
            let why = match card {
                Some(_) => "PC2 and C2 share one card and its CPUs by a lock".to_owned(),
                None => "no card: PC2 and C2 take turns on these CPUs".to_owned(),
            };
            layout.slots.push(PlannedSlot { claim, envs: proving(step, card, cores.len()), why });
        }
        return;
    }
    let needed = |step: Step| {
        let pc1 = divided.pc1_time(figures).as_millis().max(1);
        let needed = (u128::from(divided.pc1()) * figures.cost(step).time.as_millis()).div_ceil(pc1);
        usize::try_from(needed).unwrap_or(usize::MAX).max(1)
    };
    let (for_c2, for_pc2) = shares(cards.used.len(), figures);
    let c2 = for_c2.min(needed(Step::C2)).min(cores.len() - 1);
    let pc2 = for_pc2.min(needed(Step::Pc2)).min(cores.len() - c2);
    let (used, unused) = cards.used.split_at(c2 + pc2);
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
        let claim = with_gpu(other(machine, format!("{step}-{number}"), step, Some(&mine), None), Some(gpu));
        *number += 1;
        let why = format!("a card of its own, and {} cores, near to it where there are any", mine.len());
        layout.slots.push(PlannedSlot { claim, envs: proving(step, Some(gpu), mine.len()), why });
    }
}
