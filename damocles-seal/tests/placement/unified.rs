//! Version 2 against a directory that looks like it, for what no kernel here offers.

use damocles_core::ByteSize;
use damocles_seal::{
    placement::{Bound, CgroupTree, Controller, Groups, Hierarchy, Leaf, PlacementErrorKind, set_up},
    pool::PlacementSpec,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A fake root of version 2. Groups that the code is about to make get the files that a kernel would give them.
struct FakeV2 {
    root: tempfile::TempDir,
    groups: Groups,
}

const NAME: &str = "damocles";
/// A number that no process has: more than the kernel counts to.
const NOBODY: u32 = 1 << 30;

impl FakeV2 {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        let tree = CgroupTree::detect(root.path(), "0::/\n");
        let groups = Groups::new(tree, NAME, "/proc");
        let fake = Self { root, groups };
        let owned = fake.owned();
        for dir in [fake.root.path(), owned.parent().unwrap(), &owned, &fake.slot(), &fake.child(0)] {
            fake.populate(dir);
        }
        fake
    }

    fn populate(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for file in ["cgroup.subtree_control", "cgroup.procs", "cgroup.kill", "cgroup.freeze", "cgroup.threads"] {
            fs::write(dir.join(file), "").unwrap();
        }
        fs::write(dir.join("memory.swap.max"), "max\n").unwrap();
        fs::write(dir.join("memory.oom.group"), "0\n").unwrap();
        fs::write(dir.join("memory.events"), "low 0\noom 0\noom_kill 0\n").unwrap();
        fs::write(dir.join("memory.peak"), "1048576\n").unwrap();
    }

    fn owned(&self) -> PathBuf {
        self.groups.dir(Hierarchy::V2).unwrap()
    }

    fn slot(&self) -> PathBuf {
        self.owned().join("slot-pc1%2f.0")
    }

    fn child(&self, n: u32) -> PathBuf {
        self.slot().join(format!("child-{n}"))
    }

    fn leaf(&self, wanted: &PlacementSpec) -> Result<Leaf, damocles_seal::placement::PlacementError> {
        self.groups.leaf("pc1/0", wanted)
    }
}

fn everything() -> PlacementSpec {
    let mut wanted = PlacementSpec::default();
    wanted.cpus = Some("0-3,8".parse().unwrap());
    wanted.mems = Some("0".parse().unwrap());
    wanted.memory = Some(ByteSize(64 << 30));
    wanted.cpu_weight = Some(250);
    wanted
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

pub(crate) async fn version_two_is_asked_for_what_a_slot_says() {
    let fake = FakeV2::new();
    let wanted = everything();
    let leaf = fake.leaf(&wanted).unwrap();
    for (file, value) in [
        ("cpuset.cpus", "0-3,8"),
        ("cpuset.mems", "0"),
        ("memory.max", "68719476736"),
        ("memory.swap.max", "0"),
        ("cpu.weight", "250"),
        ("cgroup.subtree_control", "+memory"),
    ] {
        assert_eq!(text(fake.slot().join(file)), value, "{file}");
    }
    let owned = fake.owned();
    for dir in [fake.root.path(), owned.parent().unwrap(), &owned] {
        assert_eq!(text(dir.join("cgroup.subtree_control")), "+cpuset +memory +cpu", "{}", dir.display());
    }
    assert_eq!(text(fake.child(0).join("memory.oom.group")), "1");
    assert_eq!(leaf.join_files(), [fake.child(0).join("cgroup.procs")]);
    assert!(leaf.binds());
    leaf.end().unwrap();
    assert_eq!(text(fake.child(0).join("cgroup.kill")), "1");

    // Read back: every thread in its place, then one that is not.
    let proc = tempfile::tempdir().unwrap();
    let relative = fake.child(0).strip_prefix(fake.root.path()).unwrap().display().to_string();
    let thread = |tid: u32, cpus: &str, mems: &str, group: &str| {
        let task = proc.path().join(format!("7/task/{tid}"));
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("status"), format!("Cpus_allowed_list:\t{cpus}\nMems_allowed_list:\t{mems}\n")).unwrap();
        fs::write(task.join("cgroup"), format!("5:memory:/elsewhere\n0::/{group}\n")).unwrap();
        fs::write(task.join("stat"), format!("{tid} (a) b) S 1 7 7 0 -1 64 0 0\n")).unwrap();
    };
    let bound = Bound::new(&wanted, &leaf);
    bound.verify(proc.path(), NOBODY).unwrap();
    let hidden = bound.verify(proc.path(), std::process::id()).unwrap_err();
    assert_eq!(hidden.kind(), PlacementErrorKind::Kernel, "it is there and cannot be seen");
    assert!(hidden.hint().unwrap().contains("hidepid"), "{hidden}");
    thread(7, "0-3,8", "0", &relative);
    thread(9, "2", "0", &relative);
    bound.verify(proc.path(), 7).unwrap();
    for (cpus, mems, group, what) in [
        ("0-4", "0", relative.as_str(), "what: CPUs, wanted: 0-3,8, got: 0-4"),
        ("0-3", "0-1", &relative, "what: memory nodes, wanted: 0, got: 0-1"),
        ("0-3", "0", "user.slice", "what: control group"),
    ] {
        thread(10, cpus, mems, group);
        let error = bound.verify(proc.path(), 7).unwrap_err();
        assert_eq!(error.kind(), PlacementErrorKind::Differs);
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.to_string().contains("thread: 10"), "{error}");
    }
    // One that is ending runs nothing any more.
    fs::write(proc.path().join("7/task/10/stat"), "10 (x) R 1 7 7 0 -1 4 0 0\n").unwrap();
    bound.verify(proc.path(), 7).unwrap();

    // And the limits of its slot.
    leaf.verify().unwrap();
    for (file, value) in [("memory.max", "max"), ("cpu.weight", "100")] {
        let was = text(fake.slot().join(file));
        fs::write(fake.slot().join(file), value).unwrap();
        let error = leaf.verify().unwrap_err();
        assert_eq!(error.kind(), PlacementErrorKind::Differs);
        assert!(error.to_string().contains(&format!("{file}, wanted: {was}, got: {value}")), "{error}");
        fs::write(fake.slot().join(file), was).unwrap();
    }
}

pub(crate) async fn memory_that_runs_out_is_said_of_whom() {
    let peak = Some(ByteSize(1 << 20));
    let fake = FakeV2::new();
    let mut leaf = fake.leaf(&everything()).unwrap();
    assert_eq!(leaf.out_of_memory(), None);
    // The slot's limit was met.
    fs::write(fake.slot().join("memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
    fs::write(fake.child(0).join("memory.events"), "low 0\noom 0\noom_kill 2\n").unwrap();
    let report = leaf.out_of_memory().unwrap();
    assert_eq!((report.limit, report.peak, report.kills), (Some(ByteSize(64 << 30)), peak, 2));
    // The next job has nothing to do with that; then the machine has no memory left.
    leaf.note_start();
    assert_eq!(leaf.out_of_memory(), None);
    fs::write(fake.child(0).join("memory.events"), "low 0\noom 0\noom_kill 3\n").unwrap();
    let report = leaf.out_of_memory().unwrap();
    assert_eq!((report.limit, report.peak, report.kills), (None, peak, 1));

    // A slot without a limit is counted all the same.
    let fake = FakeV2::new();
    let leaf = fake.leaf(&PlacementSpec::default()).unwrap();
    assert!(!fake.slot().join("memory.max").exists());
    fs::write(fake.child(0).join("memory.events"), "low 0\noom 0\noom_kill 1\n").unwrap();
    let report = leaf.out_of_memory().unwrap();
    assert_eq!((report.limit, report.peak, report.kills), (None, peak, 1));
}

pub(crate) async fn what_version_two_gives_otherwise_is_an_error() {
    // CPU 8 is offline.
    let fake = FakeV2::new();
    fs::write(fake.slot().join("cpuset.cpus.effective"), "0-3\n").unwrap();
    let error = fake.leaf(&everything()).unwrap_err();
    assert_eq!(error.kind(), PlacementErrorKind::Differs);
    assert!(error.to_string().contains("cpuset.cpus.effective, wanted: 0-3,8, got: 0-3"), "{error}");

    let mut heavy = everything();
    heavy.cpu_weight = Some(0);
    assert_eq!(FakeV2::new().leaf(&heavy).unwrap_err().kind(), PlacementErrorKind::Settings);

    // Without the controller nobody can limit memory, but CPUs are bound by affinity.
    let fake = FakeV2::new();
    fs::write(fake.root.path().join("cgroup.controllers"), "cpu io\n").unwrap();
    let tree = CgroupTree::detect(fake.root.path(), "0::/\n");
    assert_eq!(tree.with(Controller::Cpuset), None);
    let error = Groups::new(tree, NAME, "/proc").leaf("c2", &everything()).unwrap_err();
    assert_eq!(error.kind(), PlacementErrorKind::Missing);
    assert!(error.hint().unwrap().contains("controller `memory`"), "{:?}", error.hint());

    // What root hands over.
    let fake = FakeV2::new();
    fake.populate(&fake.root.path().join(NAME).join("damocles-daemon"));
    let me = nix::unistd::geteuid().to_string();
    let done = set_up(fake.groups.tree(), NAME, &me, Some(4711)).unwrap();
    let inner = fake.root.path().join(NAME).join("damocles-daemon");
    assert_eq!(done.start_in.as_deref(), Some(inner.as_path()));
    assert_eq!(text(inner.join("cgroup.procs")), "4711");
    assert_eq!(text(fake.root.path().join(NAME).join("cgroup.subtree_control")), "+cpuset +memory +cpu");
}
