//! The tests.

use crate::{
    child,
    runner::{Case, cases},
};
use bytes::Bytes;
use damocles_core::{
    Context, CpuSet, Event, EventSink, JobEvent, JobId, conformance,
    pool::{Job, Needs, PoolError, PoolErrorKind, ProcessorPool, TaskKind},
};
use damocles_seal::pool::{CommandSpec, InlinePool, LocalPool, PoolSpec, SlotSpec};
use parking_lot::Mutex;
use std::{
    env::current_exe,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

pub(crate) fn all() -> Vec<Case> {
    cases![
        local_pool_conforms,
        inline_pool_conforms,
        time_limit_conforms,
        a_panic_in_process_is_a_failed_job,
        third_party_child_in_sh_is_stopped_against_its_will,
        a_child_serves_many_jobs_and_its_prints_do_no_harm,
        failures_keep_their_kind_and_causes,
        progress_and_the_reason_to_wait_are_told,
        a_dead_child_is_an_error_with_its_last_words,
        rubbish_is_an_error_and_the_next_job_works,
        a_child_that_does_not_get_ready_is_an_error,
        a_child_that_exits_leaves_nothing_behind,
        cancelling_leaves_nothing_behind,
        dropping_the_future_leaves_nothing_behind,
        a_time_limit_stops_the_processor,
        waiting_for_a_slot_costs_no_time,
        dropping_the_pool_leaves_nothing_behind,
        killing_the_parent_leaves_nothing_behind,
        a_child_is_placed_by_its_parent_or_not_started,
        an_idle_child_that_died_is_replaced,
        draining_refuses_those_who_wait_and_ends_the_children,
        slots_that_do_not_fit_are_refused,
    ]
    .into()
}

fn kinds() -> Vec<TaskKind> {
    child::registry().kinds().cloned().collect()
}

pub(crate) fn me(args: &[&str]) -> CommandSpec {
    CommandSpec::new(current_exe().unwrap(), ["child"].iter().chain(args).copied())
}

pub(crate) fn slot(name: &str, args: &[&str]) -> SlotSpec {
    let kinds = if args == ["good"] { kinds() } else { vec![TaskKind::new("echo")] };
    SlotSpec::new(name, kinds, me(args))
}

pub(crate) fn spec(slots: Vec<SlotSpec>) -> PoolSpec {
    let mut spec = PoolSpec::new(slots);
    spec.rest = Duration::from_millis(1);
    spec.grace = Duration::from_secs(2);
    spec
}

fn good() -> LocalPool {
    LocalPool::new(spec(vec![slot("good-0", &["good"])])).unwrap()
}

fn limited(kind: &'static str, time: Duration) -> LocalPool {
    let mut spec = spec(vec![slot("good-0", &["good"])]);
    spec.limits.time = [(TaskKind::new(kind), time)].into();
    LocalPool::new(spec).unwrap()
}

pub(crate) fn job(n: u128, kind: &str, payload: &str) -> Job {
    let payload = Bytes::from(serde_json::to_vec(payload).unwrap());
    Job { id: JobId(n), kind: TaskKind::read(kind), sector: None, payload, needs: Needs::default() }
}

pub(crate) async fn echo(pool: &dyn ProcessorPool, n: u128) -> Result<Bytes, PoolError> {
    pool.run(job(n, "echo", "x"), &Context::detached()).await
}

#[derive(Debug, Default)]
pub(crate) struct Heard(pub(crate) Mutex<Vec<JobEvent>>, pub(crate) tokio::sync::Notify);

impl EventSink for Heard {
    fn emit(&self, event: Event) {
        if let Event::Job { what, .. } = event {
            self.0.lock().push(what);
            self.1.notify_one();
        }
    }
}

/// Waits until the file is there, and reads the process numbers in it.
pub(crate) async fn pids(file: &Path) -> Vec<i32> {
    loop {
        if let Ok(text) = fs::read_to_string(file) {
            return text.split(' ').map(|n| n.parse().unwrap()).collect();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process runs. A zombie does not: it waits for somebody who is no part of this.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// For ends that nobody reports.
async fn wait_until_gone(pids: &[i32]) {
    let gone = async {
        while pids.iter().any(|pid| runs(*pid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("the processes end");
}

pub(crate) fn marker() -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let text = file.to_str().unwrap().to_owned();
    (dir, file, text)
}

async fn local_pool_conforms() {
    let slots = (0..2).map(|n| slot(&format!("good-{n}"), &["good"])).collect();
    let pool = LocalPool::new(spec(slots)).unwrap();
    conformance::pool::all(&pool).await;
    assert!(pool.slots().iter().all(|slot| slot.pid.is_none()), "a drained pool has no children");
}

async fn inline_pool_conforms() {
    conformance::pool::all(&InlinePool::new(child::registry())).await;
}

async fn time_limit_conforms() {
    conformance::pool::all(&limited("echo", Duration::from_secs(600))).await;
}

async fn a_panic_in_process_is_a_failed_job() {
    let pool = InlinePool::new(child::registry());
    let error = pool.run(job(1, "panic", "x"), &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Failed);
    assert!(error.chain().ends_with("panicked: the bug"), "{}", error.chain());
    echo(&pool, 2).await.unwrap();
}

async fn third_party_child_in_sh_is_stopped_against_its_will() {
    let (_dir, file, name) = marker();
    let ready = r#"{"frame":"ready","magic":"damocles-processor","version":2,"kinds":["echo"],"pid":1}"#;
    let script = format!(
        "trap '' TERM; printf '\\0\\0\\0\\{:03o}%s' '{ready}'; sleep 1000 & echo \"$$ $!\" | tr -d '\\n' > {name}.half; mv {name}.half {name}; wait; sleep 1000",
        ready.len()
    );
    let slot = SlotSpec::new("sh", vec![TaskKind::new("echo")], CommandSpec::new("sh", ["-c", &script]));
    let mut spec = spec(vec![slot]);
    spec.grace = Duration::from_millis(50);
    let pool = LocalPool::new(spec).unwrap();
    let cx = Context::detached();
    let cancel = async {
        let pids = pids(&file).await;
        cx.cancel.cancel();
        pids
    };
    let (result, pids) = tokio::join!(pool.run(job(1, "echo", "x"), &cx), cancel);
    assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Cancelled);
    assert_eq!(pids.iter().filter(|pid| runs(**pid)).count(), 0, "nothing is left when run returns");
}

async fn a_child_serves_many_jobs_and_its_prints_do_no_harm() {
    let pool = good();
    echo(&pool, 1).await.unwrap();
    let first = pool.slots()[0].pid;
    for n in 2..20 {
        let output = pool.run(job(n, "noise", "y"), &Context::detached()).await.unwrap();
        assert_eq!(output, "\"y\"");
    }
    assert!(first.is_some());
    assert_eq!(pool.slots()[0].pid, first, "the child is kept");
    // A frame larger than any pipe, both ways.
    let long = "z".repeat(3 << 20);
    let output = pool.run(job(20, "echo", &long), &Context::detached()).await.unwrap();
    assert_eq!(output.len(), long.len() + 2);
}

async fn failures_keep_their_kind_and_causes() {
    let pool = good();
    for (n, kind, expected, text) in [
        (1, "fail", PoolErrorKind::Failed, "the work: the cause"),
        (2, "full", PoolErrorKind::DiskFull, "write: "),
        (3, "panic", PoolErrorKind::Failed, "panicked: the bug"),
    ] {
        let error = pool.run(job(n, kind, "x"), &Context::detached()).await.unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(error.chain().contains(text), "{}", error.chain());
    }
    let pid = pool.slots()[0].pid;
    echo(&pool, 4).await.unwrap();
    assert_eq!(pool.slots()[0].pid, pid, "a failed job does not cost the child");
    let mut bad = job(5, "echo", "");
    bad.payload = Bytes::from_static(b"{");
    let error = pool.run(bad, &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Encoding);
}

async fn progress_and_the_reason_to_wait_are_told() {
    let pool = good();
    let heard = Arc::new(Heard::default());
    let cx = Context::new(heard.clone());
    pool.run(job(1, "steps", "x"), &cx).await.unwrap();
    let progress = |done| JobEvent::Progress { done, total: Some(3) };
    let started = JobEvent::Started { slot: "good-0".to_owned() };
    let expected = [started, progress(1), progress(2), progress(3), JobEvent::Ended { ok: true }];
    assert_eq!(*heard.0.lock(), expected);

    let (_dir, file, name) = marker();
    let running = Context::detached();
    let heard = Arc::new(Heard::default());
    let waiting = Context::new(heard.clone());
    let watch = async {
        pids(&file).await;
        let waits = async {
            while heard.0.lock().is_empty() {
                heard.1.notified().await;
            }
            let by = format!("all slots for echo are busy (1), one by forever ({}) in slot good-0 for ", JobId(2));
            assert!(pool.waiting()[0].reason.starts_with(&by), "{}", pool.waiting()[0].reason);
            running.cancel.cancel();
        };
        let (result, ()) = tokio::join!(pool.run(job(3, "echo", "x"), &waiting), waits);
        result.unwrap();
    };
    let (cancelled, ()) = tokio::join!(pool.run(job(2, "forever", &name), &running), watch);
    assert_eq!(cancelled.unwrap_err().kind(), PoolErrorKind::Cancelled);
    let first = heard.0.lock()[0].clone();
    assert!(matches!(&first, JobEvent::Queued { reason } if reason.starts_with("all slots for echo are busy (1)")));
}

async fn a_dead_child_is_an_error_with_its_last_words() {
    let pool = good();
    let error = pool.run(job(1, "die", "x"), &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Crashed);
    let text = error.to_string();
    assert!(text.contains("signal: 6") && text.contains("farewell"), "{text}");
    assert_eq!(pool.slots()[0].pid, None);
    echo(&pool, 2).await.unwrap();
}

async fn rubbish_is_an_error_and_the_next_job_works() {
    for (mode, kind) in [
        ("other job", PoolErrorKind::Rubbish),
        ("cut", PoolErrorKind::Rubbish),
        ("text", PoolErrorKind::Rubbish),
        ("json", PoolErrorKind::Rubbish),
    ] {
        // The first slot is mad. It rests after its failure, so that the second takes the next job.
        let mut spec = spec(vec![slot("mad", &["mad", mode]), slot("good", &["good"])]);
        spec.rest = Duration::from_secs(1000);
        let pool = LocalPool::new(spec).unwrap();
        let error = echo(&pool, 1).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{mode}: {}", error.chain());
        assert!(error.to_string().contains("slot: mad"), "{error}");
        assert_eq!(pool.slots()[0].pid, None, "{mode}: it is dead");
        echo(&pool, 2).await.unwrap();
    }
}

async fn a_child_that_does_not_get_ready_is_an_error() {
    for (mode, text) in [
        ("hello", "bytes was announced"),
        ("silent", "it was not ready within 1s"),
        ("old", "it speaks version 1, not 2"),
        ("useless", "it spoke before it said that it is ready"),
        ("quits", "it exited before it said that it is ready"),
    ] {
        let mut slot = slot("bad", &[mode]);
        if mode == "silent" {
            slot.stable_wait = Duration::from_secs(1);
        }
        let pool = LocalPool::new(spec(vec![slot])).unwrap();
        for n in 1..3 {
            let error = echo(&pool, n).await.unwrap_err();
            assert_eq!(error.kind(), PoolErrorKind::Start, "{mode}");
            assert!(error.chain().contains(text), "{mode}: {}", error.chain());
            assert_eq!(pool.slots()[0].pid, None, "{mode}: it is dead");
            if mode == "quits" {
                let text = error.to_string();
                assert!(text.contains("exit status: 9") && text.contains("the library is missing"), "{text}");
            }
        }
        assert!(pool.start(&Context::detached()).await.is_err(), "{mode}: it shows before the first job");
    }
    let missing = SlotSpec::new("a", vec![TaskKind::new("echo")], CommandSpec::new("/no/such/program", [""; 0]));
    let pool = LocalPool::new(spec(vec![missing])).unwrap();
    let error = echo(&pool, 1).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Start);
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let mut other = slot("a", &["good"]);
    other.kinds.push(TaskKind::new("transfer"));
    let error = echo(&LocalPool::new(spec(vec![other])).unwrap(), 1).await.unwrap_err();
    assert!(error.chain().contains("does not know the kind `transfer`"), "{}", error.chain());
}

async fn a_child_that_exits_leaves_nothing_behind() {
    let (_dir, file, name) = marker();
    let pool = good();
    let error = pool.run(job(1, "leave", &name), &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::Crashed);
    assert!(error.to_string().contains("exit status: 3"), "{error}");
    let pids = pids(&file).await;
    assert!(!pids.iter().any(|pid| runs(*pid)), "its own child is gone too when run returns");
}

async fn cancelling_leaves_nothing_behind() {
    let (_dir, file, name) = marker();
    let pool = good();
    let cx = Context::detached();
    let cancel = async {
        let pids = pids(&file).await;
        assert!(pids.iter().all(|pid| runs(*pid)));
        assert_eq!(pool.capacity(&TaskKind::new("echo")).free, 0);
        assert_eq!(pool.slots()[0].job, Some(JobId(1)));
        cx.cancel.cancel();
        pids
    };
    let (result, pids) = tokio::join!(pool.run(job(1, "forever", &name), &cx), cancel);
    assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Cancelled);
    assert!(!pids.iter().any(|pid| runs(*pid)), "nothing is left when run returns");
    echo(&pool, 2).await.unwrap();
}

async fn dropping_the_future_leaves_nothing_behind() {
    let (_dir, file, name) = marker();
    let pool = good();
    let cx = Context::detached();
    let pids = tokio::select! {
        result = pool.run(job(1, "forever", &name), &cx) => panic!("{result:?}"),
        pids = pids(&file) => pids,
    };
    // The slot is not given to another before the old processes are gone.
    echo(&pool, 2).await.unwrap();
    assert!(!pids.iter().any(|pid| runs(*pid)));
}

async fn a_time_limit_stops_the_processor() {
    let (_dir, file, name) = marker();
    let pool = limited("forever", Duration::from_secs(1));
    let error = pool.run(job(1, "forever", &name), &Context::detached()).await.unwrap_err();
    assert_eq!(error.kind(), PoolErrorKind::TimedOut);
    assert!(error.hint().is_some_and(|hint| hint.contains("timeout")));
    assert!(error.to_string().contains("time limit: 1s"), "{error}");
    if file.exists() {
        assert!(!pids(&file).await.iter().any(|pid| runs(*pid)));
    }
    echo(&pool, 2).await.unwrap();
}

async fn waiting_for_a_slot_costs_no_time() {
    let (_dir, file, name) = marker();
    // So little that a job would not even wait for its slot in it.
    let pool = limited("echo", Duration::from_nanos(1));
    pool.start(&Context::detached()).await.unwrap();
    let running = Context::detached();
    let heard = Arc::new(Heard::default());
    let waiting = Context::new(heard.clone());
    let watch = async {
        pids(&file).await;
        let let_go = async {
            heard.1.notified().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            let events = heard.0.lock().clone();
            assert!(matches!(events[..], [JobEvent::Queued { .. }]), "its time has not begun: {events:?}");
            running.cancel.cancel();
        };
        let (result, ()) = tokio::join!(pool.run(job(2, "echo", "x"), &waiting), let_go);
        assert_eq!(result.unwrap_err().kind(), PoolErrorKind::TimedOut, "it needs longer to start a child");
    };
    let (cancelled, ()) = tokio::join!(pool.run(job(1, "forever", &name), &running), watch);
    assert_eq!(cancelled.unwrap_err().kind(), PoolErrorKind::Cancelled);
}

async fn dropping_the_pool_leaves_nothing_behind() {
    let pool = good();
    pool.start(&Context::detached()).await.unwrap();
    let pid = i32::try_from(pool.slots()[0].pid.unwrap()).unwrap();
    assert!(runs(pid));
    drop(pool);
    wait_until_gone(&[pid]).await;
}

/// A program with a pool whose job never ends.
pub(crate) fn parent(file: &str) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(good().run(job(1, "forever", file), &Context::detached()));
    panic!("{error:?}");
}

async fn killing_the_parent_leaves_nothing_behind() {
    let (_dir, file, name) = marker();
    let mut parent = Command::new(current_exe().unwrap()).args(["parent", &name]).stdin(Stdio::null()).spawn().unwrap();
    let pids = pids(&file).await;
    assert!(pids.iter().all(|pid| runs(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_until_gone(&pids).await;
}

async fn a_child_is_placed_by_its_parent_or_not_started() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mine = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap();
    let mine: CpuSet = mine.trim().parse().unwrap();
    let last: CpuSet = mine.iter().last().unwrap().to_string().parse().unwrap();
    let mut bound = slot("bound", &["good"]);
    bound.placement.cpus = Some(last.clone());
    let pool = LocalPool::new(spec(vec![bound.clone()])).unwrap();
    let seen = pool.run(job(1, "cpus", ""), &Context::detached()).await.unwrap();
    assert_eq!(seen, format!("\"{last}\""));

    for impossible in ["9999".to_owned(), format!("{last},9999")] {
        bound.placement.cpus = Some(impossible.parse().unwrap());
        let pool = LocalPool::new(spec(vec![bound.clone()])).unwrap();
        let error = pool.run(job(1, "cpus", ""), &Context::detached()).await.unwrap_err();
        assert_eq!(error.kind(), PoolErrorKind::Start, "{impossible}");
        assert_eq!(pool.slots()[0].pid, None);
    }
}

async fn an_idle_child_that_died_is_replaced() {
    let pool = good();
    echo(&pool, 1).await.unwrap();
    let pid = pool.slots()[0].pid.unwrap();
    let kill = Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(kill.success());
    while pool.slots()[0].pid.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    echo(&pool, 2).await.unwrap();
    assert_ne!(pool.slots()[0].pid, Some(pid));
}

async fn draining_refuses_those_who_wait_and_ends_the_children() {
    let (_dir, file, name) = marker();
    let pool = good();
    let cx = Context::detached();
    let heard = Arc::new(Heard::default());
    let waiting = Context::new(heard.clone());
    let running = async {
        let result = pool.run(job(1, "forever", &name), &cx).await;
        assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Cancelled);
    };
    let refused = async {
        pids(&file).await;
        let result = pool.run(job(2, "echo", "x"), &waiting).await;
        assert_eq!(result.unwrap_err().kind(), PoolErrorKind::Draining);
        // Only now: the drain was on while the first job ran.
        cx.cancel.cancel();
    };
    let drain = async {
        heard.1.notified().await;
        pool.drain().await.unwrap();
        assert!(cx.cancel.is_cancelled(), "drained after the running job");
    };
    tokio::join!(running, refused, drain);
    assert!(pool.slots().iter().all(|slot| slot.pid.is_none()));
}

async fn slots_that_do_not_fit_are_refused() {
    let refused = |slots: Vec<SlotSpec>| LocalPool::new(spec(slots)).unwrap_err().to_string();
    assert_eq!(refused(vec![slot("a", &["good"]), slot("a", &["good"])]), "two slots are named `a`");
    let mut none = slot("a", &["good"]);
    none.kinds.clear();
    assert_eq!(refused(vec![none]), "slot `a` takes no kind of job");
    let mut locked = slot("a", &["good"]);
    locked.locks.push("gpu".to_owned());
    assert_eq!(refused(vec![locked]), "slot `a` holds the lock `gpu`, which is not declared");
}
