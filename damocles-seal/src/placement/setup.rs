//! Groups for a user without privileges.

use super::{
    CgroupTree, Controller, Hierarchy, PlacementError, PlacementErrorKind, cpuset,
    error::of_io,
    group::{enable, make_dir},
};
use damocles_core::Error;
use fs_err as fs;
use nix::unistd::{Group, Uid, User, chown};
use std::{
    io,
    path::{Path, PathBuf},
};

/// The files of version 2 that hand a group over, see `cgroups(7)`, "Delegation".
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// What was set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUp {
    /// The directories, one in each hierarchy.
    pub dirs: Vec<SetUpDir>,
    /// The group of version 2 that the user's worker has to be started in: it can move processes only within what is the
    /// user's. `None` where version 2 is not used.
    pub start_in: Option<PathBuf>,
    /// The process that was moved there.
    pub moved: Option<u32>,
}

/// A directory that a user may make groups in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetUpDir {
    /// The hierarchy.
    pub hierarchy: Hierarchy,
    /// The directory.
    pub dir: PathBuf,
}

/// Makes `name` in every hierarchy of `tree`, gives it to `user` (a name or a number), and moves the process `pid` into
/// it, so that a worker started by that process may use it. Calling it again gives the group back what went offline and
/// came back, and changes nothing else.
///
/// # Errors
///
/// There is no such user, or no hierarchy, or a directory cannot be made or given away.
pub fn set_up(tree: &CgroupTree, name: &str, user: &str, pid: Option<u32>) -> Result<SetUp, PlacementError> {
    const OP: &str = "set up control groups";
    let user = find(user)?;
    if tree.is_empty() {
        return Err(Error::new(PlacementErrorKind::Missing, OP)
            .with("missing", "control groups")
            .hint_with("mount them, e.g. with `mount -t cgroup2 none /sys/fs/cgroup`"));
    }
    let mut dirs = Vec::new();
    let mut start_in = None;
    for hierarchy in tree.hierarchies() {
        let Some(mount) = tree.mount(hierarchy) else { continue };
        let dir = mount.join(name);
        make_dir(&dir, hierarchy).map_err(|e| of_io(OP, e))?;
        if hierarchy == Hierarchy::V1(Controller::Cpuset) {
            cpuset::refill_all(&dir).map_err(|e| of_io(OP, e))?;
        }
        if hierarchy == Hierarchy::V2 {
            let controllers: Vec<Controller> = tree.unified_controllers().collect();
            enable(mount, &controllers).and_then(|()| enable(&dir, &controllers)).map_err(|e| of_io(OP, e))?;
            let inner = dir.join(format!("{name}-daemon"));
            make_dir(&inner, hierarchy).map_err(|e| of_io(OP, e))?;
            give(&dir, &DELEGATED, &user).and_then(|()| give(&inner, &DELEGATED, &user)).map_err(|e| of_io(OP, e))?;
            start_in = Some(inner);
        } else {
            give(&dir, &["cgroup.procs", "tasks"], &user).map_err(|e| of_io(OP, e))?;
        }
        dirs.push(SetUpDir { hierarchy, dir });
    }
    let moved = match (&start_in, pid) {
        (Some(inner), Some(pid)) => {
            fs::write(inner.join("cgroup.procs"), pid.to_string()).map_err(|e| of_io("move process", e))?;
            Some(pid)
        }
        _ => None,
    };
    Ok(SetUp { dirs, start_in, moved })
}

/// Gives away a directory and these files in it; the limits at the top stay root's.
fn give(dir: &Path, files: &[&str], user: &User) -> io::Result<()> {
    let files = files.iter().map(|name| dir.join(name)).filter(|file| file.exists());
    for path in std::iter::once(dir.to_owned()).chain(files) {
        chown(&path, Some(user.uid), Some(user.gid))
            .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("chown {}: {e}", path.display())))?;
    }
    Ok(())
}

fn find(name: &str) -> Result<User, PlacementError> {
    let user = match name.parse() {
        Ok(uid) => User::from_uid(Uid::from_raw(uid)),
        Err(_) => User::from_name(name),
    };
    let problem = match user {
        Ok(Some(user)) => return Ok(user),
        Ok(None) if matches!(Group::from_name(name), Ok(Some(_))) => "a group, not a user",
        Ok(None) => "no such user",
        Err(error) => {
            return Err(Error::new(PlacementErrorKind::Kernel, "look up user").with("user", name).because(error));
        }
    };
    Err(Error::new(PlacementErrorKind::Settings, "look up user")
        .with("user", name)
        .with("problem", problem)
        .hint_with("name the user that the worker runs as"))
}
