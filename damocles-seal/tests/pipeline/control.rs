//! What operators do to a sealing thread at work.

use crate::{
    thread::{SECOND, eventually, finalized, run},
    world::{Hold, Process, SECTOR, World},
};
use damocles_core::{
    allocator::SectorAllocator as _,
    pipeline::StageId,
    pool::{PoolErrorKind, Task},
};
use damocles_seal::{
    journal::{EntryKind, Journal as _, Phase},
    service::{Report, ServiceCall, ServiceErrorKind},
    stage::id,
    task::{Pc1, Pc2},
    worker::{Drain, Pause, ThreadState},
};
use std::time::Duration;
use tokio::sync::watch;

/// Holds PC1 up; says when it has begun.
fn hold(world: &World, finishes: bool) -> watch::Receiver<bool> {
    let (begun, has_begun) = watch::channel(false);
    *world.hold.lock() = Some(Hold { kind: Pc1::KIND, finishes, begun });
    has_begun
}

async fn rewinds(process: &Process) -> Vec<(StageId, String)> {
    let history = process.journal.history(SECTOR).await.unwrap();
    let rewound = history.into_iter().filter(|entry| entry.kind == EntryKind::Rewound);
    rewound.map(|entry| (entry.stage.unwrap(), entry.output)).collect()
}

#[tokio::test]
async fn pause_now_gives_the_running_stage_up_and_repeats_it_after_the_resume() {
    let world = World::new();
    let mut begun = hold(&world, false);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    let pause = Pause { now: true, by: Some("operator".to_owned()) };
    assert!(running.control.pause_as(pause.clone()));
    let status = running.shows(|s| s.state == ThreadState::Paused).await;
    assert_eq!((status.sector, status.failures, status.last_error), (Some(SECTOR), 0, None));
    assert!(!running.control.pause_as(pause.clone()), "it is paused already");
    assert_eq!(running.control.paused(), Some(pause));
    assert_eq!(world.runs().get("pc1"), None);
    *world.hold.lock() = None;
    assert!(running.control.resume());
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    let starts = process.starts(SECTOR).await;
    assert_eq!((starts["tree_d"], starts["pc1"]), (1, 2));
    assert!(rewinds(&process).await.is_empty());
    running.drained().await;
}

#[tokio::test]
async fn what_ends_although_it_is_not_waited_for_is_kept() {
    let world = World::new();
    let mut begun = hold(&world, true);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    running.control.pause();
    assert!(running.control.pause_as(Pause { now: true, by: None }), "sooner than was said before");
    running.shows(|s| s.state == ThreadState::Paused).await;
    let record = process.journal.load(SECTOR).await.unwrap();
    assert!(record.fact(&id::PC1).is_some());
    *world.hold.lock() = None;
    running.control.resume();
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    assert_eq!(process.starts(SECTOR).await["pc1"], 1);
    running.drained().await;
}

#[tokio::test]
async fn a_sector_goes_back_only_to_where_it_can() {
    let world = World::new();
    let mut begun = hold(&world, false);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    let control = running.control.clone();
    let busy = control.resume_at(&id::TREE_D).await.unwrap_err();
    assert!(busy.to_string().contains("at work") && busy.hint().unwrap().contains("pause"), "{busy}");
    control.pause_as(Pause { now: true, by: None });
    running.shows(|s| s.state == ThreadState::Paused).await;
    for stage in [id::C2, StageId::new("encode")] {
        let refused = control.resume_at(&stage).await.unwrap_err();
        assert!(refused.hint().unwrap().contains("pieces, add_pieces, tree_d, ticket, pc1"), "{refused:?}");
    }
    let staged = process.store.staged(SECTOR);
    let aside = staged.with_extension("aside");
    std::fs::rename(&staged, &aside).unwrap();
    let refused = control.resume_at(&id::TREE_D).await.unwrap_err();
    assert!(refused.hint().unwrap().contains("add_pieces"), "{refused:?}");
    std::fs::rename(&aside, &staged).unwrap();
    assert!(rewinds(&process).await.is_empty(), "what is refused leaves no trace");
    assert_eq!(control.status().state, ThreadState::Paused);

    *world.hold.lock() = None;
    assert_eq!(control.resume_at(&id::TREE_D).await.unwrap(), [id::TREE_D, id::TICKET]);
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    let rewinds = rewinds(&process).await;
    assert_eq!(rewinds.len(), 1);
    assert!(rewinds[0].0 == id::TREE_D && rewinds[0].1.contains("operator"), "{rewinds:?}");
    assert_eq!(process.starts(SECTOR).await["tree_d"], 2);
    running.drained().await;
}

#[tokio::test]
async fn a_pre_committed_replica_keeps_its_ticket() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::PRE_COMMIT)).await.unwrap();
    world.service.inner.set_pre_commit_state(
        SECTOR,
        damocles_seal::service::CommitState::Pending {
            until: damocles_core::pipeline::Wake::After(Duration::from_millis(5)),
        },
    );
    let running = run(process.thread(&world));
    running.shows(|s| s.stage == Some(id::PRE_COMMIT_LANDED) && s.state == ThreadState::Waiting).await;
    running.control.pause();
    running.shows(|s| s.state == ThreadState::Paused).await;
    let refused = running.control.resume_at(&id::TICKET).await.unwrap_err();
    assert!(refused.to_string().contains("pre-commit"), "{refused}");
    assert_eq!(running.control.resume_at(&id::PC2).await.unwrap(), [id::PC2, id::PRE_COMMIT]);
    running.drained().await;
}

#[tokio::test]
async fn a_drained_thread_ends_with_its_step_and_the_next_run_goes_on() {
    let world = World::new();
    let mut begun = hold(&world, true);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    assert!(running.control.end(Drain::Step));
    assert!(!running.control.end(Drain::Sector), "it ends sooner already");
    assert_eq!(running.control.status().state, ThreadState::Running, "the step is not cancelled");
    // The work ends.
    running.control.pause_as(Pause { now: true, by: None });
    running.task.await.unwrap().unwrap();
    assert_eq!(running.control.status().state, ThreadState::Stopped);
    *world.hold.lock() = None;
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    assert_eq!(process.starts(SECTOR).await["pc1"], 1);
    running.drained().await;
}

#[tokio::test]
async fn a_thread_that_is_drained_by_sector_finishes_it_and_takes_no_other() {
    let world = World::new();
    let process = world.start().await;
    let thread = process.thread(&world);
    let mut begun = hold(&world, false);
    let running = run(thread);
    begun.wait_for(|begun| *begun).await.unwrap();
    assert!(running.control.drain(Drain::Sector));
    assert!(!running.control.drain(Drain::Sector));
    assert!(running.control.end(Drain::Sector), "it shall not even wait");
    running.control.pause_as(Pause { now: true, by: None });
    running.shows(|s| s.state == ThreadState::Paused).await;
    *world.hold.lock() = None;
    // The sector goes on, and the drain was not ended by whoever let it.
    assert!(running.control.resume());
    running.control.end(Drain::Sector);
    running.task.await.unwrap().unwrap();
    assert!(finalized(&world, SECTOR) && !finalized(&world, SECOND));
    assert!(world.allocator.held_by(process.store.id()).await.unwrap().is_empty());
    assert_eq!(*world.forgotten.0.lock(), [SECTOR]);
}

#[tokio::test]
async fn a_drained_thread_takes_nothing_on_until_it_is_resumed() {
    let world = World::new();
    let mut begun = hold(&world, true);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    assert!(running.control.drain(Drain::Step));
    // The work ends.
    running.control.pause_as(Pause { now: true, by: None });
    let status = running.shows(|s| s.state == ThreadState::Drained).await;
    assert_eq!(status.sector, Some(SECTOR));
    let record = process.journal.load(SECTOR).await.unwrap();
    assert!(record.fact(&id::PC1).is_some() && record.fact(&id::PC2).is_none());
    let refused = running.control.abort("why").unwrap_err();
    assert!(refused.to_string().contains("drained") && refused.hint().unwrap().contains("resume"), "{refused}");
    *world.hold.lock() = None;
    // With its sector, and then with none.
    assert!(running.control.resume());
    running.control.drain(Drain::Sector);
    running.shows(|s| s.state == ThreadState::Drained && s.sector.is_none()).await;
    assert!(finalized(&world, SECTOR) && !finalized(&world, SECOND));
    assert!(process.journal.active().await.unwrap().is_empty());
    assert!(!running.control.drain(Drain::Sector) && running.control.resume());
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    assert_eq!(process.starts(SECTOR).await["pc1"], 1);
    running.control.drain(Drain::Step);
    running.shows(|s| s.state == ThreadState::Drained).await;
    assert!(running.control.end(Drain::Sector), "the whole worker ends");
    running.task.await.unwrap().unwrap();
    assert_eq!(running.control.status().state, ThreadState::Stopped);
}

#[tokio::test]
async fn a_check_takes_back_nobody_elses_pause() {
    let world = World::new();
    let mut begun = hold(&world, false);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    let control = running.control.clone();
    control.pause_as(Pause { now: true, by: Some("first".to_owned()) });
    running.shows(|s| s.state == ThreadState::Paused).await;
    *world.hold.lock() = None;
    // Another operator pauses after the check began, most often while the journal is read for it.
    for (stage, passes) in [(id::C2, false), (id::TREE_D, true)] {
        let checked = control.resume_at(&stage);
        tokio::pin!(checked);
        let first = futures::poll!(&mut checked);
        control.pause_as(Pause { now: false, by: Some("second".to_owned()) });
        let checked = match first {
            std::task::Poll::Ready(checked) => checked,
            std::task::Poll::Pending => checked.await,
        };
        assert_eq!(checked.is_ok(), passes, "{stage}: {checked:?}");
        assert!(control.paused().is_some(), "the pause stands");
    }
    running.shows(|s| s.state == ThreadState::Paused).await;
    // One that is refused, and one that nobody paused meanwhile.
    assert!(control.resume_at(&id::C2).await.is_err());
    assert_eq!(control.status().state, ThreadState::Paused);
    assert_eq!(control.resume_at(&id::TREE_D).await.unwrap(), [] as [StageId; 0]);
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn an_aborted_sector_keeps_its_files_until_the_manager_knows() {
    let world = World::new();
    let mut begun = hold(&world, false);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    // The manager is away, and nobody says for how long.
    for _ in 0..2_000 {
        world.service.inner.fail_next(ServiceCall::Report, ServiceErrorKind::Unavailable);
    }
    assert!(running.control.abort("a bad disk").unwrap());
    let active = loop {
        let active = process.journal.active().await.unwrap();
        if matches!(active[0].phase, Phase::Ending { .. }) {
            break active;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(&active[0].phase, Phase::Ending { reason: Some(reason), .. } if reason == "a bad disk"));
    running.shows(|s| s.ending && s.failures > 3).await;
    assert!(!running.control.abort("again").unwrap(), "it ends already");
    assert!(running.control.resume_at(&id::PC1).await.is_err());
    assert!(process.store.staged(SECTOR).exists() && world.forgotten.0.lock().is_empty());
    // A restart changes nothing of that.
    *world.hold.lock() = None;
    running.drained().await;
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    let told = Report::Aborted { reason: "a bad disk".to_owned() };
    assert!(world.service.inner.reports().contains(&(SECTOR, told)));
    assert!(!process.store.staged(SECTOR).exists());
    assert!(world.forgotten.0.lock().starts_with(&[SECTOR]));
    assert!(!finalized(&world, SECTOR));
    running.drained().await;
}

#[tokio::test]
async fn an_abort_during_a_drain_is_not_forgotten() {
    for whole_worker in [false, true] {
        let world = World::new();
        let mut begun = hold(&world, false);
        let process = world.start().await;
        let running = run(process.thread(&world));
        begun.wait_for(|begun| *begun).await.unwrap();
        if whole_worker {
            running.drain.cancel();
        } else {
            running.control.end(Drain::Sector);
        }
        assert!(running.control.abort("cannot wait for it").unwrap());
        running.task.await.unwrap().unwrap();
        let active = process.journal.active().await.unwrap();
        let told = world.service.inner.reports().iter().any(|(id, report)| {
            *id == SECTOR && matches!(report, Report::Aborted { reason } if reason == "cannot wait for it")
        });
        // A thread that ends with its sector tells the manager; a worker that ends leaves that to its next start.
        let ending = active.first().is_some_and(|held| matches!(held.phase, Phase::Ending { .. }));
        assert!(told != ending && (told || whole_worker), "{active:?}");
        *world.hold.lock() = None;
        let running = run(process.thread(&world));
        eventually(|| finalized(&world, SECOND).then_some(())).await;
        assert!(!process.store.staged(SECTOR).exists() && !finalized(&world, SECTOR));
        assert_eq!(process.starts(SECTOR).await["pc1"], 1);
        running.drained().await;
    }
}

#[tokio::test]
async fn a_thread_that_drains_knows_that_its_sector_was_given_up() {
    let world = World::new();
    let mut begun = hold(&world, false);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    assert!(running.control.drain(Drain::Step));
    assert!(running.control.abort("not worth its disk").unwrap());
    running.shows(|s| s.state == ThreadState::Drained).await;
    let active = process.journal.active().await.unwrap();
    assert!(matches!(active[0].phase, Phase::Ending { .. }), "{active:?}");
    // The manager is told when the thread works again, or after a restart.
    *world.hold.lock() = None;
    assert!(running.control.resume());
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    assert!(!process.store.staged(SECTOR).exists() && !finalized(&world, SECTOR));
    let told = Report::Aborted { reason: "not worth its disk".to_owned() };
    assert!(world.service.inner.reports().contains(&(SECTOR, told)));
    running.drained().await;
}

#[tokio::test]
async fn only_the_sector_that_is_meant_is_given_up() {
    let world = World::new();
    let mut begun = hold(&world, false);
    let process = world.start().await;
    let running = run(process.thread(&world));
    begun.wait_for(|begun| *begun).await.unwrap();
    let refused = running.control.abort_sector(Some(SECOND), "slow").unwrap_err();
    assert!(refused.to_string().contains("another sector"), "{refused}");
    assert!(running.control.abort_sector(Some(SECTOR), "slow").unwrap());
    *world.hold.lock() = None;
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    running.drained().await;
}

#[tokio::test]
async fn an_output_that_could_not_be_recorded_outlives_a_park() {
    let world = World::new();
    let process = world.start().await;
    *process.journal.outputs_of.lock() = Some(id::PC1);
    let running = run(process.thread(&world));
    running.shows(|s| s.state == ThreadState::Parked).await;
    assert_eq!(world.runs()["pc1"], 1);
    *process.journal.outputs_of.lock() = None;
    assert!(running.control.resume());
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    assert_eq!(world.runs()["pc1"], 1, "hours of work are not repeated");
    running.drained().await;
}

#[tokio::test]
async fn a_parked_sector_can_be_aborted_or_sent_back() {
    for abort in [true, false] {
        let world = World::new();
        world.bench.lock().before.extend(std::iter::repeat_n((Pc2::KIND, PoolErrorKind::Crashed), 4));
        let process = world.start().await;
        let running = run(process.thread(&world));
        running.shows(|s| s.state == ThreadState::Parked).await;
        if abort {
            assert!(running.control.abort("given up").unwrap());
            eventually(|| finalized(&world, SECOND).then_some(())).await;
            assert!(!finalized(&world, SECTOR) && !process.store.cache(SECTOR).exists());
        } else {
            assert_eq!(running.control.resume_at(&id::PC1).await.unwrap(), [id::PC1]);
            eventually(|| finalized(&world, SECTOR).then_some(())).await;
            assert_eq!(process.starts(SECTOR).await["pc1"], 2);
        }
        running.drained().await;
    }
}

#[tokio::test]
async fn without_a_sector_there_is_nothing_to_abort() {
    let world = World::new();
    let process = world.start().await;
    let thread = process.thread(&world);
    let control = thread.control();
    assert!(control.abort("why").unwrap_err().to_string().contains("no sector"));
    assert!(control.resume_at(&id::PC1).await.is_err());
    control.drain(Drain::Step);
    assert!(control.resume(), "a drain can be taken back");
    assert_eq!(control.draining(), None);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_without_an_operator() {
    let world = World::new();
    world.bench.lock().before.extend(std::iter::repeat_n((Pc1::KIND, PoolErrorKind::Crashed), 9));
    let process = world.start().await;
    let mut thread = process.thread(&world);
    thread.configure(|config| config.auto_resume = Some(Duration::from_millis(30)));
    let running = run(thread);
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    let history = process.journal.history(SECTOR).await.unwrap();
    assert_eq!(history.iter().filter(|entry| entry.kind == EntryKind::Parked).count(), 2);
    running.drained().await;
}

#[tokio::test]
async fn what_may_pass_is_known_after_a_restart_and_damage_waits_for_an_operator() {
    for passes in [true, false] {
        let world = World::new();
        let process = world.start().await;
        let lease = process.take(&world).await;
        process.drive_to(SECTOR, Some(&id::PC1)).await.unwrap();
        let parked = damocles_seal::journal::NewEntry::parked(None, "broken", None);
        let parked = if passes { parked.may_pass() } else { parked };
        process.journal.append(SECTOR, lease.fence, parked).await.unwrap();
        let mut thread = process.thread(&world);
        thread.configure(|config| config.auto_resume = Some(Duration::from_millis(1)));
        let running = run(thread);
        if passes {
            eventually(|| finalized(&world, SECTOR).then_some(())).await;
        } else {
            let status = running.shows(|s| s.state == ThreadState::Parked).await;
            assert_eq!(status.wakes_at, None, "nothing but an operator ends this");
        }
        running.drained().await;
    }
}

#[tokio::test]
async fn a_sector_goes_on_while_its_manager_is_away_and_the_reports_come_later_in_order() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::TICKET)).await.unwrap();
    let before = world.service.inner.reports().len();
    for call in [ServiceCall::Report, ServiceCall::SubmitPreCommit] {
        for _ in 0..3 {
            world.service.inner.fail_next(call, ServiceErrorKind::Unavailable);
        }
    }
    // Nothing of this needs the manager, which hears of none of it.
    process.drive_to(SECTOR, Some(&id::PC2)).await.unwrap();
    assert_eq!(world.runs()["pc2"], 1);
    assert_eq!(world.service.inner.reports().len(), before);
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    running.drained().await;
    let moved = world.service.inner.reports().into_iter().filter(|(sector, _)| *sector == SECTOR);
    let moved: Vec<_> =
        moved.filter_map(|(_, r)| if let Report::Moved { done, .. } = r { done } else { None }).collect();
    let mut once = moved.clone();
    once.dedup();
    assert_eq!(moved, once, "none is told twice");
    let facts = process.journal.load(SECTOR).await.unwrap();
    let done: Vec<_> = facts.facts().iter().map(|fact| fact.stage.clone()).collect();
    assert_eq!(moved, done, "none is missing, and each has its place");
}
