//! Which sectors are between two stages of the plan.

use crate::pool::PoolSpec;
use damocles_core::{SectorId, pool::TaskKind};
use std::collections::BTreeMap;

/// The sections of a plan that take only so many sectors.
#[derive(Debug)]
pub(super) struct Sections {
    plan: Vec<TaskKind>,
    list: Vec<Section>,
}

/// From the start of one stage to the end of another.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) kind: TaskKind,
    pub(super) next: TaskKind,
    /// How many sectors may be in it beyond those that slots for `next` take.
    pub(super) most: usize,
    from: usize,
    to: usize,
    inside: BTreeMap<SectorId, Passage>,
}

/// How far a sector is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// In the first stage, which leaves nothing behind if it fails.
    First,
    /// Beyond it.
    Through,
}

impl Section {
    pub(super) fn sectors(&self) -> impl Iterator<Item = SectorId> + '_ {
        self.inside.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.inside.len()
    }
}

impl Sections {
    /// The sections of a pool. One whose stages are not in the plan, which [`PoolSpec::check`] refuses, is left out.
    pub(super) fn new(spec: &PoolSpec) -> Self {
        let place = |stage: &TaskKind| spec.plan.iter().position(|planned| planned == stage);
        let section = |(kind, backlog): (&TaskKind, &crate::pool::Backlog)| {
            Some(Section {
                kind: kind.clone(),
                next: backlog.next.clone(),
                most: backlog.most,
                from: place(kind)?,
                to: place(&backlog.next)?,
                inside: BTreeMap::new(),
            })
        };
        Self { list: spec.backlog.iter().filter_map(section).collect(), plan: spec.plan.clone() }
    }

    /// Other numbers for the sections that there are. Nobody who is in one has to leave it.
    pub(super) fn limit(&mut self, backlog: &BTreeMap<TaskKind, crate::pool::Backlog>) {
        for section in &mut self.list {
            if let Some(backlog) = backlog.get(&section.kind).filter(|backlog| backlog.next == section.next) {
                section.most = backlog.most;
            }
        }
    }

    /// The section that a job of this kind would bring a new sector into.
    ///
    /// None for a sector that is in it or in one that begins later: it makes room for others when it goes on.
    pub(super) fn entered_by(&self, kind: &TaskKind, sector: Option<SectorId>) -> Option<&Section> {
        let sector = sector?;
        let section = self.list.iter().find(|section| section.kind == *kind)?;
        let downstream = |other: &&Section| other.from >= section.from && other.inside.contains_key(&sector);
        (!self.list.iter().any(|other| downstream(&other))).then_some(section)
    }

    /// A job asks for a slot: that says where its sector is, also when an earlier process brought it there.
    pub(super) fn queued(&mut self, kind: &TaskKind, sector: Option<SectorId>) {
        let (Some(at), Some(sector)) = (self.plan.iter().position(|planned| planned == kind), sector) else { return };
        for section in &mut self.list {
            if section.from < at && at <= section.to {
                section.inside.insert(sector, Passage::Through);
            } else if section.to < at {
                section.inside.remove(&sector);
            }
        }
    }

    pub(super) fn granted(&mut self, kind: &TaskKind, sector: Option<SectorId>) {
        let Some(sector) = sector else { return };
        if let Some(section) = self.list.iter_mut().find(|section| section.kind == *kind) {
            section.inside.entry(sector).or_insert(Passage::First);
        }
    }

    pub(super) fn ended(&mut self, kind: &TaskKind, sector: Option<SectorId>, done: bool) {
        let Some(sector) = sector else { return };
        for section in &mut self.list {
            if section.kind == *kind {
                match section.inside.get_mut(&sector) {
                    Some(passage) if done => *passage = Passage::Through,
                    Some(Passage::First) => drop(section.inside.remove(&sector)),
                    // It has left for good while its job still ran.
                    _ => {}
                }
            }
            if section.next == *kind && done {
                section.inside.remove(&sector);
            }
        }
    }

    pub(super) fn forget(&mut self, sector: SectorId) {
        for section in &mut self.list {
            section.inside.remove(&sector);
        }
    }
}
