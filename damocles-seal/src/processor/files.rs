//! Files that survive a crash.

use super::ProcessorError;
use fs_err as fs;
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The name that a file has until it is whole: beside its target, so that the rename is one step.
pub(crate) fn temporary(path: &Path) -> PathBuf {
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

/// Writes a file under a temporary name, syncs it, and puts it in place; makes its directory if need be.
pub(crate) fn replace<T>(path: &Path, write: impl FnOnce(&mut fs::File) -> io::Result<T>) -> io::Result<T> {
    fs::create_dir_all(parent(path))?;
    let temporary = temporary(path);
    let mut file = fs::File::create(&temporary)?;
    let written = write(&mut file)?;
    file.flush()?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    sync_dir(parent(path))?;
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

#[cfg(test)]
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
        replace(&path, |file| file.write_all(b"three")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(sync_files_in(path.parent().unwrap()).unwrap(), ["file"]);
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
