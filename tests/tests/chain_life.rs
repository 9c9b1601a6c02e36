//! From `CreateMiner` to a proven sector, over HTTP, on a devnet that verifies every proof, with proofs that were made
//! once and lie in `recorded/`.
//!
//! The chain stands still between messages, so that every run has the same epochs, tickets, seeds and challenges, and
//! what was proven for them once is proven for ever. Parameters come from published trapdoors and are the same on every
//! machine; where the cache holds others, these tests say that they skip.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]
#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use damocles_core::{
    ActorId, CommD, CommR, DeadlineIndex, Epoch, PartitionIndex, PoStProofType, SealProofType, SectorId, SectorNumber,
    SectorSet, SectorSize,
    chain::{
        Call, ChainClient as _, DeadlineInfo, OnChain, PoStPartition, PreCommit, PreCommitBatch, ProveCommit,
        RandomnessKind, Receipt, SectorProof, SubmitKey, SubmitWindowedPoSt, TipsetRef,
    },
    pool::Task,
    post::{ChallengeRead, ProveWindowPoSt, ReadChallenges, Replica, ReplicaPaths},
    testing::fake_proof,
    verify::{ProofVerifier as _, ProvenSector, Randomness, SealStatement, VerifyingKeys},
};
use damocles_seal::{
    params::{CircuitId, CircuitKind, ParameterCache},
    processor::{self, ProgressSink},
    service::{CommitState, ManagerService, PreCommitRequest, SealingService as _, SeedAnswer, SubmitAnswer},
    task::{AddPieces, C1, C2, Pc1, Pc2},
    verifier::Groth16Verifier,
};
use damocles_tests::chain_support::{Client, Home, Node, Transport, lease};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const NETWORK: &str = "devnet-2k-recorded";
const SIZE: SectorSize = SectorSize::KiB2;
const PROOF: SealProofType = SealProofType::of(SIZE);
const WINDOW: PoStProofType = PoStProofType::window(SIZE);
const NUMBER: SectorNumber = SectorNumber(1);
/// The devnet's delay between a pre-commit and its seed.
const CHALLENGE_DELAY: i64 = 10;
const LIFE: i64 = 300 * 2880;
/// The actor's `ErrIllegalArgument`.
const ILLEGAL_ARGUMENT: i64 = 16;
/// The actor's methods.
const PRE_COMMIT: u64 = 28;
const PROVE_COMMIT: u64 = 34;

/// Randomness with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Drawn {
    epoch: Epoch,
    randomness: Randomness,
}

/// A sector without pieces: the first of the first miner of a new devnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedSector {
    sector: SectorId,
    ticket: Drawn,
    comm_r: CommR,
    comm_d: CommD,
    pre_commit_epoch: Epoch,
    seed: Drawn,
    #[serde(with = "hex")]
    proof: Vec<u8>,
    verifying_keys: VerifyingKeys,
}

/// Its first WindowPoSt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RecordedPost {
    deadline: DeadlineIndex,
    partition: PartitionIndex,
    challenge: Drawn,
    #[serde(with = "hex")]
    proof: Vec<u8>,
    verifying_keys: VerifyingKeys,
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(name)
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap()
}

fn write(name: &str, recorded: &impl Serialize) {
    let mut text = serde_json::to_string_pretty(recorded).unwrap();
    text.push('\n');
    fs::create_dir_all(path("")).unwrap();
    fs::write(path(name), text).unwrap();
}

/// The digests of this machine's verifying keys, which are made if they are missing.
async fn keys() -> VerifyingKeys {
    let ensured = tokio::task::spawn_blocking(|| {
        let circuits = [CircuitKind::PoRep, CircuitKind::WindowPoSt].map(|kind| CircuitId::new(kind, SIZE.bytes()));
        let report = |progress| eprintln!("{progress:?}");
        ParameterCache::of_library().ensure(&circuits, &CancellationToken::new(), &report).unwrap();
        Groth16Verifier::new().keys(PROOF).unwrap()
    });
    ensured.await.unwrap()
}

/// What was recorded, if it can be verified here.
async fn recorded() -> Option<(RecordedSector, RecordedPost)> {
    let (sector, post): (RecordedSector, RecordedPost) = (read("sector_2k.json"), read("window_post_2k.json"));
    let keys = keys().await;
    if sector.verifying_keys == keys && post.verifying_keys == keys {
        return Some((sector, post));
    }
    eprintln!("skipped: the parameter cache holds other verifying keys than those of the recorded proofs: {keys:?}");
    None
}

/// A chain that stands still, with a miner.
struct World {
    home: Home,
    _node: Node,
    client: Client,
    miner: ActorId,
}

impl World {
    async fn new() -> Self {
        let home = Home::new();
        let config = home.config(NETWORK, Duration::from_millis(20));
        let node = Node::serve(home.devnet(config, Arc::new(Groth16Verifier::new())), Transport::HttpAndWs).await;
        node.devnet.pause();
        let client = home.client(node.address()).await;
        let miner = client.create_miner(&home).await;
        Self { home, _node: node, client, miner }
    }

    fn sector(&self) -> SectorId {
        SectorId::new(self.miner, NUMBER)
    }

    async fn head(&self) -> TipsetRef {
        self.client.chain.head().await.unwrap()
    }

    async fn on_chain(&self) -> OnChain {
        self.client.chain.sector(&self.head().await, self.sector()).await.unwrap()
    }

    async fn draw(&self, kind: RandomnessKind, epoch: Epoch) -> Drawn {
        let head = self.head().await;
        let randomness = self.client.chain.randomness(&head, kind, epoch, self.miner).await.unwrap();
        Drawn { epoch, randomness }
    }

    async fn ticket(&self) -> Drawn {
        let epoch = self.head().await.epoch - 900;
        self.draw(RandomnessKind::SealTicket, epoch).await
    }

    async fn pre_commit(&self, comm_r: CommR, ticket: Drawn) -> Receipt {
        let expiration = self.head().await.epoch + LIFE;
        let sector = PreCommit {
            number: NUMBER,
            proof_type: PROOF,
            comm_r,
            comm_d: None,
            ticket_epoch: ticket.epoch,
            expiration,
        };
        let call = Call::PreCommit(PreCommitBatch { miner: self.miner, sectors: vec![sector] });
        self.client.land("pre-commit", &call).await
    }

    /// Mines until the seed of a pre-commit is drawn.
    async fn seed(&self, pre_commit: Epoch) -> Drawn {
        let epoch = pre_commit + CHALLENGE_DELAY;
        let missing = epoch - self.head().await.epoch;
        self.client.mine(u64::try_from(missing).unwrap_or(0)).await;
        self.draw(RandomnessKind::InteractiveSeed, epoch).await
    }

    async fn prove_commit(&self, key: &str, proof: &[u8]) -> Receipt {
        let sector = SectorProof { number: NUMBER, proof: proof.to_vec(), pieces: Vec::new() };
        let call = ProveCommit { miner: self.miner, sectors: vec![sector], all_or_nothing: true };
        self.client.land(key, &Call::ProveCommit(call)).await
    }

    /// Where the chain put the sector.
    async fn place(&self) -> (DeadlineIndex, PartitionIndex) {
        let head = self.head().await;
        for index in (0..48).map(DeadlineIndex) {
            let state = self.client.chain.partitions(&head, self.miner, index).await.unwrap();
            let held = (0..).map(PartitionIndex).zip(&state.partitions).find(|(_, p)| p.live.contains(NUMBER));
            if let Some((partition, _)) = held {
                return (index, partition);
            }
        }
        panic!("the sector is in no deadline");
    }

    /// Skips to the challenge of the sector's deadline, and mines until it is open.
    async fn open_deadline(&self) -> (DeadlineInfo, Drawn) {
        let limit = self.head().await.epoch + 2 * 2880;
        let challenged = self.client.devnet("AdvanceTo", json!([limit])).await.as_i64().unwrap();
        assert!(challenged < limit.0, "the sector's deadline is challenged within two days");
        self.client.mine(20).await;
        let open = self.client.chain.deadline(&self.head().await, self.miner).await.unwrap();
        assert_eq!(open.challenge, Epoch(challenged));
        (open.clone(), self.draw(RandomnessKind::WindowPoStChallenge, open.challenge).await)
    }

    async fn post(&self, key: &str, deadline: DeadlineIndex, challenge: Epoch, proof: &[u8]) -> Receipt {
        let commit = self.draw(RandomnessKind::PoStChainCommit, challenge).await;
        let call = SubmitWindowedPoSt {
            miner: self.miner,
            deadline,
            partitions: vec![PoStPartition { index: PartitionIndex(0), skipped: SectorSet::new() }],
            proof_type: WINDOW,
            proof: proof.to_vec(),
            commit_epoch: commit.epoch,
            commit_randomness: commit.randomness,
        };
        self.client.land(key, &Call::SubmitWindowedPoSt(call)).await
    }

    async fn power(&self) -> String {
        let power = self.client.chain.miner_power(&self.head().await, self.miner).await.unwrap();
        power.miner_power.raw_byte_power.to_string()
    }

    /// Up to the seed, on the epochs of the recording.
    async fn committed(&self, recorded: &RecordedSector) {
        assert_eq!(self.sector(), recorded.sector);
        let ticket = self.ticket().await;
        assert_eq!(ticket, recorded.ticket);
        let receipt = self.pre_commit(recorded.comm_r, ticket).await;
        assert_eq!((receipt.exit_code, receipt.epoch), (0, recorded.pre_commit_epoch), "{receipt:?}");
        assert_eq!(self.seed(receipt.epoch).await, recorded.seed);
    }
}

fn refused(receipt: &Receipt, words: &str) {
    assert_eq!(receipt.exit_code, ILLEGAL_ARGUMENT, "{receipt:?}");
    let said = receipt.error.as_deref().unwrap_or_default();
    assert!(said.contains(words), "{said}");
}

fn spoilt(proof: &[u8]) -> Vec<u8> {
    let mut spoilt = proof.to_vec();
    *spoilt.last_mut().unwrap() ^= 1;
    spoilt
}

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

impl World {
    /// The manager's service over this chain, with the verifier that a daemon takes on a network of this name.
    async fn manager(&self) -> ManagerService {
        self.home.manager(self.client.chain.clone(), self.miner, Arc::new(Groth16Verifier::new())).await
    }

    async fn count(&self, method: u64) -> usize {
        self.client.landed_at(self.miner).await.iter().filter(|m| m["Method"] == method).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fake_proof_is_refused_before_anything_is_sent() {
    let Some((sector, _)) = recorded().await else { return };
    let world = World::new().await;
    let manager = world.manager().await;
    let lease = lease(&manager).await;
    assert_eq!(lease.sector, sector.sector);
    assert!(manager.pieces(&lease).await.unwrap().is_empty());
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
