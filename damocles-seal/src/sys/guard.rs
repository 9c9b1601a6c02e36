//! A process that outlives us for a moment.
//!
//! The kernel kills a child when the thread that forked it dies, but not what the child started. The guard does: it
//! waits for the end of a pipe that only we hold open, kills the group, and exits.

use super::group::Group;
use nix::unistd::{ForkResult, Pid, fork};
use std::{
    io::{self, PipeWriter, pipe},
    os::fd::{AsRawFd, RawFd},
};

/// The guard of one group, gone when dropped.
#[derive(Debug)]
pub(super) struct Guard {
    pid: Pid,
    alive: Option<PipeWriter>,
}

impl Guard {
    /// Forks the guard of a group.
    pub(super) fn of(group: &Group) -> io::Result<Self> {
        let leader = group.leader().as_raw();
        let (end, alive) = pipe()?;
        let end_fd = end.as_raw_fd();
        // SAFETY: the child makes system calls only, and never returns.
        match unsafe { fork() }? {
            ForkResult::Child => watch(end_fd, leader),
            ForkResult::Parent { child } => Ok(Self { pid: child, alive: Some(alive) }),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The group is empty by now; without this the guard would see the end of the pipe and kill a stranger's group.
        let _ = nix::sys::signal::kill(self.pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(self.pid, None);
        self.alive.take();
    }
}

/// The whole life of a guard. Async-signal-safe: it runs in a fork of a program with many threads.
fn watch(end: RawFd, group: libc::pid_t) -> ! {
    // SAFETY: system calls on integers and on a buffer of our own stack; `_exit` runs nothing of the program.
    unsafe {
        // Signals for the terminal's or the daemon's group must not reach it.
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"damocles-guard".as_ptr());
        // The program's descriptors are not ours to keep open: ports, locks and the pipe's other end among them.
        let end_ = end.cast_unsigned();
        if end_ > 0 {
            libc::syscall(libc::SYS_close_range, 0, end_ - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, end_ + 1, u32::MAX, 0);
        let mut byte = 0u8;
        loop {
            let n = libc::read(end, (&raw mut byte).cast(), 1);
            if n == 0 {
                libc::kill(-group, libc::SIGKILL);
                break;
            }
            if n < 0 && *libc::__errno_location() != libc::EINTR {
                break;
            }
        }
        libc::_exit(0)
    }
}
