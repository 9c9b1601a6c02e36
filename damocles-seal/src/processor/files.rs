//! Files that survive a crash.

use super::ProcessorError;
use fs_err as fs;
use std::{
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The name that a file has until it is whole: beside its target, so that the rename is one step.
pub(crate) fn temporary(path: &Path) -> std::path::PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.damocles-tmp"))
}

/// The directory of a file.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

const TEMPORARY: &str = ".damocles-tmp";

/// A file under a name of its own until it is put in place; without that it is removed, or kept to be continued. It is
/// locked while it is written, so that others can tell it from one that was left behind.
struct Temporary {
    file: fs::File,
    stays: bool,
}

impl Temporary {
    fn create(target: &Path) -> io::Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let unique = format!(".{name}.{}-{:016x}{TEMPORARY}", std::process::id(), rand::random::<u64>());
            let path = target.with_file_name(unique);
            let file = match fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            let made = Self { file, stays: false };
            hold(|| made.file.file().lock());
            // It may have been taken for one that was left behind, before it was locked.
            if made.file.metadata()?.nlink() > 0 {
                return Ok(made);
            }
        }
    }

    fn place(mut self, target: &Path) -> io::Result<()> {
        self.file.flush()?;
        self.file.sync_all()?;
        fs::rename(self.file.path(), target)?;
        self.stays = true;
        sync_dir(parent(target))
    }

    /// Opens what an ended process left under this key, or begins it. One that a running process writes is left to it.
    fn continued(target: &Path, key: &str) -> io::Result<Self> {
        let path = target.with_file_name(keyed(target, key));
        loop {
            let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
            // Without locks nobody can tell whether it is being written.
            if file.file().try_lock().is_err() {
                return Self::create(target);
            }
            // Whoever had it until now may have put it in place or removed it.
            let held = file.metadata()?;
            match fs::symlink_metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Self { file, stays: false });
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
}

/// Takes a lock if it can be had: network file systems have none, or lose theirs, and the name is unique all the same.
fn hold(mut lock: impl FnMut() -> io::Result<()>) {
    while lock().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {}
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.stays {
            // The error that is under way says more than a name that stays.
            let _ = fs::remove_file(self.file.path());
        }
    }
}

/// The name of a file that can be continued by whoever comes with the same key, of hexadecimal digits.
fn keyed(target: &Path, key: &str) -> String {
    format!(".{}.{key}{TEMPORARY}", target.file_name().unwrap_or_default().to_string_lossy())
}

/// Removes what ended processes left of copies to this target; what is being written now stays.
pub(crate) fn remove_left(target: &Path) -> io::Result<()> {
    remove_where(target, |_| true)
}

/// The same, but for what can be continued under this key.
pub(crate) fn remove_other_left(target: &Path, key: &str) -> io::Result<()> {
    let keep = target.with_file_name(keyed(target, key));
    remove_where(target, |path| path != keep)
}

fn remove_where(target: &Path, like: impl Fn(&Path) -> bool) -> io::Result<()> {
    for path in left(target)?.into_iter().filter(|path| like(path)) {
        // One that cannot be opened or removed costs its space, and must not cost the copy.
        let Ok(left) = fs::OpenOptions::new().write(true).open(&path) else { continue };
        if left.file().try_lock().is_ok() {
            let _ = remove_if_there(&path);
        }
    }
    Ok(())
}

/// The bytes on the disk of what is there of copies to this target, done or not.
pub(crate) fn bytes_there(target: &Path) -> u64 {
    let unfinished = left(target).unwrap_or_default();
    let of = |path: &Path| fs::symlink_metadata(path).map_or(0, |m| m.blocks().saturating_mul(512));
    unfinished.iter().map(|path| of(path)).fold(of(target), u64::saturating_add)
}

/// The temporary files of copies to this target.
fn left(target: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let start = format!(".{name}.");
    let entries = match fs::read_dir(parent(target)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let middle = file.strip_prefix(&start).and_then(|rest| rest.strip_suffix(TEMPORARY));
        let unnumbered = file == format!(".{name}{TEMPORARY}");
        // A longer target name also starts like this one; only hexadecimal digits come between.
        if unnumbered || middle.is_some_and(|m| !m.is_empty() && m.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
        {
            found.push(path);
        }
    }
    Ok(found)
}

/// Makes the directory of a file, but none above it, and none of a persist store's own: without its disk, a store is an
/// empty directory that must not be filled.
pub(crate) fn make_parent(path: &Path) -> io::Result<()> {
    let dir = parent(path);
    if dir.file_name().is_some_and(|name| name == "sealed" || name == "cache") {
        return fs::metadata(dir).map(drop);
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        // Its name is to be as durable as those in it.
        Ok(()) => sync_dir(parent(dir)),
        // It may have been made just before a crash.
        Err(_) if parent(dir).file_name().is_some_and(|name| name == "cache") => sync_dir(parent(dir)),
        Err(_) => Ok(()),
    }
}

/// Writes a file under a temporary name, syncs it, and puts it in place; makes its directory if need be, but none
/// above that.
pub(crate) fn replace<T>(path: &Path, write: impl FnOnce(&mut fs::File) -> io::Result<T>) -> io::Result<T> {
    make_parent(path)?;
    let mut temporary = Temporary::create(path)?;
    let written = write(&mut temporary.file)?;
    temporary.place(path)?;
    Ok(written)
}

/// Writes a file like [`replace`], but continues what an ended process left under the same key: `write` is given what is
/// there, from its start, and decides what of it is good. What it wrote before it failed stays for the next try, unless
/// it failed for want of space.
pub(crate) fn resume<T>(path: &Path, key: &str, write: impl FnOnce(&mut fs::File) -> io::Result<T>) -> io::Result<T> {
    make_parent(path)?;
    let mut temporary = Temporary::continued(path, key)?;
    let mine = path.with_file_name(keyed(path, key)) == temporary.file.path();
    let written = write(&mut temporary.file).inspect_err(|error| {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        temporary.stays = mine && !full;
    })?;
    temporary.place(path)?;
    Ok(written)
}

/// Syncs a directory: the names in it.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Syncs a file and its name.
pub(crate) fn sync_file(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()?;
    sync_dir(parent(path))
}

/// Syncs the files in a directory and their names, and gives these, sorted.
pub(crate) fn sync_files_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if fs::metadata(&path)?.is_file() {
            fs::File::open(&path)?.sync_all()?;
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    sync_dir(dir)?;
    names.sort_unstable();
    Ok(names)
}

/// Makes a directory if need be, and removes what is in it but for the names that `keep` likes.
pub(crate) fn clear_dir(dir: &Path, keep: impl Fn(&str) -> bool) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| keep(&name.to_string_lossy())) {
            continue;
        }
        if fs::symlink_metadata(&path)?.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}

/// Removes a file if it is there.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Checks that a file is there and has this length.
pub(crate) fn expect_len(what: &str, path: &Path, len: u64) -> Result<(), ProcessorError> {
    let found = fs::metadata(path).map_err(|e| ProcessorError::new(format!("look at the {what}"), e))?;
    if found.is_file() && found.len() == len {
        return Ok(());
    }
    let (path, found) = (path.display(), found.len());
    Err(ProcessorError::because(format!("the {what} {path} has {found} bytes, not {len}")))
}

#[cfg(all(test, feature = "proofs"))]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("file");
        replace(&path, |file| file.write_all(b"one")).unwrap();
        let failed = replace(&path, |file| {
            file.write_all(b"tw")?;
            Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull))
        });
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "its half is removed");
        replace(&path, |file| file.write_all(b"three")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(sync_files_in(path.parent().unwrap()).unwrap(), ["file"]);
    }

    #[test]
    fn directories_of_a_store_that_is_not_there_are_not_made() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["sealed/s-t01000-7", "cache/s-t01000-7/p_aux", "a/b/c"] {
            let error = replace(&dir.path().join(path), |file| file.write_all(b"one")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{path}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::create_dir(dir.path().join("cache")).unwrap();
        replace(&dir.path().join("cache/s-t01000-7/p_aux"), |file| file.write_all(b"one")).unwrap();
    }

    #[test]
    fn two_writers_do_not_share_a_file_and_only_what_is_left_behind_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let left = [".file.damocles-tmp", ".file.1-00ff.damocles-tmp"];
        let others = [".file2.1-00ff.damocles-tmp", ".file.dat.1-00ff.damocles-tmp", "file.1-00ff.damocles-tmp"];
        for name in left.iter().chain(&others) {
            fs::write(dir.path().join(name), "left").unwrap();
        }
        replace(&path, |slow| {
            slow.write_all(b"slow")?;
            remove_left(&path)?;
            replace(&path, |fast| fast.write_all(b"a fast one"))?;
            assert_eq!(fs::read(&path)?, b"a fast one");
            slow.write_all(b"er")
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"slower");
        let mut expected = vec!["file"];
        expected.extend(others);
        expected.sort_unstable();
        assert_eq!(sync_files_in(dir.path()).unwrap(), expected);
    }

    #[test]
    fn what_was_begun_is_continued_unless_space_ran_out_or_somebody_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let begin = |kind: io::ErrorKind| {
            let failed = resume(&path, "00ff", |file| {
                file.write_all(b"begun")?;
                Err::<(), _>(io::Error::from(kind))
            });
            assert_eq!(failed.unwrap_err().kind(), kind);
            fs::read_dir(dir.path()).unwrap().count()
        };
        assert_eq!(begin(io::ErrorKind::StorageFull), 0);
        assert_eq!(begin(io::ErrorKind::TimedOut), 1);
        assert!(bytes_there(&path) > 0);
        let text = |file: &mut fs::File| io::read_to_string(file);
        resume(&path, "00fe", |file| {
            assert_eq!(text(file)?, "", "another key is another copy");
            // Meanwhile somebody else comes with the same: it is not shared.
            resume(&path, "00fe", |second| second.write_all(b"second"))
        })
        .unwrap();
        fs::remove_file(&path).unwrap();
        resume(&path, "00ff", |file| {
            assert_eq!(text(file)?, "begun");
            file.write_all(b" and done")
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"begun and done");
        assert_eq!(sync_files_in(dir.path()).unwrap(), ["file"]);
    }

    #[test]
    fn a_file_system_without_locks_is_written_to() {
        let path = tempfile::tempdir().unwrap().keep().join("file");
        // What NFS says whose lock daemon is not there, and a signal in between.
        let mut answers = vec![Err(nix::errno::Errno::ENOLCK), Err(nix::errno::Errno::EINTR)];
        hold(|| answers.pop().unwrap_or(Ok(())).map_err(io::Error::from));
        assert_eq!(answers.len(), 0, "it tries again after a signal, and not after a refusal");
        let name = path.with_file_name(".file.1-00ff.damocles-tmp");
        fs::create_dir_all(&name).unwrap();
        remove_left(&path).unwrap();
        replace(&path, |file| file.write_all(b"one")).unwrap();
        assert!(name.is_dir(), "what cannot be opened is left alone");
        fs::remove_dir_all(parent(&path)).unwrap();
    }

    #[test]
    fn clearing_keeps_what_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir_all(dir.path().join("c").join("d")).unwrap();
        clear_dir(dir.path(), |name| name == "b").unwrap();
        assert_eq!(sync_files_in(dir.path()).unwrap(), ["b"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        expect_len("thing", &dir.path().join("b"), 1).unwrap();
        let error = expect_len("thing", &dir.path().join("b"), 2).unwrap_err().to_string();
        assert!(error.ends_with("/b has 1 bytes, not 2"), "{error}");
    }
}
