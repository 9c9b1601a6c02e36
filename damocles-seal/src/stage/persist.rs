//! Copying the replica to where PoSt reads it, while the seed is awaited.

use super::{Stage, StageDeps, StageOutcome, deps::unless_cancelled, fault, files, id, stall};
use crate::{
    journal::SectorRecord,
    store::{Claim, PersistStore, Reservation, SealingStore, Space, StoreError, Survey, replica_cache_files},
    task::{CopiedFile, CopyFile, FoundStore, Transfer, Transferred},
};
use async_trait::async_trait;
use damocles_core::{
    Context, Error, Recovery, SectorSize,
    pipeline::{SealError, SealErrorKind, StageId},
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

/// How long until a manager without room is asked again.
const NO_ROOM: Duration = Duration::from_secs(60);

#[async_trait]
impl Stage for PersistStage {
    fn id(&self) -> StageId {
        id::PERSIST
    }

    async fn run(&self, record: &SectorRecord, cx: &Context) -> Result<StageOutcome, SealError> {
        let deps = &self.0;
        if let Some(damage) = files::replica_damage(deps, record, cx).await? {
            return Ok(damage);
        }
        if !deps.persist.any_writable() {
            return Err(Error::new(SealErrorKind::Stage, "choose persist store")
                .with("sector", record.sector())
                .recover_by(Recovery::Park)
                .hint_with("attach a persist store that is not read-only with an [[attached]] entry"));
        }
        let (sector, size) = (record.sector(), record.lease().proof_type.sector_size());
        let bytes = needed_bytes(size);
        let survey = unless_cancelled(cx, "look for a persist store", async {
            Ok(deps.persist.survey(sector, size, bytes, cx).await)
        });
        let survey = survey.await?;
        let candidates: Vec<String> = survey.suitable.iter().map(|found| found.store.name().to_owned()).collect();
        if candidates.is_empty() {
            return Err(no_room(record, bytes, &survey));
        }
        let reserve = deps.service.reserve(record.lease(), bytes, &candidates);
        let Some(choice) = deps.ask(cx, "reserve space", reserve).await? else {
            return Err(no_room(record, bytes, &survey));
        };
        let copies = copy_replica(deps, record, &choice.name, cx).await?;
        StageOutcome::done(&PersistedOutput { store: choice.name, copies })
    }
}

/// Keeps the room in the store for this replica: others of this process copy there too.
fn promise(deps: &StageDeps, record: &SectorRecord, found: &FoundStore) -> Result<Reservation, SealError> {
    let (sector, FoundStore { store, device, free, total, present, .. }) = (record.sector(), found);
    let (device, free, total, present) = (*device, *free, *total, *present);
    let bytes = needed_bytes(record.lease().proof_type.sector_size());
    // The store is not asked how much is there by now: it may not answer. What is copied meanwhile counts twice, so that
    // at worst another sector waits for the end of this copy.
    let claim = Claim {
        sector,
        path: store.location().to_owned(),
        total: bytes,
        present: Arc::new(move || present),
        in_stay: false,
    };
    let reserved = deps.persist.settings().ledger.reserve(device, claim, || Ok(Space { device, free, total }));
    reserved.map_err(|e| {
        fault::of_store("reserve space in a persist store", e).recover_by(Recovery::Retry { after: Some(NO_ROOM) })
    })
}

/// Room comes back by itself or by an operator's hand; until then the sector shows what it waits for.
fn no_room(record: &SectorRecord, bytes: u64, survey: &Survey) -> SealError {
    let stores = survey.suitable.iter().map(|found| {
        format!("`{}` ({}): the manager has no room there", found.store.name(), found.store.location().display())
    });
    let stores: Vec<String> = stores.chain(survey.unsuitable.iter().cloned()).collect();
    Error::new(SealErrorKind::DiskFull, "reserve space in a persist store")
        .with("sector", record.sector())
        .with("bytes", bytes)
        .with("stores", stores.join("; "))
        .recover_by(Recovery::Retry { after: Some(NO_ROOM) })
        .hint_with("free space in one of these stores, mount it, or attach another; the sector goes on by itself")
}

/// Copies the replica, looks at the copies, and tells the manager. May be repeated.
async fn copy_replica(
    deps: &StageDeps,
    record: &SectorRecord,
    name: &str,
    cx: &Context,
) -> Result<Vec<CopiedFile>, SealError> {
    let copies = copy_files(deps, record, name, cx).await?;
    tell_manager(deps, record, name, cx).await?;
    Ok(copies)
}

/// Makes sure that the files are in the store, and tells the manager again. A copy that is there is left as it is; before
/// it is made again, its source is looked at: what the outcome says, if there is one, has to be done first.
pub(super) async fn restore_copy(
    deps: &StageDeps,
    record: &SectorRecord,
    name: &str,
    cx: &Context,
) -> Result<Option<StageOutcome>, SealError> {
    match check_copy(deps, record, name, cx).await {
        Err(e) if e.kind() == SealErrorKind::Damaged => {
            if let Some(damage) = files::replica_damage(deps, record, cx).await? {
                return Ok(Some(damage));
            }
            copy_files(deps, record, name, cx).await?;
        }
        other => other?,
    }
    tell_manager(deps, record, name, cx).await?;
    Ok(None)
}

/// Reads the copies again and compares them with what was recorded when they were made. One that differs is made again,
/// from a source that is looked at first, and read again. An outcome has to be followed before anything is removed.
pub(super) async fn confirm_copy(
    deps: &StageDeps,
    record: &SectorRecord,
    persisted: &PersistedOutput,
    cx: &Context,
) -> Result<Option<StageOutcome>, SealError> {
    match verify_copy(deps, record, persisted, cx).await {
        Err(e) if e.kind() == SealErrorKind::Damaged => {
            // The proof stands, so that the files are copied again and no stage is rewound for that: another proof of
            // the same sector would be refused.
            if let Some(damage) = files::replica_damage(deps, record, cx).await? {
                return Ok(Some(damage));
            }
            copy_files(deps, record, &persisted.store, cx).await?;
            verify_copy(deps, record, persisted, cx).await.map_err(|e| match e.kind() {
                SealErrorKind::Damaged => e.hint_with(
                    "the replica in one of the stores is not what it was; nothing is removed. check the disks of both",
                ),
                _ => e,
            })?;
            tell_manager(deps, record, &persisted.store, cx).await?;
            Ok(None)
        }
        other => other.map(|()| None),
    }
}

async fn verify_copy(
    deps: &StageDeps,
    record: &SectorRecord,
    persisted: &PersistedOutput,
    cx: &Context,
) -> Result<(), SealError> {
    let op = "compare copy of the replica";
    let store = chosen(deps, record, &persisted.store)?;
    let (sector, size) = (record.sector(), record.lease().proof_type.sector_size());
    let (copies, stop) = (persisted.copies.clone(), cx.cancel.child_token());
    // Also when this is left before it has an answer.
    let _stop = stop.clone().drop_guard();
    let read = |tick: Box<dyn Fn() + Send + Sync>| {
        let go_on = move || {
            tick();
            !stop.is_cancelled()
        };
        deps.files(cx, op, move |_| store.verify(sector, size, &copies, &go_on))
    };
    let name = &persisted.store;
    let whole = stall::read_watched(deps, name, cx, read).await.map_err(|why| suspect(op, deps, record, name, why))?;
    if whole? { Ok(()) } else { Err(Error::new(SealErrorKind::Cancelled, op).with("sector", sector)) }
}

async fn copy_files(
    deps: &StageDeps,
    record: &SectorRecord,
    name: &str,
    cx: &Context,
) -> Result<Vec<CopiedFile>, SealError> {
    let (sector, size) = (record.sector(), record.lease().proof_type.sector_size());
    // Without its disk, the path is a directory of another file system.
    let look = deps.persist.look(name, Some((sector, size)), cx);
    let looked = async { look.await.map_err(|e| fault::of_store("find persist store", e)) };
    let found = unless_cancelled(cx, "find persist store", looked).await?;
    let _room = promise(deps, record, &found)?;
    let store = found.store;
    deps.persist.sweep_but(name, sector, size, cx).await;
    let (from, to) = (deps.store.cache(sector), store.cache(sector));
    let beside = replica_cache_files(size).into_iter();
    let beside = beside.map(|file| CopyFile { from: from.join(&file), to: to.join(&file) });
    let sealed = CopyFile { from: deps.store.sealed(sector), to: store.sealed(sector) };
    let files = std::iter::once(sealed).chain(beside).collect();
    let task = Transfer { files, bytes_per_second: deps.persist.bytes_per_second(name) };
    let copied = copied(deps, record, name, &task, cx).await?;
    check_copy(deps, record, name, cx).await?;
    let rubbish = |why: &str| {
        Error::new(SealErrorKind::Stage, "copy the replica")
            .with("sector", sector)
            .with("store", name)
            .with("rubbish from the processor", why)
    };
    are_copies(&task, &copied.files).map_err(|why| rubbish(&why))?;
    let (copies, checked) = (copied.files.clone(), |copy: &CopiedFile| {
        std::fs::metadata(&copy.path).is_ok_and(|found| found.len() == copy.len)
    });
    let wrong = move |_: &SealingStore| Ok(copies.into_iter().find(|copy| !checked(copy)));
    match look_at_files(deps, record, name, cx, wrong).await? {
        Some(copy) => Err(rubbish(&format!("{} does not have {} bytes", copy.path.display(), copy.len))),
        None => Ok(copied.files),
    }
}

/// Copies. A store to which it cannot be done is left out for a time, and another is asked for.
async fn copied(
    deps: &StageDeps,
    record: &SectorRecord,
    name: &str,
    task: &Transfer,
    cx: &Context,
) -> Result<Transferred, SealError> {
    let work = |inner: Context| async move { deps.work(record, &id::PERSIST, task, &inner).await };
    match stall::watched(deps, name, cx, work).await {
        Err(why) => {
            // What was copied is gone on with if the same store is chosen again.
            Err(suspect("copy the replica", deps, record, name, why))
        }
        Ok(Err(error)) if error.kind() != SealErrorKind::Cancelled => {
            leave_out(deps, name, &error, cx).await;
            Err(error)
        }
        Ok(copied) => copied,
    }
}

/// A store that hangs is left out for a time, so that the next try goes elsewhere.
fn suspect(op: &'static str, deps: &StageDeps, record: &SectorRecord, name: &str, why: String) -> SealError {
    deps.persist.set_aside(name, why.clone());
    fault::failed(op, "the store hangs")
        .with("sector", record.sector())
        .with("store", name)
        .because(why)
        .hint_with("see whether the disk or server of this store is well; another is used meanwhile if there is one")
}

/// After a copy failed: a store that is full, or that has become unusable, is not offered to the manager for a time, so
/// that the next try goes elsewhere.
async fn leave_out(deps: &StageDeps, name: &str, error: &SealError, cx: &Context) {
    if error.kind() == SealErrorKind::DiskFull {
        return deps.persist.set_aside(name, "no space was left while a replica was copied");
    }
    match deps.persist.look(name, None, cx).await {
        Ok(found) if found.mounted_read_only => deps.persist.set_aside(name, "its file system has become read-only"),
        Ok(_) => {}
        Err(unusable) => deps.persist.set_aside(name, unusable.chain()),
    }
}

/// Whether a processor, which may be a third party's, says of every file that was to be copied what it has to, and of
/// no other: what it says decides later whether the sealing store is emptied.
fn are_copies(task: &Transfer, copied: &[CopiedFile]) -> Result<(), String> {
    if copied.len() != task.files.len() {
        return Err(format!("{} files are named, not {}", copied.len(), task.files.len()));
    }
    for CopyFile { to, .. } in &task.files {
        let Some(copy) = copied.iter().find(|copy| copy.path == *to) else {
            return Err(format!("{} is not named", to.display()));
        };
        if copy.sha256.len() != 64 || !copy.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("`{}` is no hash of {}", copy.sha256.escape_debug(), to.display()));
        }
    }
    Ok(())
}

async fn tell_manager(deps: &StageDeps, record: &SectorRecord, name: &str, cx: &Context) -> Result<(), SealError> {
    let op = "persist replica";
    let store = chosen(deps, record, name)?;
    let found = deps.ask(cx, op, deps.service.persisted(record.lease(), name)).await?;
    if !found {
        return Err(fault::failed(op, "the manager does not find the files")
            .with("sector", record.sector())
            .with("store", name)
            .with("path", store.location().display())
            .hint_with("worker and manager must see the same directory under the name of this store"));
    }
    Ok(())
}

/// Whether the files of the replica are in the store.
async fn check_copy(deps: &StageDeps, record: &SectorRecord, name: &str, cx: &Context) -> Result<(), SealError> {
    let store = chosen(deps, record, name)?;
    let (sector, size) = (record.sector(), record.lease().proof_type.sector_size());
    look_at_files(deps, record, name, cx, move |_| store.check(sector, size)).await
}

/// Looks at files of a persist store, unless it hangs.
async fn look_at_files<T: Send + 'static>(
    deps: &StageDeps,
    record: &SectorRecord,
    name: &str,
    cx: &Context,
    act: impl FnOnce(&SealingStore) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, SealError> {
    let op = "check copy of the replica";
    let looked = stall::read_watched(deps, name, cx, |_| deps.files(cx, op, act)).await;
    looked.unwrap_or_else(|why| Err(suspect(op, deps, record, name, why)))
}

fn chosen(deps: &StageDeps, record: &SectorRecord, name: &str) -> Result<Arc<PersistStore>, SealError> {
    deps.persist.get(name).ok_or_else(|| {
        let op = "use persist store";
        let error = |kind| Error::new(kind, op).with("sector", record.sector()).with("store", name);
        let wanted = deps.persist.status().into_iter().find(|status| status.name.as_deref() == Some(name));
        match wanted {
            Some(status) => error(SealErrorKind::DiskFull)
                .with("path", status.location.display())
                .with("reason", status.reason.unwrap_or_default())
                .recover_by(Recovery::Retry { after: Some(NO_ROOM) })
                .hint_with("mount the disk of this store; the sector goes on by itself"),
            None => {
                error(SealErrorKind::Refused).hint_with("attach this store to the worker with an [[attached]] entry")
            }
        }
    })
}

/// What a replica may take at most, its trees included: for small sectors they are about as large as the sector.
fn needed_bytes(size: SectorSize) -> u64 {
    match size {
        SectorSize::KiB2 | SectorSize::MiB8 | SectorSize::MiB512 => size.bytes().saturating_mul(2),
        SectorSize::GiB32 | SectorSize::GiB64 => size.bytes().saturating_add(size.bytes() / 50),
    }
}
