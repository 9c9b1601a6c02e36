//! A process group: a child and all it started, as long as they did not leave the group.

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use parking_lot::Mutex;
use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
};

/// A group by its leader. It takes signals only until the leader is reaped: after that its number may be another's.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    leader: Pid,
    reaped: Arc<Mutex<bool>>,
}

impl Group {
    pub(super) fn new(leader: Pid) -> Self {
        Self { leader, reaped: Arc::default() }
    }

    /// The process that leads it.
    pub(crate) fn leader(&self) -> Pid {
        self.leader
    }

    /// Signals every member.
    pub(crate) fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock();
        if !*reaped {
            // ESRCH means that nobody is left to be told.
            let _ = killpg(self.leader, signal);
        }
    }

    /// Kills every member but the leader, which has exited and is not reaped yet, and waits until they are gone.
    pub(super) fn clear(&self) {
        loop {
            self.signal(Signal::SIGKILL);
            let members: Vec<OwnedFd> = self.members().into_iter().filter_map(|pid| self.open(pid)).collect();
            if members.is_empty() {
                return;
            }
            for member in &members {
                wait_readable(member);
            }
        }
    }

    /// Reaps the leader with `wait`; no signal is sent from then on.
    pub(super) fn reap<T>(&self, wait: impl FnOnce() -> T) -> T {
        let mut reaped = self.reaped.lock();
        let status = wait();
        *reaped = true;
        status
    }

    fn members(&self) -> Vec<Pid> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .filter(|pid| *pid != self.leader && self.holds(*pid))
            .collect()
    }

    /// Whether a process is a member that still runs.
    fn holds(&self, pid: Pid) -> bool {
        let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
        // The name is in parentheses and may hold anything, parentheses too.
        let after_name = stat.iter().rposition(|b| *b == b')').and_then(|at| stat.get(at + 1..));
        let fields = after_name.map(|rest| String::from_utf8_lossy(rest).into_owned()).unwrap_or_default();
        let mut fields = fields.split_ascii_whitespace();
        let (state, group) = (fields.next(), fields.nth(1));
        !matches!(state, Some("Z" | "X")) && group.and_then(|g| g.parse().ok()) == Some(self.leader.as_raw())
    }

    fn open(&self, pid: Pid) -> Option<OwnedFd> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Asked again with the process pinned: the number may have gone to another process in between.
        self.holds(pid).then_some(fd)
    }
}

fn wait_readable(fd: &OwnedFd) {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: `poll` is one valid pollfd, and its descriptor is open for the whole call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, -1) };
        if ready >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}
