//! One child: started, given jobs, stopped.

use super::{
    dialect::{self, Cancel, Dialect, Output, Problem, Said, in_grace},
    end::{End, kill},
    payload::PayloadDir,
    pulse::Pulse,
    spec::{Protocol, SlotSpec},
    stderr::Stderr,
    v1,
};
use crate::{
    placement::{Isolation, Placed, PlacementError},
    sys::{self, Process},
};
use bytes::{Buf, Bytes, BytesMut};
use damocles_core::{
    BoxError, CancellationToken, Context, Error, Event, JobEvent,
    pool::{Job, PoolError, PoolErrorKind},
};
use nix::{errno::Errno, sys::signal::Signal};
use std::{collections::VecDeque, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until, timeout},
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
    /// Starts the slot's command and waits until it is ready. When this fails, it was killed.
    ///
    /// `begun` is told the process id; `gone` is called when nothing of the process is left. Nobody waits longer than
    /// `last_wait` for that.
    pub(super) async fn start(
        slot: &SlotSpec,
        isolation: &Arc<Isolation>,
        last_wait: Duration,
        cx: &Context,
        begun: impl FnOnce(u32) + Send,
        gone: impl FnOnce() + Send + 'static,
    ) -> Result<Self, PoolError> {
        let failed = |kind: PoolErrorKind, cause: BoxError| {
            Error::new(kind, "start processor")
                .with("slot", &slot.name)
                .with("program", slot.command.program.display())
                .because(cause)
        };
        let cancelled = || Error::new(PoolErrorKind::Cancelled, "start processor").with("slot", &slot.name);
        let unplaced = |cause: PlacementError| {
            let (recovery, hint) = (cause.recovery(), cause.hint().map(str::to_owned));
            let error = failed(PoolErrorKind::Start, cause.into()).recover_by(recovery);
            if let Some(hint) = hint { error.hint_with(hint) } else { error }
        };
        let placed = isolation.place(slot).map_err(unplaced)?;
        let parent = slot.talk.payload_dir.as_deref().filter(|_| slot.protocol == Protocol::V2);
        let payloads = parent.and_then(|parent| match PayloadDir::in_dir(parent) {
            Ok(dir) => Some(Arc::new(dir)),
            Err(error) => {
                tracing::warn!(slot = slot.name, %error, "all payloads of the slot go through the pipe");
                None
            }
        });
        let dialect = dialect::of(slot, payloads.clone()).map_err(|e| failed(PoolErrorKind::Start, e))?;
        let gone = move || {
            // Nobody writes to it any more.
            drop(payloads);
            gone();
        };
        let mut command = slot.command.to_command();
        if slot.protocol == Protocol::V1 {
            v1::let_be_placed(&mut command, &slot.command.envs);
        }
        placed.prepare(&mut command);
        let spawn = sys::spawn(command, &slot.name, placed.placement(), gone);
        let spawned = tokio::select! {
            biased;
            spawned = spawn => spawned,
            // A program on a disk that is gone does not even start.
            () = async { cx.cancel.cancelled().await; sleep(last_wait).await } => return Err(cancelled()),
        };
        let mut process = spawned.map_err(|e| failed(PoolErrorKind::Start, e.into()))?;
        begun(process.pid());
        if let Err(error) = placed.verify(process.pid()) {
            let end = kill(&mut process, last_wait).await;
            return Err(unplaced(error).with("exit", end));
        }
        let mut verify = interval(isolation.verify_every());
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (requests, answers, stderr) = match connect(slot, &mut process) {
            Ok(streams) => streams,
            Err(error) => {
                let end = kill(&mut process, last_wait).await;
                return Err(failed(PoolErrorKind::Start, error.into()).with("exit", end));
            }
        };
        let mut child = Self {
            slot: slot.name.clone(),
            program: slot.command.program.clone(),
            last_wait,
            process,
            stuck: false,
            placed,
            verify,
            dialect,
            pulse: Pulse::new(&slot.talk, Instant::now()),
            requests: Some(requests),
            unsent: VecDeque::new(),
            answers,
            unread: BytesMut::new(),
            silent: false,
            stderr,
        };
        let said = tokio::select! {
            said = timeout(slot.stable_wait, child.handshake(slot)) => said,
            () = cx.cancel.cancelled() => {
                child.kill().await;
                return Err(cancelled());
            }
        };
        let problem: BoxError = match said {
            Ok(Ok(())) => return Ok(child),
            Ok(Err(problem)) => problem,
            Err(_) => format!("it was not ready within {:?}", slot.stable_wait).into(),
        };
        let end = child.kill().await;
        let error = match child.placed.leaf().out_of_memory() {
            Some(memory) => memory.describe(failed(PoolErrorKind::OutOfMemory, problem)),
            None => failed(PoolErrorKind::Start, problem),
        };
        Err(child.with_last_lines(error.with("exit", end)).await)
    }

    async fn handshake(&mut self, slot: &SlotSpec) -> Result<(), BoxError> {
        let words = loop {
            if let Some(words) = self.dialect.ready(&mut self.unread, slot)? {
                break words;
            }
            if self.silent {
                return Err("it exited before it said that it is ready".into());
            }
            self.unread.reserve(READ);
            tokio::select! {
                biased;
                read = self.answers.read_buf(&mut self.unread) => self.silent = read? == 0,
                // What it left behind may hold its answers open.
                _ = self.process.exited() => {
                    self.read_rest();
                    self.silent = true;
                }
            }
        };
        if let Some(requests) = &mut self.requests {
            requests.write_all(&words).await?;
        }
        Ok(())
    }

    /// Whether the process is known to have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.process.has_exited()
    }

    /// Gives the child a job and waits for its end, or stops the child when the job is cancelled.
    pub(super) async fn work(&mut self, job: &Job, cx: &Context, grace: Duration) -> Ended {
        // What it said unasked would be taken for an answer to this job.
        self.read_rest();
        if let Some(Heard::Rubbish(problem)) = self.understand(job, cx) {
            return self.broken(PoolErrorKind::Rubbish, job, problem).await;
        }
        let stop = CancellationToken::new();
        let task = match in_grace(cx, grace, stop.clone(), self.dialect.task(job, &stop)).await {
            Ok(task) => task,
            Err(problem) => return Ended::Answered(Err(self.error(problem.kind, job).because(problem.cause))),
        };
        if let Err(error) = self.placed.verify(self.process.pid()) {
            return self.broken(PoolErrorKind::Start, job, error).await;
        }
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

    async fn take(&mut self, output: Output, cx: &Context, grace: Duration) -> Result<Bytes, Problem> {
        let stop = CancellationToken::new();
        in_grace(cx, grace, stop.clone(), self.dialect.output(output, &stop)).await
    }

    /// Tells the child what it is to be told and listens until something comes of it.
    async fn hear(&mut self, job: &Job, cx: &Context) -> Heard {
        loop {
            if let Some(heard) = self.understand(job, cx) {
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
            tokio::select! {
                biased;
                read = self.answers.read_buf(&mut self.unread) => match read {
                    Ok(len) => self.silent = len == 0,
                    Err(error) => return Heard::Rubbish(error.into()),
                },
                _ = self.process.exited() => {
                    // What it said last may still be in the pipe.
                    self.read_rest();
                    let cut = |this: &Self| (!this.unread.is_empty()).then(|| "it exited inside an answer".into());
                    return self.understand(job, cx).or_else(|| cut(self).map(Heard::Rubbish)).unwrap_or(Heard::Exit);
                }
                _ = self.verify.tick() => {
                    if let Err(error) = self.placed.verify(self.process.pid()) {
                        return Heard::Displaced(error);
                    }
                }
                sent = send, if next.is_some() => self.sent(sent),
                () = sleep_until(self.pulse.wakes_at()) => match self.pulse.look(Instant::now(), self.process.pid()) {
                    Ok(true) => self.ping(),
                    Ok(false) => {}
                    Err(how) => return Heard::Hung(how),
                },
            }
        }
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
    fn understand(&mut self, job: &Job, cx: &Context) -> Option<Heard> {
        loop {
            match self.dialect.said(&mut self.unread) {
                Ok(None) => return None,
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
            self.read_rest();
            heard = self.understand(job, cx);
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
        let end = self.kill().await;
        let error = match self.placed.leaf().out_of_memory() {
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

fn connect(slot: &SlotSpec, process: &mut Process) -> io::Result<(ChildStdin, ChildStdout, Stderr)> {
    let pipes = process.pipes.take().ok_or_else(|| io::Error::other("the child has no pipes"))?;
    let requests = ChildStdin::from_std(pipes.0)?;
    let answers = ChildStdout::from_std(pipes.1)?;
    let stderr = Stderr::follow(tokio::process::ChildStderr::from_std(pipes.2)?, slot.name.clone());
    Ok((requests, answers, stderr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{placement::IsolationSpec, pool::CommandSpec};
    use damocles_core::{
        JobId,
        pool::{Needs, TaskKind},
    };

    /// A child that gets ready and never answers.
    fn silent() -> SlotSpec {
        let ready = r#"{"frame":"ready","magic":"damocles-processor","version":2,"kinds":["echo"],"pid":1}"#;
        let script = format!("printf '\\0\\0\\0\\{:03o}%s' '{ready}'; exec sleep 1000", ready.len());
        SlotSpec::new("sh", vec![TaskKind::new("echo")], CommandSpec::new("sh", ["-c", &script]))
    }

    #[tokio::test]
    async fn a_process_that_does_not_die_is_waited_for_in_vain_only_for_a_while() {
        // Its end is held up where a disk that is gone would hold it up.
        let (die, held) = std::sync::mpsc::channel::<()>();
        let (gone, is_gone) = tokio::sync::oneshot::channel();
        let hold = move || {
            let _ = held.recv();
            let _ = gone.send(());
        };
        let cx = Context::detached();
        let isolation = Arc::new(Isolation::new(IsolationSpec::default()));
        let last_wait = Duration::from_millis(20);
        let mut child = Child::start(&silent(), &isolation, last_wait, &cx, |_| (), hold).await.unwrap();
        let payload = Bytes::from_static(b"1");
        let job = Job { id: JobId(1), kind: TaskKind::new("echo"), sector: None, payload, needs: Needs::default() };
        cx.cancel.cancel();
        let Ended::Broken(error) = child.work(&job, &cx, last_wait).await else { panic!("it never answers") };
        assert_eq!(error.kind(), PoolErrorKind::Cancelled);
        assert!(error.to_string().contains("still there 20ms after it was killed"), "{error}");
        assert!(child.is_stuck());
        child.shut_down(last_wait).await;
        drop(die);
        is_gone.await.unwrap();
    }
}
