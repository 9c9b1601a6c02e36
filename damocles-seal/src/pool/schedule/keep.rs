//! What is kept for those who need several things at a time and do not get them together.

use super::{
    line::Line,
    place::Place,
    scheduler::{InLine, Keep, Scheduler, Ticket, Waiting},
    wait::Wait,
};
use damocles_core::pool::TaskKind;
use tokio::time::Instant;

/// How many from behind may take something that a job needs, before a place is kept for it with all that is needed. A
/// kept card is idle until the others are free, for as long as a task takes; without a limit the job never goes.
const PASSED_AT_MOST: usize = 2;

/// The same for a job of this rank: a proof with a deadline lets nobody pass.
fn patience(ticket: Ticket) -> usize {
    if ticket.rank == 0 { 0 } else { PASSED_AT_MOST }
}

impl Scheduler {
    /// A job gets a place: those ahead of it count that.
    pub(super) fn overtake(&mut self, by: Ticket, kind: &TaskKind, place: usize, now: Instant) {
        let ahead = self.waiting.range(..by).filter(|(_, ahead)| self.barred(ahead, now).is_none());
        let counts = |(ticket, ahead): (&Ticket, &Waiting)| {
            (*ticket, ahead.named.kind == *kind, self.ways(ahead, now).any(|way| self.clash(place, way)))
        };
        let ahead: Vec<(Ticket, bool, bool)> = ahead.map(counts).collect();
        for (ticket, same_kind, takes) in ahead {
            if let Some(ahead) = self.waiting.get_mut(&ticket) {
                ahead.overtaken += usize::from(same_kind);
                ahead.passed += usize::from(takes);
            }
        }
    }

    /// The place that is kept for somebody who stays in line; `short` if a place is all that it lacks.
    pub(super) fn keeps(&mut self, ticket: Ticket, short: bool, line: &Line, now: Instant) -> Option<Keep> {
        let waiting = self.waiting.get(&ticket)?.clone();
        let job = InLine { ticket, waiting };
        if let Some(place) = self.displace(&job, false, line, now) {
            return Some(Keep { place, freed: true });
        }
        if !short || job.waiting.passed < patience(ticket) {
            return None;
        }
        self.way(&job.waiting, now).map(|place| Keep { place, freed: false })
    }

    /// The place that is kept for a job: the same one for as long as that may become free, at first the one with the
    /// fewest jobs in the way.
    fn way(&self, waiting: &Waiting, now: Instant) -> Option<usize> {
        let kept = waiting.keeps.map(|keep| keep.place);
        let kept = kept.filter(|kept| self.ways(waiting, now).any(|way| way == *kept));
        kept.or_else(|| self.ways(waiting, now).min_by_key(|way| (self.in_the_way(*way), *way)))
    }

    /// The places that a job may get some day soon.
    fn ways<'a>(&'a self, waiting: &'a Waiting, now: Instant) -> impl Iterator<Item = usize> {
        self.fitting(waiting).filter(move |(_, place)| place.health.in_service(now)).map(|(index, _)| index)
    }

    fn in_the_way(&self, way: usize) -> usize {
        let Some(way) = self.places.get(way) else { return 0 };
        let needs = |place: &&Place| {
            share(&place.spec.placement.gpus, &way.spec.placement.gpus) || share(&place.spec.locks, &way.spec.locks)
        };
        self.places.iter().filter(|place| place.user().is_some()).filter(needs).count()
    }

    /// Whether a job in one place takes what another place needs: a GPU, the last of a lock, or the place itself.
    fn clash(&self, taken: usize, way: usize) -> bool {
        let (Some(place), Some(other)) = (self.places.get(taken), self.places.get(way)) else { return false };
        let mut last = place.spec.locks.iter().filter(|lock| self.left_of(lock) <= 1);
        taken == way
            || share(&place.spec.placement.gpus, &other.spec.placement.gpus)
            || last.any(|lock| other.spec.locks.contains(lock))
    }

    /// Why a place is not for those behind somebody for whom one is kept.
    pub(super) fn kept(&self, index: usize, place: &Place, line: &Line) -> Option<Wait> {
        let others = || line.kept.iter().filter_map(|(kept, to)| Some((*kept, self.places.get(*kept)?, to)));
        let promised = |what: String, to: &super::Who| Some(Wait::Promised { what, to: to.clone() });
        for (kept, other, to) in others() {
            if kept == index {
                return promised(format!("slot {}", place.spec.name), to);
            }
            if let Some(gpu) = place.spec.placement.gpus.iter().find(|gpu| other.spec.placement.gpus.contains(gpu)) {
                return promised(gpu.to_string(), to);
            }
        }
        place.spec.locks.iter().find_map(|lock| {
            let mut for_lock = others().filter(|(_, other, _)| other.spec.locks.contains(lock));
            let (_, _, to) = for_lock.nth(self.left_of(lock).checked_sub(1)?)?;
            promised(format!("the lock `{lock}`"), to)
        })
    }
}

fn share<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.iter().any(|part| other.contains(part))
}
