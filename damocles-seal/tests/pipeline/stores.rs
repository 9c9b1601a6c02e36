//! Stores that are full, gone or promised to others.

use crate::world::{SECTOR, World};
use damocles_core::{
    ActorId, CancellationToken, Context, SectorId, SectorNumber,
    pipeline::{SealErrorKind, SealingPipeline},
    pool::{PoolErrorKind, Task},
};
use damocles_seal::{
    journal::Journal,
    service::InMemoryService,
    stage::{PersistStage, PersistedOutput, Stage, StageOutcome, id},
    store::{Claim, PersistStore, PersistStores, Reservation, SealingStore, Space},
    task::Transfer,
};
use std::{sync::Arc, time::Duration};

/// Promises all there is, and more, to another sector.
fn everything(store: &SealingStore) -> Reservation {
    let device = Space::of(store.location()).unwrap().device;
    let claim = Claim {
        sector: SectorId::new(ActorId(1000), SectorNumber(99)),
        path: store.location().to_owned(),
        total: u64::MAX / 2,
        present: Arc::new(|| 0),
        in_stay: false,
    };
    store.ledger().reserve(device, claim, || Ok(Space { device, free: u64::MAX, total: u64::MAX })).unwrap()
}

#[tokio::test]
async fn a_stage_begins_when_space_that_was_promised_is_free() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::PIECES)).await.unwrap();
    let held = everything(&process.store);
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!world.runs().contains_key("add_pieces"), "it waits");
        drop(held);
    };
    let (driven, ()) = tokio::join!(process.drive(SECTOR), release);
    driven.unwrap();
    assert!(!process.store.ledger().is_promising(), "every stage gave back what it had");
}

#[tokio::test]
async fn a_stage_that_is_cancelled_while_it_waits_for_space_keeps_none() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::PIECES)).await.unwrap();
    let held = everything(&process.store);
    let cx = Context::detached();
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cx.cancel.cancel();
    };
    let (stepped, ()) = tokio::join!(process.pipeline.step(SECTOR, &cx), cancel);
    assert_eq!(stepped.unwrap_err().kind(), SealErrorKind::Cancelled);
    drop(held);
    assert!(!process.store.ledger().is_promising());
    process.drive(SECTOR).await.unwrap();
}

#[tokio::test]
async fn no_sector_is_begun_on_a_disk_that_is_nearly_full() {
    let world = World::new();
    let process = world.start().await;
    let held = everything(&process.store);
    let thread = process.thread(&world);
    let control = thread.control();
    let (cx, drain) = (Context::detached(), CancellationToken::new());
    let watch = async {
        let error = loop {
            match control.status().last_error {
                Some(error) => break error.error,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(error.contains("begin a sector") && error.contains("mark"), "{error}");
        assert!(control.status().sector.is_none());
        drop(held);
        while world.runs().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cx.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(thread.run(&cx, &drain), watch);
    ended.unwrap();
}

#[tokio::test]
async fn a_replica_goes_elsewhere_when_its_store_is_full() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::PRE_COMMIT_LANDED)).await.unwrap();
    let other = world.dir.path().join("other");
    PersistStore::init(&other, Some("other")).unwrap();
    let other = PersistStore::open(&other, None, false).unwrap();
    let mut deps = world.deps(&process.store);
    deps.service = Arc::new(InMemoryService::default().with_stores(&["persist", "other"]));
    deps.persist = PersistStores::new(vec![world.persist(), other]).unwrap();
    let persist = deps.persist.clone();
    let stage = PersistStage(Arc::new(deps));
    let record = process.journal.load(SECTOR).await.unwrap();
    world.bench.lock().before.push((Transfer::KIND, PoolErrorKind::DiskFull));
    let cx = Context::detached();
    let full = stage.run(&record, &cx).await.unwrap_err();
    assert_eq!(full.kind(), SealErrorKind::DiskFull);
    let left_out: Vec<_> = persist.status().into_iter().filter(|s| s.reason.is_some()).collect();
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    let StageOutcome::Done(output) = stage.run(&record, &cx).await.unwrap() else { panic!("it is not done") };
    let output: PersistedOutput = serde_json::from_value(output).unwrap();
    assert_ne!(Some(&output.store), left_out[0].name.as_ref());
    assert!(!persist.settings().ledger.is_promising());

    // And when no store is left, it waits with the name and the reason of each.
    for name in ["persist", "other"] {
        std::fs::remove_dir_all(world.dir.path().join(name)).unwrap();
    }
    let none = stage.run(&record, &cx).await.unwrap_err();
    assert_eq!(none.kind(), SealErrorKind::DiskFull);
    let text = none.to_string();
    for part in ["`persist`", "`other`", "the directory is not there"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
