//! The end of a control group: everything in it is killed and gone.

use std::{
    ffi::{CStr, CString},
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};
use tokio::time::Instant;

/// How a group holds its members still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Freezer {
    /// `cgroup.freeze` of version 2.
    V2(PathBuf),
    /// `freezer.state` of version 1.
    V1(PathBuf),
}

/// The files that a group is ended by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndPaths {
    /// `cgroup.procs`: who is in it.
    pub(crate) procs: PathBuf,
    /// `cgroup.kill`, where the kernel has it.
    pub(crate) kill: Option<PathBuf>,
    /// What stops members from forking while they are killed one by one.
    pub(crate) freezer: Option<Freezer>,
}

/// The same files, open: usable after a fork, and by whoever may not open them.
#[derive(Debug)]
pub(crate) struct End {
    /// Opened again in each round: version 1 gives whoever reads an open file again what it gave before, for a second.
    procs: CString,
    kill: Option<File>,
    freezer: Option<(File, &'static [u8], &'static [u8])>,
}

impl EndPaths {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// One cannot be opened; the error names it.
    pub(crate) fn open(&self) -> io::Result<End> {
        let write = |path: &Path| -> io::Result<File> { opened(OpenOptions::new().write(true), path) };
        let freezer = match &self.freezer {
            None => None,
            Some(Freezer::V2(path)) => Some((write(path)?, b"1".as_slice(), b"0".as_slice())),
            Some(Freezer::V1(path)) => Some((write(path)?, b"FROZEN".as_slice(), b"THAWED".as_slice())),
        };
        opened(OpenOptions::new().read(true), &self.procs)?;
        let procs = CString::new(self.procs.as_os_str().as_bytes())?;
        Ok(End { procs, kill: self.kill.as_deref().map(write).transpose()?, freezer })
    }
}

pub(super) fn opened(options: &OpenOptions, path: &Path) -> io::Result<File> {
    options.open(path).map_err(|e| io::Error::new(e.kind(), format!("open {}: {e}", path.display())))
}

/// How many members are looked at in one round; the next round sees the others.
const ROUND: usize = 64;

impl End {
    pub(super) fn fds(&self) -> impl Iterator<Item = RawFd> {
        let files = [self.kill.as_ref(), self.freezer.as_ref().map(|f| &f.0)];
        files.into_iter().flatten().map(AsRawFd::as_raw_fd)
    }

    /// Kills every member and waits until none is left. Async-signal-safe.
    pub(crate) fn end(&self) {
        while !self.round(None) {}
    }

    /// Kills every member and waits until none is left, but not longer than until then. Whether none is left.
    pub(crate) fn end_until(&self, until: Instant) -> bool {
        loop {
            if self.round(Some(until)) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }

    /// Kills those who are members now and waits for their end. Whether there were none.
    fn round(&self, until: Option<Instant>) -> bool {
        match (&self.kill, &self.freezer) {
            (Some(kill), _) => put(kill, b"1"),
            (None, Some((freezer, still, _))) => put(freezer, still),
            (None, None) => {}
        }
        let mut members = [0; ROUND];
        let count = read_file(&self.procs, |fd| pids(fd, &mut members)).unwrap_or(0);
        let members = members.get(..count).unwrap_or_default();
        let mut pinned = [-1; ROUND];
        for (pid, pin) in members.iter().zip(&mut pinned) {
            *pin = pin_and_kill(*pid);
        }
        // Version 1 lets nobody die who is frozen.
        if let Some((freezer, _, on)) = &self.freezer {
            put(freezer, on);
        }
        for pin in pinned.iter().take(count) {
            wait_and_unpin(*pin, until);
        }
        members.is_empty()
    }
}

/// Writes to a control file. What it does shows in who is left, so that a failure needs no answer here.
fn put(file: &File, text: &[u8]) {
    // SAFETY: the buffer is valid for its length, and the descriptor is open for the call.
    unsafe { libc::write(file.as_raw_fd(), text.as_ptr().cast(), text.len()) };
}

/// Reads the numbers in a kernel file, as many as fit. Async-signal-safe.
pub(super) fn pids(fd: RawFd, into: &mut [libc::pid_t]) -> usize {
    let mut buffer = [0u8; 1024];
    // SAFETY: the buffer is valid for its length.
    let len = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    let len = usize::try_from(len).unwrap_or(0);
    // A number at the edge of the buffer may be cut: it is left to the next round.
    let whole = if len == buffer.len() { buffer.iter().rposition(|b| !b.is_ascii_digit()).unwrap_or(0) } else { len };
    let mut count = 0;
    let mut number: Option<libc::pid_t> = None;
    for byte in buffer.iter().take(whole).chain([b' '].iter()) {
        if byte.is_ascii_digit() {
            let digit = libc::pid_t::from(byte - b'0');
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
        } else if let (Some(pid), Some(place)) = (number.take(), into.get_mut(count)) {
            *place = pid;
            count += 1;
        }
    }
    count
}

/// Opens a file for reading and closes it again. Async-signal-safe.
pub(super) fn read_file<T>(path: &CStr, read: impl FnOnce(RawFd) -> T) -> Option<T> {
    // SAFETY: the path ends with a zero; the descriptor is closed by us alone.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        (fd >= 0).then(|| {
            let result = read(fd);
            libc::close(fd);
            result
        })
    }
}

/// Kills a process and keeps a descriptor of it, so that its end can be waited for whoever its parent is.
fn pin_and_kill(pid: libc::pid_t) -> RawFd {
    // The kernel writes 0 for a process of another PID namespace; to `kill` that means our own group.
    if pid <= 0 {
        return -1;
    }
    // SAFETY: system calls on integers.
    unsafe {
        let pin = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        libc::kill(pid, libc::SIGKILL);
        RawFd::try_from(pin).unwrap_or(-1)
    }
}

fn wait_and_unpin(pin: RawFd, until: Option<Instant>) {
    let wait = until.map_or(-1, |until| {
        i32::try_from(until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX)
    });
    // SAFETY: `poll` is one valid pollfd, or none; the descriptor is ours.
    unsafe {
        if pin < 0 {
            // A kernel before 5.3 cannot tell, nor can one where the process has just gone.
            libc::poll(std::ptr::null_mut(), 0, 2);
            return;
        }
        let mut poll = libc::pollfd { fd: pin, events: libc::POLLIN, revents: 0 };
        while libc::poll(&raw mut poll, 1, wait) < 0 && *libc::__errno_location() == libc::EINTR {}
        libc::close(pin);
    }
}
