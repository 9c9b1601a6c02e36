//! Each fault within its time limit, with an error that says what happened; no process is left, no result lost.

use crate::{
    runner::{Case, cases},
    support::{c2, in_time, me, pids, pool_of, prove, runs, slot},
};
use damocles_core::{
    Context,
    pool::{PoolError, PoolErrorKind, ProcessorPool, Task},
};
use damocles_seal::{
    pool::{LocalPool, Protocol, SlotSpec},
    task::{C2, C2Output},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

pub(crate) fn all() -> Vec<Case> {
    cases![
        a_fault_is_named_and_leaves_nothing,
        what_is_not_ready_is_not_started,
        a_hanging_child_is_found_and_killed,
        a_child_that_reads_nothing_is_found,
        a_child_that_never_stops_talking_is_found,
        half_an_answer_is_no_answer,
        what_left_the_group_holds_nobody_up,
        a_finished_result_is_taken_however_the_child_ends,
        a_result_that_came_while_it_was_stopped_is_taken,
        a_child_that_ignores_being_stopped_is_killed,
        a_second_answer_is_rubbish,
        a_failure_costs_no_child,
        kinds_that_the_old_protocol_lacks_are_refused,
    ]
    .into()
}

const BOTH: [Protocol; 2] = [Protocol::V1, Protocol::V2];

/// A pool whose only child fails in this way, and where it writes its process numbers.
pub(crate) struct Faulty {
    pub(crate) pool: LocalPool,
    pub(crate) dir: TempDir,
    pub(crate) pids: PathBuf,
}

impl Faulty {
    pub(crate) fn new(protocol: Protocol, mode: &str) -> Self {
        Self::with(protocol, mode, |_| ())
    }

    pub(crate) fn with(protocol: Protocol, mode: &str, change: impl FnOnce(&mut SlotSpec)) -> Self {
        Self::limited(protocol, mode, None, change)
    }

    fn limited(protocol: Protocol, mode: &str, time: Option<Duration>, change: impl FnOnce(&mut SlotSpec)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let name = if protocol == Protocol::V1 { "v1" } else { "v2" };
        let mut slot = slot(protocol, C2::KIND, me(["bad", name, mode, pids.to_str().unwrap()]));
        change(&mut slot);
        let limit = |spec: &mut damocles_seal::pool::PoolSpec| spec.limits.time.extend(time.map(|t| (C2::KIND, t)));
        Self { pool: pool_of(slot, limit), dir, pids }
    }

    pub(crate) async fn prove(&self) -> Result<C2Output, PoolError> {
        self.prove_with("{\"nodes\":[1,2]}\n").await
    }

    async fn prove_with(&self, nodes: &str) -> Result<C2Output, PoolError> {
        prove(&self.pool, &c2(self.dir.path(), nodes), &Context::detached()).await
    }

    /// Fails, and leaves no process.
    pub(crate) async fn fault(&self, nodes: &str) -> PoolError {
        let error = self.prove_with(nodes).await.unwrap_err();
        assert!(!any_runs(&self.pids).await, "{}", error.chain());
        assert_eq!(self.pool.slots()[0].pid, None, "{}", error.chain());
        error
    }
}

async fn any_runs(file: &Path) -> bool {
    pids(file).await.into_iter().any(runs)
}

/// Patience for children that hang.
fn impatient(slot: &mut SlotSpec) {
    slot.talk.ping_every = Duration::from_millis(20);
    slot.talk.hung_after = Duration::from_millis(300);
}

async fn a_fault_is_named_and_leaves_nothing() {
    use PoolErrorKind::{Crashed, Rubbish};
    for (mode, kind, v1, v2) in [
        ("exit", Crashed, "exit status: 3", "exit status: 3"),
        ("exit", Crashed, "farewell", "farewell"),
        ("killed", Crashed, "signal: 9", "signal: 9"),
        ("fork", Crashed, "exit status: 3", "exit status: 3"),
        ("closes", Crashed, "its answers ended", "its answers ended"),
        ("rubbish", Rubbish, "`Segmentation fault`", "was announced"),
        ("non-utf8", Rubbish, "\u{fffd}\u{fffd}\u{fffd}` (3 bytes)", "`\\xff\\xfe\\xfd`"),
        (
            "gigabyte",
            Rubbish,
            "a line of more than 67108864 bytes, which begins with `xxx",
            "1073741824 bytes was announced",
        ),
        ("wrong-id", Rubbish, "request 101, which nobody made", "a job that it does not have"),
    ] {
        for (protocol, text) in BOTH.into_iter().zip([v1, v2]) {
            let error = Faulty::new(protocol, mode).fault("{}").await;
            let said = error.chain();
            assert_eq!(error.kind(), kind, "{mode} {protocol:?}: {said}");
            for text in [text, "slot: c2-0", "program: ", "/protocol-", "exit: "] {
                assert!(said.contains(text), "{mode} {protocol:?}: `{text}` is not in: {said}");
            }
        }
    }
    let error = Faulty::new(Protocol::V1, "null").fault("{}").await;
    assert_eq!(error.kind(), Rubbish);
    assert!(error.chain().contains("neither output nor err_msg"), "{}", error.chain());
}

async fn what_is_not_ready_is_not_started() {
    for (mode, protocols, text) in [
        ("slow", &BOTH[..], "it was not ready within 1s"),
        ("quits", &BOTH[..], "it exited before it said that it is ready"),
        ("noise", &BOTH[..1], "its first line is `loading the library`, not `c2 processor ready`"),
        ("other-stage", &BOTH[..1], "its first line is `pc1 processor ready`, not `c2 processor ready`"),
        ("endless", &BOTH[..1], "a line of more than 65536 bytes"),
        ("noise", &BOTH[1..], "was announced"),
    ] {
        for protocol in protocols {
            let quick = |slot: &mut SlotSpec| {
                if mode == "slow" {
                    slot.stable_wait = Duration::from_secs(1);
                }
            };
            let faulty = Faulty::with(*protocol, mode, quick);
            let error = faulty.prove().await.unwrap_err();
            let said = error.chain();
            assert_eq!(error.kind(), PoolErrorKind::Start, "{mode} {protocol:?}: {said}");
            assert!(said.contains(text) && said.contains("slot: c2-0"), "{mode} {protocol:?}: {said}");
            assert_eq!(faulty.pool.slots()[0].pid, None);
            if mode == "quits" {
                assert!(said.contains("exit status: 9") && said.contains("the library is missing"), "{said}");
                assert!(!any_runs(&faulty.pids).await);
            }
        }
    }
}

async fn a_hanging_child_is_found_and_killed() {
    for protocol in BOTH {
        let error = Faulty::with(protocol, "stops", impatient).fault("{}").await;
        assert_eq!(error.kind(), PoolErrorKind::Hung, "{}", error.chain());
        assert!(error.chain().contains("signal: 9"), "{}", error.chain());
    }
}

async fn a_child_that_reads_nothing_is_found() {
    let long = format!("[\"{}\"]", "x".repeat(1 << 20));
    for (protocol, text) in [(Protocol::V1, "not read on in its input"), (Protocol::V2, "not answered a ping")] {
        let error = Faulty::with(protocol, "never-reads", impatient).fault(&long).await;
        assert_eq!(error.kind(), PoolErrorKind::Hung, "{}", error.chain());
        assert!(error.chain().contains(text), "{}", error.chain());
    }
}

/// What it says is read all the time, and it is looked after all the same.
async fn a_child_that_never_stops_talking_is_found() {
    let error = Faulty::with(Protocol::V2, "floods", impatient).fault("{}").await;
    assert_eq!(error.kind(), PoolErrorKind::Hung, "{}", error.chain());
    assert!(error.chain().contains("not answered a ping"), "{}", error.chain());
}

async fn half_an_answer_is_no_answer() {
    let error = Faulty::with(Protocol::V2, "partial", impatient).fault("{}").await;
    assert_eq!(error.kind(), PoolErrorKind::Hung, "{}", error.chain());
    // The old protocol has no ping: only the time limit of the job finds it.
    let error = Faulty::limited(Protocol::V1, "partial", Some(Duration::from_secs(2)), |_| ()).fault("{}").await;
    assert_eq!(error.kind(), PoolErrorKind::TimedOut, "{}", error.chain());
}

async fn what_left_the_group_holds_nobody_up() {
    for protocol in BOTH {
        let faulty = Faulty::new(protocol, "setsid");
        let error = faulty.prove().await.unwrap_err();
        assert_eq!(error.kind(), PoolErrorKind::Crashed, "{}", error.chain());
        let pids = pids(&faulty.pids).await;
        assert!(!runs(pids[0]) && pids.len() > 1);
        // It was not waited for, and is gone all the same: what a child leaves falls to its guard, which ends it.
        in_time(async {
            while any_runs(&faulty.pids).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

async fn a_finished_result_is_taken_however_the_child_ends() {
    for mode in ["done-and-exit", "done-and-killed", "done-and-stops"] {
        for protocol in BOTH {
            let faulty = Faulty::with(protocol, mode, impatient);
            let output = faulty.prove().await.unwrap_or_else(|error| panic!("{mode} {protocol:?}: {}", error.chain()));
            assert_eq!(output.proof, [1, 2, 3], "{mode} {protocol:?}");
            drop(faulty.pool);
            in_time(async {
                while any_runs(&faulty.pids).await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
    }
}

/// Cancels the job when the child has it.
async fn cancelled(faulty: &Faulty) -> Result<C2Output, PoolError> {
    let cx = Context::detached();
    let task = c2(faulty.dir.path(), "{}");
    let cancel = async {
        pids(&faulty.pids).await;
        cx.cancel.cancel();
    };
    tokio::join!(prove(&faulty.pool, &task, &cx), cancel).0
}

async fn a_result_that_came_while_it_was_stopped_is_taken() {
    for protocol in BOTH {
        let faulty = Faulty::new(protocol, "done-when-stopped");
        assert_eq!(cancelled(&faulty).await.unwrap().proof, [1, 2, 3], "{protocol:?}");
        assert!(!any_runs(&faulty.pids).await, "it was told to end");
    }
}

async fn a_child_that_ignores_being_stopped_is_killed() {
    for protocol in BOTH {
        let faulty = Faulty::new(protocol, "ignores-term");
        assert_eq!(cancelled(&faulty).await.unwrap_err().kind(), PoolErrorKind::Cancelled, "{protocol:?}");
        assert!(!any_runs(&faulty.pids).await);
    }
}

async fn a_second_answer_is_rubbish() {
    for protocol in BOTH {
        let faulty = Faulty::new(protocol, "twice");
        assert_eq!(faulty.prove().await.unwrap().proof, [1, 2, 3], "the first one counts");
        let error = faulty.fault("{}").await;
        assert_eq!(error.kind(), PoolErrorKind::Rubbish, "{}", error.chain());
    }
}

async fn a_failure_costs_no_child() {
    for protocol in BOTH {
        let faulty = Faulty::new(protocol, "fails");
        let error = faulty.prove().await.unwrap_err();
        assert_eq!(error.kind(), PoolErrorKind::Failed, "{}", error.chain());
        assert!(error.chain().contains("no such sector"), "{}", error.chain());
        assert!(faulty.pool.slots()[0].pid.is_some());
    }
}

async fn kinds_that_the_old_protocol_lacks_are_refused() {
    let mut slot = slot(Protocol::V1, damocles_seal::task::C1::KIND, me(["bad"]));
    let refused = |slot: SlotSpec| async {
        let error = pool_of(slot, |_| ()).start(&Context::detached()).await.unwrap_err();
        assert_eq!(error.kind(), PoolErrorKind::Start);
        error.chain()
    };
    assert!(refused(slot.clone()).await.contains("the kind `c1` cannot be given to a processor of protocol v1"));
    slot.kinds.push(C2::KIND);
    assert!(refused(slot).await.contains("serves one kind of task"));
}
