//! The contract of [`PoStScheduler`].

use crate::{
    ActorId, Context, Epoch,
    chain::ChainClient,
    post::{DutyKind, PoStErrorKind, PoStScheduler},
};

/// Runs the whole contract against a scheduler over `chain`, whose head lies in an open deadline of `miner` with
/// sectors to prove, and which moves on by itself while `fulfil` waits. `past_due` moves it to an epoch behind the
/// deadline.
///
/// # Panics
///
/// A clause of the contract is broken.
pub async fn all(
    scheduler: &dyn PoStScheduler,
    chain: &dyn ChainClient,
    miner: ActorId,
    past_due: impl Fn(Epoch) + Send + Sync,
) {
    let head = chain.head().await.expect("head");
    let view = scheduler.view(miner, &head).await.expect("view");
    assert_eq!(view.miner, miner);
    let duties = scheduler.plan(&view);
    assert_eq!(duties, scheduler.plan(&view), "plan is pure");
    let duty = duties.iter().find(|d| matches!(d.what, DutyKind::Prove { .. })).expect("a deadline is open");
    assert!(duty.due >= head.epoch, "a duty of the present is not overdue");

    let stopped = Context::detached();
    stopped.cancel.cancel();
    let err = scheduler.fulfil(duty, &stopped).await.expect_err("cancelled");
    assert_eq!(err.kind(), PoStErrorKind::Cancelled);

    let cx = Context::detached();
    let first = scheduler.fulfil(duty, &cx).await.expect("fulfil");
    assert!(first.receipts.iter().all(|r| r.is_success()), "a fulfilled duty is confirmed on chain");
    let again = scheduler.fulfil(duty, &cx).await.expect("fulfil again");
    let fresh: Vec<_> = again.receipts.iter().filter(|r| !first.receipts.contains(r)).collect();
    assert!(fresh.is_empty(), "a fulfilled duty sends nothing new: {fresh:?}");

    past_due(duty.due + 1);
    let mut late = duty.clone();
    late.due = late.due - 1;
    let err = scheduler.fulfil(&late, &cx).await.expect_err("overdue");
    assert_eq!(err.kind(), PoStErrorKind::Overdue);
}
