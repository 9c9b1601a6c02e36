//! The loop of one sealing store.

use super::{
    ThreadConfig, ThreadControl, ThreadState, ThreadStatus,
    control::{Shared, Wanted},
    exit::Exit,
    run::{LEAST_WAIT, Run},
    taking::Taken,
};
use crate::{
    journal::Journal,
    service::{KeyTable, SealingService},
    store::SealingStore,
};
use damocles_core::{
    CancellationToken, Clock, Context, SectorId,
    allocator::SectorAllocator,
    pipeline::{SealError, SealingPipeline},
};
use parking_lot::Mutex;
use std::{fmt, sync::Arc};
use tokio::sync::watch;

/// What a sealing thread works with.
#[derive(Clone, Debug)]
pub struct ThreadParts {
    /// Who hands out sectors.
    pub allocator: Arc<dyn SectorAllocator>,
    /// The manager.
    pub service: Arc<dyn SealingService>,
    /// What moves a sector.
    pub pipeline: Arc<dyn SealingPipeline>,
    /// The journal of the store, the same that the pipeline records in.
    pub journal: Arc<dyn Journal>,
    /// The sealing store.
    pub store: Arc<SealingStore>,
    /// The time, for records.
    pub clock: Arc<dyn Clock>,
    /// The digests of the verifying keys that fit this worker's proofs. A manager with others is not worked for.
    pub keys: KeyTable,
    /// Who counts the sectors between two stages.
    pub backlog: Option<Arc<dyn Backlog>>,
}

/// Counts the sectors between two stages, to start none whose next stage cannot follow.
pub trait Backlog: fmt::Debug + Send + Sync + 'static {
    /// The work on a sector is over: it is between no two stages any more.
    fn forget(&self, sector: SectorId);
}

impl Backlog for crate::pool::LocalPool {
    fn forget(&self, sector: SectorId) {
        Self::forget(self, sector);
    }
}

/// Carries one sector after the other through the plan, in one sealing store.
#[derive(Debug)]
pub struct SealingThread {
    pub(super) parts: ThreadParts,
    pub(super) shared: Arc<Shared>,
}

impl SealingThread {
    /// A thread that has not started.
    pub fn new(parts: ThreadParts, config: ThreadConfig) -> Self {
        let status = ThreadStatus {
            location: parts.store.location().to_owned(),
            sector: None,
            stage: None,
            state: ThreadState::New,
            since: parts.clock.now(),
            last_error: None,
            failures: 0,
            ending: false,
            wakes_at: None,
            epoch: None,
        };
        let shared = Shared {
            status: Mutex::new(status),
            wanted: watch::Sender::new(Wanted::default()),
            config: watch::Sender::new(Arc::new(config)),
        };
        Self { parts, shared: Arc::new(shared) }
    }

    /// Changes how it behaves, before it runs.
    pub fn configure(&mut self, change: impl FnOnce(&mut ThreadConfig)) {
        self.shared.config.send_modify(|config| change(Arc::make_mut(config)));
    }

    /// How it is steered.
    pub fn control(&self) -> ThreadControl {
        ThreadControl { shared: Arc::clone(&self.shared), parts: self.parts.clone() }
    }

    /// Seals until it is asked to end: `drain` lets the running step end, `cx.cancel` stops it too. The sector stays in
    /// the store and is taken up by the next run.
    ///
    /// # Errors
    ///
    /// Our own state is proven to be inconsistent; every other error is waited out or parks the sector.
    pub async fn run(&self, cx: &Context, drain: &CancellationToken) -> Result<(), SealError> {
        let run = Run::new(self, cx, drain);
        let once = || async {
            match run.take().await? {
                Taken::Open { lease } => run.seal(lease).await,
                Taken::Ending { lease, outcome, reason } => run.end(&lease, outcome, reason.as_deref()).await,
            }
        };
        let ended = loop {
            match once().await {
                Ok(()) => {}
                // A journal that cannot be read is not asked without end.
                Err(Exit::Anew) => tokio::time::sleep(LEAST_WAIT).await,
                Err(exit) => break exit,
            }
        };
        run.show(ThreadState::Stopped);
        match ended {
            Exit::Asked | Exit::Anew => Ok(()),
            Exit::Halted(error) => Err(error),
        }
    }
}
