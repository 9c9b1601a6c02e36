//! Whose groups are whose.

use std::{
    fmt,
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
        let start = start_of(proc, pid).unwrap_or(0);
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

    /// Whether it is known to be gone. Of a process in another namespace nothing is known.
    pub(super) fn is_gone(&self, proc: &Path) -> bool {
        namespace(proc) == Some(self.namespace) && start_of(proc, self.pid) != Some(self.start)
    }
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

fn start_of(proc: &Path, pid: u32) -> Option<u64> {
    stat_field(&proc.join(pid.to_string()).join("stat"), 22)
}

/// A field of a `stat` file by its number in proc(5); those before the third cannot be read this way.
pub(super) fn stat_field(path: &Path, number: usize) -> Option<u64> {
    let stat = fs_err::read(path).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The second is the name in parentheses, and may hold anything, parentheses too.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_known_by_its_start_and_namespace() {
        let proc = Path::new("/proc");
        let me = Owner::new(proc);
        assert_ne!(me.start, 0);
        assert_eq!(Owner::parse(&me.to_string()), Some(me.clone()));
        assert!(!me.is_gone(proc));
        assert!(Owner { start: me.start + 1, ..me }.is_gone(proc), "the number was given to another");
        assert!(!Owner { start: 1, namespace: 1, ..me }.is_gone(proc), "of another namespace nothing is known");
        assert_ne!(me, Owner::new(proc));
        for other in ["slot-1", "owner-1-2-3", "owner-1-2-3-4-5", "owner-a-2-3-4"] {
            assert_eq!(Owner::parse(other), None);
        }
    }
}
