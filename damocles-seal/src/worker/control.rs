//! How a sealing thread is steered while it runs.

use super::{
    ThreadConfig,
    rewind::{check, refused},
    status::{ThreadState, ThreadStatus},
    thread::ThreadParts,
};
use damocles_core::pipeline::{SealError, StageId};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::watch;

/// Steers a running sealing thread and tells what it does.
#[derive(Clone, Debug)]
pub struct ThreadControl {
    pub(super) shared: Arc<Shared>,
    pub(super) parts: ThreadParts,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) status: Mutex<ThreadStatus>,
    pub(super) wanted: watch::Sender<Wanted>,
    /// How it behaves: read anew at every decision.
    pub(super) config: watch::Sender<Arc<ThreadConfig>>,
}

/// What operators want of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) pause: Option<Pause>,
    pub(super) resumes: u64,
    pub(super) drain: Option<Drain>,
    pub(super) abort: Option<String>,
}

impl Wanted {
    /// Whether a step under way is to be cancelled.
    pub(super) fn interrupts(&self) -> bool {
        self.abort.is_some() || self.pause.as_ref().is_some_and(|pause| pause.now)
    }

    /// Whether somebody wants the thread to look up from its wait.
    pub(super) fn disturbs(&self) -> bool {
        self.abort.is_some() || self.pause.is_some()
    }
}

/// A pause as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// Whether the running step is cancelled instead of waited for.
    pub now: bool,
    /// Who asked, for people.
    pub by: Option<String>,
}

/// When a thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drain {
    /// With its sector, or at once if it has none. A sector that is parked is not waited for.
    Sector,
    /// With the step under way.
    Step,
}

impl ThreadControl {
    /// Takes no further step until [`ThreadControl::resume`]. A running step ends first and its result is kept.
    pub fn pause(&self) -> bool {
        self.pause_as(Pause::default())
    }

    /// Takes no further step until [`ThreadControl::resume`]. With [`Pause::now`] a running step is cancelled: if it
    /// finishes all the same, its result is kept, else the stage is repeated after the resume. False if that is wanted
    /// already.
    pub fn pause_as(&self, pause: Pause) -> bool {
        self.shared.wanted.send_if_modified(|wanted| match &mut wanted.pause {
            Some(earlier) if earlier.now || !pause.now => false,
            other => {
                *other = Some(pause);
                true
            }
        })
    }

    /// Goes on: ends a pause or a drain that has not come about yet, lets a parked sector try again, and cuts a wait
    /// before a repeat short. False if there was nothing of the kind.
    pub fn resume(&self) -> bool {
        use ThreadState as S;
        let stands = matches!(self.status().state, S::Paused | S::Parked | S::Waiting);
        let mut wants = false;
        self.shared.wanted.send_modify(|wanted| {
            wants = wanted.pause.is_some() || wanted.drain.is_some();
            wanted.pause = None;
            wanted.drain = None;
            wanted.resumes = wanted.resumes.wrapping_add(1);
        });
        stands || wants
    }

    /// Goes back to a stage of the sector that has ended, or stays at the one that comes next, and resumes. Nothing is
    /// removed: the journal gets an entry that says which outputs count no more. Returns those stages.
    ///
    /// # Errors
    ///
    /// The thread is not paused or parked, the sector is not at or past that stage, or a file that the stage starts from
    /// is not there any more.
    pub async fn resume_at(&self, stage: &StageId) -> Result<Vec<StageId>, SealError> {
        // A parked sector may go on by itself at any time, and must not while it is looked at and sent back.
        let held = self.pause();
        let moved = self.send_back(stage).await;
        if moved.is_ok() {
            self.resume();
        } else if held {
            self.shared.wanted.send_modify(|wanted| wanted.pause = None);
        }
        moved
    }

    async fn send_back(&self, stage: &StageId) -> Result<Vec<StageId>, SealError> {
        let status = self.status();
        let Some(sector) = status.sector else { return Err(refused("the thread has no sector")) };
        if status.ending {
            return Err(refused("the work on the sector is over").with("sector", sector));
        }
        if !matches!(status.state, ThreadState::Paused | ThreadState::Parked) {
            return Err(refused("the thread is at work")
                .with("sector", sector)
                .hint_with("pause it first, with `--now` if the running stage is to be given up"));
        }
        let dropped = check(&self.parts, sector, stage).await?;
        if !dropped.is_empty() {
            self.parts.pipeline.rewind(sector, stage).await?;
        }
        Ok(dropped)
    }

    /// Ends the thread when its step or its sector has ended. False if that is wanted already.
    pub fn drain(&self, drain: Drain) -> bool {
        let ended = self.status().state == ThreadState::Stopped;
        self.shared.wanted.send_if_modified(|wanted| {
            let news = !ended && wanted.drain < Some(drain);
            if news {
                wanted.drain = Some(drain);
            }
            news
        })
    }

    /// Gives the sector up. What is recorded first is that it ends; its files are removed after the manager has confirmed
    /// that it knows, however long that takes. False if that is under way already.
    ///
    /// # Errors
    ///
    /// The thread has no sector, or has ended.
    pub fn abort(&self, reason: &str) -> Result<bool, SealError> {
        let status = self.status();
        let Some(sector) = status.sector else { return Err(refused("the thread has no sector")) };
        if status.state == ThreadState::Stopped {
            return Err(refused("the thread has ended").with("sector", sector));
        }
        if status.ending {
            return Ok(false);
        }
        Ok(self.shared.wanted.send_if_modified(|wanted| {
            let news = wanted.abort.is_none();
            if news {
                wanted.abort = Some(reason.to_owned());
            }
            news
        }))
    }

    /// Who paused the thread and how, if anybody did.
    pub fn paused(&self) -> Option<Pause> {
        self.shared.wanted.borrow().pause.clone()
    }

    /// When the thread is to end, if it is.
    pub fn draining(&self) -> Option<Drain> {
        self.shared.wanted.borrow().drain
    }

    /// How the thread behaves at this moment.
    pub fn config(&self) -> Arc<ThreadConfig> {
        Arc::clone(&self.shared.config.borrow())
    }

    /// Lets the thread behave otherwise from its next decision on: the next sector that it asks for, the next repeat,
    /// the next look at a waiting sector. The step under way goes on, a sector in the store is kept whatever the new
    /// settings allow, and a request that is on its way is answered. A thread that waits for work asks again at once,
    /// and any other wait is as long as the new settings say, counted from its beginning. False if it behaves so
    /// already.
    pub fn reconfigure(&self, config: ThreadConfig) -> bool {
        self.shared.config.send_if_modified(|current| {
            let news = **current != config;
            if news {
                *current = Arc::new(config);
            }
            news
        })
    }

    /// What the thread does at this moment.
    pub fn status(&self) -> ThreadStatus {
        self.shared.status.lock().clone()
    }
}
