//! Files that are gone, disks that are full, answers that say no.

use crate::{
    fake_work::comm_r_of,
    world::{Process, SECTOR, World},
};
use damocles_core::{
    Context, Recovery,
    pipeline::{SealErrorKind, SealingPipeline, Step, Wake},
    pool::{PoolErrorKind, Task},
};
use damocles_seal::{
    journal::{EntryKind, Journal},
    service::{CommitState, ServiceCall, ServiceErrorKind},
    stage::{PersistStage, Stage, StageOutcome, id},
    store::{PersistStore, PersistStores},
    task::{C1, CopiedFile, Pc2, Transfer},
};
use std::{sync::Arc, time::Duration};

async fn until(world: &World, stage: &damocles_core::pipeline::StageId) -> Process {
    let process = world.start().await;
    process.take(world).await;
    process.drive_to(SECTOR, Some(stage)).await.unwrap();
    process
}

async fn rewinds(process: &Process) -> Vec<String> {
    let history = process.journal.history(SECTOR).await.unwrap();
    history.into_iter().filter(|e| e.kind == EntryKind::Rewound).map(|e| e.stage.unwrap().to_string()).collect()
}

#[tokio::test]
async fn a_truncated_sealed_file_is_encoded_again_and_is_the_same_replica() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT_LANDED).await;
    let before = world.service.inner.pre_commit_of(SECTOR).unwrap();
    std::fs::write(process.store.sealed(SECTOR), [0; 1000]).unwrap();
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["pc2"]);
    assert_eq!((world.runs()["pc1"], world.runs()["pc2"]), (1, 2));
    assert_eq!(world.service.inner.pre_commit_of(SECTOR).unwrap(), before, "the same pre-commit stands");
    let history = process.journal.history(SECTOR).await.unwrap();
    let rewound = history.iter().find(|e| e.kind == EntryKind::Rewound).unwrap();
    assert!(rewound.output.contains("sealed/s-t01000-1"), "{}", rewound.output);
}

#[tokio::test]
async fn a_lost_layer_is_computed_again() {
    let world = World::new();
    let process = until(&world, &id::SEED).await;
    std::fs::remove_file(process.store.cache(SECTOR).join("sc-02-data-layer-1.dat")).unwrap();
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["pc1"]);
    assert_eq!((world.runs()["add_pieces"], world.runs()["pc1"]), (1, 2));
    assert_eq!(world.service.inner.count(ServiceCall::Ticket), 1, "the ticket stays");
}

#[tokio::test]
async fn everything_lost_starts_over_from_the_data() {
    let world = World::new();
    let process = until(&world, &id::PC1).await;
    process.store.wipe(SECTOR).unwrap();
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["add_pieces"]);
}

#[tokio::test]
async fn a_replica_that_comes_out_otherwise_is_parked() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT).await;
    std::fs::write(process.store.sealed(SECTOR), [0; 1000]).unwrap();
    world.bench.lock().noise = 1;
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Damaged, Recovery::Park));
    assert!(err.hint().is_some());
}

#[tokio::test]
async fn a_lost_copy_is_made_again_before_anything_is_removed() {
    let world = World::new();
    let process = until(&world, &id::PROVE_COMMIT_LANDED).await;
    std::fs::write(process.persist.sealed(SECTOR), [0; 1000]).unwrap();
    process.drive(SECTOR).await.unwrap();
    process.persist.check(SECTOR, damocles_core::SectorSize::KiB2).unwrap();
    assert_eq!((world.runs()["transfer"], world.runs()["c2"]), (2, 1));
}

#[tokio::test]
async fn a_full_disk_waits_and_goes_on() {
    for kind in [Pc2::KIND, Transfer::KIND, C1::KIND] {
        let world = World::new();
        world.bench.lock().before.push((kind.clone(), PoolErrorKind::DiskFull));
        let process = world.start().await;
        process.take(&world).await;
        let err = process.drive(SECTOR).await.unwrap_err();
        assert_eq!((err.kind(), err.recovery()), (SealErrorKind::DiskFull, Recovery::RETRY), "{kind}");
        assert!(err.hint().unwrap().contains("free space"));
        process.drive(SECTOR).await.unwrap();
    }
}

#[tokio::test]
async fn a_manager_that_is_away_costs_no_second_start() {
    let world = World::new();
    let process = until(&world, &id::PC2).await;
    for _ in 0..3 {
        world.service.inner.fail_next(ServiceCall::SubmitPreCommit, ServiceErrorKind::Unavailable);
        let err = process.pipeline.step(SECTOR, &Context::detached()).await.unwrap_err();
        assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Service, Recovery::RETRY));
    }
    world.service.inner.fail_next(ServiceCall::Report, ServiceErrorKind::Unavailable);
    process.drive(SECTOR).await.unwrap();
    assert!(process.starts(SECTOR).await.values().all(|n| *n == 1));
}

#[tokio::test]
async fn a_failed_pre_commit_is_submitted_again() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT).await;
    world.service.inner.set_pre_commit_state(SECTOR, CommitState::Failed { reason: "out of gas".to_owned() });
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["pre_commit"]);
    assert_eq!(world.service.inner.count(ServiceCall::SubmitPreCommit), 2);
}

#[tokio::test]
async fn a_failed_proof_is_submitted_again_and_not_made_again() {
    let world = World::new();
    let process = until(&world, &id::PROVE_COMMIT).await;
    world.service.inner.set_proof_state(SECTOR, CommitState::Failed { reason: "out of gas".to_owned() });
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["prove_commit"]);
    assert_eq!(world.runs()["c2"], 1);
}

#[tokio::test]
async fn a_refused_pre_commit_gets_a_new_ticket_only_if_the_old_one_is_too_old() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT).await;
    world.service.inner.set_pre_commit_state(SECTOR, CommitState::Refused { reason: "no funds".to_owned() });
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Refused, Recovery::Park));
    assert!(rewinds(&process).await.is_empty());

    *world.service.ticket_skew.lock() = 10_000;
    process.drive_to(SECTOR, Some(&id::PC2)).await.unwrap();
    assert_eq!(rewinds(&process).await, ["ticket"]);
    assert_eq!(world.runs()["pc1"], 2);
    assert_eq!(world.runs()["add_pieces"], 1);
}

#[tokio::test]
async fn what_the_chain_will_never_take_is_abandoned() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT).await;
    world.service.inner.set_pre_commit_state(SECTOR, CommitState::ShouldAbort { reason: "gone".to_owned() });
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Expired, Recovery::Abandon));
}

#[tokio::test]
async fn rewinds_that_lead_nowhere_end_with_an_operator() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT).await;
    let error = loop {
        world.service.inner.set_pre_commit_state(SECTOR, CommitState::Failed { reason: "again".to_owned() });
        if let Err(error) = process.pipeline.step(SECTOR, &Context::detached()).await {
            break error;
        }
    };
    assert_eq!(error.recovery(), Recovery::Park);
    assert_eq!(rewinds(&process).await.len(), 8);
}

#[tokio::test]
async fn a_manager_that_does_not_see_the_files_is_asked_again() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT_LANDED).await;
    world.service.inner.hide_replicas(true);
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Stage, Recovery::RETRY));
    assert!(err.hint().unwrap().contains("same directory"));
    assert_eq!(world.service.inner.count(ServiceCall::SubmitProof), 0);
    world.service.inner.hide_replicas(false);
    process.drive(SECTOR).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_rotted_is_made_again_before_anything_is_removed() {
    let world = World::new();
    let process = until(&world, &id::PROVE_COMMIT_LANDED).await;
    let good = std::fs::read(process.persist.sealed(SECTOR)).unwrap();
    let mut rotten = good.clone();
    rotten[1000] ^= 1;
    std::fs::write(process.persist.sealed(SECTOR), rotten).unwrap();
    process.drive(SECTOR).await.unwrap();
    assert_eq!(std::fs::read(process.persist.sealed(SECTOR)).unwrap(), good);
    assert_eq!((world.runs()["transfer"], world.runs()["c2"]), (2, 1), "the proof stands");
    assert!(!process.store.sealed(SECTOR).exists());
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_good_removes_nothing() {
    let world = World::new();
    let process = until(&world, &id::PROVE_COMMIT_LANDED).await;
    let mut rotten = std::fs::read(process.persist.sealed(SECTOR)).unwrap();
    rotten[1000] ^= 1;
    std::fs::write(process.persist.sealed(SECTOR), &rotten).unwrap();
    // The source rots unseen: its length and its time stay.
    let source = process.store.sealed(SECTOR);
    let modified = std::fs::metadata(&source).unwrap().modified().unwrap();
    std::fs::write(&source, &rotten).unwrap();
    std::fs::File::options().write(true).open(&source).unwrap().set_modified(modified).unwrap();
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Damaged, Recovery::Park));
    assert!(err.hint().unwrap().contains("nothing is removed"), "{:?}", err.hint());
    assert!(source.exists() && process.store.cache(SECTOR).exists());
    assert!(rewinds(&process).await.is_empty());
}

#[tokio::test]
async fn a_persist_disk_that_was_unmounted_is_not_filled() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT_LANDED).await;
    let (mount, away) = (world.dir.path().join("persist"), world.dir.path().join("away"));
    std::fs::rename(&mount, &away).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let err = process.drive(SECTOR).await.unwrap_err();
    assert!(matches!(err.recovery(), Recovery::Retry { after: Some(_) }), "it goes on when the disk is back");
    assert!(err.chain().contains(mount.to_str().unwrap()) && err.chain().contains("not mounted"), "{}", err.chain());
    assert!(err.hint().unwrap().contains("mount"));
    assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0);
    std::fs::remove_dir(&mount).unwrap();
    std::fs::rename(&away, &mount).unwrap();
    process.drive(SECTOR).await.unwrap();
}

#[tokio::test]
async fn files_that_the_manager_misses_are_copied_only_if_they_are_lost() {
    let world = World::new();
    let process = until(&world, &id::C2).await;
    *world.service.missed.lock() = 1;
    process.drive_to(SECTOR, Some(&id::PROVE_COMMIT)).await.unwrap();
    assert_eq!(world.runs()["transfer"], 1, "a good replica is left alone");
    assert_eq!(world.service.inner.count(ServiceCall::Persisted), 2, "the manager is told again");

    let world = World::new();
    let process = until(&world, &id::C2).await;
    std::fs::remove_file(process.persist.sealed(SECTOR)).unwrap();
    *world.service.missed.lock() = 1;
    process.drive_to(SECTOR, Some(&id::PROVE_COMMIT)).await.unwrap();
    assert_eq!(world.runs()["transfer"], 2);
    process.persist.check(SECTOR, damocles_core::SectorSize::KiB2).unwrap();
}

#[tokio::test]
async fn a_damaged_source_is_never_copied() {
    let world = World::new();
    let process = until(&world, &id::C2).await;
    std::fs::remove_file(process.persist.sealed(SECTOR)).unwrap();
    std::fs::write(process.store.sealed(SECTOR), [0; 2048]).unwrap();
    *world.service.missed.lock() = 1;
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["pc2"]);
    let replica = std::fs::read(process.persist.sealed(SECTOR)).unwrap();
    assert_eq!(comm_r_of(&replica), world.service.inner.pre_commit_of(SECTOR).unwrap().comm_r);
}

#[tokio::test]
async fn a_submitted_pre_commit_keeps_its_ticket_when_everything_is_lost() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT_LANDED).await;
    let before = world.service.inner.pre_commit_of(SECTOR).unwrap();
    process.store.wipe(SECTOR).unwrap();
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["pc1", "add_pieces"]);
    assert_eq!(world.service.inner.count(ServiceCall::Ticket), 1, "a new ticket makes another replica");
    assert_eq!(world.service.inner.pre_commit_of(SECTOR).unwrap(), before);
}

#[tokio::test]
async fn a_rewind_to_the_ticket_draws_a_new_one() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT).await;
    process.pipeline.rewind(SECTOR, &id::TICKET).await.unwrap();
    process.drive_to(SECTOR, Some(&id::TICKET)).await.unwrap();
    assert_eq!(world.service.inner.count(ServiceCall::Ticket), 2);
    process.pipeline.rewind(SECTOR, &id::ADD_PIECES).await.unwrap();
    process.drive_to(SECTOR, Some(&id::TICKET)).await.unwrap();
    assert_eq!(world.service.inner.count(ServiceCall::Ticket), 2, "that one is kept");
    process.pipeline.rewind(SECTOR, &id::ADD_PIECES).await.unwrap();
    process.pipeline.rewind(SECTOR, &id::TICKET).await.unwrap();
    process.drive_to(SECTOR, Some(&id::TICKET)).await.unwrap();
    assert_eq!(world.service.inner.count(ServiceCall::Ticket), 3, "the ticket itself was named last");
}

#[tokio::test]
async fn a_replica_that_is_made_again_after_its_proof_landed_needs_no_second_proof_to_land() {
    let world = World::new();
    let process = until(&world, &id::PROVE_COMMIT_LANDED).await;
    let before = world.service.inner.proof_of(SECTOR).unwrap();
    let good = std::fs::read(process.persist.sealed(SECTOR)).unwrap();
    std::fs::write(process.persist.sealed(SECTOR), [0; 2048]).unwrap();
    std::fs::remove_file(process.store.cache(SECTOR).join("sc-02-data-layer-1.dat")).unwrap();
    // A prover makes another proof each time.
    world.bench.lock().proof_noise = vec![1];
    process.drive(SECTOR).await.unwrap();
    assert_eq!(rewinds(&process).await, ["pc1"]);
    assert_eq!(world.runs()["c2"], 2);
    assert_eq!(world.service.inner.proof_of(SECTOR).unwrap(), before, "the one that landed stands");
    assert_eq!(std::fs::read(process.persist.sealed(SECTOR)).unwrap(), good);
    assert!(!process.store.sealed(SECTOR).exists());
}

#[tokio::test]
async fn an_earlier_proof_is_waited_for_and_one_that_does_not_help_is_told() {
    let world = World::new();
    let process = until(&world, &id::PROVE_COMMIT).await;
    let pending = CommitState::Pending { until: Wake::After(Duration::from_millis(1)) };
    world.service.inner.set_proof_state(SECTOR, pending);
    world.bench.lock().proof_noise = vec![1];
    process.pipeline.rewind(SECTOR, &id::C2).await.unwrap();
    process.drive_to(SECTOR, Some(&id::C2)).await.unwrap();
    let step = process.pipeline.step(SECTOR, &Context::detached()).await.unwrap();
    assert!(matches!(step, Step::Waiting { ref stage, .. } if *stage == id::PROVE_COMMIT), "{step:?}");
    // One that the actor refused would make room for the next; this one stands and does not help.
    let useless = CommitState::ShouldAbort { reason: "not active".to_owned() };
    world.service.inner.set_proof_state(SECTOR, useless);
    let err = process.drive(SECTOR).await.unwrap_err();
    assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Refused, Recovery::Park));
    assert!(err.hint().is_some());
}

#[tokio::test]
async fn what_a_processor_says_of_its_copies_is_checked_before_it_is_recorded() {
    let lies: [fn(&mut Vec<CopiedFile>); 6] = [
        |files| drop(files.pop()),
        |files| files.push(files[0].clone()),
        |files| files[1].path = files[0].path.clone(),
        |files| files[0].len += 1,
        |files| files[0].sha256.make_ascii_uppercase(),
        |files| files[0].sha256.truncate(63),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        let world = World::new();
        let process = until(&world, &id::PRE_COMMIT_LANDED).await;
        world.bench.lock().tells_of_copies = Some(lie);
        let err = process.drive(SECTOR).await.unwrap_err();
        assert_eq!((err.kind(), err.recovery()), (SealErrorKind::Stage, Recovery::RETRY), "{n}");
        assert!(err.to_string().contains("rubbish"), "{n}: {err}");
        let record = process.journal.load(SECTOR).await.unwrap();
        assert!(record.fact(&id::PERSIST).is_none(), "{n}");
        world.bench.lock().tells_of_copies = None;
        process.drive(SECTOR).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_left_of_copies_is_removed_also_where_the_replica_does_not_go() {
    let world = World::new();
    let process = until(&world, &id::PRE_COMMIT_LANDED).await;
    let other = world.dir.path().join("other");
    PersistStore::init(&other, Some("other")).unwrap();
    let other = PersistStore::open(&other, None, false).unwrap();
    let left = other.sealed(SECTOR).with_file_name(".s-t01000-1.7-00ff.damocles-tmp");
    let foreign = other.sealed(SECTOR).with_file_name(".s-t01000-2.7-00ff.damocles-tmp");
    for path in [&left, &foreign] {
        std::fs::write(path, "half a replica").unwrap();
    }
    let mut deps = world.deps(&process.store);
    deps.persist = PersistStores::new(vec![world.persist(), other]).unwrap();
    let record = process.journal.load(SECTOR).await.unwrap();
    let outcome = PersistStage(Arc::new(deps)).run(&record, &Context::detached()).await.unwrap();
    assert!(matches!(outcome, StageOutcome::Done(_)));
    assert!(!left.exists() && foreign.exists());
}

#[tokio::test]
async fn a_disk_that_does_not_answer_holds_up_no_cancellation() {
    let world = World::new();
    let process = until(&world, &id::PIECES).await;
    let (cx, deps) = (Context::detached(), world.deps(&process.store));
    let (answer, silent) = std::sync::mpsc::channel::<()>();
    let cancel = cx.cancel.clone();
    let look = deps.files(&cx, "look at files", move |_| {
        cancel.cancel();
        let _ = silent.recv();
        Ok(())
    });
    assert_eq!(look.await.unwrap_err().kind(), SealErrorKind::Cancelled);
    drop(answer);
}
