//! Jobs that have a place and wait for what other programs hold of it. They have begun nothing, and can go back.

use super::{
    line::Line,
    place::{Phase, Place, Work},
    scheduler::{InLine, Keep, Scheduler, Ticket},
};
use std::mem::replace;
use tokio::time::Instant;

impl Scheduler {
    /// Whether another program seems to hold what this place needs: another is taken first, if one fits.
    pub fn elsewhere(&mut self, place: usize, held: bool) {
        if let Some(place) = self.places.get_mut(place) {
            place.elsewhere = held;
        }
    }

    /// The job in this place waits for what other programs hold. It may be recalled from here on.
    pub fn claiming(&mut self, place: usize, now: Instant) {
        if self.places.get(place).is_some_and(|place| !place.recalled()) {
            self.enter(place, Phase::Claiming, now);
        }
    }

    /// The job in this place has all that it claimed. Whether it may begin: not if it was recalled meanwhile, and not if
    /// it had to wait and another of its kind, from which its start is kept apart, began first. It gives up its claims
    /// and is [put back](Self::put_back) then.
    pub fn claimed(&mut self, index: usize, now: Instant) -> bool {
        let Some(place) = self.places.get(index) else { return true };
        let begins = match &place.work {
            Work::Held { phase: Phase::Recalled, .. } => false,
            Work::Held { by: Some(named), phase: Phase::Claiming, .. } => self.apart(&named.kind, now).is_none(),
            _ => true,
        };
        self.enter(index, if begins { Phase::Starting } else { Phase::Recalled }, now);
        begins
    }

    /// The places whose job has to give up its claims and is to be [put back](Self::put_back), as soon as it can be.
    pub fn recalled(&self) -> Vec<usize> {
        self.places.iter().enumerate().filter(|(_, place)| place.recalled()).map(|(index, _)| index).collect()
    }

    /// A job that waits for what other programs hold leaves its place and stands in line again, where it was.
    pub fn put_back(&mut self, index: usize, now: Instant) -> Option<Ticket> {
        let place = self.places.get_mut(index).filter(|place| place.claims().is_some())?;
        let Work::Held { since, from: Some(from), .. } = replace(&mut place.work, Work::Nothing) else { return None };
        place.since = now;
        let InLine { ticket, waiting } = *from;
        let stats = self.stats.kinds.entry(waiting.named.kind.clone()).or_default();
        stats.starts = stats.starts.saturating_sub(1);
        stats.waited = stats.waited.saturating_sub(since.saturating_duration_since(waiting.since));
        self.sections.ended(&waiting.named.kind, waiting.named.sector, false);
        self.waiting.insert(ticket, waiting);
        Some(ticket)
    }

    fn claimers(&self) -> impl Iterator<Item = (Ticket, usize)> {
        let claims = |(index, place): (usize, &Place)| Some((place.claims()?.ticket, index));
        self.places.iter().enumerate().filter_map(claims)
    }

    /// Everybody who has begun nothing, first in line first.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        let claimers = self.claimers().map(|(ticket, _)| ticket);
        let mut tickets: Vec<Ticket> = self.waiting.keys().copied().chain(claimers).collect();
        tickets.sort_unstable();
        tickets
    }

    /// A job that waits for what another program holds takes another place, if nobody else has what that one needs.
    pub(super) fn reconsider(&mut self, ticket: Ticket, line: &mut Line, now: Instant) {
        let Some(place) = self.places.iter().find(|place| place.claims_as(ticket)) else { return };
        let Some(job) = place.claims().cloned() else { return };
        let (stays, recalled) = (!place.elsewhere, place.recalled());
        let keeps = if stays && !recalled { None } else { self.displace(&job, !recalled, line, now) };
        let place = self.places.iter_mut().find(|place| place.claims_as(ticket));
        if let Some(Work::Held { from: Some(from), .. }) = place.map(|place| &mut place.work) {
            from.waiting.keeps = keeps.map(|place| Keep { place, freed: true });
            line.keep(&from.waiting, now);
        }
    }

    /// The place that a job would get if those behind it who wait for other programs left theirs. Who is in the way has
    /// to, also the job itself. With `unclaimed` only a place that no other program seems to need will do.
    pub(super) fn displace(&mut self, job: &InLine, unclaimed: bool, line: &Line, now: Instant) -> Option<usize> {
        let mut claimers: Vec<(Ticket, usize)> = self.claimers().filter(|(ticket, _)| *ticket >= job.ticket).collect();
        if claimers.is_empty() {
            return None;
        }
        // Who has to go anyway is let in last.
        let recalled = |place: &usize| self.places.get(*place).is_some_and(Place::recalled);
        claimers.sort_by_key(|(ticket, place)| (recalled(place), *ticket));
        let mut away: Vec<(Ticket, usize, Work)> = Vec::with_capacity(claimers.len());
        for (ticket, index) in claimers {
            away.extend(self.set_work(index, Work::Nothing).map(|work| (ticket, index, work)));
        }
        let mut target = self.goes(job, unclaimed, line, now);
        let mut in_the_way = Vec::new();
        for (ticket, index, work) in away {
            self.set_work(index, work);
            if target.is_none() {
                continue;
            }
            let still = if ticket == job.ticket { None } else { self.goes(job, unclaimed, line, now) };
            match still {
                Some(place) => target = Some(place),
                None => in_the_way.extend(self.set_work(index, Work::Nothing).map(|work| (index, work))),
            }
        }
        for (index, work) in in_the_way {
            self.set_work(index, work);
            self.enter(index, Phase::Recalled, now);
        }
        target
    }

    fn goes(&self, job: &InLine, unclaimed: bool, line: &Line, now: Instant) -> Option<usize> {
        let place = self.choose(&job.waiting, line, now).ok()?;
        self.places.get(place).filter(|place| !unclaimed || !place.elsewhere).map(|_| place)
    }

    fn set_work(&mut self, place: usize, work: Work) -> Option<Work> {
        self.places.get_mut(place).map(|place| replace(&mut place.work, work))
    }
}
