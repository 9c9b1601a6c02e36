//! Groups of this test alone, on the real hierarchies, gone when it ends.

use damocles_core::{
    Context, JobId,
    pool::{Job, Needs, PoolError, ProcessorPool, TaskKind},
};
use damocles_seal::{
    placement::IsolationSpec,
    pool::{CommandSpec, LocalPool, PoolSpec, SlotSpec},
};
use serde_json::Value;
use std::{
    env::current_exe,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

pub(crate) const ROOT: &str = "/sys/fs/cgroup";

static NAMES: AtomicU32 = AtomicU32::new(0);

/// A name below which the groups of one test lie. Removed with all in it.
pub(crate) struct Name(pub(crate) String);

impl Name {
    pub(crate) fn new() -> Self {
        Self(format!("damocles-test-{}-{}", std::process::id(), NAMES.fetch_add(1, Ordering::Relaxed)))
    }

    /// What is left of it in every hierarchy.
    pub(crate) fn dirs(&self) -> Vec<PathBuf> {
        let mounts = ["cpuset", "memory", "freezer", "cpu", "unified", ""];
        mounts.iter().map(|mount| Path::new(ROOT).join(mount).join(&self.0)).filter(|dir| dir.exists()).collect()
    }

    /// Every group of a child that is left.
    pub(crate) fn leaves(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in self.dirs() {
            find(&dir, &mut found);
        }
        found
    }
}

fn find(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        if entry.file_name().to_string_lossy().starts_with("child-") {
            into.push(entry.path());
        }
        find(&entry.path(), into);
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        fn remove(dir: &Path) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
                remove(&entry.path());
            }
            for _ in 0..500 {
                let _ = fs::write(dir.join("freezer.state"), "THAWED");
                for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
                    let _ = std::process::Command::new("kill").args(["-9", pid]).output();
                }
                if fs::remove_dir(dir).is_ok() || !dir.exists() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.dirs().iter().for_each(|dir| remove(dir));
    }
}

/// A root that shows only some of this machine's hierarchies, by their names below the real root.
pub(crate) fn only(hierarchies: &[&str]) -> Option<tempfile::TempDir> {
    let root = tempfile::tempdir().unwrap();
    for name in hierarchies {
        let real = Path::new(ROOT).join(name);
        let version_two = *name == "unified";
        if !real.join(if version_two { "cgroup.controllers" } else { "tasks" }).exists() {
            println!("SKIPPED: this kernel has no hierarchy {}", real.display());
            return None;
        }
        if fs::create_dir(real.join("damocles-test-probe"))
            .is_err_and(|e| e.kind() != std::io::ErrorKind::AlreadyExists)
        {
            println!("SKIPPED: this user cannot make groups in {}", real.display());
            return None;
        }
        let _ = fs::remove_dir(real.join("damocles-test-probe"));
        symlink(&real, root.path().join(name)).unwrap();
    }
    Some(root)
}

pub(crate) fn isolation(root: Option<&Path>, name: &Name) -> IsolationSpec {
    let mut spec = IsolationSpec::default();
    spec.cgroup_root = root.map(Path::to_owned);
    spec.name.clone_from(&name.0);
    spec
}

/// A slot whose child is this program.
pub(crate) fn slot(name: &str) -> SlotSpec {
    let kinds = crate::child::registry().kinds().cloned().collect();
    SlotSpec::new(name, kinds, CommandSpec::new(current_exe().unwrap(), ["child"]))
}

pub(crate) fn pool(isolation: IsolationSpec, slots: Vec<SlotSpec>) -> LocalPool {
    let mut spec = PoolSpec::new(slots);
    spec.isolation = isolation;
    spec.rest = Duration::from_millis(1);
    spec.grace = Duration::from_millis(100);
    LocalPool::new(spec).unwrap()
}

pub(crate) async fn run(pool: &LocalPool, kind: &str, payload: Value) -> Result<Value, PoolError> {
    let payload = serde_json::to_vec(&payload).unwrap().into();
    let job = Job { id: JobId(1), kind: TaskKind::read(kind), sector: None, payload, needs: Needs::default() };
    let output = pool.run(job, &Context::detached()).await?;
    Ok(serde_json::from_slice(&output).unwrap())
}

/// Whether a process runs. A zombie does not.
pub(crate) fn runs(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// For what nobody reports.
pub(crate) fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("in vain: {what}");
}

/// What the kernel says about every thread of a process.
pub(crate) fn threads(pid: u64, field: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let line = |status: String| status.lines().find_map(|l| Some(l.strip_prefix(field)?.trim().to_owned())).unwrap();
    tasks.filter_map(|task| status(task.unwrap())).map(line).collect()
}
