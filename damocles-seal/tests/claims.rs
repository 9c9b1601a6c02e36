//! Claims of hardware, between tasks of a process and between processes.

#![expect(clippy::unwrap_used, reason = "tests")]

use bytes::Bytes;
use damocles_core::{
    CancellationToken, Context, GpuId, JobId, Timestamp,
    pool::{Job, Needs, TaskKind},
    testing::FakeClock,
};
use damocles_seal::{
    claims::{ClaimError, ClaimGate, Claims, Resource, Use},
    pool::{CommandSpec, Gate as _, SlotSpec},
};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

fn claims(dir: &Path, program: &str) -> Claims {
    Claims::at(dir, program, Some(dir.join("w.sock")), Arc::new(FakeClock::at(Timestamp(1_000)))).unwrap()
}

fn gpu(n: u8) -> Resource {
    Resource::Gpu(GpuId(format!("GPU-{n}")))
}

fn used(kind: &'static str) -> Use {
    Use { kind: TaskKind::new(kind), sector: "s-t01000-7".parse().ok() }
}

#[tokio::test]
async fn a_claim_is_exclusive_and_says_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let (worker, manager) = (claims(dir.path(), "worker w1"), claims(dir.path(), "manager"));
    let claim = worker.try_claim(&[gpu(0)], &used("c2"), None).unwrap();
    let Err(ClaimError::Held { resource, holder: Some(holder) }) =
        manager.try_claim(&[gpu(0)], &used("window_post"), None)
    else {
        panic!("it is held")
    };
    assert_eq!((resource, holder.program.as_str(), holder.kind.as_str()), (gpu(0), "worker w1", "c2"));
    assert_eq!((holder.pid, holder.since), (std::process::id(), Timestamp(1_000)));
    assert_eq!(manager.holder(&gpu(0)), Some(*holder));
    drop(manager.try_claim(&[gpu(1)], &used("window_post"), None).unwrap());
    drop(claim);
    assert_eq!(manager.holder(&gpu(0)), None);
    drop(manager.try_claim(&[gpu(0)], &used("window_post"), None).unwrap());
}

#[tokio::test]
async fn all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let claims = claims(dir.path(), "worker");
    let cpus: Vec<_> = (0..8).map(Resource::Cpu).collect();
    let seven = claims.try_claim(&cpus[7..], &used("pc1"), None).unwrap();
    let refused = claims.try_claim(&cpus, &used("pc1"), None).unwrap_err();
    assert!(refused.passes() && refused.to_string().starts_with("CPU 7 is held by pc1 of worker (pid "), "{refused}");
    assert_eq!(claims.try_claim(&cpus[..7], &used("pc1"), None).unwrap().resources(), &cpus[..7]);
    drop(seven);
    // Named twice is claimed once.
    claims.try_claim(&[cpus[0].clone(), cpus[0].clone()], &used("pc1"), None).unwrap();
}

#[tokio::test]
async fn the_more_urgent_goes_first_and_then_who_came_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let claims = claims(dir.path(), "worker");
    let first = claims.try_claim(&[gpu(0)], &used("c2"), None).unwrap();
    let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for (n, kind) in [(0, "pc2"), (1, "c2"), (2, "window_post"), (3, "c2")] {
        let (claims, order) = (claims.clone(), Arc::clone(&order));
        tasks.spawn(async move {
            let claim = claims.claim(&[gpu(0)], &used(kind)).await.unwrap();
            order.lock().push(n);
            drop(claim);
        });
        // Its place is taken before the next one comes.
        while places(dir.path()) <= n {
            tokio::task::yield_now().await;
        }
    }
    // A newcomer does not overtake those who wait, even when it is free.
    drop(first);
    assert!(matches!(
        claims.try_claim(&[gpu(0)], &used("pc2"), None),
        Err(ClaimError::Wanted { .. } | ClaimError::Held { .. })
    ));
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(*order.lock(), [2, 1, 3, 0]);
    assert_eq!(places(dir.path()), 0);
}

/// How many places in queues there are.
fn places(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    files.filter(|name| name.contains(".want-") && !name.contains(".new-")).count()
}

#[tokio::test]
async fn a_place_is_given_up_with_the_future() {
    let dir = tempfile::tempdir().unwrap();
    let claims = claims(dir.path(), "worker");
    let held = claims.try_claim(&[gpu(0)], &used("pc2"), None).unwrap();
    let cancel = CancellationToken::new();
    let waiting = {
        let (claims, cancel) = (claims.clone(), cancel.clone());
        tokio::spawn(async move { cancel.run_until_cancelled(claims.claim(&[gpu(0)], &used("window_post"))).await })
    };
    while places(dir.path()) == 0 {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert!(waiting.await.unwrap().is_none());
    assert_eq!(places(dir.path()), 0);
    drop(held);
    claims.try_claim(&[gpu(0)], &used("pc2"), None).unwrap();
}

/// Another process with the lock of a resource, as ours would have it, and perhaps a place in its queue.
fn other_process(dir: &Path, script: &str) -> Child {
    let mut child =
        Command::new("sh").args(["-c", script]).current_dir(dir).stdout(Stdio::piped()).spawn().expect("sh runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

#[tokio::test]
async fn the_death_of_a_holder_frees_its_claim_and_wakes_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let claims = claims(dir.path(), "manager");
    drop(claims.try_claim(&[gpu(0)], &used("c2"), None).unwrap());
    let holds = "exec 8<gpu-GPU-0 9>>gpu-GPU-0; flock -n 8 || exit 1; echo garbage >&9; echo ready; exec sleep 1000";
    let mut other = other_process(dir.path(), holds);
    // What it says of itself is rubbish, which harms nobody.
    let held = claims.try_claim(&[gpu(0)], &used("window_post"), None).unwrap_err();
    assert!(matches!(held, ClaimError::Held { holder: None, .. }), "{held:?}");
    let waiting = {
        let claims = claims.clone();
        tokio::spawn(async move { claims.claim(&[gpu(0)], &used("window_post")).await })
    };
    while places(dir.path()) == 0 {
        tokio::task::yield_now().await;
    }
    other.kill().unwrap();
    other.wait().unwrap();
    let claim = waiting.await.unwrap().unwrap();
    assert_eq!(claims.holder(&gpu(0)).unwrap().kind.as_str(), "window_post");
    drop(claim);
}

#[tokio::test]
async fn the_place_of_a_dead_process_keeps_nobody_back() {
    let dir = tempfile::tempdir().unwrap();
    let claims = claims(dir.path(), "worker");
    let name = "gpu-GPU-0.want-0-500-4000000-0";
    let waits = format!("exec 9>{name}; flock -n 9 || exit 1; echo ready; exec sleep 1000");
    let mut other = other_process(dir.path(), &waits);
    let wanted = claims.try_claim(&[gpu(0)], &used("c2"), None).unwrap_err();
    assert!(matches!(wanted, ClaimError::Wanted { pid: 4_000_000, .. }), "{wanted:?}");
    let waiting = {
        let claims = claims.clone();
        tokio::spawn(async move { claims.claim(&[gpu(0)], &used("c2")).await })
    };
    while places(dir.path()) < 2 {
        tokio::task::yield_now().await;
    }
    other.kill().unwrap();
    other.wait().unwrap();
    drop(waiting.await.unwrap().unwrap());
    assert!(!dir.path().join(name).exists());
}

#[tokio::test]
async fn two_that_need_each_others_do_not_wait_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..6_u8 {
        let claims = claims(dir.path(), "worker");
        tasks.spawn(async move {
            for round in 0..20_u8 {
                let wanted = [gpu(n % 3), gpu((n + round) % 3), gpu((n + 1) % 3)];
                let claim = claims.claim(&wanted, &used("c2")).await.unwrap();
                tokio::task::yield_now().await;
                drop(claim);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(places(dir.path()), 0);
}

/// A directory whose path leaves room for the lock files, and none for the longer names of places in a queue.
fn without_room_for_places(top: &Path) -> std::path::PathBuf {
    let mut dir = top.to_owned();
    // The kernel takes paths of 4095 bytes.
    const LONG: usize = 4075;
    while dir.as_os_str().len() < LONG - 1 {
        let left = LONG - 1 - dir.as_os_str().len();
        dir.push("d".repeat(left.min(200)));
    }
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[tokio::test]
async fn a_proof_goes_ahead_where_nobody_can_queue_and_others_wait() {
    let top = tempfile::tempdir().unwrap();
    let dir = without_room_for_places(top.path());
    let (other, own) = (claims(&dir, "other"), claims(&dir, "own"));
    assert!(own.want(&[gpu(0)], &used("c2")).is_err(), "this is what fails");
    let held = other.try_claim(&[gpu(0)], &used("c2"), None).unwrap();
    let gate = ClaimGate::new(own);
    let mut slot = SlotSpec::new("s", vec![TaskKind::new("c2")], CommandSpec::new("x", [""; 0]));
    slot.placement.gpus = vec![GpuId("GPU-0".to_owned())];
    let cx = Context::detached();
    let job = |kind| Job {
        id: JobId(1),
        kind: TaskKind::new(kind),
        sector: None,
        payload: Bytes::new(),
        needs: Needs::default(),
    };
    drop(gate.enter(&slot, &job("window_post"), &cx, &|| {}).await.unwrap());
    let c2 = job("c2");
    let waiting = gate.enter(&slot, &c2, &cx, &|| {});
    tokio::pin!(waiting);
    for _ in 0..100 {
        assert!(futures::poll!(&mut waiting).is_pending(), "it waits, and does not fail");
        tokio::task::yield_now().await;
    }
    drop(held);
    drop(waiting.await.unwrap());
}
