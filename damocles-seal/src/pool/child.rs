//! One child: started, given jobs, stopped.

use super::{
    spec::SlotSpec,
    stderr::Stderr,
    wire::{self, FailureKind, FrameReader, FromChild, ToChild, WireError},
};
use crate::{
    placement::{Isolation, Placed, PlacementError},
    sys::{self, Exited, Process},
};
use bytes::Bytes;
use damocles_core::{
    BoxError, Context, Error, Event, JobEvent,
    pool::{Job, PoolError, PoolErrorKind},
};
use nix::sys::signal::Signal;
use std::{fmt, io, sync::Arc, time::Duration};
use tokio::{
    io::AsyncWriteExt,
    process::{ChildStdin, ChildStdout},
    time::{Interval, MissedTickBehavior, interval, sleep, timeout},
};

/// A child that said that it is ready. Its group is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Child {
    slot: String,
    last_wait: Duration,
    process: Process,
    placed: Placed,
    /// When its placement is read back next while it works.
    verify: Interval,
    requests: ChildStdin,
    answers: FrameReader<ChildStdout>,
    stderr: Stderr,
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
        let mut command = slot.command.to_command();
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
        let mut child = match Self::connect(slot, &mut process) {
            Ok((requests, answers, stderr)) => {
                Self { slot: slot.name.clone(), last_wait, process, placed, verify, requests, answers, stderr }
            }
            Err(error) => {
                let end = kill(&mut process, last_wait).await;
                return Err(failed(PoolErrorKind::Start, error.into()).with("exit", end));
            }
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
        let error = error.with("exit", end);
        Err(child.with_last_lines(error).await)
    }

    fn connect(slot: &SlotSpec, process: &mut Process) -> io::Result<(ChildStdin, FrameReader<ChildStdout>, Stderr)> {
        let pipes = process.pipes.take().ok_or_else(|| io::Error::other("the child has no pipes"))?;
        let requests = ChildStdin::from_std(pipes.0)?;
        let answers = FrameReader::new(ChildStdout::from_std(pipes.1)?);
        let stderr = Stderr::follow(tokio::process::ChildStderr::from_std(pipes.2)?, slot.name.clone());
        Ok((requests, answers, stderr))
    }

    async fn handshake(&mut self, slot: &SlotSpec) -> Result<(), BoxError> {
        match self.answers.next().await? {
            Some(FromChild::Ready { magic, version, kinds, .. }) if magic == wire::MAGIC => {
                if version != wire::VERSION {
                    return Err(format!("it speaks version {version}, not {}", wire::VERSION).into());
                }
                match slot.kinds.iter().find(|kind| !kinds.contains(kind)) {
                    Some(kind) => Err(format!("it does not know the kind `{kind}` of its slot").into()),
                    None => Ok(()),
                }
            }
            Some(_) => Err("it spoke before it said that it is ready".into()),
            None => Err("it exited before it said that it is ready".into()),
        }
    }

    /// Whether the process is known to have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.process.has_exited()
    }

    /// Gives the child a job and waits for its end, or stops the child when the job is cancelled.
    pub(super) async fn work(&mut self, job: &Job, cx: &Context, grace: Duration) -> Ended {
        let task = serde_json::from_slice(&job.payload)
            .map_err(|source| WireError::Json { len: job.payload.len(), start: String::new(), source })
            .and_then(|payload| wire::encode(&ToChild::Task { id: job.id, kind: job.kind.clone(), payload }));
        let task = match task {
            Ok(task) => task,
            Err(error) => return Ended::Answered(Err(self.error(PoolErrorKind::Encoding, job).because(error))),
        };
        if let Err(error) = self.placed.verify(self.process.pid()) {
            return self.displaced(job, error).await;
        }
        self.verify.reset();
        let sent = tokio::select! {
            sent = self.requests.write_all(&task) => sent,
            () = cx.cancel.cancelled() => return self.cancelled(job, None).await,
        };
        // A child that died says so by the end of its answers: what it said before that comes first.
        drop(sent);
        loop {
            let answer = tokio::select! {
                biased;
                answer = self.answers.next() => answer,
                () = cx.cancel.cancelled() => return self.cancelled(job, Some(grace)).await,
                _ = self.process.exited() => return self.after_exit(job, cx).await,
                _ = self.verify.tick() => match self.placed.verify(self.process.pid()) {
                    Ok(()) => continue,
                    Err(error) => return self.displaced(job, error).await,
                },
            };
            match answer {
                Ok(Some(frame)) => match self.answer(job, frame, cx) {
                    Some(Ok(answer)) => return Ended::Answered(answer),
                    Some(Err(problem)) => return self.broken(PoolErrorKind::Rubbish, job, problem).await,
                    None => {}
                },
                Ok(None) => return self.broken(PoolErrorKind::Crashed, job, "its answers ended").await,
                Err(error) => return self.broken(PoolErrorKind::Rubbish, job, error).await,
            }
        }
    }

    /// What a frame means for the job: its end, a child that is mad, or nothing yet.
    fn answer(
        &self,
        job: &Job,
        frame: FromChild,
        cx: &Context,
    ) -> Option<Result<Result<Bytes, PoolError>, &'static str>> {
        match frame {
            FromChild::Ready { .. } => Some(Err("it said twice that it is ready")),
            FromChild::Progress { id, .. } | FromChild::Done { id, .. } | FromChild::Failed { id, .. }
                if id != job.id =>
            {
                Some(Err("it spoke of a job that it does not have"))
            }
            FromChild::Progress { done, total, .. } => {
                let what = JobEvent::Progress { done, total };
                cx.emit(Event::Job { job: job.id, kind: job.kind.clone(), sector: job.sector, what });
                None
            }
            FromChild::Done { output, .. } => {
                let output = serde_json::to_vec(&output).map(Bytes::from);
                Some(Ok(output.map_err(|e| self.error(PoolErrorKind::Rubbish, job).because(e))))
            }
            FromChild::Failed { kind, error, .. } => {
                let kind = match kind {
                    FailureKind::Failed => PoolErrorKind::Failed,
                    FailureKind::DiskFull => PoolErrorKind::DiskFull,
                    FailureKind::UnknownKind => PoolErrorKind::NoProcessor,
                };
                Some(Ok(Err(self.error(kind, job).because(error.join(": ")))))
            }
        }
    }

    /// The process is gone, but what it said last may still be in the pipe.
    async fn after_exit(&mut self, job: &Job, cx: &Context) -> Ended {
        while let Ok(Ok(Some(frame))) = timeout(Duration::from_secs(1), self.answers.next()).await {
            if let Some(Ok(answer)) = self.answer(job, frame, cx) {
                // The next job finds the child ended and starts another.
                return Ended::Answered(answer);
            }
        }
        self.broken(PoolErrorKind::Crashed, job, "it exited without an answer").await
    }

    /// Stops the child in order: asks, waits, kills the whole group, reaps.
    ///
    /// Without a grace period the request is cut off in the middle and there is no way to ask.
    async fn cancelled(&mut self, job: &Job, grace: Option<Duration>) -> Ended {
        if let Some(grace) = grace {
            let ask = async {
                if let Ok(cancel) = wire::encode(&ToChild::Cancel { id: job.id }) {
                    let _ = self.requests.write_all(&cancel).await;
                }
                self.process.signal(Signal::SIGTERM);
                // Its answers are read on, so that it cannot hang on a full pipe.
                while let Ok(Some(_)) = self.answers.next::<FromChild>().await {}
            };
            let _ = timeout(grace, ask).await;
        }
        let end = self.kill().await;
        let error = self.error(PoolErrorKind::Cancelled, job);
        Ended::Broken(if matches!(end, End::Stuck { .. }) { error.with("exit", end) } else { error })
    }

    /// Somebody has moved the child elsewhere: what it computes from now on is at the cost of others.
    async fn displaced(&mut self, job: &Job, error: PlacementError) -> Ended {
        self.broken(PoolErrorKind::Start, job, error).await
    }

    async fn broken(&mut self, kind: PoolErrorKind, job: &Job, cause: impl Into<BoxError>) -> Ended {
        let end = self.kill().await;
        let memory = self.placed.leaf().out_of_memory();
        let error = match memory {
            Some(memory) => memory.describe(self.error(PoolErrorKind::OutOfMemory, job)),
            None => self.error(kind, job),
        };
        let error = error.with("exit", end).because(cause);
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
        let ask = async {
            if let Ok(frame) = wire::encode(&ToChild::Shutdown) {
                let _ = self.requests.write_all(&frame).await;
            }
            self.process.exited().await;
        };
        if timeout(grace, ask).await.is_err() {
            self.kill().await;
        }
    }

    async fn kill(&mut self) -> End {
        kill(&mut self.process, self.last_wait).await
    }
}

/// Kills the whole group and waits until nothing of it is left, unless the kernel does not let it die.
async fn kill(process: &mut Process, last_wait: Duration) -> End {
    process.signal(Signal::SIGKILL);
    match timeout(last_wait, process.exited()).await {
        Ok(exited) => End::Gone(exited),
        Err(_) => End::Stuck { pid: process.pid(), last_wait },
    }
}

/// What came of a kill.
#[derive(Debug)]
enum End {
    Gone(Exited),
    Stuck { pid: u32, last_wait: Duration },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(Some(status)) => status.fmt(f),
            Self::Gone(None) => f.write_str("unknown"),
            Self::Stuck { pid, last_wait } => {
                write!(f, "process {pid} is still there {last_wait:?} after it was killed")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{placement::IsolationSpec, pool::CommandSpec};
    use damocles_core::{JobId, pool::TaskKind};

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
        let job = Job { id: JobId(1), kind: TaskKind::new("echo"), sector: None, payload: Bytes::from_static(b"1") };
        cx.cancel.cancel();
        let Ended::Broken(error) = child.work(&job, &cx, last_wait).await else { panic!("it never answers") };
        assert_eq!(error.kind(), PoolErrorKind::Cancelled);
        assert!(error.to_string().contains("still there 20ms after it was killed"), "{error}");
        child.shut_down(last_wait).await;
        drop(die);
        is_gone.await.unwrap();
    }
}
