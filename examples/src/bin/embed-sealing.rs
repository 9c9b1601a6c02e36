//! A program that embeds sealing: one 2 KiB sector, from its lease to its proof, through the traits alone.
//!
//! The manager is in memory, so that there is no chain. Everything on disk is real: layers, replica, journal. Only the
//! SNARK is faked, unless you ask for the real one, which takes some minutes the first time (it makes the proof
//! parameters) and one or two after that:
//!
//! ```sh
//! cargo run --bin embed-sealing                   # about a second
//! cargo run --bin embed-sealing -- --dir NEW_DIR  # leaves everything in that directory
//! cargo run --bin embed-sealing -- --real         # proves with Groth16 and verifies it
//! ```
#![expect(clippy::print_stdout, reason = "it shows what it does")]

use anyhow::Context as _;
use damocles_core::{
    ActorId, CancellationToken, Context, RequestId, SealProofType, SectorSize,
    allocator::{AllocateRequest, Outcome, SectorAllocator},
    pipeline::{SealingPipeline, Step},
    testing::{InMemoryAllocator, fake_proof::FakeVerifier},
    verify::ProofVerifier,
};
use damocles_examples::{FakeC2, SystemClock};
use damocles_seal::{
    Plan, StagedPipeline,
    journal::{Journal, SqliteJournal},
    params::{CircuitId, CircuitKind, ParameterCache},
    pool::InlinePool,
    processor::{Registry, sealing_registry},
    service::{InMemoryService, SealingService},
    stage::{DealSettings, LocalPieces, ReplicaOutput, StageDeps, id},
    store::{PersistStore, PersistStores, SealingStore, StaticTrees},
    task::C2,
    verifier::Groth16Verifier,
};
use std::{path::PathBuf, sync::Arc, time::Duration};

const SIZE: SectorSize = SectorSize::KiB2;

/// What does the work, and what the manager checks the proof with.
fn prover(real: bool) -> anyhow::Result<(Registry, Arc<dyn ProofVerifier>)> {
    if !real {
        return Ok((sealing_registry().with::<C2>(FakeC2), Arc::new(FakeVerifier)));
    }
    let circuit = CircuitId::new(CircuitKind::PoRep, SIZE.bytes());
    ParameterCache::of_library().ensure(&[circuit], &CancellationToken::new(), &|said| println!("{said:?}"))?;
    Ok((sealing_registry(), Arc::new(Groth16Verifier::new())))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let scratch = tempfile::tempdir()?;
    let asked = args.iter().skip_while(|a| *a != "--dir").nth(1);
    let dir = asked.map_or_else(|| scratch.path().to_owned(), PathBuf::from);

    // Where the sector lies while it is sealed, and where its replica is kept.
    SealingStore::init(&dir.join("sealing"))?;
    PersistStore::init(&dir.join("persist"), Some("persist"))?;
    let store = Arc::new(SealingStore::open(&dir.join("sealing"))?);
    let persist = PersistStore::open(&dir.join("persist"), None, false)?;
    // The seams. Put your own in: a chain service, a pool on other machines, an allocator in your database.
    let (registry, verifier) = prover(args.iter().any(|a| a == "--real"))?;
    let clock = Arc::new(SystemClock);
    let allocator = InMemoryAllocator::new(ActorId(1000), SealProofType::of(SIZE), clock.clone());
    let service = Arc::new(InMemoryService::new().with_verifier(verifier).land_after(1));
    let journal = Arc::new(SqliteJournal::open(store.journal_path(), clock).await?);
    let plan = Plan::interactive(StageDeps {
        service: service.clone(),
        pool: Arc::new(InlinePool::new(registry)),
        store: store.clone(),
        persist: PersistStores::new(vec![persist.clone()])?,
        pieces: Arc::new(LocalPieces::default()),
        deals: DealSettings::default(),
        static_trees: StaticTrees::default(),
        call_limit: Duration::from_secs(10),
    });
    let pipeline = StagedPipeline::new(plan, journal.clone()).reporting_to(service.clone());

    // A sector, and one durable step after the other. `worker::SealingThread` is this loop with everything that a
    // daemon needs: leases that are renewed, retries, sectors that wait for an operator, restarts.
    let (request, ttl) = (RequestId::new("the first"), Duration::from_secs(60));
    let (store, worker) = (store.id().clone(), "embed-sealing".to_owned());
    let want = AllocateRequest { request, store, worker, miners: vec![], proof_types: vec![], ttl };
    let lease = allocator.allocate(&want).await?.context("no work")?;
    let (sector, cx) = (pipeline.open(lease.clone()).await?, Context::detached());
    loop {
        match pipeline.step(sector, &cx).await? {
            Step::Advanced { stage } => println!("done     {stage}"),
            Step::Finished => break,
            // Until the manager says that something has changed, or for a while at most.
            _ => service.changed(&lease, Duration::from_millis(10)).await?,
        }
    }
    let replica: ReplicaOutput = journal.load(sector).await?.output(&id::PC2)?;
    allocator.release(&pipeline.close(sector).await?, Outcome::Sealed).await?;
    println!("sector   {sector}\ncomm_r   {}\nreplica  {}", replica.comm_r, persist.sealed(sector).display());
    println!("proof    {} bytes", service.proof_of(sector).context("no proof")?.len());
    Ok(())
}
