//! Control groups: which hierarchies are mounted, and what this process may do in them.

use super::{Roots, files::Files, mounts::Line};
use crate::machine::{CgroupFacts, V1Controller, V2Facts};
use nix::unistd::{AccessFlags, access};
use std::path::{Path, PathBuf};

/// Options of a hierarchy of version 1 that name no controller.
const NO_CONTROLLERS: [&str; 7] = ["rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "seclabel"];

pub(super) fn read(roots: &Roots, table: &[Line], files: &mut Files) -> CgroupFacts {
    let own = files.text(&roots.proc.join("self/cgroup")).unwrap_or_default();
    let mut facts = CgroupFacts::default();
    for line in table {
        match line.fs_type.as_str() {
            "cgroup" => {
                let named = |option: &&String| !NO_CONTROLLERS.contains(&option.as_str()) && !option.contains('=');
                for name in line.options.iter().filter(named) {
                    facts.v1.push(controller(roots, line, name, &own));
                }
            }
            "cgroup2" if facts.v2.is_none() => facts.v2 = Some(unified(roots, line, &own, files)),
            _ => {}
        }
    }
    facts.v1.sort_by(|a, b| a.name.cmp(&b.name));
    facts
}

/// The directory of a group.
pub(super) fn dir(roots: &Roots, mount: &Path, group: Option<&str>) -> PathBuf {
    let below = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    roots.host.join(below(mount)).join(below(Path::new(group.unwrap_or("/"))))
}

fn controller(roots: &Roots, line: &Line, name: &str, own: &str) -> V1Controller {
    let of_it = |controllers: &str| controllers.split(',').any(|c| c == name);
    let group = group(own, of_it, &line.root);
    let writable = !line.read_only && may_write(&dir(roots, &line.point, group.as_deref()));
    V1Controller { name: name.to_owned(), mount: line.point.clone(), group, writable }
}

fn unified(roots: &Roots, line: &Line, own: &str, files: &mut Files) -> V2Facts {
    let group = group(own, str::is_empty, &line.root);
    let dir = dir(roots, &line.point, group.as_deref());
    let mut words = |name: &str| -> Vec<String> {
        files.text(&dir.join(name)).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let (controllers, delegated) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
    // The root group can neither be killed nor stopped and has none of these files; its children have.
    let children: Vec<String> = files.names(&dir);
    let has = |name: &str| dir.join(name).exists() || children.iter().any(|child| dir.join(child).join(name).exists());
    V2Facts {
        mount: line.point.clone(),
        writable: !line.read_only && may_write(&dir),
        kill: has("cgroup.kill"),
        freeze: has("cgroup.freeze"),
        group,
        controllers,
        delegated,
    }
}

/// The group of this process in the hierarchy with these controllers, below what is mounted of it. A line of `/proc/self/cgroup` is
/// `<number>:<controllers>:<group>`, see cgroups(7).
fn group(own: &str, controllers: impl Fn(&str) -> bool, root: &Path) -> Option<String> {
    let line = own.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':').filter(|(names, _)| controllers(names))
    });
    let (_, path) = line?;
    let path = Path::new(path);
    // In a container only a part of the hierarchy is mounted, and the kernel may tell the whole path.
    let below = path.strip_prefix(root).unwrap_or(path);
    Path::new("/").join(below).to_str().map(str::to_owned)
}

fn may_write(dir: &Path) -> bool {
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}
