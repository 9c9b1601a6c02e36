//! The process ends at every instant that matters, and the sector is proven once all the same.

use crate::{
    fake_work::comm_r_of,
    world::{PROOF, Process, SECTOR, World},
};
use damocles_core::{pool::PoolErrorKind, pool::Task};
use damocles_seal::{
    journal::{Journal, JournalObserver, SqliteJournal},
    service::ServiceCall,
    task::{AddPieces, C1, C2, Pc1, Pc2, Transfer, TreeD},
};
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
enum Moment {
    BeforeAppend,
    AfterAppend,
}

/// Ends the task that appends, without a word.
#[derive(Debug)]
struct Kill(u64, Moment);

impl JournalObserver for Kill {
    fn appending(&self, n: u64) {
        if n == self.0 && matches!(self.1, Moment::BeforeAppend) {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }

    fn appended(&self, n: u64) {
        if n == self.0 && matches!(self.1, Moment::AfterAppend) {
            std::panic::resume_unwind(Box::new("killed"));
        }
    }
}

async fn check_end(world: &World, process: &Process, what: &str) {
    let request = world.service.inner.pre_commit_of(SECTOR).unwrap();
    assert!(world.service.inner.proof_of(SECTOR).is_some(), "{what}");
    world.persist().check(SECTOR, PROOF.sector_size()).unwrap();
    let replica = std::fs::read(world.persist().sealed(SECTOR)).unwrap();
    assert_eq!(comm_r_of(&replica), request.comm_r, "{what}: what is kept is what is on chain");
    assert!(!process.store.sealed(SECTOR).exists() && !process.store.cache(SECTOR).exists(), "{what}");
    let calls = world.service.inner.calls();
    let first = |call| calls.iter().position(|(c, _)| *c == call).unwrap();
    assert!(first(ServiceCall::Persisted) < first(ServiceCall::SubmitProof), "{what}: the proof came first");
}

#[tokio::test]
async fn without_a_crash_each_stage_runs_once() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive(SECTOR).await.unwrap();
    check_end(&world, &process, "no crash").await;
    assert!(world.runs().values().all(|runs| *runs == 1), "{:?}", world.runs());
    assert_eq!(world.runs().len(), 7);
    let starts = process.starts(SECTOR).await;
    assert_eq!(starts.len(), 15);
    assert!(starts.values().all(|n| *n == 1), "{starts:?}");
}

/// One life that ends at the n-th append; false if it came to its end before.
async fn live_until(world: &World, n: u64, moment: Moment) -> bool {
    let process = world.start_observed(Some(Arc::new(Kill(n, moment)))).await;
    let store = Arc::clone(&process.store);
    let killed = std::panic::AssertUnwindSafe(async {
        process.take(world).await;
        process.drive(SECTOR).await.unwrap();
        process
    });
    match futures::FutureExt::catch_unwind(killed).await {
        Ok(process) => {
            check_end(world, &process, "life without its kill").await;
            false
        }
        Err(_) => {
            assert_eq!(Arc::strong_count(&store), 1, "the dead process holds nothing");
            true
        }
    }
}

async fn crash_at_every_append(moment: Moment) {
    let mut moments = 0;
    for n in 1.. {
        let world = World::new();
        if !live_until(&world, n, moment).await {
            break;
        }
        moments += 1;
        let process = world.start().await;
        process.take(&world).await;
        process.drive(SECTOR).await.unwrap();
        let what = format!("{moment:?} {n}");
        check_end(&world, &process, &what).await;
        let repeated: Vec<_> = world.runs().into_iter().filter(|(_, runs)| *runs > 1).collect();
        assert!(repeated.len() <= 1 && repeated.iter().all(|(_, runs)| *runs == 2), "{what}: {repeated:?}");
        let starts = process.starts(SECTOR).await;
        let again: Vec<_> = starts.iter().filter(|(_, n)| **n > 1).collect();
        assert!(again.len() <= 1 && again.iter().all(|(_, n)| **n == 2), "{what}: {again:?}");
        for (task, runs) in world.runs() {
            let stage = if task == "transfer" { "persist" } else { &task };
            assert!(runs <= starts[stage], "{what}: {task} ran without a journalled start");
        }
    }
    assert_eq!(moments, 31, "an open, and a start and an end for each of 15 stages");
}

#[tokio::test]
async fn killed_with_the_work_done_and_nothing_recorded() {
    crash_at_every_append(Moment::BeforeAppend).await;
}

#[tokio::test]
async fn killed_with_the_step_recorded_and_nobody_told() {
    crash_at_every_append(Moment::AfterAppend).await;
}

#[tokio::test]
async fn a_processor_that_dies_before_or_after_its_work_is_run_again() {
    let kinds = [AddPieces::KIND, TreeD::KIND, Pc1::KIND, Pc2::KIND, C1::KIND, C2::KIND, Transfer::KIND];
    for kind in kinds {
        let world = World::new();
        world.bench.lock().before.push((kind.clone(), PoolErrorKind::Crashed));
        world.bench.lock().after.push((kind.clone(), PoolErrorKind::Rubbish));
        let process = world.start().await;
        process.take(&world).await;
        for _ in 0..2 {
            let err = process.drive(SECTOR).await.unwrap_err();
            assert_eq!(err.recovery(), damocles_core::Recovery::RETRY, "{kind}");
        }
        process.drive(SECTOR).await.unwrap();
        check_end(&world, &process, kind.as_str()).await;
        assert_eq!(world.runs()[kind.as_str()], 2, "{kind}: once lost, once kept");
    }
}

#[tokio::test]
async fn an_old_process_that_wakes_up_writes_nothing() {
    let world = World::new();
    let old = world.start().await;
    let lease = old.take(&world).await;
    old.drive_to(SECTOR, Some(&damocles_seal::stage::id::PC1)).await.unwrap();
    // The store was moved to another machine: its journal has a newer fence by now.
    let moved = SqliteJournal::open(old.store.journal_path(), world.clock.clone()).await.unwrap();
    let newer = damocles_core::Fence(lease.fence.0 + 1);
    moved.open(&damocles_core::allocator::SectorLease { fence: newer, ..lease }).await.unwrap();
    let before = moved.history(SECTOR).await.unwrap();
    let err = old.drive(SECTOR).await.unwrap_err();
    assert_eq!(err.kind(), damocles_core::pipeline::SealErrorKind::Fenced);
    assert_eq!(moved.history(SECTOR).await.unwrap(), before);
}
