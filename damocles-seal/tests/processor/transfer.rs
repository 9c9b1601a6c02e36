//! Copies.

use crate::sector::{contents, run, text};
use damocles_seal::task::{CopyFile, Transfer};
use sha2::{Digest, Sha256};
use std::{fs, os::unix::fs::symlink};

#[test]
fn copies_are_whole_hashed_and_repeatable() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (from, to) = (dir.path().join("from"), dir.path().join("new").join("deep").join("to"));
    fs::write(&from, &bytes).unwrap();
    fs::create_dir(dir.path().join("new")).unwrap();
    let task = Transfer { files: vec![CopyFile { from: from.clone(), to: to.clone() }] };
    for left in [None, Some("a half-written copy")] {
        if let Some(left) = left {
            fs::write(&to, left).unwrap();
            fs::write(to.with_file_name(".to.damocles-tmp"), left).unwrap();
            fs::write(to.with_file_name(".to.17-00ff00ff00ff00ff.damocles-tmp"), left).unwrap();
        }
        let copied = run(&task).unwrap().files.remove(0);
        assert_eq!(copied.path, to);
        assert_eq!(copied.len, 3_000_000);
        assert_eq!(copied.sha256, hex::encode(Sha256::digest(&bytes)));
        assert_eq!(contents(to.parent().unwrap()), [("to".to_owned(), bytes.clone())].into());
    }
    assert_eq!(fs::read(&from).unwrap(), bytes);
}

#[test]
fn nothing_is_touched_when_one_file_cannot_be_copied() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("a"), "a").unwrap();
    symlink(path("a"), path("link")).unwrap();
    fs::hard_link(path("a"), path("hard")).unwrap();
    let good = CopyFile { from: path("a"), to: path("copy") };
    for (from, to, expected) in [
        ("a", "a", "is its own source"),
        ("link", "a", "is its own source"),
        ("a", "hard", "is its own source"),
        ("missing", "b", "missing"),
        (".", "b", "is not a file"),
    ] {
        let bad = CopyFile { from: path(from), to: path(to) };
        let error = text(&run(&Transfer { files: vec![good.clone(), bad] }).unwrap_err());
        assert!(error.contains(expected), "{from} to {to}: {error}");
        assert!(!path("copy").exists());
    }
    assert_eq!(fs::read(path("a")).unwrap(), b"a");
}

#[test]
fn nothing_is_made_where_a_store_was() {
    let dir = tempfile::tempdir().unwrap();
    let (from, mount) = (dir.path().join("from"), dir.path().join("mount"));
    fs::write(&from, "replica").unwrap();
    fs::create_dir(&mount).unwrap();
    for to in ["sealed/s-t01000-1", "cache/s-t01000-1/p_aux"] {
        let task = Transfer { files: vec![CopyFile { from: from.clone(), to: mount.join(to) }] };
        let error = text(&run(&task).unwrap_err());
        assert!(error.contains(to), "{error}");
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
    }
}
