//! One child's place and what is in it.

use super::{
    health::{Bar, Health},
    scheduler::{InLine, Ticket},
    wait::Who,
};
use crate::pool::SlotSpec;
use damocles_core::{
    JobId, SectorId,
    pool::{SlotReport, SlotState, TaskKind},
};
use tokio::time::Instant;

/// A job by name.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) job: JobId,
    pub(super) kind: TaskKind,
    pub(super) sector: Option<SectorId>,
}

impl Named {
    pub(super) fn who(&self, slot: Option<&str>, since: Instant, now: Instant) -> Who {
        Who {
            job: self.job,
            kind: self.kind.clone(),
            sector: self.sector,
            slot: slot.map(ToOwned::to_owned),
            lasting: now.saturating_duration_since(since),
        }
    }
}

/// A place and its process.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) spec: SlotSpec,
    /// The number of the slot that it is of.
    pub(super) slot: usize,
    pub(super) work: Work,
    pub(super) pid: Option<u32>,
    /// Processes that were killed and do not die, in whose place others work.
    pub(super) left: Vec<u32>,
    pub(super) health: Health,
    pub(super) starts: u64,
    /// Whether another program seems to hold what it needs.
    pub(super) elsewhere: bool,
    /// Since when it does what it does.
    pub(super) since: Instant,
}

/// What a place is in use for.
#[derive(Debug)]
pub(super) enum Work {
    Nothing,
    /// A job, or only its process is started.
    Held {
        by: Option<Named>,
        since: Instant,
        phase: Phase,
        /// Where it stood in line, to go back there.
        from: Option<Box<InLine>>,
    },
    /// A process has to end before the place can be given again. It may still use what its job used.
    Ending {
        of: Option<Named>,
        since: Instant,
    },
}

/// How far a job in a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It waits for what other programs hold, and has begun nothing.
    Claiming,
    /// It did, and has to go back into the line.
    Recalled,
    Starting,
    Working,
}

impl Place {
    pub(super) fn free(&self) -> bool {
        matches!(self.work, Work::Nothing)
    }

    pub(super) fn held(&self) -> bool {
        matches!(self.work, Work::Held { .. })
    }

    /// The job that has it.
    pub(super) fn holder(&self) -> Option<&Named> {
        match &self.work {
            Work::Held { by, .. } => by.as_ref(),
            _ => None,
        }
    }

    /// The job whose locks and GPUs are in use, with the moment since when.
    pub(super) fn user(&self) -> Option<(&Named, Instant)> {
        match &self.work {
            Work::Held { by: named, since, .. } | Work::Ending { of: named, since } => Some((named.as_ref()?, *since)),
            Work::Nothing => None,
        }
    }

    /// Whether it has a job of this kind that is about to begin. One that claims may have to wait for hours.
    pub(super) fn begins(&self, kind: &TaskKind) -> bool {
        matches!(&self.work, Work::Held { by: Some(named), phase: Phase::Starting, .. } if named.kind == *kind)
    }

    /// The job that waits for what other programs hold, where it stood in line.
    pub(super) fn claims(&self) -> Option<&InLine> {
        match &self.work {
            Work::Held { phase: Phase::Claiming | Phase::Recalled, from, .. } => from.as_deref(),
            _ => None,
        }
    }

    pub(super) fn recalled(&self) -> bool {
        matches!(self.work, Work::Held { phase: Phase::Recalled, .. })
    }

    pub(super) fn claims_as(&self, ticket: Ticket) -> bool {
        self.claims().is_some_and(|job| job.ticket == ticket)
    }

    pub(super) fn who(&self, now: Instant) -> Option<Who> {
        self.user().map(|(named, since)| named.who(Some(&self.spec.name), since, now))
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        if let Work::Held { phase: current, .. } = &mut self.work
            && *current != phase
        {
            *current = phase;
            self.since = now;
        }
    }

    pub(super) fn report(&self, now: Instant) -> SlotReport {
        let mut report = SlotReport::new(self.spec.name.clone(), self.spec.kinds.clone());
        // Zero stands for a process that is just being forked.
        report.pid = self.pid.filter(|pid| *pid != 0);
        report.job = self.holder().map(|named| named.job);
        report.sector = self.holder().and_then(|named| named.sector);
        let bar = self.health.bar(now);
        report.state = match (&self.work, bar) {
            (Work::Held { phase: Phase::Claiming | Phase::Recalled, .. }, _) => SlotState::Claiming,
            (Work::Held { phase: Phase::Starting, .. }, _) => SlotState::Starting,
            (Work::Held { phase: Phase::Working, .. }, _) => SlotState::Busy,
            (Work::Ending { .. }, _) => SlotState::Ending,
            (Work::Nothing, Some(Bar::Rests { .. })) => SlotState::Resting,
            (Work::Nothing, Some(Bar::Open { .. })) => SlotState::Open,
            (Work::Nothing, Some(Bar::Stopped)) => SlotState::Stopped,
            (Work::Nothing, None) => SlotState::Idle,
        };
        // A rest that is over ended then, and nothing was told of it.
        let rested = self.health.wakes_at().filter(|until| self.free() && *until <= now);
        report.lasting = now.saturating_duration_since(rested.map_or(self.since, |until| until.max(self.since)));
        report.next_try = bar.and_then(Bar::until).map(|until| until.saturating_duration_since(now));
        report.restarts = self.starts.saturating_sub(1);
        report.failures = self.health.failures();
        report.last_error = self.health.last_error().map(ToOwned::to_owned);
        report
    }
}
