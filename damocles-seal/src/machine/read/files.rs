//! Small files of the kernel, and what is wrong with them.

use crate::machine::{Problem, cpu_set};
use damocles_core::CpuSet;
use std::{
    fmt::Display,
    io::{self, Read as _},
    path::Path,
    str::FromStr,
};

/// More than any of these files has; what is longer is none of them.
const LONGEST: u64 = 16 << 20;

/// Reads files and remembers what was wrong with them.
#[derive(Debug, Default)]
pub(super) struct Files {
    problems: Vec<Problem>,
}

impl Files {
    /// Remembers a problem.
    pub(super) fn problem(&mut self, path: &Path, what: impl Display) {
        self.problems.push(Problem { path: path.to_owned(), what: what.to_string() });
    }

    /// All problems, each once.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        self.problems
    }

    /// The text of a file; `None` if it is not there, and a problem if it cannot be read. Bytes that are no UTF-8 are replaced.
    pub(super) fn text(&mut self, path: &Path) -> Option<String> {
        match read(path) {
            Ok(text) => text,
            Err(e) => {
                self.problem(path, e);
                None
            }
        }
    }

    /// The first line of a file, without spaces around it; `None` if that is empty.
    pub(super) fn line(&mut self, path: &Path) -> Option<String> {
        let text = self.text(path)?;
        text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
    }

    /// The value that a file consists of; a problem if it is there and is none.
    pub(super) fn value<T: FromStr>(&mut self, path: &Path) -> Option<T> {
        let line = self.line(path)?;
        let value = line.parse().ok();
        if value.is_none() {
            self.odd(path, &line);
        }
        value
    }

    /// The CPUs or nodes that a file lists. An empty list is no problem: it is how the kernel says none.
    pub(super) fn list(&mut self, path: &Path) -> Option<CpuSet> {
        let line = self.line(path)?;
        let list: Option<CpuSet> = line.parse().ok();
        if list.is_none() {
            self.odd(path, &line);
        }
        list
    }

    /// Remembers that a file says something odd.
    pub(super) fn odd(&mut self, path: &Path, said: &str) {
        let short: String = said.chars().take(60).collect();
        self.problem(path, format_args!("says {short:?}, which is not understood"));
    }

    /// The names in a directory, sorted; none if it is not there.
    pub(super) fn names(&mut self, dir: &Path) -> Vec<String> {
        let entries = match fs_err::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if is_absent(&e) => return Vec::new(),
            Err(e) => {
                self.problem(dir, e.kind());
                return Vec::new();
            }
        };
        // A name that is no UTF-8 is none of the kernel's.
        let mut names: Vec<String> = entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The entries of a directory that are named `prefix` and a number, by number.
    pub(super) fn numbered(&mut self, dir: &Path, prefix: &str) -> Vec<u16> {
        let mut numbers: Vec<u16> =
            self.names(dir).iter().filter_map(|name| name.strip_prefix(prefix)?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }
}

fn is_absent(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn read(path: &Path) -> Result<Option<String>, String> {
    let file = match std::fs::metadata(path) {
        // A pipe would be waited for, a device might do anything.
        Ok(meta) if !meta.is_file() => return Err("is no file".to_owned()),
        Ok(_) => std::fs::File::open(path),
        Err(e) => Err(e),
    };
    let file = match file {
        Ok(file) => file,
        Err(e) if is_absent(&e) => return Ok(None),
        Err(e) => return Err(e.kind().to_string()),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).map_err(|e| e.kind().to_string())?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Those of `cpus` that are among `of`.
pub(super) fn among(cpus: &CpuSet, of: &[u16]) -> Option<CpuSet> {
    cpu_set(cpus.iter().filter(|cpu| of.contains(cpu)))
}
