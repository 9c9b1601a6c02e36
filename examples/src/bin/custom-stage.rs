//! A stage of one's own: after PC2 it puts a second copy of the replica into an archive, and the journal keeps its hash.
//!
//! Heavy work is a task for the pool (here one that exists already; `custom-processor` has one of its own), so that it
//! can be cancelled, placed and limited. The stage looks whether its input is still what was recorded, and says what
//! came of it.
//!
//! A stage may be run again after it succeeded: the process can die before its result is in the journal. This program
//! plays that: it runs the stage by hand and throws the result away, before the pipeline runs it.
//!
//! ```sh
//! cargo run --bin custom-stage                   # about a second; the SNARK is faked
//! cargo run --bin custom-stage -- --dir NEW_DIR  # leaves everything in that directory
//! cargo run --bin embed-sealing -- --real        # the same plan without this stage, with the real SNARK: minutes
//! ```
#![expect(clippy::print_stdout, reason = "it shows what it does")]

use anyhow::ensure;
use async_trait::async_trait;
use damocles_core::{
    ActorId, Context, Fence, SealProofType, SectorId, SectorNumber, SectorSize, Timestamp,
    allocator::SectorLease,
    pipeline::{SealError, SealErrorKind, SealingPipeline, StageId, Step},
};
use damocles_examples::{FakeC2, SystemClock, workshop};
use damocles_seal::{
    Plan, StagedPipeline,
    journal::{Journal, SectorRecord, SqliteJournal},
    processor::sealing_registry,
    stage::{PersistedOutput, ReplicaOutput, Stage, StageDeps, StageOutcome, id},
    task::{C2, CopyFile, Transfer, Transferred},
};
use std::{path::PathBuf, sync::Arc};

const ARCHIVE: StageId = StageId::new("archive");

/// Copies the replica to a directory of its own.
#[derive(Debug)]
struct ArchiveStage {
    deps: StageDeps,
    dir: PathBuf,
}

#[async_trait]
impl Stage for ArchiveStage {
    fn id(&self) -> StageId {
        ARCHIVE
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let sector = record.sector();
        let ReplicaOutput { files, .. } = record.output(&id::PC2)?;
        let check =
            self.deps.files(cx, "check replica", move |store| files.iter().try_for_each(|file| store.check(file)));
        match check.await {
            // A replica that is not the one that was recorded is made again; a disk that fails is another matter.
            Err(reason) if reason.kind() == SealErrorKind::Damaged => {
                return Ok(StageOutcome::Rewind { to: id::PC2, reason });
            }
            checked => checked?,
        }
        let copy = CopyFile { from: self.deps.store.sealed(sector), to: self.dir.join(sector.to_string()) };
        let copied: Transferred =
            self.deps.work(record, &ARCHIVE, &Transfer { files: vec![copy], bytes_per_second: None }, cx).await?;
        StageOutcome::done(&copied)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let dir = std::env::args().skip_while(|a| a != "--dir").nth(1).map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| scratch.path().to_owned());
    let deps = workshop(&dir, sealing_registry().with::<C2>(FakeC2))?;
    let journal = Arc::new(SqliteJournal::open(deps.store.journal_path(), Arc::new(SystemClock)).await?);

    let stage = Arc::new(ArchiveStage { deps: deps.clone(), dir: dir.join("archive") });
    let plan = Plan::interactive(deps.clone()).with_after(&id::PC2, stage.clone())?;
    let pipeline = StagedPipeline::new(plan, journal.clone());

    let sector = SectorId::new(ActorId(1000), SectorNumber(1));
    let (proof_type, store) = (SealProofType::of(SectorSize::KiB2), deps.store.id().clone());
    pipeline.open(SectorLease { sector, proof_type, store, fence: Fence(1), heard_until: Timestamp(0) }).await?;
    let cx = Context::detached();
    while let Step::Advanced { stage: done } = pipeline.step(sector, &cx).await? {
        println!("done     {done}");
        if done == id::PC2 {
            let lost = stage.run(&journal.load(sector).await?, &cx).await?;
            println!("lost     {lost:?}");
        }
    }
    let record = journal.load(sector).await?;
    let (archived, kept): (Transferred, PersistedOutput) = (record.output(&ARCHIVE)?, record.output(&id::PERSIST)?);
    let (Some(archived), Some(kept)) = (archived.files.first(), kept.copies.first()) else { anyhow::bail!("no copy") };
    ensure!(archived.sha256 == kept.sha256, "{} and {} differ", archived.path.display(), kept.path.display());
    println!("archived {}\nsha256   {}", archived.path.display(), archived.sha256);
    Ok(())
}
