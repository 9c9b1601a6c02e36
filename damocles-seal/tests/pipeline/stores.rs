//! Stores that are full, gone or promised to others.

use crate::world::{PROOF, SECTOR, World};
use damocles_core::{
    ActorId, CancellationToken, Context, SectorId, SectorNumber, SectorSize,
    pipeline::{SealErrorKind, SealingPipeline},
    pool::{PoolErrorKind, Task},
};
use damocles_seal::{
    journal::Journal,
    service::InMemoryService,
    stage::{PersistStage, PersistedOutput, Stage, StageOutcome, id},
    store::{Claim, DiskLedger, Marks, PersistStore, PersistStores, Reservation, SealingStore, Space, written_by},
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
async fn a_sector_begins_only_where_all_of_it_has_room_and_keeps_that_until_its_end() {
    let mut world = World::new();
    world.ledger = DiskLedger::new(Marks::new(0, 0).unwrap());
    let process = world.start().await;
    let held = everything(&process.store);
    let mut thread = process.thread(&world);
    thread.configure(|config| config.proof_types = vec![PROOF]);
    let control = thread.control();
    let (cx, drain) = (Context::detached(), CancellationToken::new());
    let store = Arc::clone(&process.store);
    let until = |what: &'static str, so: Box<dyn Fn() -> bool>| async move {
        for _ in 0..2_000 {
            if so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}");
    };
    let watch = async {
        let shown = control.clone();
        until("it waits", Box::new(move || shown.status().last_error.is_some())).await;
        let error = control.status().last_error.unwrap().error;
        for part in ["begin a sector", "needed", "promised to: s-t01000-99"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(control.status().sector.is_none() && !store.is_held());
        drop(held);
        let (forgotten, seen) = (Arc::clone(&world.forgotten), Arc::clone(&store));
        until("it has room", Box::new(move || seen.is_held())).await;
        until("it ends", Box::new(move || !forgotten.0.lock().is_empty())).await;
        drain.cancel();
    };
    let (ended, ()) = tokio::join!(thread.run(&cx, &drain), watch);
    ended.unwrap();
    if control.status().sector.is_none() {
        assert!(!store.is_held() && !world.ledger.is_promising(), "its room is free");
    }
}

#[tokio::test]
async fn a_sector_that_is_half_sealed_has_its_room_before_another_begins() {
    let world = World::new();
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::TREE_D)).await.unwrap();
    assert!(!world.ledger.is_promising());
    let thread = process.thread(&world);
    thread.keep_room().await.unwrap();
    assert!(process.store.is_held() && world.ledger.is_promising());
    let device = Space::of(process.store.location()).unwrap().device;
    let left = [id::PC1, id::PC2].map(|stage| written_by(&stage, SectorSize::KiB2).unwrap());
    assert_eq!(world.ledger.promised(device), left[0] + left[1] - SectorSize::KiB2.bytes());
    // Its stages draw from that: what is promised does not grow.
    process.drive(SECTOR).await.unwrap();
    assert!(world.ledger.promised(device) < left[1]);
    process.store.leave();
    assert!(!world.ledger.is_promising());
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
