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

/// Closes every descriptor but one. The program's are not ours to keep open: ports, locks and the other end of the pipe,
/// without whose end the guard guards nothing.
///
/// # Safety
///
/// Whoever owns the descriptors must not use them any more.
unsafe fn close_others(kept: RawFd) {
    let kept_ = kept.cast_unsigned();
    // SAFETY: system calls on integers.
    unsafe {
        let below = if kept_ > 0 { libc::syscall(libc::SYS_close_range, 0, kept_ - 1, 0) } else { 0 };
        let above = libc::syscall(libc::SYS_close_range, kept_ + 1, u32::MAX, 0);
        if below != 0 || above != 0 {
            close_one_by_one(kept);
        }
    }
}

/// For kernels before 5.9, and sandboxes that know no newer system calls.
///
/// # Safety
///
/// As for [`close_others`].
unsafe fn close_one_by_one(kept: RawFd) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: system calls on integers and on a value of our own stack.
    unsafe {
        // A descriptor may be older than a limit that was lowered since.
        let known = libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0;
        let last = if known { RawFd::try_from(limit.rlim_max).unwrap_or(RawFd::MAX) } else { 1 << 20 };
        for fd in (0..last).filter(|fd| *fd != kept) {
            libc::close(fd);
        }
    }
}

/// The whole life of a guard. Async-signal-safe: it runs in a fork of a program with many threads.
fn watch(end: RawFd, group: libc::pid_t) -> ! {
    // SAFETY: system calls on integers and on a buffer of our own stack; `_exit` runs nothing of the program.
    unsafe {
        // Signals for the terminal's or the daemon's group must not reach it.
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"damocles-guard".as_ptr());
        close_others(end);
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};

    /// Runs `act` in a fork and gives the number that it ends with.
    fn in_a_fork(act: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child makes system calls only, and never returns.
        match unsafe { fork() }.unwrap() {
            // SAFETY: `_exit` runs nothing of the program.
            ForkResult::Child => unsafe { libc::_exit(act()) },
            ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, code) => code,
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn all_descriptors_but_one_are_closed_on_old_kernels_too() {
        let (end, alive) = pipe().unwrap();
        let (kept, closed) = (end.as_raw_fd(), alive.as_raw_fd());
        for close in [close_others as unsafe fn(RawFd), close_one_by_one] {
            let code = in_a_fork(|| {
                // SAFETY: this process is about to end; fcntl with F_GETFD takes integers.
                unsafe {
                    // The largest limit would take long.
                    let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
                    libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
                    close(kept);
                    let open = |fd| libc::fcntl(fd, libc::F_GETFD) >= 0;
                    i32::from(open(kept)) + 2 * i32::from(open(closed)) + 4 * i32::from(open(2))
                }
            });
            assert_eq!(code, 1, "only the kept one is open");
        }
    }
}
