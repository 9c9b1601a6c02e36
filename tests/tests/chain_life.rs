//! From `CreateMiner` to a proven sector, over HTTP, on a devnet that verifies every proof, with proofs that were made
//! once and lie in `recorded/`.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use damocles_core::{
    DeadlineIndex,
    chain::{ChainClient as _, OnChain, SubmitKey},
    pool::Task,
    post::{ChallengeRead, ProveWindowPoSt, ReadChallenges, Replica, ReplicaPaths},
    testing::fake_proof,
    verify::{ProvenSector, SealStatement},
};
use damocles_seal::{
    processor::{self, ProgressSink},
    service::{CommitState, PreCommitRequest, SealingService as _, SeedAnswer, SubmitAnswer},
    task::{AddPieces, C1, C2, Pc1, Pc2},
};
use damocles_tests::{
    chain_support::lease,
    recorded::{NUMBER, PROOF, RecordedPost, RecordedSector, WINDOW, World, keys, recorded, refused, spoilt, write},
};
use serde_json::json;

/// The actor's methods.
const PRE_COMMIT: u64 = 28;
const PROVE_COMMIT: u64 = 34;

#[tokio::test(flavor = "multi_thread")]
async fn a_sector_goes_from_create_miner_to_a_window_post() {
    let Some((sector, post)) = recorded().await else { return };
    let world = World::new().await;
    world.committed(&sector).await;
    match world.on_chain().await {
        OnChain::PreCommitted { comm_r, ticket_epoch, epoch, .. } => {
            assert_eq!((comm_r, ticket_epoch), (sector.comm_r, sector.ticket.epoch));
            assert_eq!(epoch, sector.pre_commit_epoch);
        }
        other => panic!("the sector is not pre-committed: {other:?}"),
    }
    let receipt = world.prove_commit("prove-commit", &sector.proof).await;
    assert!(receipt.is_success(), "{receipt:?}");
    match world.on_chain().await {
        OnChain::Active(info) => assert_eq!((info.comm_r, info.activation), (sector.comm_r, receipt.epoch)),
        other => panic!("the sector is not active: {other:?}"),
    }
    assert_eq!(world.place().await, (post.deadline, post.partition));
    assert_eq!(world.power().await, "0", "there is no power before the first WindowPoSt");

    let (open, challenge) = world.open_deadline().await;
    assert_eq!((open.index, challenge), (post.deadline, post.challenge));
    let receipt = world.post("post", open.index, open.challenge, &post.proof).await;
    assert!(receipt.is_success(), "{receipt:?}");
    assert_eq!(world.power().await, "2048");
    let state = world.client.chain.partitions(&world.head().await, world.miner, open.index).await.unwrap();
    assert_eq!(state.proven, [post.partition.0]);

    let messages = world.client.landed_at(world.miner).await;
    let methods: Vec<_> = messages.iter().map(|m| (m["Method"].as_u64().unwrap(), &m["ExitCode"])).collect();
    assert_eq!(methods, [(PRE_COMMIT, &json!(0)), (PROVE_COMMIT, &json!(0)), (5, &json!(0))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_proofs_land_with_the_actors_refusal() {
    let Some((sector, post)) = recorded().await else { return };
    let world = World::new().await;
    world.committed(&sector).await;
    let wrong = world.prove_commit("prove-commit/1", &spoilt(&sector.proof)).await;
    refused(&wrong, "invalid proof");
    assert!(matches!(world.on_chain().await, OnChain::PreCommitted { .. }), "the sector stays pre-committed");
    let right = world.prove_commit("prove-commit/2", &sector.proof).await;
    assert!(right.is_success(), "{right:?}");

    let (open, challenge) = world.open_deadline().await;
    assert_eq!(challenge, post.challenge);
    let wrong = world.post("post/1", open.index, open.challenge, &spoilt(&post.proof)).await;
    refused(&wrong, "invalid post");
    let elsewhere = DeadlineIndex(open.index.0 + 1);
    let wrong = world.post("post/2", elsewhere, open.challenge, &post.proof).await;
    refused(&wrong, "invalid deadline");
    assert_eq!(world.power().await, "0");
    let right = world.post("post/3", open.index, open.challenge, &post.proof).await;
    assert!(right.is_success(), "{right:?}");
    assert_eq!(world.power().await, "2048");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fake_proof_is_refused_before_anything_is_sent() {
    let Some((sector, _)) = recorded().await else { return };
    let world = World::new().await;
    let manager = world.manager().await;
    let lease = lease(&manager).await;
    assert_eq!(lease.sector, sector.sector);
    assert!(manager.pieces(&lease, damocles_seal::service::PieceTerms::default()).await.unwrap().is_empty());
    let ticket = manager.ticket(&lease).await.unwrap();
    assert_eq!((ticket.epoch, ticket.randomness), (sector.ticket.epoch, sector.ticket.randomness));
    let request = PreCommitRequest { comm_r: sector.comm_r, comm_d: sector.comm_d, ticket };
    assert_eq!(manager.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    world.client.pushed(&SubmitKey(format!("precommit/{}/{NUMBER}/{}/1", world.miner, ticket.epoch))).await;
    world.client.mine(2).await;
    assert_eq!(manager.pre_commit_state(&lease).await.unwrap(), CommitState::Landed { epoch: sector.pre_commit_epoch });
    assert!(manager.persisted(&lease, "persist").await.unwrap());
    world.seed(sector.pre_commit_epoch).await;
    let SeedAnswer::Ready(seed) = manager.seed(&lease).await.unwrap() else { panic!("the seed is drawn") };

    let fake = fake_proof::seal(&SealStatement {
        sector: lease.sector,
        proof_type: PROOF,
        comm_r: sector.comm_r,
        comm_d: sector.comm_d,
        ticket: ticket.randomness,
        seed: seed.randomness,
    });
    let answer = manager.submit_proof(&lease, &fake).await.unwrap();
    assert!(matches!(answer, SubmitAnswer::Rejected { .. }), "{answer:?}");
    world.client.mine(3).await;
    assert_eq!((world.count(PRE_COMMIT).await, world.count(PROVE_COMMIT).await), (1, 0));
    let outbox = world.client.chain.outbox().await.unwrap();
    assert_eq!(outbox.len(), 2, "nothing waits to be sent but what landed: {outbox:?}");

    // The real one is taken, so that it was the proof that was refused.
    assert_eq!(manager.submit_proof(&lease, &sector.proof).await.unwrap(), SubmitAnswer::Accepted);
    let key = format!("provecommit/{}/{NUMBER}/{}/1", world.miner, sector.pre_commit_epoch);
    world.client.pushed(&SubmitKey(key)).await;
    world.client.mine(2).await;
    assert!(matches!(manager.proof_state(&lease).await.unwrap(), CommitState::Landed { .. }));
    assert_eq!(world.count(PROVE_COMMIT).await, 1);
}

struct Deaf;

impl ProgressSink for Deaf {
    fn progress(&self, _: u64, _: Option<u64>) {}
}

/// Runs a task as a processor child would.
async fn run<T: Task>(task: T) -> T::Output {
    let output = tokio::task::spawn_blocking(move || {
        let payload = serde_json::to_vec(&task).unwrap();
        processor::all().run(&T::KIND, &payload, &Deaf).expect("every kind is served").unwrap()
    });
    serde_json::from_slice(&output.await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "cargo test -p damocles-tests --test chain_life record -- --ignored (3 minutes, 2.6 GB)"]
async fn record_a_sector_and_its_post() {
    let verifying_keys = keys().await;
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (staged, sealed, cache) = (at("staged"), at("sealed"), at("cache"));
    let (id, ticket) = (world.sector(), world.ticket().await);

    let added = run(AddPieces { proof_type: PROOF, pieces: Vec::new(), staged: staged.clone() }).await;
    let pc1 = run(Pc1 {
        sector: id,
        proof_type: PROOF,
        ticket: ticket.randomness,
        pieces: added.pieces.clone(),
        staged: staged.clone(),
        sealed: sealed.clone(),
        cache: cache.clone(),
        tree_d: None,
    })
    .await;
    let pc2 =
        run(Pc2 { sector: id, proof_type: PROOF, pc1, staged, sealed: sealed.clone(), cache: cache.clone() }).await;

    let receipt = world.pre_commit(pc2.comm_r, ticket).await;
    assert!(receipt.is_success(), "{receipt:?}");
    let seed = world.seed(receipt.epoch).await;
    let c1 = run(C1 {
        sector: id,
        proof_type: PROOF,
        ticket: ticket.randomness,
        seed: seed.randomness,
        comm_r: pc2.comm_r,
        comm_d: pc2.comm_d,
        pieces: added.pieces,
        sealed: sealed.clone(),
        cache: cache.clone(),
        output: at("c1.json"),
    })
    .await;
    let proof = run(C2 { sector: id, proof_type: PROOF, c1: c1.file }).await.proof;
    let sector = RecordedSector {
        sector: id,
        ticket,
        comm_r: pc2.comm_r,
        comm_d: pc2.comm_d,
        pre_commit_epoch: receipt.epoch,
        seed,
        proof,
        verifying_keys: verifying_keys.clone(),
    };
    let receipt = world.prove_commit("prove-commit", &sector.proof).await;
    assert!(receipt.is_success(), "{receipt:?}");

    let (deadline, partition) = world.place().await;
    let (open, challenge) = world.open_deadline().await;
    assert_eq!(open.index, deadline);
    let proven = ProvenSector { number: id.number, comm_r: pc2.comm_r };
    let replica = Replica { sector: proven, paths: ReplicaPaths { sealed, cache } };
    let (miner, randomness) = (world.miner, challenge.randomness);
    let read = run(ReadChallenges { miner, proof_type: WINDOW, randomness, replicas: vec![replica] }).await;
    let vanilla = read.into_iter().map(|read| match read {
        ChallengeRead::Read { vanilla, .. } => hex::encode(vanilla),
        ChallengeRead::Bad { reason, .. } => panic!("{reason}"),
    });
    let task =
        ProveWindowPoSt { miner, proof_type: WINDOW, randomness, sectors: vec![proven], vanilla: vanilla.collect() };
    let proof = run(task).await.proof;
    let receipt = world.post("post", open.index, open.challenge, &proof).await;
    assert!(receipt.is_success(), "{receipt:?}");
    write("sector_2k.json", &sector);
    write("window_post_2k.json", &RecordedPost { deadline, partition, challenge, proof, verifying_keys });
}
