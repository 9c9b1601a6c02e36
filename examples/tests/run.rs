//! Every example, run as its reader would run it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// The lines that the program wrote, if it succeeded.
fn run(program: &str, args: &[&str]) -> Vec<String> {
    let Output { status, stdout, stderr } = Command::new(program).args(args).output().expect("it was built");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} ends with {status}\n{stdout}\n{stderr}");
    stdout.lines().map(ToOwned::to_owned).collect()
}

/// What follows the label on each of its lines.
fn told<'a>(lines: &'a [String], label: &str) -> Vec<&'a str> {
    let told =
        |line: &'a String| line.split_once(' ').filter(|(first, _)| *first == label).map(|(_, rest)| rest.trim());
    lines.iter().filter_map(told).collect()
}

const BEFORE: [&str; 6] = ["pieces", "add_pieces", "tree_d", "ticket", "pc1", "pc2"];
const AFTER: [&str; 9] = [
    "pre_commit",
    "pre_commit_landed",
    "persist",
    "seed",
    "c1",
    "c2",
    "prove_commit",
    "prove_commit_landed",
    "clean_up",
];

#[test]
fn embed_sealing_seals_a_sector() {
    let dir = tempfile::tempdir().unwrap();
    let lines = run(env!("CARGO_BIN_EXE_embed-sealing"), &["--dir", dir.path().to_str().unwrap()]);
    assert_eq!(told(&lines, "done"), [&BEFORE[..], &AFTER].concat());
    assert_eq!(told(&lines, "sector"), ["s-t01000-1"]);
    assert!(told(&lines, "comm_r")[0].starts_with("bagboea4b5abc"), "{lines:?}");
    assert_eq!(told(&lines, "proof"), ["192 bytes"]);
    let replica = Path::new(told(&lines, "replica")[0]);
    assert!(replica.starts_with(dir.path()));
    assert_eq!(fs::metadata(replica).unwrap().len(), 2048);
    assert!(dir.path().join("persist/cache/s-t01000-1/p_aux").is_file(), "what PoSt reads is beside it");
    let layers = dir.path().join("sealing/data/cache/s-t01000-1");
    assert!(!layers.exists(), "nothing is left in the sealing store");
}

#[test]
fn custom_stage_is_one_of_the_plan_and_may_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let lines = run(env!("CARGO_BIN_EXE_custom-stage"), &["--dir", dir.path().to_str().unwrap()]);
    assert_eq!(told(&lines, "done"), [&BEFORE[..], &["archive"], &AFTER].concat());
    let sha256 = told(&lines, "sha256")[0];
    assert!(told(&lines, "lost")[0].contains(sha256), "the run that was lost did the same: {lines:?}");
    let archived = fs::read(told(&lines, "archived")[0]).unwrap();
    assert_eq!(archived, fs::read(dir.path().join("persist/sealed/s-t01000-1")).unwrap());
    assert_eq!(fs::read_dir(dir.path().join("archive")).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn custom_processor_proves_in_another_process() {
    let lines = run(env!("CARGO_BIN_EXE_custom-processor"), &[]);
    let events = told(&lines, "event");
    assert!(events.iter().any(|event| event.starts_with("Started")), "{lines:?}");
    assert!(events.iter().any(|event| event.starts_with("Progress")), "{lines:?}");
    assert_eq!(events.iter().filter(|event| event.starts_with("Ended")).count(), 2, "{lines:?}");
    let proven = told(&lines, "proven")[0];
    let (child, parent) = proven.split_once(" in process ").unwrap().1.split_once("; this one is ").unwrap();
    assert_ne!(child, parent);
    assert!(told(&lines, "refused")[0].contains("99 zero bits would take years"), "{lines:?}");
}

#[test]
fn each_example_is_read_in_a_minute() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin");
    let mut programs = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 100, "{} has {lines} lines", path.display());
        programs.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    programs.sort();
    assert_eq!(programs, ["custom-processor", "custom-stage", "embed-sealing"]);
}
