//! What the examples share: a prover that costs nothing, and the parts of a small workshop.

use damocles_core::{
    Clock, CommD, CommR, Timestamp,
    testing::fake_proof,
    verify::{Randomness, SealStatement},
};
use damocles_seal::{
    pool::InlinePool,
    processor::{Processor, ProcessorError, ProgressSink, Registry},
    service::InMemoryService,
    stage::{DealSettings, LocalPieces, StageDeps},
    store::{PersistStore, PersistStores, SealingStore, StaticTrees},
    task::{C2, C2Output},
};
use serde::Deserialize;
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// Stands in for the SNARK: a keyed digest of the statement instead of minutes of work. Replica, challenges and vanilla
/// proofs before it are real. No network takes its proofs unless its name begins with `devnet-fake-`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FakeC2;

/// The part of the proofs library's C1 output that the statement is made of.
#[derive(Deserialize)]
struct Challenges {
    comm_r: [u8; 32],
    comm_d: [u8; 32],
    ticket: [u8; 32],
    seed: [u8; 32],
}

impl Processor<C2> for FakeC2 {
    fn process(&self, task: C2, _: &dyn ProgressSink) -> Result<C2Output, ProcessorError> {
        let failed = |what: &str| format!("{what} `{}`", task.c1.display());
        let json = fs::read(&task.c1).map_err(|e| ProcessorError::new(failed("read"), e))?;
        let c1: Challenges = serde_json::from_slice(&json).map_err(|e| ProcessorError::new(failed("parse"), e))?;
        let statement = SealStatement {
            sector: task.sector,
            proof_type: task.proof_type,
            comm_r: CommR(c1.comm_r),
            comm_d: CommD(c1.comm_d),
            ticket: Randomness(c1.ticket),
            seed: Randomness(c1.seed),
        };
        Ok(C2Output { proof: fake_proof::seal(&statement) })
    }
}

/// The machine's clock. Libraries are given the time, so that a test can run a month in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the libraries are given")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::default().plus(since)
    }
}

/// A sealing store and a persist store below `dir`, a manager in memory, and a pool that runs `registry` in this process.
/// `embed-sealing` builds the same step by step.
///
/// # Errors
///
/// The stores are there already, or cannot be made.
pub fn workshop(dir: &Path, registry: Registry) -> anyhow::Result<StageDeps> {
    let (sealing, persist) = (dir.join("sealing"), dir.join("persist"));
    SealingStore::init(&sealing)?;
    PersistStore::init(&persist, Some("persist"))?;
    Ok(StageDeps {
        service: Arc::new(InMemoryService::new()),
        pool: Arc::new(InlinePool::new(registry)),
        store: Arc::new(SealingStore::open(&sealing)?),
        persist: PersistStores::new(vec![PersistStore::open(&persist, None, false)?])?,
        pieces: Arc::new(LocalPieces::default()),
        deals: DealSettings::default(),
        static_trees: StaticTrees::default(),
        call_limit: Duration::from_secs(10),
    })
}
