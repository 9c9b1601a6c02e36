//! `damocles-worker cgroup setup`: control groups for a user without privileges.

use super::args::CgroupCommand;
use crate::{
    exit::Failure,
    output::{Printer, Render, table},
};
use anyhow::Context as _;
use damocles_seal::placement::{CgroupTree, Hierarchy, SetUp, set_up};
use serde::Serialize;
use std::path::PathBuf;

/// The version of the document that is printed with `--json`.
const VERSION: u32 = 1;

/// What was set up.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    user: String,
    dirs: Vec<Dir>,
    /// Where the worker has to be started.
    start_in: Option<PathBuf>,
    /// The process that was moved there.
    moved: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Dir {
    hierarchy: String,
    dir: PathBuf,
}

impl Report {
    fn new(user: String, done: SetUp) -> Self {
        let hierarchy = |hierarchy| match hierarchy {
            Hierarchy::V2 => "v2".to_owned(),
            Hierarchy::V1(controller) => format!("v1 {controller}"),
        };
        let dirs = done.dirs.into_iter().map(|dir| Dir { hierarchy: hierarchy(dir.hierarchy), dir: dir.dir });
        Self { version: VERSION, user, dirs: dirs.collect(), start_in: done.start_in, moved: done.moved }
    }
}

impl Render for Report {
    fn text(&self, color: bool) -> String {
        let rows = self.dirs.iter().map(|dir| [dir.hierarchy.clone(), dir.dir.display().to_string()]);
        table(&["HIERARCHY", "DIRECTORY"], rows, color)
    }
}

/// Sets up, says what was done, and how the worker gets to it.
pub(super) fn run(command: CgroupCommand, printer: Printer) -> Result<(), Failure> {
    let CgroupCommand::Setup(args) = command;
    let own = fs_err::read_to_string("/proc/self/cgroup").context("find this process's control group")?;
    let tree = CgroupTree::detect(&args.root, &own);
    let report = Report::new(args.user.clone(), set_up(&tree, &args.name, &args.user, args.pid)?);
    printer.data(&report)?;
    if let (Some(group), None) = (&report.start_in, report.moved) {
        printer.note(format_args!(
            "a worker of this user has to be started in {}: give the shell or service that starts it with `--pid`",
            group.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{exit::Exit, worker::args::CgroupSetup};

    #[test]
    fn a_host_without_control_groups_says_so() {
        let root = tempfile::tempdir().unwrap();
        let setup = CgroupSetup { user: "0".into(), name: "damocles".into(), root: root.path().into(), pid: None };
        let failure = run(CgroupCommand::Setup(setup), Printer::new(true, true)).unwrap_err();
        assert_eq!(failure.exit, Exit::Parked);
        assert!(failure.hint.unwrap().contains("mount"));
    }

    #[test]
    fn every_hierarchy_is_listed() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("memory");
        fs_err::create_dir(&mount).unwrap();
        fs_err::write(mount.join("tasks"), "").unwrap();
        let tree = CgroupTree::detect(root.path(), "");
        let user = nix::unistd::geteuid().to_string();
        let report = Report::new(user.clone(), set_up(&tree, "damocles", &user, None).unwrap());
        assert!(report.text(false).contains("v1 memory"), "{}", report.text(false));
        assert!(mount.join("damocles").exists());
    }
}
