//! Saying that the holder of a lease is alive.

use super::exit::of_alloc;
use damocles_core::{
    Context, Event,
    allocator::{AllocErrorKind, SectorAllocator, SectorLease},
    pipeline::SealError,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// Renews a lease in the background for as long as it lives. A lease that was taken over ends the step under way.
#[derive(Debug)]
pub(super) struct LeaseKeeper {
    lost: Arc<Mutex<Option<SealError>>>,
    _task: AbortOnDropHandle<()>,
}

impl LeaseKeeper {
    /// Cancels `step` when the lease is lost.
    pub(super) fn spawn(
        allocator: Arc<dyn SectorAllocator>,
        lease: SectorLease,
        ttl: Duration,
        limit: Duration,
        step: Context,
    ) -> Self {
        let lost = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&lost);
        let task = tokio::spawn(async move {
            let pace = (ttl / 3).max(Duration::from_millis(10));
            loop {
                tokio::time::sleep(pace).await;
                let Ok(Err(error)) = tokio::time::timeout(limit, allocator.renew(&lease, ttl)).await else {
                    continue;
                };
                if error.kind() == AllocErrorKind::Unavailable {
                    continue;
                }
                let text = format!("{}: the lease is lost: {}", lease.sector, error.chain());
                *tell.lock() = Some(of_alloc("renew lease", error).with("sector", lease.sector));
                step.emit(Event::Note { from: "worker".to_owned(), text });
                step.cancel.cancel();
                return;
            }
        });
        Self { lost, _task: AbortOnDropHandle::new(task) }
    }

    /// Why the lease was lost, if it was.
    pub(super) fn lost(&self) -> Option<SealError> {
        self.lost.lock().take()
    }
}
