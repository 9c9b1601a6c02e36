//! A job's place in line.

use super::{
    child::Child,
    lease::Lease,
    local::{Shared, State, Waiter, error},
    schedule::{Ticket, Wait},
};
use damocles_core::{
    CancellationToken,
    pool::{Job, PoolError, PoolErrorKind},
};
use std::sync::Arc;
use tokio::{sync::oneshot, time::Instant};

impl Shared {
    /// Stands in line, at the end of its rank.
    pub(super) fn queue(self: &Arc<Self>, job: &Job) -> Result<InLine, PoolError> {
        let line = {
            let mut state = self.state.lock();
            if state.draining {
                return Err(error(PoolErrorKind::Draining, job));
            }
            let ticket = state.scheduler.push(job, Instant::now());
            self.stand(&mut state, ticket)
        };
        self.dispatch();
        Ok(line)
    }

    fn stand(self: &Arc<Self>, state: &mut State, ticket: Ticket) -> InLine {
        let (grant, granted) = oneshot::channel();
        state.grants.insert(ticket.number(), Waiter { grant, wait: Wait::Nothing });
        InLine { waiting: Waiting { shared: Arc::clone(self), ticket }, granted }
    }

    /// A job that has begun nothing gives its slot back, with the idle child, and stands where it stood in line. None
    /// if nothing is given out any more.
    pub(super) fn put_back(self: &Arc<Self>, index: usize, child: &mut Option<Child>) -> Option<InLine> {
        let line = {
            let mut state = self.state.lock();
            if state.draining {
                return None;
            }
            let ticket = state.scheduler.put_back(index, Instant::now())?;
            if let Some(place) = state.children.get_mut(index) {
                *place = child.take();
            }
            if let Some(recall) = state.recalls.get_mut(index) {
                *recall = None;
            }
            self.stand(&mut state, ticket)
        };
        self.dispatch();
        Some(line)
    }

    /// The job in this slot waits for what other programs hold, and something may have changed in that.
    pub(super) fn claiming(self: &Arc<Self>, index: usize, recall: &CancellationToken) {
        {
            let mut state = self.state.lock();
            state.scheduler.claiming(index, Instant::now());
            if let Some(place) = state.recalls.get_mut(index) {
                *place = Some(recall.clone());
            }
        }
        self.dispatch();
    }
}

/// A job in line.
#[derive(Debug)]
pub(super) struct InLine {
    pub(super) waiting: Waiting,
    pub(super) granted: oneshot::Receiver<Lease>,
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    shared: Arc<Shared>,
    pub(super) ticket: Ticket,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let left = {
            let mut state = self.shared.state.lock();
            state.scheduler.remove(self.ticket);
            state.grants.remove(&self.ticket.number()).is_some()
        };
        // Others may have stood behind it.
        if left {
            self.shared.dispatch();
        }
    }
}
