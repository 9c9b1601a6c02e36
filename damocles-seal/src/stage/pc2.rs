//! Pre-commit phase 2.

use super::{AddedOutput, LayersOutput, Stage, StageDeps, StageOutcome, deps::unless_cancelled, fault, files, id};
use crate::{
    journal::SectorRecord,
    service::Ticket,
    store::replica_cache_files,
    task::{FileFact, Pc2, Pc2Output},
};
use async_trait::async_trait;
use damocles_core::{
    CommD, CommR, Context, Error,
    pipeline::{SealError, SealErrorKind, StageId},
};
use serde::{Deserialize, Serialize};
use std::{io, path::PathBuf, sync::Arc};

/// Encodes the replica and builds its trees.
#[derive(Debug)]
pub struct Pc2Stage(pub Arc<StageDeps>);

/// The replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaOutput {
    /// Its commitment.
    pub comm_r: CommR,
    /// The commitment to its data.
    pub comm_d: CommD,
    /// The ticket that it was made with.
    pub ticket: Ticket,
    /// The sealed file, its auxiliary files and trees.
    pub files: Vec<FileFact>,
}

#[async_trait]
impl Stage for Pc2Stage {
    fn id(&self) -> StageId {
        id::PC2
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if let Some(damage) = files::damage(deps, record, &[id::ADD_PIECES, id::PC1], cx).await? {
            return Ok(damage);
        }
        let sector = record.sector();
        let added: AddedOutput = record.output(&id::ADD_PIECES)?;
        let ticket: Ticket = record.output(&id::TICKET)?;
        let layers: LayersOutput = record.output(&id::PC1)?;
        let task = Pc2 {
            sector,
            proof_type: record.lease().proof_type,
            pc1: layers.pc1.clone(),
            staged: deps.store.staged(sector),
            sealed: deps.store.sealed(sector),
            cache: deps.store.cache(sector),
        };
        let Pc2Output { comm_r, comm_d } = deps.work(record, &id::PC2, &task, cx).await?;
        if comm_d != added.comm_d {
            return Err(Error::new(SealErrorKind::Damaged, "encode the replica")
                .with("sector", sector)
                .with("pieces give", added.comm_d)
                .with("replica holds", comm_d));
        }
        same_as_before(record, &ticket, comm_r)?;
        let list = |cx: Context| async move {
            unless_cancelled(&cx, "look at files", self.left_files(record, &layers.files)).await
        };
        let left = files::kept(cx, list).await?;
        let files = files::facts(deps, left, cx).await?;
        StageOutcome::done(&ReplicaOutput { comm_r, comm_d, ticket, files })
    }
}

/// With the same ticket a replica must come out as before: a commitment may be on chain already.
fn same_as_before(record: &SectorRecord, ticket: &Ticket, comm_r: CommR) -> Result<(), SealError> {
    for earlier in record.dropped(&id::PC2) {
        let Ok(earlier) = ReplicaOutput::deserialize(&earlier.output) else {
            continue;
        };
        if earlier.ticket == *ticket && earlier.comm_r != comm_r {
            return Err(Error::new(SealErrorKind::Damaged, "repeat the replica")
                .with("sector", record.sector())
                .with("earlier", earlier.comm_r)
                .with("now", comm_r)
                .hint_with("disk, memory or CPU of this machine may be failing; check them before going on"));
        }
    }
    Ok(())
}

impl Pc2Stage {
    /// The sealed file and everything in the cache directory that PC1 did not leave. The files that PoSt needs must be
    /// among it.
    async fn left_files(&self, record: &SectorRecord, layers: &[FileFact]) -> Result<Vec<PathBuf>, SealError> {
        let sector = record.sector();
        let (cache, sealed) = (self.0.store.cache(sector), self.0.store.sealed(sector));
        let io = |e: io::Error| fault::of_io("look at files", &cache, e);
        let known = |path: &PathBuf| layers.iter().any(|l| path.ends_with(&l.path));
        let needed = replica_cache_files(record.lease().proof_type.sector_size());
        let mut files = vec![sealed];
        files.extend(needed.into_iter().map(|name| cache.join(name)));
        let mut entries = fs_err::tokio::read_dir(&cache).await.map_err(io)?;
        while let Some(entry) = entries.next_entry().await.map_err(io)? {
            let path = entry.path();
            if !known(&path) && !files.contains(&path) && entry.file_type().await.map_err(io)?.is_file() {
                files.push(path);
            }
        }
        Ok(files)
    }
}
