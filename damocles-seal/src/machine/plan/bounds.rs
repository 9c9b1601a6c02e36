//! What each rule allows.

use super::{
    Bound, PlanOptions, PlannedSlot, Rule, Shortage,
    cores::{Cores, Divided},
    places::Room,
    ways::{Draft, Turns},
};
use crate::machine::{
    Gpu, Machine,
    figures::{Figures, Step},
    legal::{SlotClaim, at_once},
    size::gib,
};
use damocles_core::ByteSize;
use std::{collections::BTreeMap, time::Duration};

/// More sealing threads than this for each PC1 would only hold disk space: it is twice what the times of the table ask for.
const MOST_SECTORS_A_PC1: u32 = 4;

/// Two PC1 that start together end together, and then wait for the same PC2.
const LONGEST_STAGGER: Duration = Duration::from_secs(30 * 60);

/// How many whole times `part` goes into `all`.
fn times(all: u64, part: u64) -> u32 {
    all.checked_div(part).map_or(u32::MAX, |times| u32::try_from(times).unwrap_or(u32::MAX))
}

/// What there is of memory, and what must be left of it.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) there: Option<ByteSize>,
    /// PC1 for each node with CPUs.
    pub(super) of_nodes: BTreeMap<u16, u32>,
    cache: ByteSize,
    pc1: ByteSize,
    /// What is to be left beside the parent cache and PC1, if more is taken than the other stages need.
    reserve: ByteSize,
}

impl Memory {
    pub(super) fn of(machine: &Machine, figures: &Figures, options: &PlanOptions) -> Result<Self, Shortage> {
        let (cache, pc1) = (figures.parent_cache, figures.cost(Step::Pc1).memory);
        let there = machine.usable_memory();
        let with_cache = |step: Step| if step == Step::Pc1 { cache.0.saturating_add(pc1.0) } else { 0 };
        let least = Step::ALL.into_iter().map(|step| figures.cost(step).memory.0.max(with_cache(step))).max();
        let needed = ByteSize(least.unwrap_or_default());
        if let Some(there) = there.filter(|there| *there < needed) {
            return Err(Shortage::Memory { needed, there });
        }
        let of_nodes = machine.nodes.iter().filter_map(|node| Some((node.id, times(node.memory?.0, pc1.0)))).collect();
        Ok(Self { there, of_nodes, cache, pc1, reserve: options.reserve.unwrap_or_default() })
    }

    /// PC1 that memory would hold if nothing ran beside them.
    pub(super) fn at_most(&self) -> u32 {
        let left = |there: ByteSize| there.0.saturating_sub(self.cache.0).saturating_sub(self.reserve.0);
        self.there.map_or(u32::MAX, |there| times(left(there), self.pc1.0))
    }

    /// What these slots take at a time, with what is to be left beside PC1.
    pub(super) fn needed(&self, slots: &[PlannedSlot]) -> ByteSize {
        let (pc1, _) = apart(slots);
        let reserved = at_once(pc1, self.cache).saturating_add(self.reserve.0);
        ByteSize(reserved.max(at_once(slots.iter().map(|slot| &slot.claim), self.cache)))
    }

    pub(super) fn holds(&self, slots: &[PlannedSlot]) -> bool {
        self.there.is_none_or(|there| self.needed(slots) <= there)
    }

    /// The PC1 that it allows beside what else these slots do at a time.
    pub(super) fn bound(&self, slots: &[PlannedSlot], turns: Turns) -> Bound {
        let bound = |allows, why| Bound { rule: Rule::Memory, allows, why, decides: false };
        let Some(there) = self.there else { return bound(None, "the machine's memory is not known".to_owned()) };
        let all = gib(there.0);
        if turns == Turns::All {
            let needed = gib(self.needed(slots).0);
            return bound(Some(1), format!("the stages in turn need {needed} of {all}; nothing fits beside a PC1"));
        }
        let (_, others) = apart(slots);
        let beside = at_once(others, ByteSize(0)).max(self.reserve.0);
        let allows = times(there.0.saturating_sub(self.cache.0).saturating_sub(beside), self.pc1.0);
        let (cache, beside, each) = (gib(self.cache.0), gib(beside), gib(self.pc1.0));
        let why = format!("({all} - {cache} parent cache - {beside} for the other stages) / {each} a PC1 = {allows}");
        bound(Some(allows), why)
    }

    /// What an operator should know of it.
    pub(super) fn notes(&self, slots: &[PlannedSlot], options: &PlanOptions) -> Vec<String> {
        let mut notes = Vec::new();
        if self.there.is_none() {
            notes.push("the record tells no memory: nothing is known about whether all this fits into it".to_owned());
        }
        let (_, others) = apart(slots);
        let needed = at_once(others, ByteSize(0));
        if let Some(reserve) = options.reserve.filter(|reserve| reserve.0 < needed) {
            notes.push(format!(
                "{} were to be left beside PC1, and the other stages take {} at a time: that is left",
                gib(reserve.0),
                gib(needed)
            ));
        }
        notes
    }
}

/// What PC1 claims, and what all others claim.
fn apart(slots: &[PlannedSlot]) -> (Vec<&SlotClaim>, Vec<&SlotClaim>) {
    slots.iter().map(|slot| &slot.claim).partition(|claim| claim.kind.as_str() == Step::Pc1.name())
}

pub(super) fn disk(room: &Room<'_>, figures: &Figures) -> Bound {
    let allows = room.sectors();
    let why = match allows {
        Some(sectors) => format!("{} a sector on its way: {sectors} on {}", gib(figures.scratch.0), room.described()),
        None => "no space is known of any local disk".to_owned(),
    };
    Bound { rule: Rule::Disk, allows, why, decides: false }
}

pub(super) fn cpu(cores: &Cores, divided: &Divided, of_nodes: &BTreeMap<u16, u32>) -> Bound {
    let most = cores.divide(u32::MAX, of_nodes).map_or(1, |all| all.pc1());
    let each = match divided.producers {
        Some(producers) => format!("{} cores of one L3 cache a PC1", producers + 1),
        None => "three cores for two PC1".to_owned(),
    };
    let why = format!("{} cores, {} kept for other stages, {each}: {most}", cores.count(), cores.kept());
    Bound { rule: Rule::Cpu, allows: Some(most), why, decides: false }
}

/// The cards that sealing may use, and those that it may not.
#[derive(Clone, Debug)]
pub(super) struct Cards<'m> {
    pub(super) used: Vec<&'m Gpu>,
    pub(super) left: Vec<&'m Gpu>,
    pub(super) why_left: Option<String>,
}

impl Cards<'_> {
    /// The same with so many in use at most.
    pub(super) fn limited(&self, most: usize) -> Self {
        let mut limited = self.clone();
        let unused = limited.used.split_off(most.min(limited.used.len()));
        limited.left.extend(unused);
        limited
    }
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

pub(super) fn gpu(cards: &Cards<'_>, figures: &Figures, pc1: Duration, turns: Turns) -> Bound {
    let seconds = |step: Step| figures.cost(step).time.as_secs();
    let tree_d = if turns == Turns::Apart { 0 } else { seconds(Step::TreeD) };
    let (c2, pc2) = (seconds(Step::C2), seconds(Step::Pc2).saturating_add(tree_d));
    let both = c2.saturating_add(pc2);
    let follows = |cards: usize, seconds: u64| {
        let follows = pc1.as_secs().saturating_mul(u64::try_from(cards).unwrap_or(u64::MAX));
        times(follows, seconds).max(1)
    };
    let stages = if tree_d > 0 { "C2, PC2 and tree D" } else { "C2 and PC2" };
    let (allows, why) = match cards.used.len() {
        0 => (None, "no GPU: PC2 and C2 run on CPUs, whose speed no figure tells; measure them".to_owned()),
        1 => {
            let allows = follows(1, both);
            let why = format!(
                "one GPU does {stages} in turn, {} min a sector, and follows {allows} PC1 of {} min",
                both / 60,
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
pub(super) fn sectors(figures: &Figures, draft: &Draft, room: &Room<'_>) -> (u32, String) {
    let (pc1, time) = (draft.pc1(), draft.divided.pc1_time(figures));
    let way = figures.way().saturating_sub(figures.cost(Step::Pc1).time).saturating_add(time);
    // Where all stages take turns, the next PC1 waits for the others of its sector too, and for nothing else.
    let (transfer, seed) = (figures.cost(Step::Transfer).time, figures.cost(Step::WaitSeed).time);
    let (between, of) = match draft.way.turns {
        Turns::All => (way.saturating_sub(transfer).saturating_sub(seed), "of all stages in turn"),
        Turns::Apart | Turns::Trees => (time, "of PC1"),
    };
    let wanted = u128::from(pc1) * way.as_millis();
    let wanted = u32::try_from(wanted.div_ceil(between.as_millis().max(1))).unwrap_or(u32::MAX);
    let cap = pc1.saturating_mul(MOST_SECTORS_A_PC1);
    let (sectors, mut why) = if wanted > cap {
        (cap, format!("{MOST_SECTORS_A_PC1} for each PC1: more would only hold disk space"))
    } else {
        let minutes = |time: Duration| time.as_secs() / 60;
        let why = format!("{pc1} PC1 x {} min from start to proof / {} min {of}", minutes(way), minutes(between));
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
