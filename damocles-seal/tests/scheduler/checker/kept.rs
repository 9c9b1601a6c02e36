//! What has to be left to those ahead in line.

use super::{Eyes, Job, Judge, Now, Order, PLAIN, Phase, Sure};

/// Somebody who has a right that what it needs is kept for it.
pub(super) struct Entitled {
    order: Order,
    /// The places of which one may be kept.
    ways: Vec<usize>,
    /// It cannot be that those ahead have taken them all.
    surely: bool,
    /// Its kind, if it is about to go: nobody else of the kind goes before.
    kind: Option<String>,
}

impl Judge<'_> {
    /// Whether somebody gets a place if the job in this one leaves it.
    pub(super) fn gains(&self, place: usize) -> bool {
        let entitled = self.entitled();
        let Now::Held { job, .. } = &self.places[place].now else { return true };
        if self.places[place].elsewhere && self.could_move(job, &entitled, Sure::Perhaps) {
            return true;
        }
        let back = self.claimers().map(|(_, job, _)| job);
        let mut ahead = self.line.iter().chain(back).filter(|other| other.order() < job.order());
        ahead.any(|other| {
            let told = Eyes { from: other.order(), told: true, but: None };
            let but = Eyes { but: Some(place), ..told };
            (0..self.places.len()).any(|way| {
                self.could_have(other, way, told, &entitled, Sure::Perhaps)
                    && !self.could_have(other, way, but, &entitled, Sure::Perhaps)
            })
        })
    }

    /// Whether a job that waits for what another program holds could have a place that nobody else needs.
    pub(super) fn could_move(&self, job: &Job, entitled: &[Entitled], sure: Sure) -> bool {
        let eyes = Eyes { from: job.order(), told: false, but: None };
        let free = |way: usize| !self.places[way].elsewhere && self.could_have(job, way, eyes, entitled, sure);
        (0..self.places.len()).any(free)
    }

    /// The jobs that wait for other programs, in the order of the line.
    pub(super) fn claimers(&self) -> impl Iterator<Item = (usize, &Job, Phase)> {
        let mut claimers: Vec<(usize, &Job, Phase)> = Vec::new();
        for (index, place) in self.places.iter().enumerate() {
            if let Now::Held { job, phase: phase @ (Phase::Claiming | Phase::Recalled) } = &place.now {
                claimers.push((index, job, *phase));
            }
        }
        claimers.sort_by_key(|(_, job, _)| job.order());
        claimers.into_iter()
    }

    /// Those for whom something is kept, first in line first.
    pub(super) fn entitled(&self) -> Vec<Entitled> {
        let moves =
            |(place, _, phase): &(usize, &Job, Phase)| *phase == Phase::Recalled || self.places[*place].elsewhere;
        let claimers = self.claimers().filter(moves).map(|(_, job, phase)| (job, phase == Phase::Claiming));
        let mut all: Vec<(&Job, bool)> = self.line.iter().map(|job| (job, false)).chain(claimers).collect();
        all.sort_by_key(|(job, _)| job.order());
        let mut entitled = Vec::new();
        for (job, unclaimed) in all {
            let eyes = Eyes { from: job.order(), told: false, but: None };
            let made_free = |sure| -> Vec<usize> {
                let ways = (0..self.places.len()).filter(|way| !unclaimed || !self.places[*way].elsewhere);
                ways.filter(|way| self.could_have(job, *way, eyes, &entitled, sure)).collect()
            };
            let in_line = self.line.iter().any(|other| other.ticket == job.ticket);
            let due = in_line && job.passed >= job.patience() && self.is_next(job, PLAIN);
            let (mut ways, mut surely) = (made_free(Sure::Perhaps), !made_free(Sure::Yes).is_empty());
            let kind = (!ways.is_empty()).then(|| job.kind.clone());
            if ways.is_empty() && due {
                (ways, surely) = (self.ways(job), !waits_for_its_kind(job, &entitled));
            } else if due {
                ways.extend(self.ways(job));
            }
            if !ways.is_empty() {
                entitled.push(Entitled { order: job.order(), ways, surely, kind });
            }
        }
        entitled
    }

    /// The places that a job may have some day soon.
    pub(super) fn ways(&self, job: &Job) -> Vec<usize> {
        let place = |way: &usize| &self.places[*way];
        let serves = |way: &usize| !(place(way).stopped || place(way).open && place(way).rests_until > self.time);
        let fits = |way: &usize| place(way).kinds.contains(&job.kind) && job.memory <= place(way).memory;
        (0..self.places.len()).filter(|way| fits(way) && serves(way)).collect()
    }

    /// Whether a job in one place takes what another place needs, when so many others need it too.
    pub(super) fn clash(&self, index: usize, way: usize, others: usize, eyes: Eyes) -> bool {
        let (place, other) = (&self.places[index], &self.places[way]);
        let last = |lock: &&String| {
            let users = (0..self.places.len()).filter(|user| self.used(*user, eyes));
            users.filter(|user| self.places[*user].locks.contains(*lock)).count() + others
                >= self.spec.limits.ext_locks.get(*lock).copied().unwrap_or(1)
        };
        index == way
            || !place.gpus.is_disjoint(&other.gpus)
            || place.locks.intersection(&other.locks).any(|lock| last(&lock))
    }

    /// Whether a place is not for a job because of what is kept for those ahead.
    pub(super) fn is_kept(&self, job: &Job, index: usize, sure: Sure, eyes: Eyes, entitled: &[Entitled]) -> bool {
        let ahead: Vec<&Entitled> = entitled.iter().filter(|other| other.order < job.order()).collect();
        ahead.iter().any(|other| match sure {
            _ if other.kind.as_ref() == Some(&job.kind) => other.surely || sure == Sure::Perhaps,
            Sure::Yes => other.surely && other.ways.iter().all(|way| self.clash(index, *way, 1, eyes)),
            Sure::Perhaps => other.ways.iter().any(|way| self.clash(index, *way, ahead.len(), eyes)),
        })
    }
}

/// Whether one ahead of it, of its kind, is about to go.
pub(super) fn waits_for_its_kind(job: &Job, entitled: &[Entitled]) -> bool {
    entitled.iter().any(|other| other.order < job.order() && other.kind.as_ref() == Some(&job.kind))
}
