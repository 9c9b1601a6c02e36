//! One child: started, given jobs, stopped.

mod start;

use super::{
    dialect::{Cancel, Dialect, Output, Problem, Said, in_grace},
    end::{End, kill},
    pulse::{Pace, Pulse},
    stderr::Stderr,
};
use crate::{
    placement::{Placed, PlacementError, PlacementErrorKind},
    sys::Process,
};
use bytes::{Buf, Bytes, BytesMut};
use damocles_core::{
    BoxError, CancellationToken, Context, Error, Event, JobEvent,
    pool::{Job, PoolError, PoolErrorKind},
};
use nix::{errno::Errno, sys::signal::Signal};
use std::{collections::VecDeque, io, path::PathBuf, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    time::{Instant, Interval, sleep_until, timeout},
};

/// How much is read at a time.
const READ: usize = 64 << 10;

/// A child that said that it is ready. Its group is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Child {
    slot: String,
    program: PathBuf,
    last_wait: Duration,
    process: Process,
    /// Whether it was killed and does not die.
    stuck: bool,
    placed: Placed,
    /// When its placement is read back next while it works.
    verify: Interval,
    dialect: Box<dyn Dialect>,
    pulse: Pulse,
    /// How often it is told that the job moved on.
    pace: Pace,
    /// None when it does not listen any more.
    requests: Option<ChildStdin>,
    /// What it is still to be told.
    unsent: VecDeque<Bytes>,
    answers: ChildStdout,
    /// What was read and not understood yet.
    unread: BytesMut,
    /// Whether it closed its answers.
    silent: bool,
    stderr: Stderr,
}

/// What became of listening to a child.
#[derive(Debug)]
enum Heard {
    Answer(Said),
    Rubbish(BoxError),
    /// It closed its answers.
    Silence,
    Exit,
    Hung(String),
    /// It is not any more where it was put.
    Displaced(PlacementError),
}

/// How a job ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With an answer: the child takes the next job.
    Answered(Result<Bytes, PoolError>),
    /// The child is gone with it.
    Broken(PoolError),
}

impl Child {
    /// Whether the process is known to have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.process.has_exited()
    }

    /// Gives the child a job and waits for its end, or stops the child when the job is cancelled.
    pub(super) async fn work(&mut self, job: &Job, cx: &Context, grace: Duration) -> Ended {
        // What it said unasked would be taken for an answer to this job.
        self.read_rest();
        if let Some(Heard::Rubbish(problem)) = self.understand(job, cx).await {
            return self.broken(PoolErrorKind::Rubbish, job, problem).await;
        }
        let stop = CancellationToken::new();
        let task = match in_grace(cx, grace, stop.clone(), self.dialect.task(job, &stop)).await {
            Ok(task) => task,
            Err(problem) => return Ended::Answered(Err(self.error(problem.kind, job).because(problem.cause))),
        };
        if let Some(error) = self.displaced() {
            return self.broken(PoolErrorKind::Start, job, error).await;
        }
        self.placed.job_begins();
        self.verify.reset();
        self.pulse.begin(Instant::now());
        self.ping();
        self.unsent.push_back(task);
        let heard = tokio::select! {
            biased;
            heard = self.hear(job, cx) => heard,
            () = cx.cancel.cancelled() => return self.cancelled(job, cx, grace).await,
        };
        match heard {
            Heard::Answer(Said::Done(output)) => match self.take(output, cx, grace).await {
                Ok(output) => Ended::Answered(Ok(output)),
                Err(problem) if problem.kind == PoolErrorKind::Rubbish => {
                    self.broken(PoolErrorKind::Rubbish, job, problem.cause).await
                }
                Err(problem) => Ended::Answered(Err(self.error(problem.kind, job).because(problem.cause))),
            },
            Heard::Answer(Said::Failed { kind, text }) => Ended::Answered(Err(self.error(kind, job).because(text))),
            Heard::Answer(_) => {
                self.broken(PoolErrorKind::Rubbish, job, "it says that it was stopped, which nobody asked for").await
            }
            Heard::Rubbish(problem) => self.broken(PoolErrorKind::Rubbish, job, problem).await,
            Heard::Silence => self.broken(PoolErrorKind::Crashed, job, "its answers ended").await,
            Heard::Exit => self.broken(PoolErrorKind::Crashed, job, "it exited without an answer").await,
            Heard::Hung(how) => self.broken(PoolErrorKind::Hung, job, how).await,
            // What it computes from now on is at the cost of others.
            Heard::Displaced(error) => self.broken(PoolErrorKind::Start, job, error).await,
        }
    }

    /// Reads back where it runs. That it cannot be read is no reason to end what it does: it is tried again.
    fn displaced(&self) -> Option<PlacementError> {
        match self.placed.verify(self.process.pid()) {
            Ok(()) => None,
            Err(error) if error.kind() == PlacementErrorKind::Differs => Some(error),
            Err(error) => {
                let (slot, hint) = (&self.slot, error.hint().unwrap_or_default());
                tracing::warn!(slot, error = error.chain(), hint, "the placement of a child cannot be read back");
                None
            }
        }
    }

    async fn take(&mut self, output: Output, cx: &Context, grace: Duration) -> Result<Bytes, Problem> {
        let stop = CancellationToken::new();
        in_grace(cx, grace, stop.clone(), self.dialect.output(output, &stop)).await
    }

    /// Tells the child what it is to be told and listens until something comes of it.
    async fn hear(&mut self, job: &Job, cx: &Context) -> Heard {
        loop {
            if let Some(heard) = self.understand(job, cx).await {
                return heard;
            }
            if self.silent {
                return if self.unread.is_empty() {
                    Heard::Silence
                } else {
                    Heard::Rubbish("its answers ended inside one of them".into())
                };
            }
            self.unread.reserve(READ);
            let next = self.unsent.front().cloned();
            let send = async {
                match (&mut self.requests, &next) {
                    (Some(requests), Some(bytes)) => requests.write(bytes).await,
                    _ => Err(io::ErrorKind::BrokenPipe.into()),
                }
            };
            // None goes first: a child that never stops talking is looked after like any other.
            tokio::select! {
                read = self.answers.read_buf(&mut self.unread) => match read {
                    Ok(len) => self.silent = len == 0,
                    Err(error) => return Heard::Rubbish(error.into()),
                },
                _ = self.process.exited() => {
                    self.silent = true;
                    let cut = |this: &Self| (!this.unread.is_empty()).then(|| "it exited inside an answer".into());
                    return match self.last_word(job, cx).await {
                        Some(heard) => heard,
                        None => cut(self).map_or(Heard::Exit, Heard::Rubbish),
                    };
                }
                _ = self.verify.tick() => {
                    if let Some(error) = self.displaced() {
                        return self.last_word(job, cx).await.unwrap_or(Heard::Displaced(error));
                    }
                }
                sent = send, if next.is_some() => self.sent(sent),
                () = sleep_until(self.pulse.wakes_at()) => {
                    if let Some(heard) = self.look(job, cx).await {
                        return heard;
                    }
                }
            }
        }
    }

    /// Looks whether it is there.
    async fn look(&mut self, job: &Job, cx: &Context) -> Option<Heard> {
        let mut seen = self.pulse.look(Instant::now(), self.process.pid());
        if seen.is_err() {
            if let Some(heard) = self.last_word(job, cx).await {
                return Some(heard);
            }
            // Its sign of life may have been among what was just read.
            seen = self.pulse.look(Instant::now(), self.process.pid());
        }
        match seen {
            Ok(true) => self.ping(),
            Ok(false) => {}
            Err(how) => return Some(Heard::Hung(how)),
        }
        None
    }

    /// What it said last may still be in the pipe, and comes before any verdict.
    async fn last_word(&mut self, job: &Job, cx: &Context) -> Option<Heard> {
        self.read_rest();
        self.understand(job, cx).await
    }

    fn ping(&mut self) {
        // What is being sent shows in its own time that the child reads.
        if self.unsent.is_empty()
            && self.dialect.ping(0).is_some()
            && let Some(ping) = self.pulse.ping(Instant::now()).and_then(|n| self.dialect.ping(n))
        {
            self.unsent.push_back(ping);
        }
    }

    fn sent(&mut self, sent: io::Result<usize>) {
        match sent {
            Ok(len) => {
                if let Some(bytes) = self.unsent.front_mut() {
                    bytes.advance(len.min(bytes.len()));
                    if bytes.is_empty() {
                        self.unsent.pop_front();
                    }
                }
                self.pulse.sent(Instant::now(), true, !self.unsent.is_empty());
            }
            // A child that died says so by the end of its answers: what it said before that comes first.
            Err(_) => {
                self.requests = None;
                self.unsent.clear();
                self.pulse.sent(Instant::now(), false, true);
            }
        }
    }

    /// What was read and means something for the job.
    async fn understand(&mut self, job: &Job, cx: &Context) -> Option<Heard> {
        loop {
            match self.dialect.said(&mut self.unread).await {
                Ok(None) => return None,
                Ok(Some(Said::Progress { .. })) if !self.pace.allows(Instant::now()) => {}
                Ok(Some(Said::Progress { done, total })) => {
                    let what = JobEvent::Progress { done, total };
                    cx.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
                }
                Ok(Some(Said::Pong(n))) if self.pulse.pong(n) => {}
                Ok(Some(Said::Pong(_))) => return Some(Heard::Rubbish("it answers a ping that nobody sent".into())),
                Ok(Some(said)) => return Some(Heard::Answer(said)),
                Err(problem) => return Some(Heard::Rubbish(problem)),
            }
        }
    }

    /// Reads what is in the pipe now. Whoever else holds it open is not waited for.
    fn read_rest(&mut self) {
        let mut chunk = vec![0; READ];
        // No pipe holds more than a megabyte unless an administrator wants it to.
        for _ in 0..32 {
            match nix::unistd::read(&self.answers, &mut chunk) {
                Ok(len @ 1..) => self.unread.extend_from_slice(chunk.get(..len).unwrap_or_default()),
                Err(Errno::EINTR) => {}
                Ok(0) | Err(_) => return,
            }
        }
    }

    /// Stops the job in order: asks, waits, kills the whole group, reaps. A job that ends meanwhile has ended.
    async fn cancelled(&mut self, job: &Job, cx: &Context, grace: Duration) -> Ended {
        // Inside a request there is no way to ask.
        let (mut heard, signalled) =
            if self.unsent.is_empty() { self.ask_to_stop(job, cx, grace).await } else { (None, true) };
        let answered = matches!(heard, Some(Heard::Answer(_)));
        let end = if answered && !signalled { None } else { Some(self.kill().await) };
        if !answered {
            heard = self.last_word(job, cx).await;
        }
        if let Some(Heard::Answer(Said::Done(output))) = heard
            && let Ok(output) = self.take(output, cx, grace).await
        {
            return Ended::Answered(Ok(output));
        }
        let error = self.error(PoolErrorKind::Cancelled, job);
        match end {
            None => Ended::Answered(Err(error)),
            Some(end @ End::Stuck { .. }) => Ended::Broken(error.with("exit", end)),
            Some(End::Gone(_)) => Ended::Broken(error),
        }
    }

    /// Asks the child to stop, with a signal if it does not know how to be asked otherwise, and says whether there was one.
    async fn ask_to_stop(&mut self, job: &Job, cx: &Context, grace: Duration) -> (Option<Heard>, bool) {
        let (words, patience) = match self.dialect.cancel() {
            Cancel::Words(words) => (Some(words), grace / 2),
            Cancel::WordsAndSignal(words) => (Some(words), Duration::ZERO),
            Cancel::Signal => (None, Duration::ZERO),
        };
        self.unsent.extend(words);
        // A pipe with room takes the words at the first try.
        if let Ok(heard) = timeout(patience, self.hear(job, cx)).await {
            return (Some(heard), false);
        }
        self.process.signal(Signal::SIGTERM);
        // Its answers are read on, so that it cannot hang on a full pipe.
        (timeout(grace.saturating_sub(patience), self.hear(job, cx)).await.ok(), true)
    }

    async fn broken(&mut self, kind: PoolErrorKind, job: &Job, cause: impl Into<BoxError>) -> Ended {
        // What it was killed for by us had other reasons than a process that it lost on the way.
        let died = kind == PoolErrorKind::Crashed || (kind == PoolErrorKind::Rubbish && self.silent);
        let end = self.kill().await;
        let error = match self.placed.leaf().out_of_memory().filter(|_| died) {
            Some(memory) => memory.describe(self.error(PoolErrorKind::OutOfMemory, job)),
            None => self.error(kind, job),
        };
        let error = error.with("program", self.program.display()).with("exit", end).because(cause);
        Ended::Broken(self.with_last_lines(error).await)
    }

    fn error(&self, kind: PoolErrorKind, job: &Job) -> PoolError {
        Error::new(kind, "run job").with("kind", &job.kind).with("job", job.id).with("slot", &self.slot)
    }

    async fn with_last_lines(&mut self, error: PoolError) -> PoolError {
        let lines = self.stderr.last_lines().await;
        if lines.is_empty() { error } else { error.with("last words", lines.escape_debug()) }
    }

    /// Asks an idle child to exit, and kills it when it does not.
    pub(super) async fn shut_down(mut self, grace: Duration) {
        let words = self.dialect.shutdown();
        let ask = async {
            match (words, &mut self.requests) {
                (Some(words), Some(requests)) => drop(requests.write_all(&words).await),
                _ => self.requests = None,
            }
            self.process.exited().await;
        };
        if timeout(grace, ask).await.is_err() {
            self.kill().await;
        }
    }

    async fn kill(&mut self) -> End {
        let end = kill(&mut self.process, self.last_wait).await;
        self.stuck = matches!(end, End::Stuck { .. });
        end
    }

    /// Whether it was killed and does not die.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }
}
