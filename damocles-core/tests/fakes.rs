//! The fakes keep the contracts of the seams they stand for.

use damocles_core::{
    ActorId, Epoch, Fence, SealProofType, SectorId, SectorNumber, SectorSet, SectorSize, StoreId, Timestamp,
    allocator::SectorLease,
    chain::{ChainClient, DeadlineState, PartitionState},
    conformance,
    pipeline::StageId,
    pool::{Task, TaskKind},
    testing::{FakeClock, FakePoStScheduler, FakePool, InMemoryAllocator, InMemoryChain, ScriptedPipeline},
};
use std::sync::Arc;

const MINER: ActorId = ActorId(1000);
const PROOF: SealProofType = SealProofType::of(SectorSize::KiB2);

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Echo(String);

impl Task for Echo {
    const KIND: TaskKind = TaskKind::new("echo");
    type Output = String;
}

#[tokio::test]
async fn fake_pool() {
    conformance::pool::all(&FakePool::new().with::<Echo>(|Echo(text)| Ok(text))).await;
}

#[tokio::test]
async fn in_memory_allocator() {
    let clock = Arc::new(FakeClock::at(Timestamp(0)));
    conformance::allocator::all(&InMemoryAllocator::new(MINER, PROOF, clock)).await;
}

#[tokio::test]
async fn scripted_pipeline() {
    let lease = SectorLease {
        sector: SectorId::new(MINER, SectorNumber(1)),
        proof_type: PROOF,
        store: StoreId::new("a"),
        fence: Fence(1),
        heard_until: Timestamp(0),
    };
    let pipeline = ScriptedPipeline::new(["pc1", "pc2", "c1"].map(StageId::new));
    conformance::pipeline::all(&pipeline, lease).await;
}

#[tokio::test]
async fn in_memory_chain() {
    let chain = InMemoryChain::new(MINER);
    conformance::chain::all(&chain, MINER, || chain.tick(1), async || chain.landed_calls().len()).await;
}

#[tokio::test]
async fn fake_scheduler() {
    let chain = Arc::new(InMemoryChain::new(MINER));
    let head = chain.head().await.unwrap();
    let current = chain.deadline(&head, MINER).await.unwrap();
    let sectors = SectorSet::from_iter([SectorNumber(1)]);
    let partition =
        PartitionState { all: sectors.clone(), live: sectors.clone(), active: sectors, ..Default::default() };
    chain.set_deadline(current.index, DeadlineState { proven: Vec::new(), partitions: vec![partition] });
    let scheduler = FakePoStScheduler::new(chain.clone());
    let past_due = |epoch: Epoch| chain.tick(epoch - head.epoch);
    conformance::post::all(&scheduler, &*chain, MINER, past_due).await;
    assert_eq!(scheduler.fulfilled().len(), 1);
}
