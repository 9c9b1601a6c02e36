//! Where pieces may lie.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The directories that a manager serves pieces from; whoever reaches it gets no other file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PieceDirs {
    dirs: Vec<PathBuf>,
    home: Option<PathBuf>,
}

impl PieceDirs {
    /// Files below these directories.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { dirs: dirs.into_iter().collect(), home: None }
    }

    /// Files below `pieces` of the manager's own directory, too, and no other file of it, whatever directory was named:
    /// keys lie there.
    #[must_use]
    pub fn of_home(mut self, home: &Path) -> Self {
        self.dirs.push(home.join("pieces"));
        self.home = Some(home.to_owned());
        self
    }

    /// The file that a path leads to, if it may be served.
    ///
    /// # Errors
    ///
    /// It is not there, is no regular file, or lies elsewhere.
    pub fn admit(&self, path: &Path) -> io::Result<PathBuf> {
        let file = std::fs::canonicalize(path)?;
        let refused = |why: &str| {
            let text = format!("`{}` {why}", file.display());
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        };
        if !std::fs::metadata(&file)?.is_file() {
            return Err(refused("is no regular file"));
        }
        let below = |dir: &Path| std::fs::canonicalize(dir).is_ok_and(|dir| file.starts_with(dir));
        if let Some(home) = &self.home
            && file.starts_with(std::fs::canonicalize(home)?)
            && !below(&home.join("pieces"))
        {
            return Err(refused("is the manager's own"));
        }
        if self.dirs.iter().any(|dir| below(dir)) { Ok(file) } else { Err(refused("is in no directory of pieces")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_regular_files_below_the_directories_are_admitted() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for sub in ["pieces/deep", "pieces-2", "home/pieces", "home/keystore"] {
            fs::create_dir_all(at(sub)).unwrap();
        }
        for file in ["pieces/deep/a", "pieces-2/b", "home/pieces/c", "home/keystore/key", "home/manager.db", "outside"]
        {
            fs::write(at(file), "x").unwrap();
        }
        symlink(at("home/keystore/key"), at("pieces/to-key")).unwrap();
        symlink(at("home"), at("pieces/to-home")).unwrap();
        symlink(at("pieces/deep/a"), at("to-a")).unwrap();
        let dirs = PieceDirs::new([at("pieces")]).of_home(&at("home"));
        for good in ["pieces/deep/a", "pieces/deep/../deep/a", "home/pieces/c", "to-a"] {
            assert_eq!(dirs.admit(&at(good)).unwrap(), fs::canonicalize(at(good)).unwrap(), "{good}");
        }
        let bad = [
            "pieces-2/b",
            "outside",
            "home/keystore/key",
            "home/manager.db",
            "home/pieces/../keystore/key",
            "pieces/to-key",
            "pieces/to-home/keystore/key",
            "pieces",
            "pieces/missing",
            "/dev/null",
            "/etc/passwd",
        ];
        for bad in bad {
            assert!(dirs.admit(&at(bad)).is_err(), "{bad}");
        }
        let everything = PieceDirs::new([PathBuf::from("/")]).of_home(&at("home"));
        assert!(everything.admit(&at("outside")).is_ok());
        assert!(everything.admit(&at("home/keystore/key")).is_err(), "keys are never served");
        assert!(PieceDirs::default().admit(&at("outside")).is_err(), "nothing is served unless it is named");
    }
}
