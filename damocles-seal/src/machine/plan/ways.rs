//! Ways to share memory and cards: which stages take turns, how many cards work at a time, whether slots stay near their memory.
//!
//! Nothing that is planned takes more memory at a time than there is. What takes turns leaves memory to more PC1, and what runs apart
//! follows more of them: the way that lets most PC1 run is taken, of equal ones the one with fewest turns.

use super::{
    Bound, Shortage,
    bounds::{self, Cards, Memory},
    cores::{Cores, Divided},
    layout::{self, Layout},
    near,
    places::Room,
};
use crate::machine::{
    Machine,
    figures::{Figures, Step},
};
use std::collections::BTreeMap;

/// Which stages take turns beside those that share a card or a few cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turns {
    /// None.
    Apart,
    /// Tree D and the trees and proofs of the replica.
    Trees,
    /// Everything that takes much memory.
    All,
}

/// A way to share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) turns: Turns,
    /// Cards that work at a time.
    pub(super) cards: usize,
    /// Whether slots are bound to the memory nodes of their CPUs.
    pub(super) near: bool,
}

/// What every way has in common.
#[derive(Debug)]
pub(super) struct Site<'s> {
    pub(super) machine: &'s Machine,
    pub(super) figures: &'s Figures,
    pub(super) memory: &'s Memory,
    pub(super) room: &'s Room<'s>,
    pub(super) cores: &'s Cores,
    pub(super) cards: &'s Cards<'s>,
}

/// What comes of one way.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) way: Way,
    pub(super) divided: Divided,
    pub(super) layout: Layout,
    /// In the order of the rules.
    pub(super) bounds: Vec<Bound>,
}

impl Draft {
    pub(super) fn pc1(&self) -> u32 {
        self.divided.pc1()
    }
}

/// All ways with something beside PC1, from the best of equal ones on.
fn ways(cards: usize) -> Vec<Way> {
    let mut ways = Vec::new();
    for near in [true, false] {
        for cards in (cards.min(1)..=cards).rev() {
            ways.extend([Turns::Apart, Turns::Trees].map(|turns| Way { turns, cards, near }));
        }
    }
    ways
}

impl Site<'_> {
    pub(super) fn best(&self) -> Result<Draft, Shortage> {
        let mut best: Option<Draft> = None;
        for way in ways(self.cards.used.len()) {
            let so_far = best.as_ref().map_or(0, Draft::pc1);
            best = self.draft(way, so_far).or(best);
        }
        match best {
            Some(best) => Ok(best),
            None => self.in_turn(),
        }
    }

    /// What an operator should know of the way that was taken.
    pub(super) fn notes(&self, draft: &Draft) -> Vec<String> {
        let (way, cards) = (draft.way, self.cards.used.len());
        let mut notes = Vec::new();
        match way.turns {
            Turns::Apart => {}
            Turns::Trees => {
                notes.push("tree D takes turns with other trees and proofs: memory holds more PC1 so".to_owned())
            }
            Turns::All => notes.push("memory holds one PC1 and nothing beside it: all stages take turns".to_owned()),
        }
        if way.cards < cards {
            notes.push(format!(
                "{} of {cards} GPUs at work: memory holds more PC1 beside fewer proofs, and the other cards are free",
                way.cards
            ));
        }
        if !way.near {
            notes.push(near::why_far(self.machine, self.figures.cost(Step::Pc1).memory));
        }
        notes
    }

    /// One PC1, and nothing beside it.
    fn in_turn(&self) -> Result<Draft, Shortage> {
        let cards = self.cards.used.len().min(1);
        let ways = [true, false].map(|near| Way { turns: Turns::All, cards, near });
        if let Some(draft) = ways.into_iter().find_map(|way| self.draft(way, 0)) {
            return Ok(draft);
        }
        let one = self.cores.divide(1, &BTreeMap::new()).ok_or(Shortage::Cpu)?;
        let [_, far] = ways;
        let layout = layout::layout(self, &one, &self.cards.limited(cards), far);
        let needed = self.memory.needed(&layout.slots);
        Err(Shortage::Memory { needed, there: self.memory.there.unwrap_or_default() })
    }

    /// As many PC1 as this way lets run, if that is more than `so_far`.
    fn draft(&self, way: Way, so_far: u32) -> Option<Draft> {
        let anywhere = BTreeMap::new();
        let of_nodes = if way.near { &self.memory.of_nodes } else { &anywhere };
        let at_most = if way.turns == Turns::All { 1 } else { self.memory.at_most() };
        let widest = self.cores.divide(at_most, of_nodes)?;
        let cards = self.cards.limited(way.cards);
        let gpu = bounds::gpu(&cards, self.figures, widest.pc1_time(self.figures), way.turns);
        let disk = bounds::disk(self.room, self.figures);
        let mut most = disk.allows.into_iter().chain(gpu.allows).fold(widest.pc1(), u32::min);
        let mut crowded = false;
        while most > so_far {
            let divided = self.cores.divide(most, of_nodes)?;
            if divided.pc1() <= so_far {
                break;
            }
            let layout = layout::layout(self, &divided, &cards, way);
            if self.memory.holds(&layout.slots) {
                let mut memory = self.memory.bound(&layout.slots, way.turns);
                // Beside more PC1 more proofs have to be made at a time: what that takes is not in the arithmetic of so many.
                if crowded && memory.allows > Some(divided.pc1()) {
                    memory.allows = Some(divided.pc1());
                    memory.why.push_str("; more of them need more C2 and PC2 at a time, which do not fit");
                }
                let cpu = bounds::cpu(self.cores, &divided, of_nodes);
                return Some(Draft { way, divided, layout, bounds: vec![memory, disk, cpu, gpu] });
            }
            most = divided.pc1() - 1;
            crowded = true;
        }
        None
    }
}
