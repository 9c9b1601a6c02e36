//! The contract of [`ProcessorPool`].

use crate::{
    Context, JobId,
    pool::{Job, Needs, PoolErrorKind, ProcessorPool, TaskKind},
};
use bytes::Bytes;

/// Runs the whole contract against a pool with at least one slot that answers the job `echo` with its payload. The
/// pool is drained at the end.
///
/// # Panics
///
/// A clause of the contract is broken.
pub async fn all(pool: &dyn ProcessorPool) {
    let echo = TaskKind::new("echo");
    let job = |n: u128, kind: &TaskKind| Job {
        id: JobId(n),
        kind: kind.clone(),
        sector: None,
        payload: Bytes::from(format!("\"hello {n}\"")),
        needs: Needs::default(),
    };
    let cx = Context::detached();
    assert!(pool.capacity(&echo).total >= 1, "there is a slot for echo");
    assert_eq!(pool.run(job(1, &echo), &cx).await.expect("echo"), "\"hello 1\"");

    let jobs = (2..8).map(|n| pool.run(job(n, &echo), &cx));
    let outputs = futures::future::join_all(jobs).await;
    for (n, output) in (2..8).zip(outputs) {
        let output = output.expect("a full pool is not an error");
        assert_eq!(output, format!("\"hello {n}\""), "each job gets its own answer");
    }
    let capacity = pool.capacity(&echo);
    assert_eq!(capacity.free, capacity.total, "slots are free again");
    assert!(pool.slots().iter().all(|s| s.job.is_none()), "no slot shows a job that ended");

    let unknown = TaskKind::new("no-such-kind");
    assert_eq!(pool.capacity(&unknown).total, 0);
    assert_eq!(pool.run(job(8, &unknown), &cx).await.expect_err("no slot").kind(), PoolErrorKind::NoProcessor);

    let stopped = Context::detached();
    stopped.cancel.cancel();
    assert_eq!(pool.run(job(9, &echo), &stopped).await.expect_err("cancelled").kind(), PoolErrorKind::Cancelled);
    assert_eq!(pool.run(job(10, &echo), &cx).await.expect("works after a cancelled job"), "\"hello 10\"");

    pool.drain().await.expect("drain");
    assert_eq!(pool.run(job(11, &echo), &cx).await.expect_err("drained").kind(), PoolErrorKind::Draining);
}
