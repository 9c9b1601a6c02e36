//! A node that is behind the one that told of a message, as behind a load balancer: nothing is taken for lost that it
//! does not know of yet.

use async_trait::async_trait;
use damocles_chain::LotusClient;
use damocles_core::{
    ActorId, CommR, DeadlineIndex, Epoch, Recovery, SealProofType, SectorId, SectorSet, SectorSize,
    chain::{
        BoxStream, Call, ChainClient, ChainError, DeadlineInfo, DeadlineState, HeadChange, MessageId, MessageState,
        MinerInfo, NetworkInfo, OnChain, RandomnessKind, SectorInfo, SubmitKey, TipsetRef,
    },
    testing::{FakeVerifier, fake_proof},
    verify::{Randomness, SealStatement},
    zero_comm_d,
};
use damocles_seal::service::{CommitState, PreCommitRequest, SealingService as _, SeedAnswer, SubmitAnswer};
use damocles_tests::chain_support::{Home, Node, Transport, lease};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};

/// A chain that answers an older head when it is told to; it tells of messages all the same.
#[derive(Debug)]
struct FakeBehind {
    chain: Arc<LotusClient>,
    head: Mutex<Option<TipsetRef>>,
}

macro_rules! forward {
    ($($name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl ChainClient for FakeBehind {
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$out, ChainError> {
                self.chain.$name($($arg),*).await
            })*

            async fn head(&self) -> Result<TipsetRef, ChainError> {
                let old = self.head.lock().clone();
                match old {
                    Some(head) => Ok(head),
                    None => self.chain.head().await,
                }
            }

            fn head_changes(&self) -> BoxStream<HeadChange> {
                self.chain.head_changes()
            }
        }
    };
}

forward! {
    network(at: &TipsetRef) -> NetworkInfo;
    miner(at: &TipsetRef, miner: ActorId) -> MinerInfo;
    randomness(at: &TipsetRef, kind: RandomnessKind, epoch: Epoch, miner: ActorId) -> Randomness;
    sector(at: &TipsetRef, id: SectorId) -> OnChain;
    sectors(at: &TipsetRef, miner: ActorId, numbers: &SectorSet) -> Vec<SectorInfo>;
    deadline(at: &TipsetRef, miner: ActorId) -> DeadlineInfo;
    partitions(at: &TipsetRef, miner: ActorId, deadline: DeadlineIndex) -> DeadlineState;
    submit(key: &SubmitKey, call: &Call) -> MessageId;
    message(id: &MessageId, confidence: i64) -> MessageState;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_does_not_know_yet_is_waited_for() {
    let home = Home::new();
    let config = home.config("devnet-fake-behind", Duration::from_millis(20));
    let node = Node::serve(home.devnet(config, Arc::new(FakeVerifier)), Transport::HttpAndWs).await;
    let client = home.client(node.address()).await;
    let miner = client.create_miner(&home).await;
    let chain = Arc::new(FakeBehind { chain: client.chain.clone(), head: Mutex::default() });
    let manager = home.manager(chain.clone(), miner, Arc::new(FakeVerifier)).await;

    let lease = lease(&manager).await;
    let (ticket, comm_d) = (manager.ticket(&lease).await.unwrap(), zero_comm_d(SectorSize::KiB2));
    let request = PreCommitRequest { comm_r: CommR([7; 32]), comm_d, ticket };
    assert_eq!(manager.submit_pre_commit(&lease, &request).await.unwrap(), SubmitAnswer::Accepted);
    client.pushed(&SubmitKey(format!("precommit/{miner}/{}/{}/1", lease.sector.number, ticket.epoch))).await;
    client.mine(1).await;
    // The tipset that holds the pre-commit is built on the state before it.
    let old = client.chain.head().await.unwrap();
    client.mine(1).await;
    let landed = CommitState::Landed { epoch: old.epoch };
    assert_eq!(manager.pre_commit_state(&lease).await.unwrap(), landed);

    *chain.head.lock() = Some(old.clone());
    assert_eq!(client.chain.sector(&old, lease.sector).await.unwrap(), OnChain::Absent);
    assert!(matches!(manager.pre_commit_state(&lease).await.unwrap(), CommitState::Pending { .. }));
    assert!(matches!(manager.seed(&lease).await.unwrap(), SeedAnswer::Wait(_)));

    *chain.head.lock() = None;
    client.mine(10).await;
    let SeedAnswer::Ready(seed) = manager.seed(&lease).await.unwrap() else { panic!("the seed is drawn") };
    assert!(manager.persisted(&lease, "persist").await.unwrap());
    let proof = fake_proof::seal(&SealStatement {
        sector: lease.sector,
        proof_type: SealProofType::of(SectorSize::KiB2),
        comm_r: request.comm_r,
        comm_d,
        ticket: ticket.randomness,
        seed: seed.randomness,
    });
    *chain.head.lock() = Some(old);
    let unanswered = manager.submit_proof(&lease, &proof).await.unwrap_err();
    assert!(matches!(unanswered.recovery(), Recovery::Retry { .. }), "{unanswered}");

    *chain.head.lock() = None;
    assert_eq!(manager.submit_proof(&lease, &proof).await.unwrap(), SubmitAnswer::Accepted);
    client.pushed(&SubmitKey(format!("provecommit/{miner}/{}/{}/1", lease.sector.number, seed.epoch - 10))).await;
    client.mine(1).await;
    let old = client.chain.head().await.unwrap();
    client.mine(1).await;
    assert_eq!(manager.proof_state(&lease).await.unwrap(), CommitState::Landed { epoch: old.epoch });
    *chain.head.lock() = Some(old);
    assert!(matches!(manager.proof_state(&lease).await.unwrap(), CommitState::Pending { .. }));
}
