//! Groups for a user without privileges.

use crate::world::{Name, isolation, only, pool, run, slot, threads};
use damocles_core::ByteSize;
use damocles_seal::placement::{CgroupTree, Hierarchy, set_up};
use serde_json::json;
use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode},
};

const HIERARCHIES: [&str; 3] = ["cpuset", "memory", "freezer"];

/// The same as an ordinary user: a bound child, its CPUs and its group.
pub(crate) fn user(args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let name = Name(args[1].clone());
    let mut slot = slot("pc1");
    slot.placement.cpus = Some("0".parse().unwrap());
    slot.placement.memory = Some(ByteSize(1 << 30));
    let ended = runtime.block_on(async {
        let pool = pool(isolation(Some(Path::new(&args[0])), &name), vec![slot]);
        let pid = run(&pool, "busy", json!(1)).await?.as_u64().unwrap();
        println!("{:?}", threads(pid, "Cpus_allowed_list:"));
        println!("{}", fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap());
        Ok::<_, damocles_core::pool::PoolError>(())
    });
    // The root of this test removes it.
    std::mem::forget(name);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{} / {}", error.chain(), error.hint().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

pub(crate) async fn an_ordinary_user_gets_what_was_set_up_for_it() {
    let Some(root) = only(&HIERARCHIES) else { return };
    if nix::unistd::geteuid().as_raw() != 0 {
        println!("SKIPPED: only root sets up groups");
        return;
    }
    fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where anybody may read it.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let name = Name::new();
    let as_user = || {
        let args = ["user", root.path().to_str().unwrap(), &name.0];
        let output = Command::new(&program).args(args).current_dir("/").uid(65534).gid(65534).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (ok, text) = as_user();
    assert!(!ok && text.contains("damocles-worker cgroup setup --user"), "{text}");

    let tree = CgroupTree::detect(root.path(), "0::/\n");
    for _ in 0..2 {
        let done = set_up(&tree, &name.0, "65534", None).unwrap();
        assert_eq!(done.dirs.len(), HIERARCHIES.len());
        assert!(done.dirs.iter().all(|dir| dir.hierarchy != Hierarchy::V2));
        assert_eq!(done.start_in, None, "version 1 lets a user move its own processes from anywhere");
    }
    let (ok, text) = as_user();
    assert!(ok, "{text}");
    assert!(text.lines().next().unwrap().replace("\"0\"", "").trim_matches(['[', ']', ',', ' ']).is_empty(), "{text}");
    for hierarchy in HIERARCHIES {
        assert!(text.contains(&format!(":{hierarchy}:/{}/owner-", name.0)), "{text}");
    }
    assert!(set_up(&tree, &name.0, "nobody-of-that-name", None).is_err());
}
