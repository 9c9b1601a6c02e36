//! A whole 2 KiB sector: the proofs library called back to back, and our stages with their journal, syncs, checks and
//! copies around it, in this process, in a child and in a child bound to all CPUs.
//!
//! `cargo bench -p damocles-seal --bench sector --profile dev`, on a quiet machine; `-- 3` measures three sectors of each.
//! The program is its own child. The first sector of each kind warms caches and is not counted; the service lands
//! everything at once, so that nothing waits for a chain.
#![expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench has nobody to hand an error to")]
#![expect(clippy::disallowed_methods, reason = "a bench measures time")]

use damocles_core::{
    ActorId, Context, CpuSet, Fence, SealProofType, SectorId, SectorNumber, SectorSize, StoreId, Timestamp,
    allocator::SectorLease,
    pipeline::{SealingPipeline as _, Step},
    pool::{ProcessorPool, TaskKind},
    testing::FakeClock,
    zero_comm_d,
};
use damocles_seal::{
    Plan, StagedPipeline,
    journal::SqliteJournal,
    params::{CircuitId, CircuitKind, ParameterCache},
    parent_cache::ParentCache,
    pool::{CommandSpec, InlinePool, LocalPool, PoolSpec, SlotSpec},
    processor::{ServeOptions, sealing_registry, serve},
    service::InMemoryService,
    stage::{DealSettings, LocalPieces, StageDeps},
    store::{PersistStore, PersistStores, SealingStore, StaticTrees},
    verifier::Groth16Verifier,
};
use filecoin_proofs_api::{PieceInfo, RegisteredSealProof, UnpaddedBytesAmount, seal};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const PROOF: SealProofType = SealProofType::of(SectorSize::KiB2);
const MINER: ActorId = ActorId(1000);

/// Milliseconds by stage, and the sum.
type Times = BTreeMap<String, Duration>;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "child") {
        serve(sealing_registry(), &ServeOptions::default()).unwrap();
        return;
    }
    let rounds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(1);
    let circuit = CircuitId::new(CircuitKind::PoRep, SectorSize::KiB2.bytes());
    ParameterCache::of_library().ensure(&[circuit], &CancellationToken::new(), &|_| ()).unwrap();
    ParentCache::of_library().ensure(PROOF).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let direct = mean(rounds, |n| directly(&dir.path().join(format!("direct-{n}")), n));
    report("directly", &direct, &direct);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (name, pool) in pools() {
        let world = runtime.block_on(World::new(&dir.path().join(name), Arc::clone(&pool)));
        let ours = mean(rounds, |n| runtime.block_on(world.seal(n)));
        report(name, &ours, &direct);
        runtime.block_on(pool.drain()).unwrap();
    }
}

fn pools() -> [(&'static str, Arc<dyn ProcessorPool>); 3] {
    let mut bound = slot();
    let last = std::thread::available_parallelism().unwrap().get() - 1;
    bound.placement.cpus = Some(format!("0-{last}").parse::<CpuSet>().unwrap());
    let children = |slot| Arc::new(LocalPool::new(PoolSpec::new(vec![slot])).unwrap());
    [
        ("in process", Arc::new(InlinePool::new(sealing_registry()))),
        ("child", children(slot())),
        ("child, bound", children(bound)),
    ]
}

fn slot() -> SlotSpec {
    let kinds = ["add_pieces", "tree_d", "pc1", "pc2", "c1", "c2", "transfer"].map(TaskKind::new);
    SlotSpec::new("seal-0", kinds.to_vec(), CommandSpec::new(std::env::current_exe().unwrap(), ["child"]))
}

/// The means of all sectors but the first.
fn mean(rounds: u32, mut seal: impl FnMut(u32) -> Times) -> Times {
    seal(0);
    let mut sum = Times::new();
    for n in 1..=rounds {
        for (stage, time) in seal(n) {
            *sum.entry(stage).or_default() += time / rounds;
        }
    }
    sum
}

fn report(name: &str, times: &Times, direct: &Times) {
    let total = |times: &Times| times.values().sum::<Duration>();
    println!("{name}: {:?}, ratio {:.4}", total(times), total(times).as_secs_f64() / total(direct).as_secs_f64());
    for (stage, time) in times {
        match direct.get(stage).filter(|_| name != "directly") {
            Some(direct) => {
                println!("  {stage:<18} {time:?} (ratio {:.4})", time.as_secs_f64() / direct.as_secs_f64());
            }
            None => println!("  {stage:<18} {time:?}"),
        }
    }
}

/// What the library itself takes, with nothing synced, checked or copied.
fn directly(dir: &Path, n: u32) -> Times {
    let proof = RegisteredSealProof::StackedDrg2KiBV1_1;
    let (staged, sealed, cache) = (dir.join("staged"), dir.join("sealed"), dir.join("cache"));
    fs_err::create_dir_all(&cache).unwrap();
    fs_err::write(&staged, [0; 2048]).unwrap();
    fs_err::write(&sealed, []).unwrap();
    let (mut prover, sector) = ([0; 32], filecoin_proofs_api::SectorId::from(u64::from(n)));
    prover[..2].copy_from_slice(&[0xe8, 0x07]);
    let (ticket, seed) = ([5; 32], [6; 32]);
    let pieces = [PieceInfo::new(zero_comm_d(SectorSize::KiB2).0, UnpaddedBytesAmount(2032)).unwrap()];
    let mut times = Times::new();
    let mut begun = Instant::now();
    let mut took = |stage: &str| {
        times.insert(stage.to_owned(), begun.elapsed());
        begun = Instant::now();
    };
    let pc1 = seal::seal_pre_commit_phase1(proof, &cache, &staged, &sealed, prover, sector, ticket, &pieces).unwrap();
    took("pc1");
    let pc2 = seal::seal_pre_commit_phase2(pc1, &cache, &sealed).unwrap();
    took("pc2");
    let c1 = seal::seal_commit_phase1(&cache, &sealed, prover, sector, ticket, seed, pc2, &pieces).unwrap();
    took("c1");
    seal::seal_commit_phase2(c1, prover, sector).unwrap();
    took("c2");
    times
}

/// A sealing thread's parts.
struct World {
    store: StoreId,
    pipeline: StagedPipeline,
}

impl World {
    async fn new(dir: &Path, pool: Arc<dyn ProcessorPool>) -> Self {
        let (sealing, persist) = (dir.join("sealing"), dir.join("persist"));
        fs_err::create_dir_all(dir).unwrap();
        SealingStore::init(&sealing).unwrap();
        PersistStore::init(&persist, Some("persist")).unwrap();
        let store = Arc::new(SealingStore::open(&sealing).unwrap());
        let clock = Arc::new(FakeClock::at(Timestamp(1_000)));
        let journal = Arc::new(SqliteJournal::open(store.journal_path(), clock).await.unwrap());
        let deps = StageDeps {
            service: Arc::new(InMemoryService::new().with_verifier(Arc::new(Groth16Verifier::new()))),
            pool,
            store: Arc::clone(&store),
            persist: PersistStores::new(vec![PersistStore::open(&persist, None, false).unwrap()]).unwrap(),
            pieces: Arc::new(LocalPieces::new([dir.to_owned()])),
            call_limit: Duration::from_secs(60),
            deals: DealSettings::default(),
            static_trees: StaticTrees::default(),
        };
        Self { store: store.id().clone(), pipeline: StagedPipeline::new(Plan::interactive(deps), journal) }
    }

    async fn seal(&self, n: u32) -> Times {
        let sector = SectorId::new(MINER, SectorNumber(u64::from(n) + 1));
        let (store, fence) = (self.store.clone(), Fence(u64::from(n) + 1));
        let lease = SectorLease { sector, proof_type: PROOF, store, fence, heard_until: Timestamp(i64::MAX) };
        self.pipeline.open(lease).await.unwrap();
        let (cx, mut times, mut begun) = (Context::detached(), Times::new(), Instant::now());
        loop {
            match self.pipeline.step(sector, &cx).await.expect("a stage ends") {
                Step::Advanced { stage } => {
                    *times.entry(stage.to_string()).or_default() += begun.elapsed();
                    begun = Instant::now();
                }
                Step::Finished => return times,
                _ => {}
            }
        }
    }
}
