//! How the programs end: exit codes, hints, and which stream says what.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what a test is for")]

use std::{
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

fn worker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_damocles-worker"));
    command.args(args).env_remove("DAMOCLES_WORKER_CONFIG").env_remove("DAMOCLES_LOG").env_remove("RUST_LOG");
    command
}

fn ended(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn write_config(dir: &Path, extra: &str) -> String {
    let file = dir.join("worker.toml");
    let (run, store) = (dir.join("run"), dir.join("store"));
    let text = format!(
        "[worker]\nname = \"w\"\nrun_dir = \"{}\"\n{extra}\n[sector_manager]\nrpc_client.addr = \"http://127.0.0.1:1\"\n\
         [[sealing_thread]]\nlocation = \"{}\"\n",
        run.display(),
        store.display()
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn wrong_arguments_are_a_usage_error_and_help_is_data() {
    let (code, out, err) = ended(worker(&["store", "seal-innit"]));
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    let (code, out, err) = ended(worker(&["--help"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("Usage: damocles-worker"));
    let (code, ..) = ended(worker(&["--log", "info,x=nolevel", "store", "file-init", "-l", "/nonexistent"]));
    assert_eq!(code, Some(2));
}

#[test]
fn a_mistake_in_a_file_says_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "ping_intervall = \"3s\"");
    let (code, out, err) = ended(worker(&["list", "-c", &file]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(
        err,
        format!("error: {file}:4:1: unknown key `worker.ping_intervall`\nhint: did you mean `ping_interval`?\n")
    );
    let (code, _, err) = ended(worker(&["list", "-c", "/nonexistent/w.toml"]));
    assert_eq!(code, Some(2));
    assert!(err.contains("  caused by: ") && err.contains("hint: "), "{err}");
}

#[test]
fn a_worker_that_does_not_run_may_be_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_config(dir.path(), "");
    let (code, out, err) = ended(worker(&["list", "-c", &file, "--json"]));
    assert_eq!((code, out.as_str()), (Some(75), ""));
    assert!(err.starts_with("error: nobody answers on ") && err.contains("hint: is the worker"), "{err}");
}

#[test]
fn stores_are_made_once_and_said_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s").display().to_string();
    let (code, out, err) = ended(worker(&["store", "sealing-init", "-l", &store, "--json"]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\"kind\": \"sealing\""), "{out}");
    let (code, out, err) = ended(worker(&["store", "sealing-init", "-l", &store]));
    assert_eq!((code, out.as_str()), (Some(10), ""));
    assert!(err.contains(&store), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("s").display().to_string();
    let mut command = worker(&["store", "sealing-init", "-l", &store]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""));
}

#[test]
fn an_imported_file_is_for_its_owner_and_replaces_none() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (old, new) = (at("old.toml"), at("new.toml"));
    let text = "[sector_manager]\nrpc_client.addr = \"http://m:1\"\npiece_token = \"hunter2\"\n[[sealing_thread]]\nlocation = \"/a\"\n";
    std::fs::write(&old, text).unwrap();
    let (code, out, err) = ended(worker(&["config", "import", &old, "-o", &new, "--json"]));
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("sector_manager.piece_token") && !format!("{out}{err}").contains("hunter2"), "{out}{err}");
    assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&new).unwrap().contains("token = \"hunter2\""));
    std::fs::write(&new, "mine").unwrap();
    let (code, _, err) = ended(worker(&["config", "import", &old, "-o", &new]));
    assert_eq!((code, std::fs::read_to_string(&new).unwrap().as_str()), (Some(2), "mine"), "{err}");
    let (_, out, err) = ended(worker(&["config", "check", &at("old.toml"), "--machine", "none"]));
    assert!(!format!("{out}{err}").contains("hunter2"), "{out}{err}");
}

#[test]
fn a_slot_that_cannot_be_had_is_told_while_the_manager_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store").display().to_string();
    assert_eq!(ended(worker(&["store", "sealing-init", "-l", &store])).0, Some(0));
    let file = write_config(dir.path(), "");
    // A directory of claims below a file.
    let slots = format!(
        "[processors.isolation]\nclaims_dir = \"{file}/claims\"\n[[processors.transfer]]\ncgroup.cpuset = \"0\"\n\
         cgroup.exclusive = true\n"
    );
    let text = std::fs::read_to_string(&file).unwrap() + &slots;
    std::fs::write(&file, text).unwrap();
    let mut limited = Command::new("timeout");
    limited.args(["60", env!("CARGO_BIN_EXE_damocles-worker"), "daemon", "-c", &file]);
    let (code, _, err) = ended(limited);
    assert!(err.contains("claim hardware") && err.contains(&file), "{err}");
    assert!(code.is_some_and(|code| code != 124), "it waited for its manager: {err}");
}
