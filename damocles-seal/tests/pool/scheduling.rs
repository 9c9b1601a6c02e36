//! What the scheduler decides, with real children.

use crate::{
    cases::{Heard, echo, job, marker, pids, slot, spec},
    runner::{Case, cases},
};
use async_trait::async_trait;
use damocles_core::{
    Context,
    pool::{Job, PoolError, PoolErrorKind, ProcessorPool, SlotState, TaskKind},
};
use damocles_seal::pool::{Backlog, Gate, Hooks, LocalPool, Pass, PoolSpec, SlotSpec};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::Notify;

pub(crate) fn all() -> Vec<Case> {
    cases![
        a_slot_with_two_children_does_two_jobs_at_a_time,
        a_slot_that_is_not_restarted_waits_for_its_operator,
        a_gate_is_passed_before_the_job_and_left_after_it,
        a_claim_is_cancelled_with_its_job,
        what_was_done_is_counted,
        backlogs_and_limits_that_let_nothing_run_are_refused,
    ]
    .into()
}

async fn a_slot_with_two_children_does_two_jobs_at_a_time() {
    let mut both = slot("good-0", &["good"]);
    both.concurrent = 2;
    let pool = LocalPool::new(spec(vec![both])).unwrap();
    let files = [marker(), marker()];
    let cx = Context::detached();
    let watch = async {
        for (_, file, _) in &files {
            pids(file).await;
        }
        let slots = pool.slots();
        let names: Vec<&str> = slots.iter().map(|slot| slot.name.as_str()).collect();
        assert_eq!(names, ["good-0.0", "good-0.1"]);
        assert!(slots.iter().all(|slot| slot.state == SlotState::Busy));
        assert!(slots[0].pid.is_some() && slots[0].pid != slots[1].pid);
        cx.cancel.cancel();
    };
    let run = |n, file: &str| pool.run(job(n, "forever", file), &cx);
    let (one, two, ()) = tokio::join!(run(1, &files[0].2), run(2, &files[1].2), watch);
    for result in [one, two] {
        assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Cancelled);
    }
}

async fn a_slot_that_is_not_restarted_waits_for_its_operator() {
    let mut once = slot("good-0", &["good"]);
    once.auto_restart = false;
    let pool = LocalPool::new(spec(vec![once])).unwrap();
    let error = pool.run(job(1, "die", "x"), &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Crashed);
    let report = &pool.slots()[0];
    assert_eq!((report.state, report.failures, report.restarts), (SlotState::Stopped, 1, 0));
    assert!(report.last_error.as_ref().is_some_and(|error| error.contains("farewell")), "{report:?}");
    let heard = Arc::new(Heard::default());
    let cx = Context::new(heard.clone());
    let operator = async {
        heard.1.notified().await;
        let reason = pool.waiting()[0].reason.clone();
        assert!(reason.starts_with("slot good-0 failed and is not restarted by itself, resume it: "), "{reason}");
        assert!(pool.resume("good-0"));
    };
    let (result, ()) = tokio::join!(pool.run(job(2, "echo", "x"), &cx), operator);
    result.unwrap();
    let report = &pool.slots()[0];
    assert_eq!((report.state, report.failures, report.restarts), (SlotState::Idle, 0, 1));
}

/// Lets jobs in when the test says so, and counts who is inside.
#[derive(Debug, Default)]
struct FakeGate {
    asked: Notify,
    open: Notify,
    inside: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Gate for FakeGate {
    async fn enter(
        &self,
        _: &SlotSpec,
        _: &Job,
        _: &Context,
        waits: &(dyn Fn() + Send + Sync),
    ) -> Result<Box<dyn Pass>, PoolError> {
        waits();
        self.asked.notify_one();
        self.open.notified().await;
        self.inside.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Inside(Arc::clone(&self.inside))))
    }
}

fn gated() -> (LocalPool, Arc<FakeGate>) {
    let gate = Arc::new(FakeGate::default());
    let mut hooks = Hooks::default();
    hooks.gate = Some(gate.clone());
    (LocalPool::with(spec(vec![slot("good-0", &["good"])]), hooks).unwrap(), gate)
}

async fn a_gate_is_passed_before_the_job_and_left_after_it() {
    let (pool, gate) = gated();
    let (_dir, file, name) = marker();
    let cx = Context::detached();
    let watch = async {
        gate.asked.notified().await;
        assert_eq!(pool.slots()[0].state, SlotState::Claiming);
        assert_eq!(pool.slots()[0].pid, None, "no process before the claim");
        assert!(pool.waiting()[0].reason.starts_with("slot good-0 has claimed for "));
        gate.open.notify_one();
        pids(&file).await;
        assert_eq!(gate.inside.load(Ordering::SeqCst), 1);
        cx.cancel.cancel();
    };
    let (result, ()) = tokio::join!(pool.run(job(1, "forever", &name), &cx), watch);
    assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Cancelled);
    assert_eq!(gate.inside.load(Ordering::SeqCst), 0, "given back with the end of the process");
    gate.open.notify_one();
    echo(&pool, 2).await.unwrap();
    assert_eq!(gate.inside.load(Ordering::SeqCst), 0, "an idle child holds nothing");
}

async fn a_claim_is_cancelled_with_its_job() {
    let (pool, gate) = gated();
    let cx = Context::detached();
    let cancel = async {
        gate.asked.notified().await;
        cx.cancel.cancel();
    };
    let (result, ()) = tokio::join!(pool.run(job(1, "echo", "x"), &cx), cancel);
    assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Cancelled);
    assert_eq!(pool.slots()[0].state, SlotState::Idle);
    gate.open.notify_one();
    echo(&pool, 2).await.unwrap();
}

async fn what_was_done_is_counted() {
    let pool = LocalPool::new(spec(vec![slot("good-0", &["good"])])).unwrap();
    echo(&pool, 1).await.unwrap();
    echo(&pool, 2).await.unwrap();
    let error = pool.run(job(3, "full", "x"), &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::DiskFull);
    let stats = pool.stats();
    let of = |kind| &stats.kinds[&TaskKind::new(kind)];
    assert_eq!((of("echo").starts, of("echo").done, of("echo").running), (2, 2, 0));
    assert_eq!((of("full").starts, of("full").done, of("full").failures["disk_full"]), (1, 0, 1));
    assert_eq!(of("die").starts, 0, "kinds that never ran are there too");
}

async fn backlogs_and_limits_that_let_nothing_run_are_refused() {
    let refused = |change: fn(&mut PoolSpec)| {
        let mut spec = spec(vec![slot("good-0", &["good"])]);
        change(&mut spec);
        LocalPool::new(spec).unwrap_err().to_string()
    };
    fn backlog(spec: &mut PoolSpec, kind: &'static str, next: &'static str) {
        spec.backlog = [(TaskKind::new(kind), Backlog { next: TaskKind::new(next), most: 1 })].into();
    }
    let backwards = "the backlog of `pc2` ends with `pc1`, which does not come after it in the plan";
    assert_eq!(refused(|spec| backlog(spec, "pc2", "pc1")), backwards);
    let no_next = "the backlog of `pc1` ends with `transfer`, which has no slot here: it would never end";
    assert_eq!(refused(|spec| backlog(spec, "pc1", "transfer")), no_next);
    assert_eq!(refused(|spec| spec.at_once = Some(0)), "the limit of `at_once` is zero: nothing would ever run");
    let no_child = "the limit of `good-0` is zero: nothing would ever run";
    assert_eq!(refused(|spec| spec.slots[0].concurrent = 0), no_child);
    let twice = |spec: &mut PoolSpec| {
        spec.slots.push(slot("good-0.1", &["good"]));
        spec.slots[0].concurrent = 2;
    };
    assert_eq!(refused(twice), "two slots are named `good-0.1`");
}
