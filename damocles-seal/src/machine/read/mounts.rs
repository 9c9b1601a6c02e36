//! The kernel's list of mounts, `/proc/self/mountinfo`, see proc_pid_mountinfo(5).

use super::{Roots, files::Files};
use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// One line of the list.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) device: String,
    /// What of the file system is mounted.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) fs_type: String,
    pub(super) source: String,
    pub(super) read_only: bool,
    /// The options of the file system itself.
    pub(super) options: Vec<String>,
}

pub(super) fn table(roots: &Roots, files: &mut Files) -> Vec<Line> {
    let path = roots.proc.join("self/mountinfo");
    let text = files.text(&path).unwrap_or_default();
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match parse(line) {
            Some(line) => lines.push(line),
            None => files.odd(&path, line),
        }
    }
    lines
}

fn parse(line: &str) -> Option<Line> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let (device, root, point, flags) = (mount.next()?, mount.next()?, mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (fs_type, source) = (file_system.next()?, file_system.next()?);
    let options: Vec<String> = file_system.next().unwrap_or_default().split(',').map(str::to_owned).collect();
    let point = PathBuf::from(unescaped(point));
    if !point.is_absolute() || !device.contains(':') {
        return None;
    }
    Some(Line {
        device: device.to_owned(),
        root: unescaped(root).into(),
        point,
        fs_type: fs_type.to_owned(),
        source: unescaped(source).to_string_lossy().into_owned(),
        read_only: flags.split(',').chain(options.iter().map(String::as_str)).any(|option| option == "ro"),
        options,
    })
}

/// The kernel writes spaces and such as a backslash and three octal digits.
fn unescaped(text: &str) -> OsString {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let byte = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescaped(r"/mnt/a\040b\134c"), r"/mnt/a b\c");
        assert_eq!(unescaped(r"\04"), r"\04");
        assert_eq!(unescaped(r"\999x"), r"\999x");
    }

    #[test]
    fn a_line_is_taken_apart() {
        let line = parse("36 35 98:0 /mnt1 /mnt2 ro,noatime master:1 - ext3 /dev/root rw,errors=continue").unwrap();
        assert_eq!((line.device.as_str(), line.fs_type.as_str()), ("98:0", "ext3"));
        assert_eq!((line.root.to_str(), line.point.to_str()), (Some("/mnt1"), Some("/mnt2")));
        assert!(line.read_only && line.options.contains(&"errors=continue".to_owned()));
        assert!(parse("36 35 98:0 /mnt1 /mnt2 ro").is_none());
        assert!(parse("36 35 98:0 / mnt2 rw - ext3 x rw").is_none());
    }
}
