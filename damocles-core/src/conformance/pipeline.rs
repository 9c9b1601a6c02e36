//! The contract of [`SealingPipeline`].

use crate::{
    Context, Fence,
    allocator::SectorLease,
    pipeline::{SealErrorKind, SealingPipeline, Step},
};

/// Runs the whole contract against a pipeline that has not seen `lease.sector`, whose plan has at least two stages
/// and never waits.
///
/// # Panics
///
/// A clause of the contract is broken.
pub async fn all(pipeline: &dyn SealingPipeline, lease: SectorLease) {
    let cx = Context::detached();
    let id = lease.sector;
    let err = pipeline.step(id, &cx).await.expect_err("not open");
    assert_eq!(err.kind(), SealErrorKind::UnknownSector);
    assert_eq!(pipeline.close(id).await.expect_err("not open").kind(), SealErrorKind::UnknownSector);

    pipeline.open(lease.clone()).await.expect("open");
    let Step::Advanced { stage: first } = pipeline.step(id, &cx).await.expect("first step") else {
        panic!("the first step must advance");
    };

    let stopped = Context::detached();
    stopped.cancel.cancel();
    let err = pipeline.step(id, &stopped).await.expect_err("cancelled");
    assert_eq!(err.kind(), SealErrorKind::Cancelled);
    let progress = pipeline.progress().await.expect("progress");
    let sector = progress.iter().find(|p| p.lease.sector == id).expect("an open sector is listed");
    assert_eq!(sector.done, std::slice::from_ref(&first), "a cancelled step leaves no trace");

    let back = pipeline.close(id).await.expect("close");
    assert_eq!(back, lease, "close gives the lease back");
    let higher = SectorLease { fence: Fence(lease.fence.0 + 1), ..lease.clone() };
    pipeline.open(higher).await.expect("open again under a higher fence");
    let progress = pipeline.progress().await.expect("progress");
    let sector = progress.iter().find(|p| p.lease.sector == id).expect("an open sector is listed");
    assert_eq!(sector.done, std::slice::from_ref(&first), "what was recorded is still recorded");

    let mut stages = vec![first.clone()];
    loop {
        match pipeline.step(id, &cx).await.expect("step") {
            Step::Advanced { stage } => {
                assert!(!stages.contains(&stage), "{stage} ran twice");
                stages.push(stage);
            }
            Step::Finished => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert!(stages.len() >= 2, "the plan has at least two stages");
    assert_eq!(pipeline.step(id, &cx).await.expect("finished stays finished"), Step::Finished);

    let last = stages.last().cloned().expect("not empty");
    pipeline.rewind(id, &last).await.expect("rewind");
    assert_eq!(pipeline.step(id, &cx).await.expect("repeat"), Step::Advanced { stage: last });

    pipeline.close(id).await.expect("close");
    let err = pipeline.open(lease).await.expect_err("the first fence is old now");
    assert_eq!(err.kind(), SealErrorKind::Fenced);
}
