//! The process between us and a child.
//!
//! Forked by us, it forks the child, adopts whatever the child leaves behind however far that has run (it is a child
//! subreaper), and ends all of it: when the child has ended, and when we have, which it sees by the end of a pipe that only
//! we hold open. No signal for us reaches it. It lives in a fork of a program with many threads: system calls only.

use super::{
    ending::{pids, read_file},
    placement::{Failed, Ready, Step, check, errno},
};
use std::{
    io::{self, PipeReader, PipeWriter, Write as _},
    os::fd::{AsRawFd, RawFd},
    ptr::null_mut,
};

/// Its name in process lists.
const NAME: &std::ffi::CStr = c"damocles-guard";
/// The name of a child that has not become its program yet: a program's own name takes its place.
const UNBORN: &std::ffi::CStr = c"damocles-unborn";

/// What the guard and the child say to us: what kind of word, and the word.
pub(super) const PID: u32 = 1;
pub(super) const FAILED: u32 = 2;
pub(super) const ENDED: u32 = 3;

/// The size of one message. Less than a pipe takes at once, so that two speakers do not mix.
pub(super) const MESSAGE: usize = 12;

/// What the guard is made of, all open before the fork.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) ready: Ready,
    /// Ends when we do.
    pub(super) alive: PipeReader,
    pub(super) said: PipeWriter,
    kept: Vec<RawFd>,
}

impl Guard {
    pub(super) fn new(ready: Ready, alive: PipeReader, said: PipeWriter) -> Self {
        let mut kept: Vec<RawFd> = ready.fds().chain([alive.as_raw_fd(), said.as_raw_fd()]).collect();
        kept.sort_unstable();
        Self { ready, alive, said, kept }
    }

    /// Splits the calling process: it becomes the guard and never returns; its child returns placed, and execs.
    ///
    /// # Errors
    ///
    /// A step failed, and was said.
    pub(super) fn split(&self) -> io::Result<()> {
        self.try_split().map_err(|(step, errno)| {
            self.say(FAILED, [step.0, errno.cast_unsigned()]);
            io::Error::from_raw_os_error(errno)
        })
    }

    fn try_split(&self) -> Result<(), Failed> {
        // SAFETY: system calls on integers; after a fork of a program with many threads the child makes system calls only.
        unsafe {
            let guard = libc::getpid();
            // Before the child is there: it must not leave anything behind that goes elsewhere.
            check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), Step::FORK)?;
            let child = libc::fork();
            check(child, Step::FORK)?;
            if child != 0 {
                self.keep(child);
            }
            check(libc::setpgid(0, 0), Step::TIE)?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), Step::TIE)?;
            if libc::getppid() != guard {
                // It died before the line above: nobody would ever stop us.
                return Err((Step::TIE, libc::ESRCH));
            }
            libc::prctl(libc::PR_SET_NAME, UNBORN.as_ptr());
        }
        self.ready.place()
    }

    fn say(&self, kind: u32, [first, second]: [u32; 2]) {
        let mut message = [0; MESSAGE];
        for (bytes, word) in message.chunks_exact_mut(4).zip([kind, first, second]) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        // SAFETY: the buffer is valid for its length. Nobody listens any more if it fails.
        unsafe { libc::write(self.said.as_raw_fd(), message.as_ptr().cast(), MESSAGE) };
    }

    /// The whole life of the guard.
    fn keep(&self, child: libc::pid_t) -> ! {
        // SAFETY: system calls on integers and on values of our own stack; `_exit` runs nothing of the program.
        unsafe {
            // Signals for the terminal's or the daemon's group must not reach it.
            libc::setsid();
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGPIPE, libc::SIGUSR1] {
                libc::signal(signal, libc::SIG_IGN);
            }
            libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
            close_others(&self.kept);
            self.say(PID, [child.cast_unsigned(), 0]);
            let orphaned = !self.wait(child);
            if orphaned {
                libc::kill(child, libc::SIGKILL);
            } else if is_unborn(child) {
                // Whoever started us learns why from the child's own message, and waits for us.
                libc::waitpid(child, null_mut(), 0);
                libc::_exit(1);
            }
            self.end(child);
            if orphaned {
                libc::waitpid(child, null_mut(), 0);
                self.ready.remove.iter().for_each(|dir| remove(dir));
            } else {
                self.say(ENDED, how(child));
                // The child stays a zombie until we have been told to go, so that its number is not given to another.
                let mut byte = 0u8;
                while libc::read(self.alive.as_raw_fd(), (&raw mut byte).cast(), 1) != 0 && errno() == libc::EINTR {}
            }
            libc::waitpid(child, null_mut(), 0);
            libc::_exit(0)
        }
    }

    /// Waits until the child has ended, reaping what was adopted and has ended; false if we were orphaned first.
    fn wait(&self, child: libc::pid_t) -> bool {
        // SAFETY: system calls on integers and on values of our own stack.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, null_mut());
            let ends = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK);
            let mut polled =
                [self.alive.as_raw_fd(), ends].map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
            let ended = loop {
                if reap(child) {
                    break true;
                }
                if libc::poll(polled.as_mut_ptr(), 2, -1) < 0 {
                    continue;
                }
                let [alive, _] = &polled;
                if alive.revents != 0 {
                    break false;
                }
                let mut told = [0u8; size_of::<libc::signalfd_siginfo>()];
                libc::read(ends, told.as_mut_ptr().cast(), told.len());
            };
            libc::close(ends);
            ended
        }
    }

    /// Kills all that the child is or started, and waits until only the child is left, as a zombie.
    fn end(&self, child: libc::pid_t) {
        loop {
            // SAFETY: the group bears the number of our child, which nobody has reaped.
            unsafe { libc::kill(-child, libc::SIGKILL) };
            if let Some(end) = &self.ready.end {
                end.end();
            }
            // Who dies leaves its children to us: what is left at last are children of ours.
            let mut children = [0; 64];
            let count = own_children(&mut children);
            let others = || children.iter().take(count).copied().filter(|pid| *pid != child);
            // SAFETY: system calls on integers; these are children of ours, which nobody has reaped.
            unsafe {
                others().for_each(|pid| {
                    libc::kill(pid, libc::SIGKILL);
                });
                others().for_each(|pid| while libc::waitpid(pid, null_mut(), 0) < 0 && errno() == libc::EINTR {});
                let mut info: libc::siginfo_t = std::mem::zeroed();
                let options = libc::WEXITED | libc::WNOWAIT;
                while libc::waitid(libc::P_PID, child.cast_unsigned(), &raw mut info, options) < 0
                    && errno() == libc::EINTR
                {}
            }
            if others().next().is_none() {
                return;
            }
        }
    }
}

/// Reaps adopted processes that have ended; whether the child has.
unsafe fn reap(child: libc::pid_t) -> bool {
    loop {
        // SAFETY: system calls on integers and on values of our own stack.
        unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            if libc::waitid(libc::P_ALL, 0, &raw mut info, options) < 0 && errno() != libc::EINTR {
                return true;
            }
            match info.si_pid() {
                0 => return false,
                pid if pid == child => return true,
                pid => libc::waitpid(pid, null_mut(), 0),
            };
        }
    }
}

/// Removes a group. The kernel lets go of a process a moment after its end has shown, and tells nobody.
fn remove(dir: &std::ffi::CStr) {
    for _ in 0..500 {
        // SAFETY: the path ends with a zero; poll without descriptors waits.
        unsafe {
            if libc::rmdir(dir.as_ptr()) == 0 || errno() != libc::EBUSY {
                return;
            }
            libc::poll(null_mut(), 0, 2);
        }
    }
}

/// How the child ended, as `wait` encodes it; whether it is known, first.
fn how(child: libc::pid_t) -> [u32; 2] {
    // SAFETY: system calls on integers and on a value of our own stack.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        if libc::waitid(libc::P_PID, child.cast_unsigned(), &raw mut info, options) < 0 || info.si_pid() != child {
            return [0, 0];
        }
        let status = info.si_status();
        let status = match info.si_code {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_DUMPED => status | 0x80,
            _ => status,
        };
        [1, status.cast_unsigned()]
    }
}

/// Our children, as many as fit. The kernel lists them if it was built with CONFIG_PROC_CHILDREN, as distributions do;
/// without it a process that left its group is found by its control group only.
fn own_children(into: &mut [libc::pid_t]) -> usize {
    read_file(c"/proc/thread-self/children", |fd| pids(fd, into)).unwrap_or(0)
}

/// Whether a child that ended had not become its program.
fn is_unborn(child: libc::pid_t) -> bool {
    let mut path = [0u8; 32];
    // Into a buffer of our own stack: nothing is allocated.
    if write!(path.as_mut_slice(), "/proc/{child}/comm").is_err() {
        return false;
    }
    let Ok(path) = std::ffi::CStr::from_bytes_until_nul(&path) else { return false };
    let mut name = [0u8; 16];
    // SAFETY: the buffer is valid for its length.
    let read = |fd| unsafe { libc::read(fd, name.as_mut_ptr().cast(), name.len()) };
    read_file(path, read);
    name.starts_with(UNBORN.to_bytes())
}

/// Closes every descriptor but these, which are in ascending order. The program's are not ours to keep open: ports,
/// locks and the other end of the pipe, without whose end the guard guards nothing.
///
/// # Safety
///
/// Whoever owns the descriptors must not use them any more.
unsafe fn close_others(kept: &[RawFd]) {
    // SAFETY: system calls on integers; otherwise as above.
    unsafe {
        if gaps(kept).all(|(first, last)| libc::syscall(libc::SYS_close_range, first, last, 0) == 0) {
            return;
        }
        // A kernel before 5.9, or a sandbox that knows no newer system calls.
        if !close_listed(kept) {
            gaps(kept).for_each(|(first, last)| close_one_by_one(first, last));
        }
    }
}

/// The numbers between these, which are in ascending order: first and last of each range.
fn gaps(kept: &[RawFd]) -> impl Iterator<Item = (u32, u32)> {
    let mut first = 0;
    kept.iter().map(|fd| fd.cast_unsigned()).chain([u32::MAX]).filter_map(move |end| {
        let gap = (end > first).then(|| (first, end - 1));
        first = end.saturating_add(1);
        gap
    })
}

/// Closes what the kernel lists as open, but for these; whether it does list it.
///
/// # Safety
///
/// As for [`close_others`].
unsafe fn close_listed(kept: &[RawFd]) -> bool {
    // SAFETY: system calls on integers and on values of our own stack.
    unsafe {
        let dir = libc::open(c"/proc/self/fd".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC);
        if dir < 0 {
            return false;
        }
        let mut buffer = [0u8; 4096];
        let whole = loop {
            let len = libc::syscall(libc::SYS_getdents64, dir, buffer.as_mut_ptr(), buffer.len());
            let Ok(len) = usize::try_from(len) else { break false };
            if len == 0 {
                break true;
            }
            // The kernel finds its place by the number and not by counting: what is closed meanwhile moves nothing.
            let open = Listed(buffer.get(..len).unwrap_or_default());
            open.filter(|fd| *fd != dir && !kept.contains(fd)).for_each(|fd| {
                libc::close(fd);
            });
        };
        libc::close(dir);
        whole
    }
}

/// The names that are numbers in what `getdents64` gave: entries of an inode, an offset, their length, a type, and a name
/// that ends with a zero.
struct Listed<'a>(&'a [u8]);

impl Iterator for Listed<'_> {
    type Item = RawFd;

    fn next(&mut self) -> Option<RawFd> {
        const LENGTH: usize = 16;
        const NAME: usize = 19;
        loop {
            let length = u16::from_ne_bytes(*self.0.get(LENGTH..)?.first_chunk()?);
            let (entry, rest) = self.0.split_at_checked(length.into())?;
            self.0 = rest;
            let name = std::ffi::CStr::from_bytes_until_nul(entry.get(NAME..)?).ok()?;
            if let Some(fd) = name.to_str().ok().and_then(|name| name.parse().ok()) {
                return Some(fd);
            }
        }
    }
}

/// The last resort, where nothing lists what is open.
///
/// # Safety
///
/// As for [`close_others`].
unsafe fn close_one_by_one(first: u32, last: u32) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: system calls on integers and on a value of our own stack.
    unsafe {
        // A descriptor may be older than a limit that was lowered since.
        let known = libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0;
        let end = if known { u32::try_from(limit.rlim_max).unwrap_or(u32::MAX) } else { 1 << 20 };
        for fd in first..end.min(last.saturating_add(1)) {
            libc::close(fd.cast_signed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        sys::wait::{WaitStatus, waitpid},
        unistd::{ForkResult, fork},
    };

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
    fn all_descriptors_but_the_kept_are_closed_on_old_kernels_too() {
        let (end, alive) = io::pipe().unwrap();
        let (kept, closed) = (end.as_raw_fd(), alive.as_raw_fd());
        let all_but = |kept: RawFd| {
            let kept = kept.cast_unsigned();
            // SAFETY: only called in a process that is about to end.
            unsafe {
                close_one_by_one(0, kept - 1);
                close_one_by_one(kept + 1, u32::MAX);
            }
        };
        // SAFETY: as above.
        let ranges = |kept: RawFd| unsafe { close_others(&[kept]) };
        // SAFETY: as above.
        let listed = |kept: RawFd| assert!(unsafe { close_listed(&[kept]) });
        for (close, counts) in [(&ranges as &dyn Fn(RawFd), false), (&listed, false), (&all_but, true)] {
            let code = in_a_fork(|| {
                // SAFETY: this process is about to end; fcntl with F_GETFD takes integers.
                unsafe {
                    if counts {
                        // The largest limit would take long.
                        let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
                        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
                    }
                    close(kept);
                    let open = |fd| libc::fcntl(fd, libc::F_GETFD) >= 0;
                    i32::from(open(kept)) + 2 * i32::from(open(closed)) + 4 * i32::from(open(2))
                }
            });
            assert_eq!(code, 1, "only the kept one is open");
        }
    }

    #[test]
    fn the_gaps_are_all_but_the_kept() {
        assert_eq!(gaps(&[0, 3, 4, 9]).collect::<Vec<_>>(), [(1, 2), (5, 8), (10, u32::MAX - 1)]);
        assert_eq!(gaps(&[]).collect::<Vec<_>>(), [(0, u32::MAX - 1)]);
        assert_eq!(Listed(&[0; 7]).next(), None, "what is cut ends the list");
    }

    #[test]
    fn a_process_that_has_its_own_name_is_born() {
        assert!(!is_unborn(std::process::id().cast_signed()));
        let code = in_a_fork(|| {
            // SAFETY: prctl with a name that ends with a zero.
            unsafe { libc::prctl(libc::PR_SET_NAME, UNBORN.as_ptr()) };
            // SAFETY: getpid takes nothing.
            i32::from(is_unborn(unsafe { libc::getpid() }))
        });
        assert_eq!(code, 1);
    }
}
