//! What each rule allows.

use super::{
    Bound, PlanOptions, Rule, Shortage,
    cores::{Cores, Divided},
    places::Room,
};
use crate::machine::{
    Gpu, Machine,
    figures::{Figures, Step},
    size::gib,
};
use damocles_core::ByteSize;
use std::{collections::BTreeMap, time::Duration};

/// More sealing threads than this for each PC1 would only hold disk space: it is twice what the times of the table ask for.
const MOST_SECTORS_A_PC1: u32 = 4;

/// Two PC1 that start together end together, and then wait for the same PC2.
const LONGEST_STAGGER: Duration = Duration::from_secs(30 * 60);

/// What memory allows.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) bound: Bound,
    /// PC1 for each node with CPUs.
    pub(super) of_nodes: BTreeMap<u16, u32>,
    /// Whether stages may not even overlap.
    pub(super) one_by_one: bool,
    pub(super) notes: Vec<String>,
}

impl Memory {
    pub(super) fn at_most(&self) -> u32 {
        self.bound.allows.unwrap_or(u32::MAX)
    }
}

/// How many whole times `part` goes into `all`.
fn times(all: u64, part: u64) -> u32 {
    all.checked_div(part).map_or(u32::MAX, |times| u32::try_from(times).unwrap_or(u32::MAX))
}

pub(super) fn memory(machine: &Machine, figures: &Figures, options: &PlanOptions) -> Result<Memory, Shortage> {
    let pc1 = figures.cost(Step::Pc1).memory;
    let cache = figures.parent_cache;
    let of_nodes = machine.nodes.iter().filter_map(|node| Some((node.id, times(node.memory?.0, pc1.0)))).collect();
    let reserve = options.reserve.unwrap_or(figures.cost(Step::Pc2).memory.max(figures.cost(Step::TreeD).memory));
    let mut notes = Vec::new();
    let Some(there) = machine.usable_memory() else {
        notes.push("the record tells no memory: nothing is known about whether all this fits into it".to_owned());
        let why = "the machine's memory is not known".to_owned();
        let bound = Bound { rule: Rule::Memory, allows: None, why, decides: false };
        return Ok(Memory { bound, of_nodes, one_by_one: false, notes });
    };
    let left = there.0.saturating_sub(cache.0);
    if left < pc1.0 {
        return Err(Shortage::Memory { needed: ByteSize(cache.0.saturating_add(pc1.0)), there });
    }
    let beside = times(left.saturating_sub(reserve.0), pc1.0);
    let one_by_one = beside == 0;
    let allows = beside.max(1);
    let (all, shared, each) = (gib(there.0), gib(cache.0), gib(pc1.0));
    let why = if one_by_one {
        notes.push(
            "memory holds one PC1 and nothing beside it: one sealing thread, so that no two stages run at a time"
                .to_owned(),
        );
        format!("({all} - {shared} parent cache) / {each} = 1, with nothing left for other stages")
    } else {
        let reserve = gib(reserve.0);
        format!("({all} - {shared} parent cache - {reserve} for the other stages) / {each} a PC1 = {allows}")
    };
    let c2 = figures.cost(Step::C2).memory;
    let kept = cache.0.saturating_add(pc1.0.saturating_mul(u64::from(allows)));
    if there.0 < kept.saturating_add(c2.0) {
        notes.push(format!(
            "operators reserve {} for C2: watch memory while all PC1 and a C2 run, or plan with a greater reserve",
            gib(c2.0)
        ));
    }
    let bound = Bound { rule: Rule::Memory, allows: Some(allows), why, decides: false };
    Ok(Memory { bound, of_nodes, one_by_one, notes })
}

pub(super) fn disk(room: &Room<'_>, figures: &Figures) -> Bound {
    let allows = room.sectors();
    let why = match allows {
        Some(sectors) => format!("{} a sector on its way: {sectors} on {}", gib(figures.scratch.0), room.described()),
        None => "no space is known of any local disk".to_owned(),
    };
    Bound { rule: Rule::Disk, allows, why, decides: false }
}

pub(super) fn cpu(cores: &Cores, divided: &Divided, figures: &Figures, of_nodes: &BTreeMap<u16, u32>) -> Bound {
    let most = cores.divide(figures, u32::MAX, of_nodes).map_or(1, |all| all.pc1());
    let each = match divided.producers {
        Some(producers) => format!("{} cores of one L3 cache a PC1", producers + 1),
        None => "three cores for two PC1".to_owned(),
    };
    let why = format!("{} cores, {} kept for other stages, {each}: {most}", cores.count(), cores.kept());
    Bound { rule: Rule::Cpu, allows: Some(most), why, decides: false }
}

/// The cards that sealing may use, and those that it may not.
#[derive(Debug)]
pub(super) struct Cards<'m> {
    pub(super) used: Vec<&'m Gpu>,
    pub(super) left: Vec<&'m Gpu>,
    pub(super) why_left: Option<String>,
}

pub(super) fn cards<'m>(machine: &'m Machine, options: &PlanOptions) -> Cards<'m> {
    let all: Vec<&Gpu> = machine.gpus.iter().collect();
    if !options.gpus {
        let why = format!("{} GPUs are there, and the program is planned without support for them", all.len());
        return Cards { used: Vec::new(), why_left: (!all.is_empty()).then_some(why), left: all };
    }
    let (left, used) = all.split_at(options.post_gpus.min(all.len()));
    Cards { used: used.to_vec(), left: left.to_vec(), why_left: None }
}

/// Cards for C2 and for PC2: of all ways to divide them the one that lets most sectors through, C2 first.
pub(super) fn shares(cards: usize, figures: &Figures) -> (usize, usize) {
    let (c2, pc2) = (figures.cost(Step::C2).time.as_secs().max(1), figures.cost(Step::Pc2).time.as_secs().max(1));
    let rate = |for_c2: usize| {
        let per_day =
            |cards: usize, seconds: u64| u64::try_from(cards).unwrap_or(u64::MAX).saturating_mul(86_400) / seconds;
        per_day(for_c2, c2).min(per_day(cards - for_c2, pc2))
    };
    let for_c2 = (1..cards).max_by_key(|n| (rate(*n), *n)).unwrap_or(cards);
    (for_c2, cards - for_c2)
}

pub(super) fn gpu(cards: &Cards<'_>, figures: &Figures, pc1: Duration) -> Bound {
    let (c2, pc2) = (figures.cost(Step::C2).time.as_secs(), figures.cost(Step::Pc2).time.as_secs());
    let follows = |cards: usize, seconds: u64| {
        let follows = pc1.as_secs().saturating_mul(u64::try_from(cards).unwrap_or(u64::MAX));
        times(follows, seconds).max(1)
    };
    let (allows, why) = match cards.used.len() {
        0 => (None, "no GPU: PC2 and C2 run on CPUs, whose speed no figure tells; measure them".to_owned()),
        1 => {
            let allows = follows(1, c2 + pc2);
            let why = format!(
                "one GPU does C2 and PC2 in turn, {} min a sector, and follows {allows} PC1 of {} min",
                (c2 + pc2) / 60,
                pc1.as_secs() / 60
            );
            (Some(allows), why)
        }
        n => {
            let (for_c2, for_pc2) = shares(n, figures);
            let allows = follows(for_c2, c2).min(follows(for_pc2, pc2));
            let why = format!(
                "{for_c2} of {n} GPUs for C2 and {for_pc2} for PC2 follow {allows} PC1 of {} min",
                pc1.as_secs() / 60
            );
            (Some(allows), why)
        }
    };
    Bound { rule: Rule::Gpu, allows, why, decides: false }
}

/// How many sectors are on their way when all PC1 are busy, and why.
pub(super) fn sectors(figures: &Figures, pc1: u32, time: Duration, memory: &Memory, room: &Room<'_>) -> (u32, String) {
    if memory.one_by_one {
        return (1, "one, because memory does not let two stages run at a time".to_owned());
    }
    let way = figures.way().saturating_sub(figures.cost(Step::Pc1).time).saturating_add(time);
    let wanted = u128::from(pc1) * way.as_millis();
    let wanted = u32::try_from(wanted.div_ceil(time.as_millis().max(1))).unwrap_or(u32::MAX);
    let cap = pc1.saturating_mul(MOST_SECTORS_A_PC1);
    let (sectors, mut why) = if wanted > cap {
        (cap, format!("{MOST_SECTORS_A_PC1} for each PC1: more would only hold disk space"))
    } else {
        let minutes = |time: Duration| time.as_secs() / 60;
        let why = format!("{pc1} PC1 x {} min from start to proof / {} min of PC1", minutes(way), minutes(time));
        (wanted.max(pc1), why)
    };
    match room.sectors() {
        Some(most) if most < sectors => {
            why = format!("disks hold {most}; {sectors} would keep all PC1 busy ({why})");
            (most.max(1), why)
        }
        _ => (sectors, why),
    }
}

/// The gap that spreads PC1 over the time of one.
pub(super) fn stagger(pc1: u32, time: Duration) -> Option<Duration> {
    let gap = time.checked_div(pc1)?.min(LONGEST_STAGGER);
    let gap = Duration::from_secs(gap.as_secs());
    (pc1 > 1 && !gap.is_zero()).then_some(gap)
}
