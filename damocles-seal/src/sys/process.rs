//! A child process and the thread that it is a child of.

use super::{Group, Placement, guard::Guard};
use nix::{
    errno::Errno,
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};
use std::{
    io,
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

    /// Whether no member of its group is left.
    pub(crate) fn has_exited(&self) -> bool {
        self.exited.borrow().is_some()
    }

    /// Waits until no member of its group is left.
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

/// Starts `command` as the leader of a new group, placed and checked.
///
/// The thread that forks it does nothing else and lives until the whole group is gone: the kernel kills a child when
/// the very thread that forked it ends. `gone` is called then, or when the start has failed, and always before
/// [`Process::exited`] resolves.
pub(crate) async fn spawn(
    mut command: Command,
    name: &str,
    placement: Placement,
    gone: impl FnOnce() + Send + 'static,
) -> io::Result<Process> {
    let (started, start) = oneshot::channel();
    let (ended, exited) = watch::channel(None);
    let gone = OnDrop(Some(gone));
    let work = move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        placement.prepare(&mut command);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                drop(gone);
                let _ = started.send(Err(error));
                return;
            }
        };
        let group = Group::new(Pid::from_raw(child.id().cast_signed()));
        let guard = placement.verify(child.id()).and_then(|()| Guard::of(&group));
        let pipes = child.stdin.take().zip(child.stdout.take()).zip(child.stderr.take()).map(|((i, o), e)| (i, o, e));
        // A refused answer, or one that nobody waits for any more, drops the process and so kills it.
        let process = Process { group: group.clone(), pipes, exited };
        let (answer, guard) = match guard {
            Ok(guard) => (Ok(process), Some(guard)),
            Err(error) => (Err(error), None),
        };
        if answer.is_err() {
            group.signal(Signal::SIGKILL);
            wait(&group, &mut child);
            drop(gone);
            let _ = started.send(answer);
            return;
        }
        let _ = started.send(answer);
        let status = wait(&group, &mut child);
        drop(guard);
        drop(gone);
        let _ = ended.send(Some(status));
    };
    thread::Builder::new().name(format!("slot {name}")).spawn(work)?;
    start.await.map_err(|_| io::Error::other("the thread of the slot died"))?
}

/// Waits for the leader, ends what it left behind, and reaps it last, so that the group's number stays ours till then.
fn wait(group: &Group, child: &mut Child) -> Exited {
    while waitid(Id::Pid(group.leader()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    group.clear();
    group.reap(|| child.wait().ok())
}

/// Calls when dropped, so that no failure on the way can forget it.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}
