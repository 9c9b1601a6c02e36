//! Reading back from the kernel where a process runs.

use super::{
    Hierarchy, PlacementError, PlacementErrorKind,
    leaf::Leaf,
    owner::{has_no_process, is_absent, stat_field},
};
use crate::pool::PlacementSpec;
use damocles_core::{CpuSet, Error, NodeSet};
use fs_err as fs;
use std::{
    fmt::Display,
    io::{self, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

/// What every thread of a child must be bound to, as the kernel says it.
#[derive(Clone, Debug, Default)]
pub struct Bound {
    cpus: Option<CpuSet>,
    /// The nodes that its groups allow.
    mems: Option<NodeSet>,
    /// The nodes that its memory policy names.
    policy: Option<NodeSet>,
    groups: Vec<(Hierarchy, PathBuf)>,
}

/// The kernel's flag of a thread that is ending. It no longer runs code of the program, and version 1 shows it at the top.
const EXITING: u64 = 4;

impl Bound {
    /// What a child of this slot in this group must be bound to.
    pub fn new(wanted: &PlacementSpec, leaf: &Leaf) -> Self {
        let (mems, policy) = if leaf.binds { (wanted.mems.clone(), None) } else { (None, wanted.mems.clone()) };
        let groups = leaf.joined.iter().map(|joined| (joined.hierarchy, joined.relative.clone())).collect();
        Self { cpus: wanted.cpus.clone(), mems, policy, groups }
    }

    /// Compares it with every thread of a process, in a mounted `/proc` of our own namespace. A process that has ended
    /// has no threads and breaks nothing.
    ///
    /// A thread that binds itself to some of its CPUs stays within its bounds.
    ///
    /// # Errors
    ///
    /// A thread is bound otherwise; the error names the thread and what differs. Or `/proc` cannot be read.
    pub fn verify(&self, proc: &Path, pid: u32) -> Result<(), PlacementError> {
        let process = proc.join(pid.to_string());
        match self.verify_threads(&process) {
            Ok(None) => Ok(()),
            Ok(Some(wrong)) => Err(wrong.with("process", pid)),
            Err(error) if is_absent(&error) && has_no_process(pid) => Ok(()),
            Err(error) => Err(unreadable(error).with("process", pid)),
        }
    }

    fn verify_threads(&self, process: &Path) -> io::Result<Option<PlacementError>> {
        for task in fs::read_dir(process.join("task"))? {
            let task = task?.path();
            match self.verify_thread(&task) {
                Ok(None) => {}
                // Asked after the other files were read: from then on it does not come back.
                Ok(Some(wrong)) => match is_ending(&task) {
                    Ok(false) => return Ok(Some(wrong)),
                    Ok(true) => {}
                    Err(error) => ended(error, process)?,
                },
                Err(error) => ended(error, process)?,
            }
        }
        Ok(None)
    }

    fn verify_thread(&self, task: &Path) -> io::Result<Option<PlacementError>> {
        let status = fs::read_to_string(task.join("status"))?;
        if let Some(wrong) = within("CPUs", &status, "Cpus_allowed_list:", self.cpus.as_ref(), CpuSet::iter) {
            return Ok(Some(at(wrong, task)));
        }
        if let Some(wrong) = within("memory nodes", &status, "Mems_allowed_list:", self.mems.as_ref(), NodeSet::iter) {
            return Ok(Some(at(wrong, task)));
        }
        if !self.groups.is_empty() {
            let groups = fs::read_to_string(task.join("cgroup"))?;
            for (hierarchy, wanted) in &self.groups {
                let got = group_in(&groups, *hierarchy).unwrap_or("none");
                if !Path::new(got).ends_with(wanted) {
                    return Ok(Some(at(differs("control group", wanted.display(), got), task)));
                }
            }
        }
        match &self.policy {
            Some(nodes) => Ok(verify_policy(task, nodes)?.map(|wrong| at(wrong, task))),
            None => Ok(None),
        }
    }
}

/// Whether each node of the thread's policy is one of these. Only the start of the file is read: a proof maps hundreds of
/// gigabytes, and the kernel walks through all of it to fill the rest.
fn verify_policy(task: &Path, nodes: &NodeSet) -> io::Result<Option<PlacementError>> {
    let mut start = [0; 128];
    let len = fs::File::open(task.join("numa_maps"))?.read(&mut start)?;
    let start = String::from_utf8_lossy(start.get(..len).unwrap_or_default());
    // A process that is ending has no memory left.
    let Some(policy) = start.split_ascii_whitespace().nth(1) else { return Ok(None) };
    let got: Option<NodeSet> = policy.strip_prefix("bind:").and_then(|list| list.parse().ok());
    let fits = got.is_some_and(|got| got.iter().all(|node| nodes.iter().any(|allowed| allowed == node)));
    Ok((!fits).then(|| differs("memory policy", format_args!("bind:{nodes}"), policy)))
}

/// Whether a list in `status` is part of what is wanted.
fn within<'a, S, I>(
    what: &'static str,
    status: &str,
    field: &str,
    wanted: Option<&'a S>,
    members: impl Fn(&'a S) -> I,
) -> Option<PlacementError>
where
    S: FromStr + Display,
    I: Iterator<Item = u16>,
{
    let wanted = wanted?;
    let got = status.lines().find_map(|line| line.strip_prefix(field)).map_or("none", str::trim);
    let allowed: Vec<u16> = members(wanted).collect();
    let fits = list(got).is_some_and(|got| got.iter().all(|member| allowed.binary_search(member).is_ok()));
    (!fits).then(|| differs(what, wanted, got))
}

fn list(text: &str) -> Option<Vec<u16>> {
    text.parse::<CpuSet>().ok().map(|set| set.iter().collect())
}

/// The group in the text of `/proc/<pid>/cgroup`.
fn group_in(text: &str, hierarchy: Hierarchy) -> Option<&str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let fits = match hierarchy {
            Hierarchy::V2 => line.starts_with("0::"),
            Hierarchy::V1(controller) => controllers.split(',').any(|name| name == controller.name()),
        };
        fits.then_some(path)
    })
}

fn differs(what: &'static str, wanted: impl Display, got: impl Display) -> PlacementError {
    Error::new(PlacementErrorKind::Differs, "verify placement")
        .with("what", what)
        .with("wanted", wanted)
        .with("got", got)
}

fn at(error: PlacementError, task: &Path) -> PlacementError {
    error.with("thread", task.file_name().unwrap_or_default().display())
}

fn is_ending(task: &Path) -> io::Result<bool> {
    Ok(stat_field(&task.join("stat"), 9)? & EXITING != 0)
}

/// A thread that is not there any more has ended, if its process can still be seen: of one that is hidden nothing is
/// known.
fn ended(error: io::Error, process: &Path) -> io::Result<()> {
    if is_absent(&error) && process.join("task").exists() { Ok(()) } else { Err(error) }
}

fn unreadable(error: io::Error) -> PlacementError {
    let hidden = is_absent(&error) || error.kind() == io::ErrorKind::PermissionDenied;
    let unread = Error::new(PlacementErrorKind::Kernel, "verify placement").because(error);
    if hidden {
        unread.hint_with(
            "`/proc` does not show this user the slot's processes (`hidepid`): mount it with `gid=` of a group of the user, \
             or let the slot's program keep that user",
        )
    } else {
        unread
    }
}
