//! Proofs that were made once and lie in `tests/recorded`, and the chain that they were made for.
//!
//! The chain stands still between messages, so that every run has the same epochs, tickets, seeds and challenges, and
//! what was proven for them once is proven for ever. Parameters come from published trapdoors and are the same on every
//! machine; where the cache holds others, tests say that they skip.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a failed helper is a failed test")]
#![expect(clippy::print_stderr, reason = "a test that skips says so")]

use crate::chain_support::{Client, Home, Node, Transport};
use damocles_core::{
    ActorId, CommD, CommR, DeadlineIndex, Epoch, PartitionIndex, PoStProofType, SealProofType, SectorId, SectorNumber,
    SectorSet, SectorSize,
    chain::{
        Call, ChainClient as _, DeadlineInfo, OnChain, PoStPartition, PreCommit, PreCommitBatch, ProveCommit,
        RandomnessKind, Receipt, SectorProof, SubmitWindowedPoSt, TipsetRef,
    },
    verify::{ProofVerifier as _, Randomness, VerifyingKeys},
};
use damocles_seal::{
    params::{CircuitId, CircuitKind, Origin, ParameterCache},
    service::ManagerService,
    verifier::Groth16Verifier,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The network that the proofs were made for.
pub const NETWORK: &str = "devnet-2k-recorded";
/// The size of its sectors.
pub const SIZE: SectorSize = SectorSize::KiB2;
/// How they are sealed.
pub const PROOF: SealProofType = SealProofType::of(SIZE);
/// How they are kept.
pub const WINDOW: PoStProofType = PoStProofType::window(SIZE);
/// The recorded sector.
pub const NUMBER: SectorNumber = SectorNumber(1);
/// The devnet's delay between a pre-commit and its seed.
pub const CHALLENGE_DELAY: i64 = 10;
/// How long sectors are to live.
pub const LIFE: i64 = 300 * 2880;
/// With this set to 1 a test that would be skipped fails.
const NO_SKIP: &str = "DAMOCLES_TEST_NO_SKIP";
/// The actor's `ErrIllegalArgument`.
const ILLEGAL_ARGUMENT: i64 = 16;

/// Randomness with its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// The epoch.
    pub epoch: Epoch,
    /// What was drawn.
    pub randomness: Randomness,
}

/// A sector without pieces: the first of the first miner of a new devnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedSector {
    /// The sector.
    pub sector: SectorId,
    /// Its ticket.
    pub ticket: Drawn,
    /// Its replica.
    pub comm_r: CommR,
    /// Its data.
    pub comm_d: CommD,
    /// When its pre-commit landed.
    pub pre_commit_epoch: Epoch,
    /// Its seed.
    pub seed: Drawn,
    /// The proof.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
    /// The keys that it was made for.
    pub verifying_keys: VerifyingKeys,
}

/// Its first WindowPoSt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPost {
    /// Where the sector is.
    pub deadline: DeadlineIndex,
    /// And in which partition.
    pub partition: PartitionIndex,
    /// The challenge.
    pub challenge: Drawn,
    /// The proof.
    #[serde(with = "hex")]
    pub proof: Vec<u8>,
    /// The keys that it was made for.
    pub verifying_keys: VerifyingKeys,
}

/// Where a recording lies.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(name)
}

/// Reads a recording.
pub fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap()
}

/// Writes a recording.
pub fn write(name: &str, recorded: &impl Serialize) {
    let mut text = serde_json::to_string_pretty(recorded).unwrap();
    text.push('\n');
    fs::create_dir_all(path("")).unwrap();
    fs::write(path(name), text).unwrap();
}

/// The digests of this machine's verifying keys, which are made if they are missing.
pub async fn keys() -> VerifyingKeys {
    ensured().await.0
}

/// The keys, and whether all of them are ours.
async fn ensured() -> (VerifyingKeys, bool) {
    let ensured = tokio::task::spawn_blocking(|| {
        let circuits = [CircuitKind::PoRep, CircuitKind::WindowPoSt].map(|kind| CircuitId::new(kind, SIZE.bytes()));
        let report = |progress| eprintln!("{progress:?}");
        let found = ParameterCache::of_library().ensure(&circuits, &CancellationToken::new(), &report).unwrap();
        let are_ours = found.sets.iter().all(|(set, _)| set.origin == Origin::Ours);
        (Groth16Verifier::new().keys(PROOF).unwrap(), are_ours)
    });
    ensured.await.unwrap()
}

/// What was recorded, if it can be verified here.
pub async fn recorded() -> Option<(RecordedSector, RecordedPost)> {
    let (sector, post): (RecordedSector, RecordedPost) = (read("sector_2k.json"), read("window_post_2k.json"));
    let (keys, are_ours) = ensured().await;
    if !are_ours {
        skip("the parameter cache holds other files for 2 KiB sectors than ours");
        return None;
    }
    let recorded = (&sector.verifying_keys, &post.verifying_keys);
    assert_eq!(recorded, (&keys, &keys), "every machine makes the same keys: the proofs were made for others");
    Some((sector, post))
}

/// Says why a test does nothing; a failure where nothing may be skipped.
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says whether they may be skipped")]
pub fn skip(why: &str) {
    let is_allowed = std::env::var_os(NO_SKIP).is_none_or(|value| value != "1");
    assert!(is_allowed, "{NO_SKIP} is set, and this test cannot be run: {why}");
    eprintln!("skipped: {why}");
}

/// A chain that stands still, with a miner.
#[derive(Debug)]
pub struct World {
    /// The operator's directory.
    pub home: Home,
    _node: Node,
    /// A client of the chain.
    pub client: Client,
    /// The first miner.
    pub miner: ActorId,
}

impl World {
    /// A new chain with its first miner.
    pub async fn new() -> Self {
        let home = Home::new();
        let config = home.config(NETWORK, Duration::from_millis(20));
        let node = Node::serve(home.devnet(config, Arc::new(Groth16Verifier::new())), Transport::HttpAndWs).await;
        node.devnet.pause();
        let client = home.client(node.address()).await;
        let miner = client.create_miner(&home).await;
        Self { home, _node: node, client, miner }
    }

    /// The recorded sector.
    pub fn sector(&self) -> SectorId {
        SectorId::new(self.miner, NUMBER)
    }

    /// The head.
    pub async fn head(&self) -> TipsetRef {
        self.client.chain.head().await.unwrap()
    }

    /// What the chain has of the sector.
    pub async fn on_chain(&self) -> OnChain {
        self.client.chain.sector(&self.head().await, self.sector()).await.unwrap()
    }

    /// Draws randomness for the miner.
    pub async fn draw(&self, kind: RandomnessKind, epoch: Epoch) -> Drawn {
        let head = self.head().await;
        let randomness = self.client.chain.randomness(&head, kind, epoch, self.miner).await.unwrap();
        Drawn { epoch, randomness }
    }

    /// The ticket that sealing takes now.
    pub async fn ticket(&self) -> Drawn {
        let epoch = self.head().await.epoch - 900;
        self.draw(RandomnessKind::SealTicket, epoch).await
    }

    /// Pre-commits the sector.
    pub async fn pre_commit(&self, comm_r: CommR, ticket: Drawn) -> Receipt {
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
    pub async fn seed(&self, pre_commit: Epoch) -> Drawn {
        let epoch = pre_commit + CHALLENGE_DELAY;
        let missing = epoch - self.head().await.epoch;
        self.client.mine(u64::try_from(missing).unwrap_or(0)).await;
        self.draw(RandomnessKind::InteractiveSeed, epoch).await
    }

    /// Proves it.
    pub async fn prove_commit(&self, key: &str, proof: &[u8]) -> Receipt {
        let sector = SectorProof { number: NUMBER, proof: proof.to_vec(), pieces: Vec::new() };
        let call = ProveCommit { miner: self.miner, sectors: vec![sector], all_or_nothing: true };
        self.client.land(key, &Call::ProveCommit(call)).await
    }

    /// Where the chain put the sector.
    pub async fn place(&self) -> (DeadlineIndex, PartitionIndex) {
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
    pub async fn open_deadline(&self) -> (DeadlineInfo, Drawn) {
        let limit = self.head().await.epoch + 2 * 2880;
        let challenged = self.client.devnet("AdvanceTo", json!([limit])).await.as_i64().unwrap();
        assert!(challenged < limit.0, "the sector's deadline is challenged within two days");
        self.client.mine(20).await;
        let open = self.client.chain.deadline(&self.head().await, self.miner).await.unwrap();
        assert_eq!(open.challenge, Epoch(challenged));
        (open.clone(), self.draw(RandomnessKind::WindowPoStChallenge, open.challenge).await)
    }

    /// Posts for its partition.
    pub async fn post(&self, key: &str, deadline: DeadlineIndex, challenge: Epoch, proof: &[u8]) -> Receipt {
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

    /// The miner's raw power in bytes.
    pub async fn power(&self) -> String {
        let power = self.client.chain.miner_power(&self.head().await, self.miner).await.unwrap();
        power.miner_power.raw_byte_power.to_string()
    }

    /// Up to the seed, on the epochs of the recording.
    pub async fn committed(&self, recorded: &RecordedSector) {
        assert_eq!(self.sector(), recorded.sector);
        let ticket = self.ticket().await;
        assert_eq!(ticket, recorded.ticket);
        let receipt = self.pre_commit(recorded.comm_r, ticket).await;
        assert_eq!((receipt.exit_code, receipt.epoch), (0, recorded.pre_commit_epoch), "{receipt:?}");
        assert_eq!(self.seed(receipt.epoch).await, recorded.seed);
    }
}

impl World {
    /// The manager's service over this chain, with the verifier that a daemon takes on a network of this name.
    pub async fn manager(&self) -> ManagerService {
        self.home.manager(self.client.chain.clone(), self.miner, Arc::new(Groth16Verifier::new())).await
    }

    /// How many messages of a method landed at the miner.
    pub async fn count(&self, method: u64) -> usize {
        self.client.landed_at(self.miner).await.iter().filter(|m| m["Method"] == method).count()
    }
}

/// Asserts that a message landed and was refused as this.
pub fn refused(receipt: &Receipt, words: &str) {
    assert_eq!(receipt.exit_code, ILLEGAL_ARGUMENT, "{receipt:?}");
    let said = receipt.error.as_deref().unwrap_or_default();
    assert!(said.contains(words), "{said}");
}

/// A proof with one bit flipped.
pub fn spoilt(proof: &[u8]) -> Vec<u8> {
    let mut spoilt = proof.to_vec();
    *spoilt.last_mut().unwrap() ^= 1;
    spoilt
}
