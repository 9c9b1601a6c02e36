//! The end of what a child started, however far it has run.

use crate::world::{Name, ROOT, isolation, only, pool, run, runs, slot, wait_until};
use damocles_core::{
    Context, JobId,
    pool::{Job, Needs, PoolErrorKind, ProcessorPool, TaskKind},
};
use damocles_seal::{
    placement::{CgroupTree, Groups, IsolationSpec},
    pool::PlacementSpec,
};
use serde_json::{Value, json};
use std::{
    env::current_exe,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

/// Both processes of a child that hangs and has daemonised another.
fn two(said: &Value) -> [u64; 2] {
    ["me", "left"].map(|who| said[who].as_u64().unwrap())
}

/// A daemonised grandchild ends with its child: when that dies, and when its job is cancelled.
async fn nothing_is_left(isolation: IsolationSpec, name: &Name) {
    let pool = pool(isolation, vec![slot("c2")]);
    let pids = two(&run(&pool, "daemonise", json!(0)).await.unwrap());
    assert!(pids.into_iter().all(runs));
    assert_eq!(run(&pool, "die", json!(0)).await.unwrap_err().kind(), PoolErrorKind::Crashed);
    assert_eq!(pids.map(runs), [false, false], "when a job has ended nothing of it is left");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let cx = Context::detached();
    let job = Job {
        id: JobId(2),
        kind: TaskKind::new("hang"),
        sector: None,
        payload: json!(file).to_string().into(),
        needs: Needs::default(),
    };
    let cancel = async {
        while fs::read_to_string(&file).is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        wait_until("the whole text", || fs::read_to_string(&file).unwrap().ends_with('}'));
        cx.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(pool.run(job, &cx), cancel);
    assert_eq!(ended.unwrap_err().kind(), PoolErrorKind::Cancelled);
    let pids = two(&serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap());
    assert_eq!(pids.map(runs), [false, false]);
    pool.drain().await.unwrap();
    assert_eq!(name.leaves(), Vec::<PathBuf>::new());
}

pub(crate) async fn a_frozen_group_is_killed_and_thawed() {
    let Some(root) = only(&["freezer", "cpuset"]) else { return };
    let name = Name::new();
    nothing_is_left(isolation(Some(root.path()), &name), &name).await;
}

pub(crate) async fn version_two_kills_a_group_at_once() {
    let Some(root) = only(&["unified"]) else { return };
    let name = Name::new();
    nothing_is_left(isolation(Some(root.path()), &name), &name).await;
}

/// A group that is frozen from outside is ended all the same, as on kernels whose only way is to freeze and kill.
pub(crate) async fn a_frozen_group_of_version_two_is_ended() {
    let Some(root) = only(&["unified"]) else { return };
    let name = Name::new();
    let groups = Groups::new(CgroupTree::detect(root.path(), "0::/\n"), &name.0, "/proc");
    let leaf = groups.leaf("c2", &PlacementSpec::default()).unwrap();
    let mut child = joined(&leaf.join_files());
    fs::write(leaf.dirs().next().unwrap().1.join("cgroup.freeze"), "1").unwrap();
    leaf.end().unwrap();
    assert!(!child.wait().unwrap().success());
    drop(leaf);
    assert_eq!(name.leaves(), Vec::<PathBuf>::new());
}

fn joined(files: &[PathBuf]) -> Child {
    let join: String = files.iter().map(|file| format!("echo 0 > {}; ", file.display())).collect();
    let script = format!("{join} echo in; exec sleep 1000");
    let mut child =
        Command::new("sh").args(["-ec", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "in\n");
    child
}

pub(crate) async fn without_groups_a_daemonised_grandchild_is_found() {
    let name = Name::new();
    nothing_is_left(isolation(None, &name), &name).await;
    assert!(name.dirs().is_empty());
}

/// A program with a pool whose child hangs.
pub(crate) fn parent(args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut spec = IsolationSpec::default();
    spec.cgroup_root = (!args[0].is_empty()).then(|| args[0].clone().into());
    spec.name.clone_from(&args[1]);
    let pool = pool(spec, vec![slot("c2")]);
    let ended = runtime.block_on(run(&pool, "hang", json!(args[2])));
    panic!("{ended:?}");
}

pub(crate) async fn killing_the_parent_ends_the_group_and_removes_it() {
    for hierarchies in [&["unified"][..], &["freezer"], &[]] {
        let Some(root) = only(hierarchies) else { continue };
        let name = Name::new();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pids");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let root = if hierarchies.is_empty() { String::new() } else { text(root.path()) };
        let mut parent =
            Command::new(current_exe().unwrap()).args(["parent", &root, &name.0, &text(&file)]).spawn().unwrap();
        wait_until("the child hangs", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('}')));
        parent.kill().unwrap();
        parent.wait().unwrap();
        let pids = two(&serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap());
        wait_until("the end of both", || !pids.into_iter().any(runs));
        wait_until("the groups are removed", || {
            name.dirs().iter().all(|dir| !fs::read_dir(dir).unwrap().any(|e| e.unwrap().path().is_dir()))
        });
    }
}

/// Version 1 lets nobody die who is frozen from above: as little as the kernel does who waits for a disk that is gone.
pub(crate) async fn a_leftover_that_does_not_die_holds_nobody_up() {
    let Some(root) = only(&["freezer"]) else { return };
    let name = Name::new();
    let args = ["owner", root.path().to_str().unwrap(), &name.0];
    let output = Command::new(current_exe().unwrap()).args(args).output().unwrap();
    let left: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    let ours = Path::new(ROOT).join("freezer").join(&name.0);
    let dead = fs::read_dir(ours).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    fs::write(dead.join("freezer.state"), "FROZEN").unwrap();
    wait_until("it is frozen", || fs::read_to_string(dead.join("freezer.state")).unwrap().trim() == "FROZEN");

    let pool = pool(isolation(Some(root.path()), &name), vec![slot("c2")]);
    let works = run(&pool, "busy", json!(0));
    tokio::time::timeout(std::time::Duration::from_secs(30), works).await.expect("it waits for nobody").unwrap();
    assert!(runs(left), "it cannot die");
    fs::write(dead.join("freezer.state"), "THAWED").unwrap();
    wait_until("the end of what was left", || !runs(left));
    wait_until("its groups are removed", || !dead.exists());
}

/// A process that dies with a group in which somebody runs.
pub(crate) fn owner(args: &[String]) -> ExitCode {
    let groups = Groups::new(CgroupTree::detect(Path::new(&args[0]), "0::/\n"), &args[1], "/proc");
    let leaf = groups.leaf("c2", &PlacementSpec::default()).unwrap();
    println!("{}", joined(&leaf.join_files()).id());
    std::process::abort()
}

pub(crate) async fn groups_of_a_dead_owner_are_cleaned_and_no_others() {
    for hierarchy in ["unified", "freezer"] {
        let Some(root) = only(&[hierarchy]) else { continue };
        let name = Name::new();
        let args = ["owner", root.path().to_str().unwrap(), &name.0];
        let output = Command::new(current_exe().unwrap()).args(args).output().unwrap();
        let left: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        assert!(runs(left));
        let tree = CgroupTree::detect(root.path(), "0::/\n");
        let other = Groups::new(tree.clone(), &name.0, "/proc");
        let leaf = other.leaf("c2", &PlacementSpec::default()).unwrap();
        let mut living = joined(&leaf.join_files());
        let stranger = Path::new(ROOT).join(hierarchy).join(&name.0).join("not-ours");
        fs::create_dir(&stranger).unwrap();

        assert_eq!(Groups::new(tree, &name.0, "/proc").clean_leftovers().unwrap(), 1);
        wait_until("the end of what was left", || !runs(left));
        assert_eq!(name.leaves().len(), 1);
        assert!(stranger.exists() && runs(living.id().into()));
        living.kill().unwrap();
        living.wait().unwrap();
    }
}
