//! What stages are given.

use super::{PieceSource, fault};
use crate::{
    journal::SectorRecord,
    service::{SealingService, ServiceError},
    store::{PersistStores, SealingStore, StoreError},
};
use damocles_core::{
    Context, Error, JobId,
    pipeline::{SealError, SealErrorKind, StageId},
    pool::{ProcessorPool, ProcessorPoolExt, Task},
};
use sha2::{Digest, Sha256};
use std::{future::Future, sync::Arc, time::Duration};

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

    /// Runs a task for `stage` on the pool. One task a stage: the job's id is made from the sector and the stage.
    ///
    /// # Errors
    ///
    /// The pool could not run it, or it failed.
    pub async fn work<T: Task>(
        &self,
        record: &SectorRecord,
        stage: &StageId,
        task: &T,
        cx: &Context,
    ) -> Result<T::Output, SealError> {
        let job = job_id(record, stage);
        let output = self.pool.run_task(job, Some(record.sector()), task, cx).await;
        output.map_err(|e| fault::of_pool(e).with("sector", record.sector()).with("stage", stage))
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
