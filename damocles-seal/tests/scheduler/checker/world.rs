//! What a job could have as the world is, or would be.

use super::{Entitled, Eyes, Job, Judge, Now, PLAIN, Phase, Place, Rule, Section, Sure, stage, waits_for_its_kind};
use damocles_core::pool::TaskKind;

impl Judge<'_> {
    pub(super) fn healed(&self, place: &Place) -> bool {
        !place.stopped && place.rests_until <= self.time
    }

    pub(super) fn places_for(&self, kind: &str) -> usize {
        self.places.iter().filter(|place| place.kinds.contains(kind)).count()
    }

    /// Whether somebody uses a place.
    pub(super) fn used(&self, index: usize, eyes: Eyes) -> bool {
        match &self.places[index].now {
            Now::Free => false,
            Now::Held { job, phase: phase @ (Phase::Claiming | Phase::Recalled) } => {
                let told = !eyes.told || *phase == Phase::Recalled;
                job.order() < eyes.from || !told || eyes.but == Some(index)
            }
            Now::Held { .. } | Now::Ending => true,
        }
    }

    pub(super) fn fits(&self, job: &Job, index: usize, eyes: Eyes) -> Result<(), Rule> {
        let place = &self.places[index];
        let fits = place.kinds.contains(&job.kind) && job.memory <= place.memory && !self.used(index, eyes);
        if fits { Ok(()) } else { Err(Rule::Fit) }
    }

    pub(super) fn running(&self, eyes: Eyes) -> impl Iterator<Item = (&Job, Phase)> {
        self.places.iter().enumerate().filter(move |(index, _)| self.used(*index, eyes)).filter_map(|(_, place)| {
            match &place.now {
                Now::Held { job, phase } => Some((job, *phase)),
                _ => None,
            }
        })
    }

    pub(super) fn limits(&self, job: &Job, eyes: Eyes) -> Result<(), Rule> {
        let kind = TaskKind::read(job.kind.clone());
        let of_kind = || self.running(eyes).filter(|(other, _)| other.kind == job.kind);
        if self.spec.at_once.is_some_and(|most| self.running(eyes).count() >= most)
            || self.spec.limits.concurrent.get(&kind).is_some_and(|most| of_kind().count() >= *most)
        {
            return Err(Rule::Limit);
        }
        if self.apart(job) { Ok(()) } else { Err(Rule::Stagger) }
    }

    /// Whether a start of this kind would be far enough from others. One that waits for another program does not start.
    pub(super) fn apart(&self, job: &Job) -> bool {
        let Some(gap) = self.spec.limits.staggered.get(&TaskKind::read(job.kind.clone())) else { return true };
        let early = self.begun.get(&job.kind).is_some_and(|last| self.time - last < gap.as_secs());
        let starts = |(other, phase): (&Job, Phase)| other.kind == job.kind && phase == Phase::Starting;
        !early && !self.running(PLAIN).any(starts)
    }

    /// Whether what comes after it in the plan can follow.
    pub(super) fn has_way(&self, job: &Job) -> bool {
        let Some(sector) = job.sector else { return true };
        let Some(section) = self.sections.iter().find(|section| section.first == job.kind) else { return true };
        let in_service = |place: &&Place| {
            place.kinds.contains(&section.last) && !place.stopped && !(place.open && place.rests_until > self.time)
        };
        let inside = |other: &Section| stage(&other.first) >= stage(&job.kind) && other.inside.contains_key(&sector);
        self.sections.iter().any(inside)
            || section.inside.len() < section.most + self.places.iter().filter(in_service).count()
    }

    /// Whether a place is all that a job waits for, and there is one that will be free some day soon.
    pub(super) fn may_ever_go(&self, job: &Job) -> bool {
        let fitting = self.places.iter().filter(|p| p.kinds.contains(&job.kind) && job.memory <= p.memory);
        let out = |place: &Place| {
            matches!(place.now, Now::Free) && (place.stopped || place.open && place.rests_until > self.time)
        };
        self.has_way(job) && !fitting.into_iter().all(out)
    }

    /// Whether a place has its locks and its GPUs.
    pub(super) fn free_of_others(&self, index: usize, eyes: Eyes) -> Result<(), Rule> {
        let place = &self.places[index];
        let users = || (0..self.places.len()).filter(|other| self.used(*other, eyes)).map(|other| &self.places[other]);
        for lock in &place.locks {
            let most = self.spec.limits.ext_locks.get(lock).copied().unwrap_or(1);
            if users().filter(|other| other.locks.contains(lock)).count() >= most {
                return Err(Rule::Lock);
            }
        }
        let others = || users().filter(|other| other.slot != place.slot);
        if others().any(|other| !other.gpus.is_disjoint(&place.gpus)) {
            return Err(Rule::Gpu);
        }
        Ok(())
    }

    /// Whether somebody ahead of this place in line waits for a GPU that the place's own slot keeps in use.
    pub(super) fn is_promised(&self, job: &Job, index: usize, sure: Sure, eyes: Eyes, entitled: &[Entitled]) -> bool {
        let place = &self.places[index];
        let mine = |other: usize| self.places[other].slot == place.slot && self.used(other, eyes);
        if !(0..self.places.len()).any(mine) {
            return false;
        }
        let ahead = |other: &&Job| {
            let waits = sure == Sure::Yes && waits_for_its_kind(other, entitled);
            other.order() < job.order() && !waits && self.is_next(other, PLAIN)
        };
        self.line.iter().filter(ahead).any(|other| {
            let ways: Vec<bool> = (0..self.places.len())
                .filter(|way| self.fits(other, *way, PLAIN).is_ok() && self.healed(&self.places[*way]))
                .filter(|way| self.free_of_others(*way, PLAIN) == Err(Rule::Gpu))
                .map(|way| self.places[way].slot != place.slot && !self.places[way].gpus.is_disjoint(&place.gpus))
                .collect();
            match sure {
                Sure::Yes => !ways.is_empty() && ways.iter().all(|way| *way),
                Sure::Perhaps => ways.contains(&true),
            }
        })
    }

    /// Whether nothing but a place keeps a job: stagger passed, limits free, admitted downstream, its turn.
    pub(super) fn is_next(&self, job: &Job, eyes: Eyes) -> bool {
        let due = |other: &&Job| {
            other.kind == job.kind
                && other.ticket < job.ticket
                && other.overtaken >= self.places_for(&job.kind)
                && self.may_ever_go(other)
        };
        self.may_ever_go(job) && self.limits(job, eyes).is_ok() && !self.line.iter().any(|other| due(&other))
    }

    /// Whether a job that waits could go now.
    pub(super) fn could_go(&self, job: &Job, eyes: Eyes, entitled: &[Entitled], sure: Sure) -> bool {
        (0..self.places.len()).any(|index| self.could_have(job, index, eyes, entitled, sure))
    }

    pub(super) fn could_have(&self, job: &Job, index: usize, eyes: Eyes, entitled: &[Entitled], sure: Sure) -> bool {
        // To be sure that it can, it has to be free whatever is kept for others.
        let taken = if sure == Sure::Yes { Sure::Perhaps } else { Sure::Yes };
        self.fits(job, index, eyes).is_ok()
            && self.healed(&self.places[index])
            && self.free_of_others(index, eyes).is_ok()
            && self.is_next(job, eyes)
            && !self.is_promised(job, index, taken, eyes, entitled)
            && !self.is_kept(job, index, taken, eyes, entitled)
    }
}
