//! What stages are given.

use super::{DealSettings, PieceSource, fault, id};
use crate::{
    journal::SectorRecord,
    service::{SealingService, ServiceError},
    store::{PersistStores, Reservation, SealingStore, StaticTrees, StoreError, StoreErrorKind, WRITERS},
};
use damocles_core::{
    Context, Error, Event, JobEvent, JobId, Recovery,
    pipeline::{SealError, SealErrorKind, StageId},
    pool::{ProcessorPool, ProcessorPoolExt, Task, TaskKind},
};
use sha2::{Digest, Sha256};
use std::{future::Future, sync::Arc, time::Duration};

/// How long a stage waits for space that others were promised, before it says that it lacks space.
const ROOM_WAIT: Duration = Duration::from_secs(60);

/// How long until a stage that lacks space asks again: others than this process free some too.
const ROOM_RETRY: Duration = Duration::from_secs(30);

/// Asks for space; blocks if the disk does not answer.
type Reserve = Arc<dyn Fn(&Arc<SealingStore>) -> Result<Option<Reservation>, StoreError> + Send + Sync>;

/// What the stages of a plan work with, those of one's own too.
#[derive(Clone, Debug)]
pub struct StageDeps {
    /// The manager.
    pub service: Arc<dyn SealingService>,
    /// Where heavy work is done.
    pub pool: Arc<dyn ProcessorPool>,
    /// Where the sector lies while it is sealed.
    pub store: Arc<SealingStore>,
    /// Where replicas may be put.
    pub persist: PersistStores,
    /// Where the bytes of pieces come from.
    pub pieces: Arc<dyn PieceSource>,
    /// Which pieces sectors take.
    pub deals: DealSettings,
    /// Trees of sectors without data that need not be built.
    pub static_trees: StaticTrees,
    /// How long one call to the manager may take.
    pub call_limit: Duration,
}

impl StageDeps {
    /// Calls the manager, within the limit and until cancelled.
    ///
    /// # Errors
    ///
    /// The call failed, took too long, or was cancelled.
    pub async fn ask<T>(
        &self,
        cx: &Context,
        op: &'static str,
        call: impl Future<Output = Result<T, ServiceError>> + Send,
    ) -> Result<T, SealError> {
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(Error::new(SealErrorKind::Cancelled, op)),
            answer = tokio::time::timeout(self.call_limit, call) => match answer {
                Ok(answer) => answer.map_err(|e| fault::of_service(op, e)),
                Err(_) => Err(Error::new(SealErrorKind::Service, op)
                    .with("no answer within seconds", self.call_limit.as_secs())),
            },
        }
    }

    /// Runs a task for `stage` on the pool. One task a stage: the job's id is made from the sector and the stage. What the
    /// stage writes to the sealing store is promised to it until the task has ended.
    ///
    /// # Errors
    ///
    /// There is no room for what it writes, the pool could not run it, or it failed.
    pub async fn work<T: Task>(
        &self,
        record: &SectorRecord,
        stage: &StageId,
        task: &T,
        cx: &Context,
    ) -> Result<T::Output, SealError> {
        let job = job_id(record, stage);
        let _room = self.room(record, stage, cx).await?;
        let output = self.pool.run_task(job, Some(record.sector()), task, cx).await;
        output.map_err(|e| fault::of_pool(e).with("sector", record.sector()).with("stage", stage))
    }

    /// Space in the sealing store. What others were promised is waited for; the rest of the waiting is the caller's.
    async fn room(
        &self,
        record: &SectorRecord,
        stage: &StageId,
        cx: &Context,
    ) -> Result<Option<Reservation>, SealError> {
        let (sector, size) = (record.sector(), record.lease().proof_type.sector_size());
        let done: Vec<StageId> = WRITERS.into_iter().filter(|stage| record.fact(stage).is_some()).collect();
        let of = stage.clone();
        let reserve = move |store: &Arc<SealingStore>| {
            // What is done and what a rewind dropped changes what is still to come.
            if store.is_held() {
                store.hold(sector, size, &done)?;
            }
            store.reserve(&of, sector, size)
        };
        self.space(record, stage, Arc::new(reserve), cx).await
    }

    /// Space in the sealing store for pieces that are fetched, as [`StageDeps::work`] has it for what a stage writes.
    ///
    /// # Errors
    ///
    /// There is no room for them.
    pub(crate) async fn room_for_pieces(
        &self,
        record: &SectorRecord,
        bytes: u64,
        cx: &Context,
    ) -> Result<Option<Reservation>, SealError> {
        let sector = record.sector();
        let reserve = move |store: &Arc<SealingStore>| store.reserve_pieces(sector, bytes);
        self.space(record, &id::PIECES, Arc::new(reserve), cx).await
    }

    async fn space(
        &self,
        record: &SectorRecord,
        stage: &StageId,
        reserve: Reserve,
        cx: &Context,
    ) -> Result<Option<Reservation>, SealError> {
        let sector = record.sector();
        let op = "reserve space in the sealing store";
        let tell = |what| {
            let kind = TaskKind::read(stage.as_str());
            cx.emit(Event::Job { job: job_id(record, stage), kind, sector: Some(sector), what });
        };
        let mut told = false;
        let waited = tokio::time::sleep(ROOM_WAIT);
        tokio::pin!(waited);
        loop {
            let released = self.store.ledger().released();
            let (store, reserve) = (Arc::clone(&self.store), Arc::clone(&reserve));
            let asked = tokio::task::spawn_blocking(move || reserve(&store));
            let asked = unless_cancelled(cx, op, async {
                asked.await.map_err(|e| Error::new(SealErrorKind::Stage, op).because(e))
            });
            match asked.await? {
                Err(e) if e.kind() == StoreErrorKind::DiskFull => {
                    // Without promises to others only somebody else can free space, and nobody tells when.
                    let hopeful = self.store.ledger().is_promising_others(sector);
                    // Who asks why nothing happens is told while it waits, too.
                    tell(JobEvent::Queued { reason: e.chain() });
                    told = true;
                    let freed = hopeful
                        && tokio::select! {
                            biased;
                            () = cx.cancel.cancelled() => return Err(Error::new(SealErrorKind::Cancelled, op)),
                            () = released => true,
                            () = &mut waited => false,
                        };
                    if !freed {
                        let retry = Recovery::Retry { after: Some(ROOM_RETRY) };
                        return Err(fault::of_store(op, e).recover_by(retry));
                    }
                }
                asked => {
                    if told {
                        tell(JobEvent::Ended { ok: asked.is_ok() });
                    }
                    return asked.map_err(|e| fault::of_store(op, e));
                }
            }
        }
    }

    /// Looks at files off the runtime's threads, until cancelled: a disk that is gone may never answer. Work that is
    /// under way then goes on without a listener, so that it must not change anything.
    ///
    /// # Errors
    ///
    /// The work failed, or was cancelled.
    pub async fn files<T: Send + 'static>(
        &self,
        cx: &Context,
        op: &'static str,
        act: impl FnOnce(&SealingStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SealError> {
        unless_cancelled(cx, op, self.change_files(op, act)).await
    }

    /// Changes files off the runtime's threads, to the end whatever happens.
    ///
    /// # Errors
    ///
    /// The work failed.
    pub async fn change_files<T: Send + 'static>(
        &self,
        op: &'static str,
        act: impl FnOnce(&SealingStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SealError> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || act(&store)).await {
            Ok(done) => done.map_err(|e| fault::of_store(op, e)),
            Err(e) => Err(Error::new(SealErrorKind::Stage, op).because(e)),
        }
    }
}

/// Waits for file work, until cancelled.
pub(crate) async fn unless_cancelled<T>(
    cx: &Context,
    op: &'static str,
    work: impl Future<Output = Result<T, SealError>>,
) -> Result<T, SealError> {
    let done = cx.cancel.run_until_cancelled(work).await;
    done.unwrap_or_else(|| Err(Error::new(SealErrorKind::Cancelled, op)))
}

/// The same for every try of a stage, another after the stage was rewound: then its result counts no more.
pub(crate) fn job_id(record: &SectorRecord, stage: &StageId) -> JobId {
    let generation = record.dropped(stage).count();
    let digest = Sha256::digest(format!("{}/{stage}/{generation}", record.sector()));
    let mut id = [0; 16];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    JobId(u128::from_be_bytes(id))
}
