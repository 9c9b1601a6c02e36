//! How a sealing thread is steered while it runs.

use super::status::ThreadStatus;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// Steers a running sealing thread and tells what it does.
#[derive(Clone, Debug)]
pub struct ThreadControl(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) status: Mutex<ThreadStatus>,
    pub(super) wanted: watch::Sender<Wanted>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) paused: bool,
    pub(super) resumes: u64,
}

impl ThreadControl {
    /// Takes no further step until [`ThreadControl::resume`]. A running step ends first and its result is kept.
    pub fn pause(&self) {
        self.0.wanted.send_modify(|wanted| wanted.paused = true);
    }

    /// Goes on: ends a pause, lets a parked sector try again, and cuts a wait before a repeat short.
    pub fn resume(&self) {
        self.0.wanted.send_modify(|wanted| {
            wanted.paused = false;
            wanted.resumes = wanted.resumes.wrapping_add(1);
        });
    }

    /// What the thread does at this moment.
    pub fn status(&self) -> ThreadStatus {
        self.0.status.lock().clone()
    }
}
