//! Copying the replica to where PoSt reads it, while the seed is awaited.

use super::{Stage, StageDeps, StageOutcome, fault, files, id};
use crate::{
    journal::SectorRecord,
    store::{PersistStore, replica_cache_files},
    task::{CopiedFile, CopyFile, Transfer},
};
use async_trait::async_trait;
use damocles_core::{
    Context, Error, SectorSize,
    pipeline::{SealError, SealErrorKind, StageId, Wake},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Copies the replica to the persist store that the manager chooses, and tells the manager.
#[derive(Debug)]
pub struct PersistStage(pub Arc<StageDeps>);

/// Where the replica is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedOutput {
    /// The name of the store.
    pub store: String,
    /// The copies, each with its hash.
    pub copies: Vec<CopiedFile>,
}

/// How long until a manager without room is asked again, if it does not speak up itself.
const NO_ROOM: Duration = Duration::from_secs(60);

#[async_trait]
impl Stage for PersistStage {
    fn id(&self) -> StageId {
        id::PERSIST
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if let Some(damage) = files::replica_damage(deps, record).await? {
            return Ok(damage);
        }
        let candidates = deps.persist.writable();
        if candidates.is_empty() {
            return Err(Error::new(SealErrorKind::Stage, "choose persist store")
                .with("sector", record.sector())
                .recover_by(damocles_core::Recovery::Park)
                .hint_with("attach a persist store that is not read-only with an [[attached]] entry"));
        }
        let bytes = needed_bytes(record.lease().proof_type.sector_size());
        let reserve = deps.service.reserve(record.lease(), bytes, &candidates);
        let Some(choice) = deps.ask(cx, "reserve space", reserve).await? else {
            return Ok(StageOutcome::Wait(Wake::After(NO_ROOM)));
        };
        let copies = copy_replica(deps, record, &choice.name, cx).await?;
        StageOutcome::done(&PersistedOutput { store: choice.name, copies })
    }
}

/// Copies the replica, looks at the copies, and tells the manager. May be repeated.
pub(super) async fn copy_replica(
    deps: &StageDeps,
    record: &SectorRecord,
    name: &str,
    cx: &Context,
) -> Result<Vec<CopiedFile>, SealError> {
    let op = "persist replica";
    let sector = record.sector();
    let store = chosen(deps, record, name)?;
    let size = record.lease().proof_type.sector_size();
    let (from, to) = (deps.store.cache(sector), store.cache(sector));
    let beside = replica_cache_files(size).into_iter();
    let beside = beside.map(|file| CopyFile { from: from.join(&file), to: to.join(&file) });
    let sealed = CopyFile { from: deps.store.sealed(sector), to: store.sealed(sector) };
    let task = Transfer { files: std::iter::once(sealed).chain(beside).collect() };
    let copied = deps.work(record, &id::PERSIST, &task, cx).await?;
    check_copy(deps, record, name).await?;
    let found = deps.ask(cx, op, deps.service.persisted(record.lease(), name)).await?;
    if !found {
        return Err(fault::failed(op, "the manager does not find the files")
            .with("sector", sector)
            .with("store", name)
            .with("path", store.location().display())
            .hint_with("worker and manager must see the same directory under the name of this store"));
    }
    Ok(copied.files)
}

/// Whether the files of the replica are in the store.
pub(super) async fn check_copy(deps: &StageDeps, record: &SectorRecord, name: &str) -> Result<(), SealError> {
    let store = chosen(deps, record, name)?.clone();
    let (sector, size) = (record.sector(), record.lease().proof_type.sector_size());
    deps.files("check copy of the replica", move |_| store.check(sector, size)).await
}

fn chosen<'a>(deps: &'a StageDeps, record: &SectorRecord, name: &str) -> Result<&'a PersistStore, SealError> {
    deps.persist.get(name).ok_or_else(|| {
        Error::new(SealErrorKind::Refused, "use persist store")
            .with("sector", record.sector())
            .with("store", name)
            .hint_with("attach this store to the worker with an [[attached]] entry")
    })
}

/// What a replica may take at most, its trees included: for small sectors they are about as large as the sector.
fn needed_bytes(size: SectorSize) -> u64 {
    match size {
        SectorSize::KiB2 | SectorSize::MiB8 | SectorSize::MiB512 => size.bytes().saturating_mul(2),
        SectorSize::GiB32 | SectorSize::GiB64 => size.bytes().saturating_add(size.bytes() / 50),
    }
}
