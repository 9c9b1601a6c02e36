//! The life of a child.

use super::{ProcessorError, ProgressSink, ProofTurn, Registry, panic_text};
use crate::{
    pool::wire::{self, FailureKind, FromChild, ToChild, WireError},
    sys,
};
use damocles_core::{
    JobId,
    pool::{PoolErrorKind, TaskKind},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    error::Error as StdError,
    fs::File,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

/// How a child serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeOptions {
    /// The kinds of task that it takes; all that the registry knows without.
    pub kinds: Option<Vec<TaskKind>>,
    /// A file that real proofs take turns by, so that several do not fill the memory of a small machine.
    pub turn_lock: Option<PathBuf>,
}

/// Why a child stopped serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It was told to.
    Shutdown,
    /// Its input ended: whoever started it is gone or has let go.
    InputEnded,
    /// Its job was cancelled. The work may still be running: only the end of the process stops it.
    Cancelled,
}

/// Why a child cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A kind that it was started for is not known.
    #[error("the kind `{kind}` is not known")]
    UnknownKind {
        /// The kind.
        kind: TaskKind,
    },
    /// Standard input and output could not be taken.
    #[error("standard input and output could not be taken for the protocol")]
    Streams(#[source] io::Error),
    /// The other side is not heard or understood.
    #[error("the pool is not understood")]
    Wire(#[from] WireError),
    /// No thread for the work.
    #[error("the thread for the work did not start")]
    Thread(#[source] io::Error),
}

/// Serves tasks on standard input and output, until told to stop. Blocks. `main` should return at once when this
/// returns: with [`Served::Cancelled`] and [`Served::InputEnded`] a task may still be at work on a thread.
///
/// Everything that this process prints from now on goes to standard error.
///
/// # Errors
///
/// The streams break or carry something else than the protocol.
pub fn serve(registry: Registry, options: &ServeOptions) -> Result<Served, ServeError> {
    let (requests, answers) = sys::take_protocol().map_err(ServeError::Streams)?;
    serve_on(registry, options, requests, answers)
}

fn serve_on(
    registry: Registry,
    options: &ServeOptions,
    mut requests: File,
    answers: File,
) -> Result<Served, ServeError> {
    let kinds: Vec<TaskKind> = options.kinds.clone().unwrap_or_else(|| registry.kinds().cloned().collect());
    if let Some(kind) = kinds.iter().find(|kind| !registry.kinds().any(|known| known == *kind)) {
        return Err(ServeError::UnknownKind { kind: kind.clone() });
    }
    let answers = Answers(Arc::new(Mutex::new(answers)));
    answers.say(&FromChild::Ready {
        magic: wire::MAGIC.to_owned(),
        version: wire::VERSION,
        kinds: kinds.clone(),
        pid: std::process::id(),
    })?;
    let (tasks, work) = mpsc::channel::<Request>();
    let worker = Worker { registry, kinds, turn: options.turn_lock.clone().map(ProofTurn::new), answers };
    // Proof code recurses and keeps large arrays on the stack.
    let builder = thread::Builder::new().name("work".to_owned()).stack_size(16 << 20);
    let thread = builder.spawn(move || work.into_iter().try_for_each(|request| worker.handle(&request)));
    let thread = thread.map_err(ServeError::Thread)?;
    loop {
        match wire::read(&mut requests)? {
            Some(ToChild::Task { id, kind, payload }) => {
                if tasks.send(Request { id, kind, payload }).is_err() {
                    // The worker ended because nobody hears its answers.
                    return Ok(Served::InputEnded);
                }
            }
            Some(ToChild::Cancel { .. }) => return Ok(Served::Cancelled),
            Some(ToChild::Shutdown) => {
                drop(tasks);
                let _ = thread.join();
                return Ok(Served::Shutdown);
            }
            None => return Ok(Served::InputEnded),
        }
    }
}

struct Request {
    id: JobId,
    kind: TaskKind,
    payload: Value,
}

#[derive(Clone)]
struct Answers(Arc<Mutex<File>>);

impl Answers {
    fn say(&self, frame: &FromChild) -> Result<(), WireError> {
        let bytes = wire::encode(frame)?;
        self.0.lock().write_all(&bytes)?;
        Ok(())
    }
}

struct Worker {
    registry: Registry,
    kinds: Vec<TaskKind>,
    turn: Option<ProofTurn>,
    answers: Answers,
}

impl Worker {
    fn handle(&self, request: &Request) -> Result<(), WireError> {
        let id = request.id;
        let failed = |kind, error| FromChild::Failed { id, kind, error };
        let answer = match self.work(request) {
            Some(Ok(output)) => FromChild::Done { id, output },
            Some(Err(error)) => {
                let kind = match error.kind {
                    PoolErrorKind::DiskFull => FailureKind::DiskFull,
                    _ => FailureKind::Failed,
                };
                failed(kind, chain(&error))
            }
            None => failed(FailureKind::UnknownKind, vec![format!("the kind `{}` is not served here", request.kind)]),
        };
        match self.answers.say(&answer) {
            Err(WireError::TooLong { len }) => {
                self.answers.say(&failed(FailureKind::Failed, vec![format!("an output of {len} bytes is too long")]))
            }
            said => said,
        }
    }

    fn work(&self, request: &Request) -> Option<Result<Value, ProcessorError>> {
        if !self.kinds.contains(&request.kind) {
            return None;
        }
        let _turn = match self.turn.as_ref().map(|turn| turn.take(&request.kind)).transpose() {
            Ok(turn) => turn,
            Err(error) => return Some(Err(ProcessorError::new("wait for the turn to prove", error))),
        };
        let progress = Reporter { id: request.id, answers: self.answers.clone() };
        let payload = request.payload.to_string();
        let work = AssertUnwindSafe(|| self.registry.run(&request.kind, payload.as_bytes(), &progress));
        let worked =
            catch_unwind(work).unwrap_or_else(|panic| Some(Err(ProcessorError::because(panic_text(&*panic)))))?;
        Some(worked.and_then(|output| {
            serde_json::from_slice(&output).map_err(|e| ProcessorError::new("encode the output", e))
        }))
    }
}

fn chain(error: &dyn StdError) -> Vec<String> {
    let mut chain = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        chain.push(cause.to_string());
        next = cause.source();
    }
    chain
}

struct Reporter {
    id: JobId,
    answers: Answers,
}

impl ProgressSink for Reporter {
    fn progress(&self, done: u64, total: Option<u64>) {
        // A pool that is gone shows at the end of the input; work is not stopped for a lost number.
        let _ = self.answers.say(&FromChild::Progress { id: self.id, done, total });
    }
}
