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
            let mut said = String::new();
            let pace = (ttl / 3).max(Duration::from_millis(10));
            loop {
                tokio::time::sleep(pace).await;
                let Ok(Err(error)) = tokio::time::timeout(limit, allocator.renew(&lease, ttl)).await else {
                    continue;
                };
                if !matches!(error.kind(), AllocErrorKind::Fenced | AllocErrorKind::HeldElsewhere) {
                    // Nobody else has the lease, so that the step, which may have taken hours, goes on.
                    let text = format!("{}: the lease is not renewed: {}", lease.sector, error.chain());
                    if error.kind() != AllocErrorKind::Unavailable && said != text {
                        step.emit(Event::Note { from: "worker".to_owned(), text: text.clone() });
                        said = text;
                    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use damocles_core::{
        ActorId, Error, Fence, SealProofType, SectorId, SectorNumber, SectorSize, StoreId, Timestamp,
        allocator::{AllocError, AllocateRequest, Outcome},
    };
    use std::collections::VecDeque;

    /// Renewals fail with these, one after the other, the last one for ever.
    #[derive(Debug)]
    struct FakeAllocator(Mutex<VecDeque<AllocErrorKind>>);

    #[async_trait]
    impl SectorAllocator for FakeAllocator {
        async fn allocate(&self, _: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
            Ok(None)
        }

        async fn take_up(&self, _: &StoreId, _: SectorId, _: Duration) -> Result<SectorLease, AllocError> {
            Err(Error::new(AllocErrorKind::Unknown, "take up"))
        }

        async fn held_by(&self, _: &StoreId) -> Result<Vec<SectorLease>, AllocError> {
            Ok(Vec::new())
        }

        async fn renew(&self, _: &SectorLease, _: Duration) -> Result<SectorLease, AllocError> {
            let mut errors = self.0.lock();
            let kind = if errors.len() > 1 { errors.pop_front() } else { errors.front().copied() };
            Err(Error::new(kind.unwrap(), "renew"))
        }

        async fn release(&self, _: &SectorLease, _: Outcome) -> Result<(), AllocError> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn only_a_lease_that_somebody_else_has_ends_the_step() {
        use AllocErrorKind::{Fenced, HeldElsewhere, Refused, Unavailable, Unknown};
        let lease = SectorLease {
            sector: SectorId::new(ActorId(1000), SectorNumber(1)),
            proof_type: SealProofType::of(SectorSize::KiB2),
            store: StoreId::new("store"),
            fence: Fence(1),
            heard_until: Timestamp(0),
        };
        let ttl = Duration::from_millis(30);
        for (errors, lost) in [
            (&[Unavailable, Unknown, Refused, Unavailable, Unavailable][..], false),
            (&[Unknown, Refused, Fenced], true),
            (&[Unavailable, HeldElsewhere], true),
        ] {
            let allocator = Arc::new(FakeAllocator(Mutex::new(errors.iter().copied().collect())));
            let cx = Context::detached();
            let keeper = LeaseKeeper::spawn(allocator.clone(), lease.clone(), ttl, Duration::from_secs(60), cx.clone());
            if lost {
                cx.cancel.cancelled().await;
            }
            while allocator.0.lock().len() > 1 {
                tokio::task::yield_now().await;
            }
            assert_eq!((cx.cancel.is_cancelled(), keeper.lost().is_some()), (lost, lost), "{errors:?}");
        }
    }
}
