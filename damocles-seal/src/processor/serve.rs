//! The life of a child.

use super::{
    ProcessorError, ProgressSink, ProofTurn, Registry,
    jobs::{Jobs, Stop},
    panic_text,
};
use crate::{
    pool::{
        payload::{self, PayloadError},
        wire::{self, FailureKind, Feature, FileRef, Files, FromChild, Json, ToChild, WireError},
    },
    sys,
};
use damocles_core::{
    JobId,
    pool::{PoolErrorKind, TaskKind},
};
use parking_lot::Mutex;
use std::{
    error::Error as StdError,
    fs::File,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
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
    /// Its job was cancelled, or the time of it is over. The work may still be running: only the end of the process stops it.
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

fn serve_on(registry: Registry, options: &ServeOptions, requests: File, answers: File) -> Result<Served, ServeError> {
    let kinds = kinds_of(&registry, options)?;
    let answers = Answers(Arc::new(Mutex::new(answers)));
    answers.say(&FromChild::Ready {
        magic: wire::MAGIC.to_owned(),
        version: wire::VERSION,
        oldest: Some(wire::OLDEST),
        kinds: kinds.clone(),
        pid: std::process::id(),
        features: Feature::ALL.to_vec(),
    })?;
    let (tell, events) = mpsc::channel::<Event>();
    let (tasks, work) = mpsc::channel::<Request>();
    let jobs = Jobs::default();
    let listener = Listener { requests, answers: answers.clone(), tell: tell.clone() };
    thread::Builder::new().name("listen".to_owned()).spawn(move || listener.listen()).map_err(ServeError::Thread)?;
    let turn = options.turn_lock.clone().map(ProofTurn::new);
    let worker = Worker { registry, kinds, turn, answers, jobs: jobs.clone() };
    // Proof code recurses and keeps large arrays on the stack.
    let builder = thread::Builder::new().name("work".to_owned()).stack_size(16 << 20);
    let thread = builder.spawn(move || work.into_iter().try_for_each(|request| worker.handle(request)));
    let thread = thread.map_err(ServeError::Thread)?;
    let mut files = None;
    for event in events {
        match event {
            Event::Heard(ToChild::Hello(hello)) => files = hello.files,
            // Answered where it was heard.
            Event::Heard(ToChild::Ping { .. }) => {}
            Event::Heard(ToChild::Task { id, kind, payload, payload_file, deadline_ms }) => {
                jobs.add(id);
                if let Some(time) = deadline_ms {
                    watch(&jobs, id, Duration::from_millis(time), tell.clone()).map_err(ServeError::Thread)?;
                }
                if tasks.send(Request { id, kind, payload, payload_file, files: files.clone() }).is_err() {
                    // The worker ended because nobody hears its answers.
                    return Ok(Served::InputEnded);
                }
            }
            Event::Heard(ToChild::Cancel { id }) | Event::TimeOver(id) => {
                if jobs.stop(id) == Stop::EndsTheProcess {
                    return Ok(Served::Cancelled);
                }
            }
            Event::Heard(ToChild::Shutdown) => {
                drop(tasks);
                let _ = thread.join();
                return Ok(Served::Shutdown);
            }
            Event::Ended => return Ok(Served::InputEnded),
            Event::Broken(error) => return Err(error.into()),
        }
    }
    Ok(Served::InputEnded)
}

/// The kinds to serve.
pub(super) fn kinds_of(registry: &Registry, options: &ServeOptions) -> Result<Vec<TaskKind>, ServeError> {
    let kinds: Vec<TaskKind> = options.kinds.clone().unwrap_or_else(|| registry.kinds().cloned().collect());
    match kinds.iter().find(|kind| !registry.kinds().any(|known| known == *kind)) {
        Some(kind) => Err(ServeError::UnknownKind { kind: kind.clone() }),
        None => Ok(kinds),
    }
}

/// Tells when the time of a job is over: a pool that is itself stopped does not.
fn watch(jobs: &Jobs, id: JobId, time: Duration, tell: mpsc::Sender<Event>) -> io::Result<()> {
    let ended = jobs.watch(id);
    let wait = move || {
        if ended.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = tell.send(Event::TimeOver(id));
        }
    };
    thread::Builder::new().name("deadline".to_owned()).spawn(wait).map(drop)
}

enum Event {
    Heard(ToChild),
    Ended,
    Broken(WireError),
    TimeOver(JobId),
}

struct Request {
    id: JobId,
    kind: TaskKind,
    payload: Json,
    payload_file: Option<FileRef>,
    files: Option<Files>,
}

/// Hears the pool, also while the work runs.
struct Listener {
    requests: File,
    answers: Answers,
    tell: mpsc::Sender<Event>,
}

impl Listener {
    fn listen(mut self) {
        loop {
            let event = match wire::read(&mut self.requests) {
                Ok(Some(ToChild::Ping { n })) => match self.answers.say(&FromChild::Pong { n }) {
                    Ok(()) => continue,
                    Err(error) => Event::Broken(error),
                },
                Ok(Some(frame)) => Event::Heard(frame),
                Ok(None) => Event::Ended,
                Err(error) => Event::Broken(error),
            };
            let last = !matches!(event, Event::Heard(_));
            if self.tell.send(event).is_err() || last {
                return;
            }
        }
    }
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
    jobs: Jobs,
}

impl Worker {
    fn handle(&self, mut request: Request) -> Result<(), WireError> {
        let id = request.id;
        let Some(stopped) = self.jobs.begin(id, self.registry.stops_when_asked(&request.kind)) else {
            return self.answers.say(&FromChild::Cancelled { id });
        };
        let worked = self.work(&mut request, Arc::clone(&stopped));
        // From here on a request to stop it comes too late: what is finished is said, however long that takes.
        self.jobs.end(id);
        let answer = match worked {
            Err(_) if stopped.load(Ordering::Relaxed) => FromChild::Cancelled { id },
            Err(Failure { kind, error }) => FromChild::Failed { id, kind, error },
            Ok(output) => done(id, output, request.files.as_ref()),
        };
        match self.answers.say(&answer) {
            Err(WireError::TooLong { len }) => {
                let error = vec![format!("an output of {len} bytes is too long")];
                self.answers.say(&FromChild::Failed { id, kind: FailureKind::Failed, error })
            }
            said => said,
        }
    }

    fn work(&self, request: &mut Request, stopped: Arc<AtomicBool>) -> Result<Vec<u8>, Failure> {
        let unknown = || Failure {
            kind: FailureKind::UnknownKind,
            error: vec![format!("the kind `{}` is not served here", request.kind)],
        };
        if !self.kinds.contains(&request.kind) {
            return Err(unknown());
        }
        let turn = self.turn.as_ref().map(|turn| turn.take(&request.kind)).transpose();
        let _turn = turn.map_err(|e| ProcessorError::new("wait for the turn to prove", e))?;
        let payload = match (&request.payload_file, &request.files) {
            (Some(file), Some(files)) => payload::take(&files.dir, file).map_err(|e| Failure::payload(&e))?,
            (Some(file), None) => return Err(Failure::payload(&PayloadError::Name(file.name.clone()))),
            (None, _) => std::mem::take(&mut request.payload).into_bytes(),
        };
        let progress = Reporter { id: request.id, answers: self.answers.clone(), stopped };
        let work = AssertUnwindSafe(|| self.registry.run(&request.kind, &payload, &progress));
        let worked = catch_unwind(work).unwrap_or_else(|panic| Some(Err(ProcessorError::because(panic_text(&*panic)))));
        worked.ok_or_else(unknown)?.map_err(Failure::from)
    }
}

/// Why a job failed, as it is said.
struct Failure {
    kind: FailureKind,
    error: Vec<String>,
}

impl Failure {
    fn payload(error: &PayloadError) -> Self {
        Self { kind: FailureKind::Payload, error: chain(error) }
    }
}

impl From<ProcessorError> for Failure {
    fn from(error: ProcessorError) -> Self {
        let kind = if error.kind == PoolErrorKind::DiskFull { FailureKind::DiskFull } else { FailureKind::Failed };
        Self { kind, error: chain(&error) }
    }
}

/// The end of a job that succeeded.
fn done(id: JobId, output: Vec<u8>, files: Option<&Files>) -> FromChild {
    let large = |files: &&Files| u64::try_from(output.len()).is_ok_and(|len| len > files.above);
    let file = files.filter(large).and_then(|files| {
        let written = payload::write(&files.dir, format_args!("output-{id}"), &output);
        written.inspect_err(|error| tracing::warn!(%error, "an output goes through the pipe")).ok()
    });
    if file.is_some() {
        return FromChild::Done { id, output: Json::default(), output_file: file };
    }
    match Json::parse(&output) {
        Ok(output) => FromChild::Done { id, output, output_file: None },
        Err(error) => {
            let Failure { kind, error } = ProcessorError::new("encode the output", error).into();
            FromChild::Failed { id, kind, error }
        }
    }
}

pub(super) fn chain(error: &dyn StdError) -> Vec<String> {
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
    stopped: Arc<AtomicBool>,
}

impl ProgressSink for Reporter {
    fn progress(&self, done: u64, total: Option<u64>) {
        // A pool that is gone shows at the end of the input; work is not stopped for a lost number.
        let _ = self.answers.say(&FromChild::Progress { id: self.id, done, total });
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
