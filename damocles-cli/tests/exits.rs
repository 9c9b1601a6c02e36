//! How the programs end: exit codes, hints, and which stream says what.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test, which is what a test is for")]

use std::{
    io::Read as _,
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
