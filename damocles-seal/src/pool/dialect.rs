//! What a child must be told and what it says, whatever the protocol.

use super::{
    frames::Frames, payload::PayloadDir, spec::Protocol, spec::SlotSpec, v1::Lines, wire::FileRef, wire::Json,
};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use damocles_core::{
    BoxError, CancellationToken, Context,
    pool::{Job, PoolErrorKind},
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::sleep;

/// A protocol, from the side of the pool, with what has been said so far.
#[async_trait]
pub(super) trait Dialect: fmt::Debug + Send + Sync {
    /// Takes what the child has to say first out of what was read, and gives what it is to be told then; none if it is
    /// not whole yet.
    fn ready(&mut self, read: &mut BytesMut, slot: &SlotSpec) -> Result<Option<Bytes>, BoxError>;

    /// Takes the next thing that the child says out of what was read. Dropped before its end, it loses nothing.
    async fn said(&mut self, read: &mut BytesMut) -> Result<Option<Said>, BoxError>;

    /// A job in the child's words. May touch files.
    async fn task(&mut self, job: &Job, stop: &CancellationToken) -> Result<Bytes, Problem>;

    /// What came of the job that was given last. May touch files.
    async fn output(&mut self, done: Output, stop: &CancellationToken) -> Result<Bytes, Problem>;

    /// Asks whether the child is there, if it knows how to answer.
    fn ping(&self, n: u64) -> Option<Bytes>;

    /// Asks the child to stop the job that was given last.
    fn cancel(&self) -> Cancel;

    /// Asks the child to exit; without words, its input is closed.
    fn shutdown(&self) -> Option<Bytes>;
}

/// How a job is stopped.
#[derive(Debug)]
pub(super) enum Cancel {
    /// By these words, which the child heeds.
    Words(Bytes),
    /// By these words and a signal.
    WordsAndSignal(Bytes),
    /// By a signal.
    Signal,
}

/// What a child says.
#[derive(Debug)]
pub(super) enum Said {
    Progress { done: u64, total: Option<u64> },
    Pong(u64),
    Done(Output),
    Failed { kind: PoolErrorKind, text: String },
    Cancelled,
}

/// What came of a job, as it came.
#[derive(Debug)]
pub(super) enum Output {
    Value(serde_json::Value),
    Json(Json),
    File(FileRef),
}

/// A job that cannot be said, or whose answer cannot be taken.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) kind: PoolErrorKind,
    pub(super) cause: BoxError,
}

impl Problem {
    pub(super) fn new(kind: PoolErrorKind, cause: impl Into<BoxError>) -> Self {
        Self { kind, cause: cause.into() }
    }
}

/// The protocol of a slot.
pub(super) fn of(slot: &SlotSpec, payloads: Option<Arc<PayloadDir>>) -> Result<Box<dyn Dialect>, BoxError> {
    match slot.protocol {
        Protocol::V2 => Ok(Box::new(Frames::new(&slot.talk, payloads))),
        Protocol::V1 => Ok(Box::new(Lines::of(slot)?)),
    }
}

/// Does what touches files on a thread of its own.
pub(super) async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::new(PoolErrorKind::Start, error)),
    }
}

/// Work on files that is told to stop only when a grace period has passed since the job was cancelled: until then what
/// a child finished is kept.
pub(super) async fn in_grace<T>(
    cx: &Context,
    grace: Duration,
    stop: CancellationToken,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let _stops = stop.drop_guard();
    tokio::select! {
        biased;
        done = work => done,
        () = async { cx.cancel.cancelled().await; sleep(grace).await } => {
            Err(Problem::new(PoolErrorKind::Cancelled, "its files were not done with in time"))
        }
    }
}
