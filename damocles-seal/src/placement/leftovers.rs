//! What dead workers left in control groups.

use super::{
    Groups, Hierarchy, PlacementError,
    error::of_io,
    group::{end_paths, remove},
    owner::Owner,
};
use fs_err as fs;
use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::time::Instant;

/// How long the end of the processes of one group is waited for. The kernel lets nobody die who waits for a disk or a
/// card that is gone.
const PATIENCE: Duration = Duration::from_secs(60);

impl Groups {
    /// Ends and removes the groups below our name whose owner is gone. Waits a minute for the end of each; what is left
    /// then is left to the next start.
    ///
    /// # Errors
    ///
    /// Something is left; the error names the directories. The others are cleaned all the same.
    pub fn clean_leftovers(&self) -> Result<usize, PlacementError> {
        let mut cleaned = 0;
        let mut left: Vec<(PathBuf, io::Error)> = Vec::new();
        for hierarchy in self.tree().hierarchies() {
            for dir in dirs(&self.named(hierarchy).unwrap_or_default()) {
                let owner = dir.file_name().and_then(|name| Owner::parse(name.to_str()?));
                if !owner.is_some_and(|owner| owner.is_gone(self.proc())) {
                    continue;
                }
                match end_tree(&dir, hierarchy) {
                    Ok(()) => cleaned += 1,
                    // Somebody else cleans at the same time.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => left.push((dir, error)),
                }
            }
        }
        let names: Vec<String> = left.iter().map(|(dir, _)| dir.display().to_string()).collect();
        match left.pop() {
            None => Ok(cleaned),
            Some((_, error)) => {
                let error: PlacementError = of_io("remove a dead worker's control groups", error);
                Err(error.with("left", names.join(", ")))
            }
        }
    }
}

/// Cleans on a thread of its own: nobody who starts a child waits for it, and it takes nothing from them.
pub(super) fn clean_apart(groups: Groups) {
    let clean = move || match groups.clean_leftovers() {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "ended what dead workers had left in control groups"),
        Err(error) => tracing::warn!(error = error.chain(), "control groups of a dead worker are left"),
    };
    if let Err(error) = thread::Builder::new().name("leftovers".to_owned()).spawn(clean) {
        tracing::warn!(%error, "control groups of dead workers are not looked for");
    }
}

/// Ends a group and all below it, and removes the directories. What does not end keeps nobody else.
fn end_tree(dir: &Path, hierarchy: Hierarchy) -> io::Result<()> {
    let inner: Vec<io::Result<()>> = dirs(dir).iter().map(|inner| end_tree(inner, hierarchy)).collect();
    inner.into_iter().collect::<io::Result<()>>()?;
    if !end_paths(dir, hierarchy).open()?.end_until(Instant::now() + PATIENCE) {
        let members = fs::read_to_string(dir.join("cgroup.procs"))?;
        let members: Vec<&str> = members.lines().collect();
        let text = format!("{}: killed and still there after {PATIENCE:?}: {}", dir.display(), members.join(", "));
        return Err(io::Error::new(io::ErrorKind::TimedOut, text));
    }
    remove(dir)
}

fn dirs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}
