//! Copies.

use crate::sector::{contents, run, text};
use damocles_seal::task::{CopyFile, Transfer};
use sha2::{Digest, Sha256};
use std::{
    fs,
    num::NonZeroU64,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const MIB: usize = 1 << 20;
const DIR: &str = "DAMOCLES_TEST_COPY_IN";

fn task_in(dir: &Path) -> Transfer {
    Transfer { files: vec![CopyFile { from: dir.join("from"), to: dir.join("to") }], bytes_per_second: None }
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

#[test]
#[ignore = "a process that `a_copy_that_was_killed_is_continued` starts and kills"]
#[expect(clippy::disallowed_methods, reason = "it is told where by its parent")]
fn copies_slowly() {
    let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
    run(&Transfer { bytes_per_second: NonZeroU64::new(8 << 20), ..task_in(&dir) }).unwrap();
}

#[test]
fn a_copy_that_was_killed_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let task = task_in(dir.path());
    let CopyFile { from, to } = &task.files[0];
    let bytes = noise(12 * MIB + 4_321);
    fs::write(from, &bytes).unwrap();
    let unfinished = || {
        let names = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
        names.filter(|p| p.to_string_lossy().ends_with(".damocles-tmp")).collect::<Vec<_>>()
    };
    for blocks in [1, 4, 9] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["transfer::copies_slowly", "--exact", "--ignored"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while unfinished().first().is_none_or(|p| fs::metadata(p).is_ok_and(|m| m.len() < (blocks * MIB) as u64)) {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // While it runs, its file is left to it.
        if blocks == 1 {
            run(&task).unwrap();
            assert_eq!(unfinished().len(), 1);
            fs::remove_file(to).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = fs::metadata(&unfinished()[0]).unwrap();
        assert!(!to.exists() && left.len() < bytes.len() as u64, "{}", left.len());
        let copied = run(&task).unwrap().files.remove(0);
        assert_eq!(copied.sha256, hex::encode(Sha256::digest(&bytes)));
        assert_eq!(fs::metadata(to).unwrap().ino(), left.ino(), "it is the same file, continued");
        assert_eq!(fs::read(to).unwrap(), bytes);
        assert!(unfinished().is_empty());
        fs::remove_file(to).unwrap();
    }
}

/// A small file system of its own, where this process may mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if mounted.as_ref().is_ok_and(|m| m.status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: no file system can be mounted here: {mounted:?}");
        None
    }

    fn make_read_only(&self) {
        let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(self.0.path()).status().unwrap();
        assert!(remounted.success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|s| s.success()) || std::thread::panicking());
    }
}

#[test]
fn another_file_system_is_copied_to_until_it_is_full_or_read_only() {
    let Some(disk) = Tmpfs::mount(4) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), disk.0.path().join("to"));
    let task = Transfer { files: vec![CopyFile { from: from.clone(), to: to.clone() }], bytes_per_second: None };
    let bytes = noise(3 * MIB + 7);
    fs::write(&from, &bytes).unwrap();
    let copied = run(&task).unwrap().files.remove(0);
    assert_eq!(copied.sha256, hex::encode(Sha256::digest(&bytes)));
    assert_eq!(fs::read(&to).unwrap(), bytes);
    fs::remove_file(&to).unwrap();

    fs::write(&from, noise(5 * MIB)).unwrap();
    let error = run(&task).unwrap_err();
    assert_eq!(error.kind, damocles_core::pool::PoolErrorKind::DiskFull, "{}", text(&error));
    assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 0, "it takes no space from others");

    fs::write(&from, &bytes).unwrap();
    disk.make_read_only();
    let error = text(&run(&task).unwrap_err());
    assert!(error.contains("Read-only") && error.contains("to"), "{error}");
}

#[test]
fn copies_are_whole_hashed_and_repeatable() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (from, to) = (dir.path().join("from"), dir.path().join("new").join("deep").join("to"));
    fs::write(&from, &bytes).unwrap();
    fs::create_dir(dir.path().join("new")).unwrap();
    let task = Transfer { files: vec![CopyFile { from: from.clone(), to: to.clone() }], bytes_per_second: None };
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
        let error = text(&run(&Transfer { files: vec![good.clone(), bad], bytes_per_second: None }).unwrap_err());
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
        let task =
            Transfer { files: vec![CopyFile { from: from.clone(), to: mount.join(to) }], bytes_per_second: None };
        let error = text(&run(&task).unwrap_err());
        assert!(error.contains(to), "{error}");
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
    }
}
