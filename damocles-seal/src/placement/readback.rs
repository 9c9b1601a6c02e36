//! Reading back from the kernel where a process runs.

use super::{Hierarchy, PlacementError, PlacementErrorKind, leaf::Leaf, owner::stat_field};
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

    /// Compares it with every thread of a process, in a mounted `/proc`. A process that has ended has no threads and
    /// breaks nothing.
    ///
    /// A thread that binds itself to some of its CPUs stays within its bounds.
    ///
    /// # Errors
    ///
    /// A thread is bound otherwise; the error names the thread and what differs.
    pub fn verify(&self, proc: &Path, pid: u32) -> Result<(), PlacementError> {
        let process = proc.join(pid.to_string());
        let tasks = match fs::read_dir(process.join("task")) {
            Ok(tasks) => tasks,
            Err(error) => return ended(error, &process),
        };
        for task in tasks {
            let task = match task {
                Ok(task) => task.path(),
                Err(error) => return ended(error, &process),
            };
            match self.verify_thread(&task) {
                Ok(None) => {}
                // Asked after the other files were read: from then on it does not come back.
                Ok(Some(_)) if is_ending(&task) => {}
                Ok(Some(wrong)) => return Err(wrong.with("process", pid)),
                Err(error) => ended(error, &task)?,
            }
        }
        Ok(())
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

fn is_ending(task: &Path) -> bool {
    stat_field(&task.join("stat"), 9).is_none_or(|flags| flags & EXITING != 0)
}

/// Of something that has ended nothing is read, which is no error.
fn ended(error: io::Error, of: &Path) -> Result<(), PlacementError> {
    let gone = error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH);
    if gone || !of.exists() {
        return Ok(());
    }
    Err(Error::new(PlacementErrorKind::Kernel, "verify placement").because(error))
}
