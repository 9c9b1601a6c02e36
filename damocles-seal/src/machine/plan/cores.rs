//! Dividing the cores between PC1 and all other stages.

use super::PlanOptions;
use crate::machine::{
    Machine,
    figures::{Figures, Step},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The usable CPUs of one core.
pub(super) type CoreCpus = BTreeSet<u16>;

/// The usable cores of one memory node.
#[derive(Clone, Debug, Default)]
struct NodeCores {
    node: Option<u16>,
    /// The cores of each level 3 cache. A core of which no CPU may be used is an empty set: it keeps its place, because multicore SDR
    /// counts it.
    groups: Vec<Vec<CoreCpus>>,
}

impl NodeCores {
    fn usable(&self) -> impl Iterator<Item = &CoreCpus> {
        self.groups.iter().flatten().filter(|core| !core.is_empty())
    }

    /// Whole units of so many cores of one cache.
    fn units(&self, of: usize) -> Vec<&[CoreCpus]> {
        let whole = |unit: &&[CoreCpus]| unit.iter().all(|core| !core.is_empty());
        self.groups.iter().flat_map(|group| group.chunks_exact(of)).filter(whole).collect()
    }
}

/// The cores of a machine.
#[derive(Debug)]
pub(super) struct Cores {
    nodes: Vec<NodeCores>,
    multicore: bool,
    kept: usize,
}

/// One child that does PC1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pc1Share {
    pub(super) node: Option<u16>,
    pub(super) cpus: BTreeSet<u16>,
    pub(super) concurrent: u32,
}

/// Cores that no PC1 has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RestCore {
    pub(super) node: Option<u16>,
    pub(super) cpus: CoreCpus,
}

/// How the cores are divided.
#[derive(Clone, Debug)]
pub(super) struct Divided {
    /// Producers of each PC1 with multicore SDR.
    pub(super) producers: Option<u16>,
    pub(super) pc1: Vec<Pc1Share>,
    pub(super) rest: Vec<RestCore>,
}

impl Divided {
    /// PC1 at a time.
    pub(super) fn pc1(&self) -> u32 {
        self.pc1.iter().map(|share| share.concurrent).sum()
    }

    /// How long a PC1 takes.
    pub(super) fn pc1_time(&self, figures: &Figures) -> Duration {
        match self.producers {
            Some(3..) => figures.pc1_with_producers,
            _ => figures.cost(Step::Pc1).time,
        }
    }
}

impl Cores {
    pub(super) fn of(machine: &Machine, options: &PlanOptions) -> Self {
        let usable = machine.usable_cpus();
        let mut nodes: BTreeMap<Option<u16>, NodeCores> = BTreeMap::new();
        for group in machine.core_groups() {
            let cores = group.cores.iter().map(|core| core.cpus.iter().filter(|cpu| usable.contains(cpu)).collect());
            let node = nodes.entry(group.node).or_insert_with(|| NodeCores { node: group.node, groups: Vec::new() });
            node.groups.push(cores.collect());
        }
        let nodes: Vec<NodeCores> = nodes.into_values().filter(|node| node.usable().next().is_some()).collect();
        let count: usize = nodes.iter().map(|node| node.usable().count()).sum();
        let gpus = options.gpus && machine.gpus.len() > options.post_gpus;
        let multicore = options.multicore_sdr && !machine.cpu.l3.is_empty() && machine.caches_are_even();
        Self { nodes, multicore, kept: kept(count, gpus) }
    }

    pub(super) fn count(&self) -> usize {
        self.nodes.iter().map(|node| node.usable().count()).sum()
    }

    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Divides the cores for at most so many PC1, and at most so many on each node; `None` if there is no core.
    pub(super) fn divide(&self, most: u32, of_nodes: &BTreeMap<u16, u32>) -> Option<Divided> {
        if self.nodes.is_empty() {
            return None;
        }
        let sizes = if self.multicore { self.unit_sizes() } else { Vec::new() };
        let with_units = sizes.into_iter().map(|size| self.in_units(size, most, of_nodes)).find(|d| !d.pc1.is_empty());
        Some(with_units.unwrap_or_else(|| self.in_pairs(most, of_nodes)))
    }

    /// Sizes of units from the best on: the one that uses most cores of a cache, of two the larger; then smaller ones, for machines
    /// on which the best leaves nothing for other stages.
    fn unit_sizes(&self) -> Vec<usize> {
        let group = self.nodes.iter().flat_map(|node| &node.groups).map(Vec::len).max().unwrap_or(0);
        let best = if group < 4 {
            group
        } else if group / 3 * 3 > group / 4 * 4 {
            3
        } else {
            4
        };
        (2..=best).rev().collect()
    }

    fn in_units(&self, size: usize, most: u32, of_nodes: &BTreeMap<u16, u32>) -> Divided {
        let units: Vec<Vec<&[CoreCpus]>> = self.nodes.iter().map(|node| node.units(size)).collect();
        let budget = self.count().saturating_sub(self.kept);
        let taken = self.in_turn(most, of_nodes, |node, count, total| {
            let there = units.get(node).map_or(0, Vec::len);
            count < there && (total + 1).saturating_mul(size) <= budget
        });
        let mut pc1 = Vec::new();
        for ((node, units), count) in self.nodes.iter().zip(&units).zip(&taken) {
            for unit in units.iter().take(*count) {
                let cpus = unit.iter().flatten().copied().collect();
                pc1.push(Pc1Share { node: node.node, cpus, concurrent: 1 });
            }
        }
        let producers = u16::try_from(size.saturating_sub(1)).ok();
        Divided { producers, rest: self.rest(&pc1), pc1 }
    }

    /// Three cores for two PC1: one that is alone has two cores, if there are two.
    fn in_pairs(&self, most: u32, of_nodes: &BTreeMap<u16, u32>) -> Divided {
        let need = |count: usize| count.saturating_mul(3).div_ceil(2);
        // The last core of all does PC1 too: a machine with one core has to take turns anyway.
        let budget = self.count().saturating_sub(self.kept).max(1);
        let single = budget == 1;
        let there: Vec<usize> = self.nodes.iter().map(|node| node.usable().count()).collect();
        let mut used = vec![0usize; self.nodes.len()];
        let taken = self.in_turn(most, of_nodes, |node, count, _| {
            let alone = single || (count == 0 && there.get(node) == Some(&1));
            let next = if alone { count + 1 } else { need(count + 1) };
            let others: usize = used.iter().enumerate().filter(|(i, _)| *i != node).map(|(_, n)| n).sum();
            let fits = next <= there.get(node).copied().unwrap_or(0) && others + next <= budget;
            if let Some(used) = used.get_mut(node).filter(|_| fits) {
                *used = next;
            }
            fits
        });
        let mut pc1 = Vec::new();
        for (node, count) in self.nodes.iter().zip(taken) {
            let mut cores = node.usable();
            let mut left = count;
            while left > 0 {
                let (concurrent, width) = if left > 1 { (2, 3) } else { (1, if single { 1 } else { 2 }) };
                let cpus = cores.by_ref().take(width).flatten().copied().collect();
                pc1.push(Pc1Share { node: node.node, cpus, concurrent });
                left -= left.min(2);
            }
        }
        Divided { producers: None, rest: self.rest(&pc1), pc1 }
    }

    /// Gives the nodes one PC1 after the other, in turn, as long as `fits(node, its count, count of all)`.
    fn in_turn(
        &self,
        most: u32,
        of_nodes: &BTreeMap<u16, u32>,
        mut fits: impl FnMut(usize, usize, usize) -> bool,
    ) -> Vec<usize> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut taken = vec![0usize; self.nodes.len()];
        loop {
            let before: usize = taken.iter().sum();
            for (i, node) in self.nodes.iter().enumerate() {
                let total: usize = taken.iter().sum();
                let memory = node.node.and_then(|id| of_nodes.get(&id)).copied().unwrap_or(u32::MAX);
                let Some(count) = taken.get_mut(i) else { continue };
                let allowed = total < most && *count < usize::try_from(memory).unwrap_or(usize::MAX);
                if allowed && fits(i, *count, total) {
                    *count += 1;
                }
            }
            if taken.iter().sum::<usize>() == before {
                return taken;
            }
        }
    }

    fn rest(&self, pc1: &[Pc1Share]) -> Vec<RestCore> {
        let taken: BTreeSet<u16> = pc1.iter().flat_map(|share| share.cpus.iter().copied()).collect();
        let of = |node: &NodeCores| {
            let free = node.usable().filter(|core| core.is_disjoint(&taken));
            free.map(|core| RestCore { node: node.node, cpus: core.clone() }).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }
}

/// Cores that PC1 is not given. Operators with GPUs keep a quarter to a third of 16 or 32 cores and an eighth of 96 for the stages
/// that follow and for the system; without GPUs these stages run on the CPUs alone.
fn kept(count: usize, gpus: bool) -> usize {
    match count {
        0 | 1 => 0,
        2..=32 if gpus => count.div_ceil(4),
        _ if gpus => count.div_ceil(8).max(8),
        _ => count.div_ceil(2).min(count - 1),
    }
}
