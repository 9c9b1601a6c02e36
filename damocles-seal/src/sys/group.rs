//! A process group: a child and all it started, as long as they did not leave the group.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use parking_lot::Mutex;
use std::sync::Arc;

/// A group by its leader. It takes signals only until the leader is reaped: after that its number may be another's.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    leader: Pid,
    reaped: Arc<Mutex<bool>>,
}

impl Group {
    pub(super) fn new(leader: Pid) -> Self {
        Self { leader, reaped: Arc::default() }
    }

    /// The process that leads it.
    pub(crate) fn leader(&self) -> Pid {
        self.leader
    }

    /// Signals every member.
    pub(crate) fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock();
        if !*reaped {
            // ESRCH means that nobody is left to be told.
            let _ = killpg(self.leader, signal);
        }
    }

    /// No signal is sent from now on.
    pub(super) fn close(&self) {
        *self.reaped.lock() = true;
    }
}
