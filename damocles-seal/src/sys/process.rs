//! A child process, its guard, and the thread that waits for both.

use super::{
    Group, Placement,
    guard::{self, Guard},
    placement::Step,
};
use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    fmt,
    io::{self, PipeReader, PipeWriter, Read as _, pipe},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
};
use tokio::sync::{oneshot, watch};

/// A running child with its pipes. Its whole group is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    group: Group,
    /// Its standard streams, until they are taken.
    pub(crate) pipes: Option<Pipes>,
    exited: watch::Receiver<Option<Exited>>,
}

/// The standard streams of a child.
pub(crate) type Pipes = (ChildStdin, ChildStdout, ChildStderr);

/// How the leader of a group ended; unknown if somebody else reaped it.
pub(crate) type Exited = Option<ExitStatus>;

impl Process {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.group.leader().as_raw().cast_unsigned()
    }

    /// Whether nothing is left of it.
    pub(crate) fn has_exited(&self) -> bool {
        self.exited.borrow().is_some()
    }

    /// Waits until nothing is left of it.
    pub(crate) async fn exited(&mut self) -> Exited {
        self.exited.wait_for(Option::is_some).await.ok().and_then(|exited| *exited).flatten()
    }

    /// Signals its whole group.
    pub(crate) fn signal(&self, signal: Signal) {
        self.group.signal(signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Starts `command` placed, as the leader of a new group, under a guard that outlives us if need be.
///
/// What the child starts ends with it, however far it has run. `gone` is called then, or when the start has failed, and
/// always before [`Process::exited`] resolves.
pub(crate) async fn spawn(
    mut command: Command,
    name: &str,
    placement: Placement,
    gone: impl FnOnce() + Send + 'static,
) -> io::Result<Process> {
    let (started, start) = oneshot::channel();
    let (ended, exited) = watch::channel(None);
    let gone = OnDrop::new(gone);
    let work = move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut guarded = match Guarded::spawn(command, &placement) {
            Ok(guarded) => guarded,
            Err(error) => {
                drop(gone);
                let _ = started.send(Err(error));
                return;
            }
        };
        let group = guarded.group.clone();
        let child = &mut guarded.guard;
        let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take()).map(|((i, o), e)| (i, o, e));
        // An answer that nobody waits for any more drops the process and so kills it.
        let _ = started.send(Ok(Process { group, pipes, exited }));
        let status = guarded.wait(&placement);
        drop(gone);
        let _ = ended.send(Some(status));
    };
    thread::Builder::new().name(format!("slot {name}")).spawn(work)?;
    start.await.map_err(|_| io::Error::other("the thread of the slot died"))?
}

/// A child and its guard.
struct Guarded {
    group: Group,
    /// What we forked: the guard, with the child's streams.
    guard: Child,
    /// The guard lives until this is closed.
    alive: PipeWriter,
    heard: PipeReader,
}

impl Guarded {
    fn spawn(mut command: Command, placement: &Placement) -> io::Result<Self> {
        let (end, alive) = pipe()?;
        let (mut heard, said) = pipe()?;
        let guard = Guard::new(placement.ready()?, end, said);
        // SAFETY: `split` makes system calls only: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || guard.split()) };
        let spawned = command.spawn();
        // Our ends of the guard's pipes go with it: from here on silence is the end of the guard.
        drop(command);
        let guard = match spawned {
            Ok(guard) => guard,
            Err(error) => return Err(why(&mut heard, placement).unwrap_or(error)),
        };
        loop {
            match Said::hear(&mut heard) {
                Some(Said::Pid(pid)) => {
                    return Ok(Self { group: Group::new(Pid::from_raw(pid)), guard, alive, heard });
                }
                Some(_) => {}
                None => {
                    let mut guard = guard;
                    let _ = guard.wait();
                    return Err(io::Error::other("the guard of the child died"));
                }
            }
        }
    }

    /// Waits until nothing of the child is left.
    fn wait(mut self, placement: &Placement) -> Exited {
        let mut status = None;
        let mut known = false;
        while let Some(said) = Said::hear(&mut self.heard) {
            if let Said::Ended(ended) = said {
                (status, known) = (ended, true);
                break;
            }
        }
        if !known {
            // Somebody killed the guard, and so the child. What had left it is found by its control group, if it has one.
            self.group.signal(Signal::SIGKILL);
            if let Some(Ok(end)) = placement.end.as_ref().map(super::EndPaths::open) {
                end.end();
            }
        }
        self.group.close();
        drop(self.alive);
        let _ = self.guard.wait();
        status
    }
}

/// A word of the guard or of the child that it is about to start.
enum Said {
    Pid(libc::pid_t),
    Failed(Step, i32),
    Ended(Exited),
}

impl Said {
    fn hear(from: &mut PipeReader) -> Option<Self> {
        loop {
            let mut words = [0u32; guard::MESSAGE / 4];
            for word in &mut words {
                let mut bytes = [0; 4];
                from.read_exact(&mut bytes).ok()?;
                *word = u32::from_ne_bytes(bytes);
            }
            let [kind, first, second] = words;
            match kind {
                guard::PID => return Some(Self::Pid(first.cast_signed())),
                guard::FAILED => return Some(Self::Failed(Step(first), second.cast_signed())),
                guard::ENDED => {
                    return Some(Self::Ended((first == 1).then(|| ExitStatus::from_raw(second.cast_signed()))));
                }
                _ => {}
            }
        }
    }
}

/// Which step before the program failed, if one did.
fn why(heard: &mut PipeReader, placement: &Placement) -> Option<io::Error> {
    loop {
        if let Said::Failed(step, errno) = Said::hear(heard)? {
            let source = io::Error::from_raw_os_error(errno);
            return Some(io::Error::new(source.kind(), StepError { step: placement.explain(step), source }));
        }
    }
}

#[derive(Debug)]
struct StepError {
    step: String,
    source: io::Error,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.step)
    }
}

impl std::error::Error for StepError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Calls when dropped, so that no failure on the way can forget it.
pub(crate) struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    pub(crate) fn new(call: F) -> Self {
        Self(Some(call))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}
