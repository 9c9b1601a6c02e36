//! Where a process runs: the steps between fork and exec.

use super::ending::{End, EndPaths, opened};
use damocles_core::{CpuSet, NodeSet};
use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

/// What a child is bound to. Bound by its parent, between fork and exec: any program can be placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The CPUs that it may run on; all of the parent's without.
    pub(crate) cpus: Option<CpuSet>,
    /// The nodes that its memory policy binds it to, where no group does.
    pub(crate) policy: Option<NodeSet>,
    /// The `cgroup.procs` files of the groups that it joins.
    pub(crate) join: Vec<PathBuf>,
    /// The group that holds all that it starts.
    pub(crate) end: Option<EndPaths>,
    /// Directories that are removed, in this order, if we die before the child has ended.
    pub(crate) remove: Vec<PathBuf>,
    /// The only capabilities that it keeps, as a mask; all without.
    pub(crate) keep: Option<u64>,
}

/// A placement whose files are open and whose masks are made: nothing is left to allocate after the fork.
#[derive(Debug)]
pub(super) struct Ready {
    cpus: Option<Vec<u64>>,
    policy: Option<Vec<u64>>,
    join: Vec<File>,
    keep: Option<u64>,
    pub(super) end: Option<End>,
    pub(super) remove: Vec<CString>,
}

/// A step between fork and exec, as a number that fits into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step(pub(super) u32);

impl Step {
    pub(super) const TIE: Self = Self(1);
    const CPUS: Self = Self(2);
    const CPUS_DIFFER: Self = Self(3);
    const POLICY: Self = Self(4);
    const CAPABILITIES: Self = Self(5);
    pub(super) const FORK: Self = Self(6);
    const POLICY_DIFFERS: Self = Self(7);
    const JOIN: u32 = 16;
}

/// A step that failed and the number of its error.
pub(super) type Failed = (Step, i32);

impl Placement {
    /// Opens what has to be open before the fork.
    ///
    /// # Errors
    ///
    /// A file of a group cannot be opened; the error names it.
    pub(super) fn ready(&self) -> io::Result<Ready> {
        let join = self.join.iter().map(|path| opened(OpenOptions::new().write(true), path));
        let remove = self.remove.iter().map(|dir| CString::new(dir.as_os_str().as_bytes()));
        Ok(Ready {
            cpus: self.cpus.as_ref().map(|cpus| mask(cpus.iter())),
            policy: self.policy.as_ref().map(|nodes| mask(nodes.iter())),
            join: join.collect::<Result<_, _>>()?,
            keep: self.keep,
            end: self.end.as_ref().map(EndPaths::open).transpose()?,
            remove: remove.collect::<Result<_, _>>()?,
        })
    }

    /// What failed, in words.
    pub(super) fn explain(&self, step: Step) -> String {
        let or_none = |set: Option<String>| set.unwrap_or_else(|| "-".to_owned());
        match step {
            Step::TIE => "tie the child to the life of its parent".to_owned(),
            Step::CPUS => format!("bind to CPUs {}", or_none(self.cpus.as_ref().map(ToString::to_string))),
            Step::CPUS_DIFFER => format!(
                "CPUs {} were asked for, and the kernel gave fewer",
                or_none(self.cpus.as_ref().map(ToString::to_string))
            ),
            Step::POLICY => {
                format!("bind memory to nodes {}", or_none(self.policy.as_ref().map(ToString::to_string)))
            }
            Step::POLICY_DIFFERS => format!(
                "memory nodes {} were asked for, and the kernel gave fewer",
                or_none(self.policy.as_ref().map(ToString::to_string))
            ),
            Step::CAPABILITIES => {
                "give up capabilities, which root needs CAP_SETPCAP for (`keep_capabilities` leaves them as they are)"
                    .to_owned()
            }
            Step::FORK => "fork".to_owned(),
            Step(n) => {
                let at = n.checked_sub(Step::JOIN).and_then(|at| usize::try_from(at).ok());
                match at.and_then(|at| self.join.get(at)) {
                    Some(path) => format!("join {}", path.display()),
                    None => format!("step {n}"),
                }
            }
        }
    }
}

impl Ready {
    /// Places the calling process. Async-signal-safe.
    pub(super) fn place(&self) -> Result<(), Failed> {
        for (file, step) in self.join.iter().zip(Step::JOIN..) {
            // SAFETY: one byte of a constant, and a descriptor that is open.
            let written = unsafe { libc::write(file.as_raw_fd(), c"0".as_ptr().cast(), 1) };
            check(i32::from(written == 1) - 1, Step(step))?;
        }
        if let Some(mask) = &self.cpus {
            bind_cpus(mask)?;
        }
        if let Some(nodes) = &self.policy {
            bind_memory(nodes)?;
        }
        if let Some(keep) = self.keep {
            drop_capabilities(keep)?;
        }
        Ok(())
    }

    /// The descriptors that are used after the fork.
    pub(super) fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.end.iter().flat_map(End::fds)
    }
}

fn bind_cpus(mask: &[u64]) -> Result<(), Failed> {
    let bytes = size_of_val(mask);
    // SAFETY: the mask is `bytes` long and lives until after the call; 0 means this process.
    check(unsafe { libc::sched_setaffinity(0, bytes, mask.as_ptr().cast()) }, Step::CPUS)?;
    // The kernel silently leaves out CPUs that are not there or not in the group.
    let mut got = [0u64; 1024 / 8];
    // SAFETY: the buffer is as long as it is said to be; the raw call gives the number of bytes that it wrote.
    let len = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&got), got.as_mut_ptr()) };
    check(len, Step::CPUS_DIFFER)?;
    exactly(mask, &got, Step::CPUS_DIFFER)
}

fn bind_memory(nodes: &[u64]) -> Result<(), Failed> {
    let bits = nodes.len() * 64 + 1;
    // SAFETY: the mask holds the bits that are announced; the last one that is counted is not read.
    let set = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_BIND, nodes.as_ptr(), bits) };
    check(set, Step::POLICY)?;
    // The kernel silently leaves out nodes that have no memory or are not in the group. It knows 1024 at most.
    let mut got = [0u64; 1024 / 64];
    let (none, bits) = (std::ptr::null_mut::<libc::c_int>(), got.len() * 64);
    // SAFETY: the mask is as long as it is said to be; the mode and the address are not asked for.
    let read = unsafe { libc::syscall(libc::SYS_get_mempolicy, none, got.as_mut_ptr(), bits, 0, 0) };
    check(read, Step::POLICY_DIFFERS)?;
    exactly(nodes, &got, Step::POLICY_DIFFERS)
}

/// Whether the kernel gave what was asked for.
fn exactly(wanted: &[u64], got: &[u64], step: Step) -> Result<(), Failed> {
    let words = wanted.iter().copied().chain(std::iter::repeat(0));
    if got.iter().copied().zip(words).all(|(got, wanted)| got == wanted) { Ok(()) } else { Err((step, libc::EINVAL)) }
}

/// What a child may do with files of other users on a store, and locked memory.
const FOR_FILES: [u32; 6] = [
    0,  // CAP_CHOWN
    1,  // CAP_DAC_OVERRIDE
    2,  // CAP_DAC_READ_SEARCH
    3,  // CAP_FOWNER
    4,  // CAP_FSETID
    14, // CAP_IPC_LOCK
];

/// What the set-up program of a GPU driver does when a card is used for the first time.
const FOR_GPUS: [u32; 2] = [
    16, // CAP_SYS_MODULE
    27, // CAP_MKNOD
];

/// The capabilities that a child may need, as a mask.
pub(crate) fn kept_capabilities(gpus: bool) -> u64 {
    let of_gpus = FOR_GPUS.iter().filter(|_| gpus);
    FOR_FILES.iter().chain(of_gpus).fold(0, |mask, cap| mask | (1 << cap))
}

/// Leaves only these to the program that is about to start, and to all that it starts.
fn drop_capabilities(keep: u64) -> Result<(), Failed> {
    const CAP_SETPCAP: libc::c_ulong = 8;
    // SAFETY: prctl on integers.
    unsafe {
        // EINVAL: a kernel before 4.3 has no ambient set.
        let cleared = libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        if cleared < 0 && errno() != libc::EINVAL {
            return Err((Step::CAPABILITIES, errno()));
        }
        clear_inheritable()?;
        // Last, because the others cannot be dropped without it.
        let order = (0..64).filter(|cap| *cap != CAP_SETPCAP).chain([CAP_SETPCAP]);
        for cap in order.filter(|cap| keep & (1 << cap) == 0) {
            // 0: it is not there to be dropped. EINVAL: beyond the last one that the kernel knows.
            if libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) <= 0 {
                continue;
            }
            // EPERM: an ordinary user without CAP_SETPCAP, whose programs get no capabilities by themselves. Those of
            // root get all that are there.
            let ordinary = || errno() == libc::EPERM && libc::geteuid() != 0;
            if libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && !ordinary() {
                return Err((Step::CAPABILITIES, errno()));
            }
        }
    }
    Ok(())
}

/// Empties the inheritable set: what is in it is kept by a program of root whatever is dropped.
fn clear_inheritable() -> Result<(), Failed> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Half {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`: 64 of them, in two halves.
    const VERSION: u32 = 0x2008_0522;
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Half { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both structures are as the kernel has them in this version, and live until after the calls.
    unsafe {
        check(libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()), Step::CAPABILITIES)?;
        for half in &mut sets {
            half.inheritable = 0;
        }
        check(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()), Step::CAPABILITIES)
    }
}

fn mask(members: impl Iterator<Item = u16>) -> Vec<u64> {
    let mut mask = Vec::new();
    for member in members {
        let (word, bit) = (usize::from(member) / 64, member % 64);
        if mask.len() <= word {
            mask.resize(word + 1, 0);
        }
        if let Some(word) = mask.get_mut(word) {
            *word |= 1 << bit;
        }
    }
    mask
}

pub(super) fn errno() -> i32 {
    // SAFETY: the address of this thread's error number is always valid.
    unsafe { *libc::__errno_location() }
}

pub(super) fn check(result: impl Into<i64> + Copy, step: Step) -> Result<(), Failed> {
    if result.into() < 0 { Err((step, errno())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_cpu() {
        let cpus: CpuSet = "0,3,65".parse().unwrap();
        assert_eq!(mask(cpus.iter()), [0b1001, 0b10]);
    }

    #[test]
    fn nothing_stays_inheritable() {
        use caps::{CapSet, Capability};
        // An ordinary user has none to begin with. This is about this thread alone.
        let _ = caps::raise(None, CapSet::Inheritable, Capability::CAP_SYS_TIME);
        let permitted = caps::read(None, CapSet::Permitted).unwrap();
        clear_inheritable().unwrap();
        assert!(caps::read(None, CapSet::Inheritable).unwrap().is_empty());
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), permitted);
        assert_eq!(kept_capabilities(true) & !kept_capabilities(false), (1 << 16) | (1 << 27));
    }

    #[test]
    fn a_failed_step_names_its_file() {
        let placement =
            Placement { join: vec!["/a/cgroup.procs".into(), "/b/cgroup.procs".into()], ..Placement::default() };
        assert_eq!(placement.explain(Step(Step::JOIN + 1)), "join /b/cgroup.procs");
    }
}
