//! Where a process runs.

use damocles_core::CpuSet;
use std::{fs, io, os::unix::process::CommandExt, process::Command};

/// What a child is bound to. Bound by its parent, between fork and exec: any program can be placed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The CPUs that it may run on; all of the parent's without.
    pub(crate) cpus: Option<CpuSet>,
}

impl Placement {
    /// Makes `command` start as the leader of a new group, tied to the life of the thread that spawns it, and placed.
    pub(super) fn prepare(&self, command: &mut Command) {
        command.process_group(0);
        let parent = nix::unistd::getpid().as_raw();
        let mask = self.cpus.as_ref().map(mask);
        let place = move || {
            // SAFETY: prctl with PR_SET_PDEATHSIG takes an integer.
            check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
            // SAFETY: getppid cannot fail and takes nothing.
            if unsafe { libc::getppid() } != parent {
                // The parent died before the line above: nobody would ever stop us.
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            if let Some(mask) = &mask {
                let bytes = size_of_val(mask.as_slice());
                // SAFETY: the mask is `bytes` long and lives until after the call; 0 means this process.
                check(unsafe { libc::sched_setaffinity(0, bytes, mask.as_ptr().cast()) })?;
            }
            Ok(())
        };
        // SAFETY: `place` makes system calls only: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(place) };
    }

    /// Reads back what the kernel made of it.
    ///
    /// # Errors
    ///
    /// The process is not where it should be.
    pub(super) fn verify(&self, pid: u32) -> io::Result<()> {
        let Some(wanted) = &self.cpus else { return Ok(()) };
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path)?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let got: Option<CpuSet> = list.and_then(|list| list.trim().parse().ok());
        match got {
            Some(got) if got == *wanted => Ok(()),
            Some(got) => Err(io::Error::other(format!("CPUs {wanted} were asked for, {got} were given"))),
            None => Err(io::Error::other(format!("{path} names no CPUs"))),
        }
    }
}

fn mask(cpus: &CpuSet) -> Vec<u64> {
    let words = cpus.iter().max().map_or(0, |last| usize::from(last) / 64 + 1);
    let mut mask = vec![0; words];
    for cpu in cpus.iter() {
        if let Some(word) = mask.get_mut(usize::from(cpu) / 64) {
            *word |= 1 << (cpu % 64);
        }
    }
    mask
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_a_bit_for_each_cpu() {
        assert_eq!(mask(&"0,3,65".parse().unwrap()), [0b1001, 0b10]);
    }
}
