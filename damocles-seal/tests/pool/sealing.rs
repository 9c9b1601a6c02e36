//! Real sealing in children that are killed, on spoilt files.

use crate::{
    cases::{me, spec},
    runner::{Case, cases},
};
use damocles_core::{
    ActorId, CommR, Context, JobId, SealProofType, SectorId, SectorNumber, SectorSize,
    pool::{ProcessorPoolExt, Task},
    verify::Randomness,
};
use damocles_seal::{
    pool::{LocalPool, SlotSpec},
    task::{AddPieces, Pc1, Pc1Output, Pc2},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) fn all() -> Vec<Case> {
    cases![a_half_written_parent_cache_reaches_no_replica, pc2_survives_kills_at_any_instant].into()
}

const SECTOR: SectorId = SectorId::new(ActorId(1000), SectorNumber(3));
const PROOF: SealProofType = SealProofType::of(SectorSize::KiB2);

/// Sealing in a child whose proofs library keeps its parent cache in `dir/parents`.
struct Sealing {
    pool: LocalPool,
    dir: PathBuf,
}

impl Sealing {
    fn at(dir: &Path) -> Self {
        let mut command = me(&["seal"]);
        let parents = dir.join("parents").to_str().unwrap().to_owned();
        command.envs.insert("FIL_PROOFS_PARENT_CACHE".to_owned(), parents);
        let kinds = vec![AddPieces::KIND, Pc1::KIND, Pc2::KIND];
        let pool = LocalPool::new(spec(vec![SlotSpec::new("seal", kinds, command)])).unwrap();
        Self { pool, dir: dir.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    async fn run<T: Task>(&self, task: &T) -> T::Output {
        self.pool.run_task(JobId(1), Some(SECTOR), task, &Context::detached()).await.unwrap()
    }

    async fn pc1(&self) -> Pc1Output {
        let staged = self.path("staged");
        let add = AddPieces { proof_type: PROOF, pieces: Vec::new(), staged: staged.clone() };
        let pieces = self.run(&add).await.pieces;
        self.run(&Pc1 {
            sector: SECTOR,
            proof_type: PROOF,
            ticket: Randomness([5; 32]),
            pieces,
            staged,
            sealed: self.path("sealed"),
            cache: self.path("cache"),
            tree_d: None,
        })
        .await
    }

    fn pc2(&self, pc1: &Pc1Output) -> Pc2 {
        let (staged, sealed, cache) = (self.path("staged"), self.path("sealed"), self.path("cache"));
        Pc2 { sector: SECTOR, proof_type: PROOF, pc1: pc1.clone(), staged, sealed, cache }
    }

    async fn seal(&self) -> CommR {
        let pc1 = self.pc1().await;
        self.run(&self.pc2(&pc1)).await.comm_r
    }
}

async fn a_half_written_parent_cache_reaches_no_replica() {
    let (clean, spoilt) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = Sealing::at(clean.path()).seal().await;

    let entries = fs::read_dir(clean.path().join("parents")).unwrap().map(|entry| entry.unwrap().path());
    let cache = entries.into_iter().find(|path| path.extension().is_some_and(|e| e == "cache")).unwrap();
    let mut half = fs::read(&cache).unwrap();
    let middle = half.len() / 2;
    half[middle..].fill(0);
    fs::create_dir(spoilt.path().join("parents")).unwrap();
    fs::write(spoilt.path().join("parents").join(cache.file_name().unwrap()), half).unwrap();
    assert_eq!(Sealing::at(spoilt.path()).seal().await, expected);
}

async fn pc2_survives_kills_at_any_instant() {
    let dir = tempfile::tempdir().unwrap();
    let sealing = Sealing::at(dir.path());
    let pc1 = sealing.pc1().await;
    let pc2 = sealing.pc2(&pc1);
    let expected = sealing.run(&pc2).await;
    let replica = fs::read(sealing.path("sealed")).unwrap();
    for moment in 1..10 {
        // A dropped job is killed without grace.
        tokio::select! {
            _ = sealing.run(&pc2) => {}
            () = tokio::time::sleep(Duration::from_millis(7 * moment)) => {}
        }
        assert_eq!(sealing.run(&pc2).await, expected, "after {} ms", 7 * moment);
        assert_eq!(fs::read(sealing.path("sealed")).unwrap(), replica);
    }
}
