//! Whose groups are whose.

use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use std::{
    fmt, io,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

/// The process that made groups, and which of its sets of groups: the name of a directory that nobody else uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pid: u32,
    /// When it started, in clock ticks after the boot: a number is given again, but not with the same time.
    start: u64,
    /// Its PID namespace: in another one its number means somebody else.
    namespace: u64,
    set: u32,
}

/// How many sets of groups this process has made.
static SETS: AtomicU32 = AtomicU32::new(0);

impl Owner {
    /// This process, with a number that it has not used before.
    pub(super) fn new(proc: &Path) -> Self {
        let pid = std::process::id();
        let start = start_of(proc, pid).unwrap_or(UNKNOWN);
        Self { pid, start, namespace: namespace(proc).unwrap_or(0), set: SETS.fetch_add(1, Ordering::Relaxed) }
    }

    /// Reads the name of a directory.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("owner-")?.split('-');
        let owner = Self {
            pid: parts.next()?.parse().ok()?,
            start: parts.next()?.parse().ok()?,
            namespace: parts.next()?.parse().ok()?,
            set: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    /// Whether it is known to be gone. Of a process in another namespace nothing is known, nor of one that cannot be
    /// read and is there.
    pub(super) fn is_gone(&self, proc: &Path) -> bool {
        if namespace(proc) != Some(self.namespace) {
            return false;
        }
        match start_of(proc, self.pid) {
            Ok(start) if self.start != UNKNOWN => start != self.start,
            _ => has_no_process(self.pid),
        }
    }
}

/// The start of a process that could not read its own. None starts with the boot.
const UNKNOWN: u64 = 0;

/// Whether no process of our namespace has this number, whatever `/proc` shows of it.
pub(super) fn has_no_process(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
    pid.is_none_or(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// Whether an error of a file in `/proc` says that what it tells of is not there.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner-{}-{}-{}-{}", self.pid, self.start, self.namespace, self.set)
    }
}

fn namespace(proc: &Path) -> Option<u64> {
    let link = fs_err::read_link(proc.join("self/ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

fn start_of(proc: &Path, pid: u32) -> io::Result<u64> {
    stat_field(&proc.join(pid.to_string()).join("stat"), 22)
}

/// A field of a `stat` file by its number in proc(5); those before the third cannot be read this way.
pub(super) fn stat_field(path: &Path, number: usize) -> io::Result<u64> {
    let stat = fs_err::read(path)?;
    let stat = String::from_utf8_lossy(&stat);
    let field = || {
        // The second is the name in parentheses, and may hold anything, parentheses too.
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
    };
    field().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{}: no field {number}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than the kernel counts to.
    const ABSENT: u32 = 1 << 30;

    #[test]
    fn an_owner_is_known_by_its_start_and_namespace() {
        let proc = Path::new("/proc");
        let me = Owner::new(proc);
        assert_ne!(me.start, 0);
        assert_eq!(Owner::parse(&me.to_string()), Some(me.clone()));
        assert!(!me.is_gone(proc));
        assert!(Owner { start: me.start + 1, ..me }.is_gone(proc), "the number was given to another");
        assert!(!Owner { start: 1, namespace: 1, ..me }.is_gone(proc), "of another namespace nothing is known");
        assert!(!Owner { start: UNKNOWN, ..me }.is_gone(proc), "it could not read its own start, and is there");
        assert_ne!(me, Owner::new(proc));
        // A `/proc` that shows the namespace and no process, as one with hidepid does of other users.
        let hides = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc/self", hides.path().join("self")).unwrap();
        assert!(!me.is_gone(hides.path()), "what cannot be read may be there");
        assert!(Owner { pid: ABSENT, ..me }.is_gone(hides.path()), "nobody has its number");
        for other in ["slot-1", "owner-1-2-3", "owner-1-2-3-4-5", "owner-a-2-3-4"] {
            assert_eq!(Owner::parse(other), None);
        }
    }
}
