//! What a thread's settings make of pieces, and the ready-made trees of sectors without any.

use crate::{
    thread::{SECOND, eventually, finalized, run},
    world::{PROOF, SECTOR, World},
};
use damocles_core::{CommP, PaddedPieceSize, PieceInfo, SectorId, SectorSize, zero_comm_d};
use damocles_seal::{
    journal::Journal as _,
    service::{DealPiece, SealingService as _, ServiceCall, ServiceErrorKind},
    stage::{DealPolicy, TreeOutput, id},
    store::StaticTrees,
    worker::{Drain, ThreadState},
};
use sha2::{Digest as _, Sha256};
use std::{path::PathBuf, time::Duration};

/// A piece of zeros, so that there is no file to fetch.
fn zeros(tag: u8, size: u64) -> DealPiece {
    let size = PaddedPieceSize::try_from(size).unwrap();
    DealPiece { piece: PieceInfo { comm_p: CommP([tag; 32]), size }, payload_size: 0 }
}

const WAITING: DealPolicy =
    DealPolicy { enabled: true, waits: true, most: None, least: 0, ask_again: Duration::from_millis(100) };

fn pieces_of(world: &World, sector: SectorId) -> bool {
    let nothing = zero_comm_d(PROOF.sector_size());
    world.service.inner.pre_commit_of(sector).unwrap().comm_d != nothing
}

#[tokio::test]
async fn a_sector_waits_for_pieces_where_committed_capacity_is_not_wanted() {
    let world = World::new();
    let process = world.start().await;
    let mut thread = process.thread(&world);
    thread.configure(|config| config.deals = WAITING);
    // Nor does an answer that was lost make it committed capacity.
    world.service.inner.fail_next(ServiceCall::Pieces, ServiceErrorKind::Unavailable);
    let running = run(thread);
    let status = running.shows(damocles_seal::worker::ThreadStatus::waits_for_pieces).await;
    assert_eq!((status.sector, status.last_error), (Some(SECTOR), None));
    assert!(world.runs().is_empty());
    assert!(running.control.pause());
    running.shows(|s| s.state == ThreadState::Paused).await;
    assert!(running.control.resume());
    running.shows(damocles_seal::worker::ThreadStatus::waits_for_pieces).await;
    assert!(process.journal.history(SECTOR).await.unwrap().len() < 5, "waiting writes no history");

    world.service.inner.add_piece(zeros(7, 2048));
    eventually(|| finalized(&world, SECTOR).then_some(())).await;
    assert!(pieces_of(&world, SECTOR));
    // The next one waits again. Nothing is done for it, so that a drain need not wait for a piece.
    running.shows(|s| s.sector == Some(SECOND) && s.waits_for_pieces()).await;
    assert!(running.control.end(Drain::Sector));
    running.task.await.unwrap().unwrap();

    // What it waited for after the end of the process goes into the same sector.
    let running = run(process.thread(&world));
    eventually(|| finalized(&world, SECOND).then_some(())).await;
    assert!(!pieces_of(&world, SECOND), "committed capacity is wanted now");
    running.drained().await;
}

#[tokio::test]
async fn too_few_pieces_are_left_for_others() {
    let world = World::new();
    let process = world.start().await;
    for tag in 1..=3 {
        world.service.inner.add_piece(zeros(tag, 512));
    }
    let mut thread = process.thread(&world);
    thread.configure(|config| config.deals = DealPolicy { most: Some(1), least: 1024, ..DealPolicy::default() });
    let running = run(thread);
    eventually(|| (finalized(&world, SECTOR) && finalized(&world, SECOND)).then_some(())).await;
    assert!(!pieces_of(&world, SECTOR) && !pieces_of(&world, SECOND), "one piece is not enough");
    running.drained().await;
}

#[tokio::test]
async fn without_deals_none_is_taken_but_one_that_was_promised() {
    let world = World::new();
    let process = world.start().await;
    for tag in 1..=2 {
        world.service.inner.add_piece(zeros(tag, 2048));
    }
    let lease = process.take(&world).await;
    // The process ends after the manager gave it a piece and before it knows.
    let given = world.service.inner.pieces(&lease, DealPolicy::default().terms());
    assert_eq!(given.await.unwrap().len(), 1);
    let none = DealPolicy { enabled: false, ..DealPolicy::default() };
    let mut thread = process.thread(&world);
    thread.configure(|config| config.deals = none);
    let running = run(thread);
    eventually(|| (finalized(&world, SECTOR) && finalized(&world, SECOND)).then_some(())).await;
    assert!(pieces_of(&world, SECTOR) && !pieces_of(&world, SECOND));
    running.drained().await;
}

/// The tree over a sector of zeros.
fn tree(size: SectorSize) -> Vec<u8> {
    let (mut bytes, mut width, mut hash) = (Vec::new(), size.bytes() / 32, [0_u8; 32]);
    while width > 0 {
        bytes.extend(hash.repeat(usize::try_from(width).unwrap()));
        hash = Sha256::new().chain_update(hash).chain_update(hash).finalize().into();
        hash[31] &= 0x3f;
        width /= 2;
    }
    bytes
}

fn ready_made(world: &World, bytes: &[u8]) -> PathBuf {
    let file = world.dir.path().join("tree-of-zeros");
    std::fs::write(&file, bytes).unwrap();
    *world.static_trees.lock() = StaticTrees::new([(PROOF.sector_size(), file.clone())]);
    file
}

#[tokio::test]
async fn a_sector_without_data_takes_the_ready_made_tree_and_leaves_it_where_it_is() {
    let world = World::new();
    let bytes = tree(PROOF.sector_size());
    let file = ready_made(&world, &bytes);
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::TREE_D)).await.unwrap();
    let lent = process.store.prepared(SECTOR).join("sc-02-data-tree-d.dat");
    assert_eq!(std::fs::read(&lent).unwrap(), bytes);
    process.drive(SECTOR).await.unwrap();
    assert!(!world.runs().contains_key("tree_d"), "{:?}", world.runs());
    assert!(!lent.exists());
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
}

#[tokio::test]
async fn a_sector_with_pieces_builds_its_own_tree() {
    let world = World::new();
    ready_made(&world, &tree(PROOF.sector_size()));
    world.service.inner.add_piece(zeros(7, 2048));
    let process = world.start().await;
    process.take(&world).await;
    process.drive(SECTOR).await.unwrap();
    assert_eq!(world.runs()["tree_d"], 1);
}

#[tokio::test]
async fn a_ready_made_tree_that_is_wrong_or_gone_costs_the_time_to_build_one() {
    let world = World::new();
    let mut bytes = tree(PROOF.sector_size());
    let file = ready_made(&world, &bytes);
    let process = world.start().await;
    process.take(&world).await;
    process.drive_to(SECTOR, Some(&id::TREE_D)).await.unwrap();
    // It is taken away while the sector has only a link to it, and another is put there.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, &bytes).unwrap();
    let lent = process.store.prepared(SECTOR).join("sc-02-data-tree-d.dat");
    std::fs::remove_file(&lent).unwrap();
    std::os::unix::fs::symlink(&file, &lent).unwrap();
    process.drive(SECTOR).await.unwrap();
    assert_eq!(world.runs()["tree_d"], 1, "its own");
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing was written through the link");
    let output: TreeOutput = serde_json::from_str(
        &process
            .journal
            .history(SECTOR)
            .await
            .unwrap()
            .iter()
            .rev()
            .find(|e| e.stage == Some(id::TREE_D))
            .unwrap()
            .output,
    )
    .unwrap();
    assert_eq!(output.comm_d, zero_comm_d(PROOF.sector_size()));
}
