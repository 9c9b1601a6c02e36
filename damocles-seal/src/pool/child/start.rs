//! The start of a child.

use super::{Child, READ};
use crate::{
    placement::{Isolation, Placed, PlacementError},
    pool::{
        dialect,
        end::kill,
        payload::PayloadDir,
        pulse::{Pace, Pulse},
        spec::{Protocol, SlotSpec},
        stderr::Stderr,
        v1,
    },
    sys::{self, OnDrop, Process},
};
use bytes::BytesMut;
use damocles_core::{
    BoxError, Context, Error,
    pool::{PoolError, PoolErrorKind},
};
use std::{collections::VecDeque, io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStderr, ChildStdin, ChildStdout},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at},
};

impl Child {
    /// Starts the slot's command and waits until it is ready. When this fails, it was killed.
    ///
    /// `begun` is told the process id; `gone` is called when nothing of the process is left, or when there never was any.
    /// Nobody waits longer than `last_wait` for that.
    pub(in crate::pool) async fn start(
        slot: &SlotSpec,
        isolation: &Arc<Isolation>,
        last_wait: Duration,
        cx: &Context,
        begun: impl FnOnce(u32) + Send,
        gone: impl FnOnce() + Send + 'static,
    ) -> Result<Self, PoolError> {
        // However this ends.
        let gone = OnDrop::new(gone);
        let ready_by = Instant::now() + slot.stable_wait;
        let placed = isolation.place(slot).map_err(|e| unplaced(slot, e))?;
        let payloads = payload_dir(slot);
        let dialect = dialect::of(slot, payloads.clone()).map_err(|e| failed(slot, e))?;
        let gone = move || {
            // Nobody writes to it any more.
            drop(payloads);
            drop(gone);
        };
        let mut process = tokio::select! {
            biased;
            spawned = spawn(slot, &placed, gone) => spawned.map_err(|e| failed(slot, e.into()))?,
            // A program on a disk that is gone does not even start. Its thread waits on, and the slot with it.
            () = async { cx.cancel.cancelled().await; sleep(last_wait).await } => return Err(cancelled(slot)),
            () = sleep_until(ready_by) => {
                return Err(failed(slot, format!("{}: its program does not even start", late(slot)).into()));
            }
        };
        begun(process.pid());
        if let Err(error) = placed.verify(process.pid()) {
            let end = kill(&mut process, last_wait).await;
            return Err(unplaced(slot, error).with("exit", end));
        }
        let (requests, answers, stderr) = match connect(slot, &mut process) {
            Ok(streams) => streams,
            Err(error) => {
                let end = kill(&mut process, last_wait).await;
                return Err(failed(slot, error.into()).with("exit", end));
            }
        };
        let mut verify = interval(isolation.verify_every());
        verify.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            pace: Pace::new(Instant::now()),
            requests: Some(requests),
            unsent: VecDeque::new(),
            answers,
            unread: BytesMut::new(),
            silent: false,
            stderr,
        };
        let said = tokio::select! {
            said = timeout_at(ready_by, child.handshake(slot)) => said,
            () = cx.cancel.cancelled() => {
                child.kill().await;
                return Err(cancelled(slot));
            }
        };
        match said {
            Ok(Ok(())) => Ok(child),
            Ok(Err(problem)) => Err(child.not_ready(slot, problem).await),
            Err(_) => Err(child.not_ready(slot, late(slot).into()).await),
        }
    }

    async fn not_ready(mut self, slot: &SlotSpec, problem: BoxError) -> PoolError {
        let end = self.kill().await;
        let error = match self.placed.leaf().out_of_memory() {
            Some(memory) => memory.describe(error_of(slot, PoolErrorKind::OutOfMemory, problem)),
            None => failed(slot, problem),
        };
        self.with_last_lines(error.with("exit", end)).await
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
}

fn error_of(slot: &SlotSpec, kind: PoolErrorKind, cause: BoxError) -> PoolError {
    Error::new(kind, "start processor")
        .with("slot", &slot.name)
        .with("program", slot.command.program.display())
        .because(cause)
}

fn failed(slot: &SlotSpec, cause: BoxError) -> PoolError {
    error_of(slot, PoolErrorKind::Start, cause)
}

fn unplaced(slot: &SlotSpec, cause: PlacementError) -> PoolError {
    let (recovery, hint) = (cause.recovery(), cause.hint().map(str::to_owned));
    let error = failed(slot, cause.into()).recover_by(recovery);
    if let Some(hint) = hint { error.hint_with(hint) } else { error }
}

fn cancelled(slot: &SlotSpec) -> PoolError {
    Error::new(PoolErrorKind::Cancelled, "start processor").with("slot", &slot.name)
}

async fn spawn(slot: &SlotSpec, placed: &Placed, gone: impl FnOnce() + Send + 'static) -> io::Result<Process> {
    let mut command = slot.command.to_command();
    if slot.protocol == Protocol::V1 {
        v1::let_be_placed(&mut command, &slot.command.envs);
    }
    placed.prepare(&mut command);
    sys::spawn(command, &slot.name, placed.placement(), gone).await
}

fn late(slot: &SlotSpec) -> String {
    format!("it was not ready within {:?}", slot.stable_wait)
}

/// A directory for large payloads, if the slot has them.
fn payload_dir(slot: &SlotSpec) -> Option<Arc<PayloadDir>> {
    let parent = slot.talk.payload_dir.as_deref().filter(|_| slot.protocol == Protocol::V2)?;
    match PayloadDir::in_dir(parent) {
        Ok(dir) => Some(Arc::new(dir)),
        Err(error) => {
            tracing::warn!(slot = slot.name, %error, "all payloads of the slot go through the pipe");
            None
        }
    }
}

fn connect(slot: &SlotSpec, process: &mut Process) -> io::Result<(ChildStdin, ChildStdout, Stderr)> {
    let pipes = process.pipes.take().ok_or_else(|| io::Error::other("the child has no pipes"))?;
    let requests = ChildStdin::from_std(pipes.0)?;
    let answers = ChildStdout::from_std(pipes.1)?;
    let stderr = Stderr::follow(ChildStderr::from_std(pipes.2)?, slot.name.clone());
    Ok((requests, answers, stderr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        placement::{Hierarchy, IsolationSpec},
        pool::{CommandSpec, child::Ended},
    };
    use bytes::Bytes;
    use damocles_core::{
        JobId,
        pool::{Job, Needs, TaskKind},
    };
    use std::fs;
    use tokio::{sync::oneshot, time::timeout};

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

    /// What a start that fails comes to, and whether its end was told.
    async fn fails(slot: &SlotSpec, isolation: &Arc<Isolation>) -> (String, oneshot::Receiver<()>) {
        let (gone, is_gone) = oneshot::channel();
        let told = move || {
            let _ = gone.send(());
        };
        let cx = Context::detached();
        let start = Child::start(slot, isolation, Duration::from_millis(20), &cx, |_| (), told);
        (timeout(Duration::from_secs(60), start).await.expect("in time").unwrap_err().chain(), is_gone)
    }

    #[tokio::test]
    async fn what_is_not_even_forked_is_gone() {
        let isolation = Arc::new(Isolation::new(IsolationSpec { cgroup_root: None, ..IsolationSpec::default() }));
        let mut greedy = silent();
        greedy.placement.memory = Some(damocles_core::ByteSize(1 << 30));
        let mut unknown = silent();
        unknown.protocol = Protocol::V1;
        for (slot, text) in [(greedy, "a memory limit"), (unknown, "cannot be given to a processor of protocol v1")] {
            let (error, mut is_gone) = fails(&slot, &isolation).await;
            assert!(error.contains(text), "{error}");
            assert_eq!(is_gone.try_recv(), Ok(()), "nobody waits for what never was");
        }
    }

    /// A group that blocks whoever opens it stands in for a program on a mount that hangs.
    #[tokio::test]
    async fn a_start_that_hangs_before_the_program_is_late() {
        let root = tempfile::tempdir().unwrap();
        for file in ["cgroup.controllers", "cgroup.procs"] {
            fs::write(root.path().join(file), "").unwrap();
        }
        let spec = IsolationSpec { cgroup_root: Some(root.path().to_owned()), ..IsolationSpec::default() };
        let isolation = Arc::new(Isolation::new(spec));
        let group = isolation.groups().unwrap().dir(Hierarchy::V2).unwrap().join("slot-sh/child-0");
        fs::create_dir_all(&group).unwrap();
        let (procs, hung) = (group.join("cgroup.procs"), root.path().join("hung"));
        nix::unistd::mkfifo(&procs, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut slot = silent();
        slot.stable_wait = Duration::from_millis(200);
        let (error, mut is_gone) = fails(&slot, &isolation).await;
        assert!(error.contains("it was not ready within 200ms: its program does not even start"), "{error}");
        assert!(is_gone.try_recv().is_err(), "its thread is still there");
        // From here on the group is an empty one, and the thread goes on.
        fs::rename(&procs, &hung).unwrap();
        fs::write(&procs, "").unwrap();
        let _open = fs::OpenOptions::new().read(true).write(true).open(&hung).unwrap();
        timeout(Duration::from_secs(60), is_gone).await.expect("in time").unwrap();
    }
}
