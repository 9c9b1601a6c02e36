//! What a manager that is away is told later.

use crate::{
    thread::{eventually, run},
    world::{SECTOR, World},
};
use damocles_core::{
    Recovery,
    pipeline::StageId,
    pool::{PoolErrorKind, Task},
};
use damocles_seal::{
    Plan,
    journal::Journal,
    service::Report,
    stage::id,
    task::{Pc1, Pc2},
    worker::ThreadState,
};

/// The stages whose end was told, in the order in which it was.
fn told(world: &World) -> Vec<StageId> {
    let reports = world.service.inner.reports();
    reports
        .into_iter()
        .filter_map(|(_, report)| if let Report::Moved { done, .. } = report { done } else { None })
        .collect()
}

fn failures(world: &World) -> Vec<(StageId, Recovery)> {
    let reports = world.service.inner.reports().into_iter();
    let failed = |(_, report)| match report {
        Report::Failed { stage, recovery, .. } => Some((stage, recovery)),
        _ => None,
    };
    reports.filter_map(failed).collect()
}

#[tokio::test]
async fn what_was_not_told_before_a_kill_is_told_after_it_in_order() {
    let world = World::new();
    *world.service.deaf.lock() = true;
    world.bench.lock().before.push((Pc1::KIND, PoolErrorKind::Crashed));
    let process = world.start().await;
    process.take(&world).await;
    assert!(process.drive(SECTOR).await.is_err(), "pc1 crashed once");
    process.drive_to(SECTOR, Some(&id::PC2)).await.unwrap();
    let waiting = process.journal.untold(SECTOR).await.unwrap();
    assert!(waiting.len() > 5 && world.service.inner.reports().is_empty());
    let stages: Vec<StageId> = {
        let plan = Plan::interactive(world.deps(&process.store));
        plan.stages().iter().map(|stage| stage.id()).collect()
    };
    // Nothing of the process is left but what it wrote.
    drop(process);

    let process = world.start().await;
    process.take(&world).await;
    assert_eq!(process.journal.untold(SECTOR).await.unwrap(), waiting);
    *world.service.deaf.lock() = false;
    process.drive(SECTOR).await.unwrap();
    assert_eq!(told(&world), stages, "each once, in the order of the plan");
    let reports = world.service.inner.reports();
    let (failed, pc1) = (
        reports.iter().position(|(_, r)| matches!(r, Report::Failed { .. })).unwrap(),
        reports.iter().position(|(_, r)| matches!(r, Report::Moved { done: Some(d), .. } if *d == id::PC1)).unwrap(),
    );
    assert_eq!(failed + 1, pc1, "the failure came before the success");
    assert!(process.journal.untold(SECTOR).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_sector_that_is_parked_is_told_of_after_a_restart_and_before_its_end() {
    let world = World::new();
    *world.service.deaf.lock() = true;
    world.bench.lock().before.extend(std::iter::repeat_n((Pc2::KIND, PoolErrorKind::Crashed), 4));
    let process = world.start().await;
    let running = run(process.thread(&world));
    running.shows(|s| s.state == ThreadState::Parked).await;
    running.drained().await;
    assert!(world.service.inner.reports().is_empty());
    drop(process);

    let process = world.start().await;
    let running = run(process.thread(&world));
    running.shows(|s| s.state == ThreadState::Parked).await;
    *world.service.deaf.lock() = false;
    // Nobody resumed it.
    eventually(|| (!failures(&world).is_empty()).then_some(())).await;
    assert!(failures(&world).iter().all(|(stage, _)| *stage == id::PC2));
    assert_eq!(told(&world).last(), Some(&id::PC1));

    *world.service.deaf.lock() = true;
    running.control.resume();
    running.shows(|s| s.stage.as_ref().is_some_and(|stage| *stage != id::PC2) && s.sector.is_some()).await;
    assert!(running.control.abort("a bad disk").unwrap());
    running.shows(|s| s.ending && s.failures > 0).await;
    *world.service.deaf.lock() = false;
    let aborted = |report: &Report| matches!(report, Report::Aborted { .. });
    eventually(|| world.service.inner.reports().iter().any(|(_, r)| aborted(r)).then_some(())).await;
    let of_it: Vec<Report> =
        world.service.inner.reports().into_iter().filter(|(id, _)| *id == SECTOR).map(|(_, r)| r).collect();
    assert!(aborted(of_it.last().unwrap()), "{of_it:?}");
    assert!(told(&world).contains(&id::PC2), "what came before the end was told before it");
    running.drained().await;
}
