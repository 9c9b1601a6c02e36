//! The directory of claims, and who may write to it.

use super::ClaimError;
use nix::unistd::{getegid, geteuid, getgroups};
use std::{
    fs::{DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::Path,
};

/// Makes the directory if it is missing, and makes sure that no stranger can write to it.
pub(super) fn prepare(dir: &Path) -> Result<(), ClaimError> {
    let failed = |source| ClaimError::Io { path: dir.to_owned(), source };
    make_dir(dir).map_err(failed)?;
    let found = fs_err::symlink_metadata(dir).map_err(failed)?;
    match fault(&found, geteuid().as_raw(), &own_groups()) {
        None => Ok(()),
        Some(why) => Err(ClaimError::Unsafe { dir: dir.to_owned(), why }),
    }
}

/// Makes the directory for this user alone. What lies above it is made as usual.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if let Some(above) = dir.parent() {
        fs_err::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(io::Error::new(e.kind(), format!("make directory `{}`: {e}", dir.display()))),
        made => made,
    }
}

fn own_groups() -> Vec<u32> {
    let others = getgroups().unwrap_or_default();
    others.into_iter().chain([getegid()]).map(nix::unistd::Gid::as_raw).collect()
}

/// What is wrong with a directory for a process of this user and these groups.
fn fault(found: &Metadata, user: u32, groups: &[u32]) -> Option<String> {
    if !found.is_dir() {
        return Some("is a link or a file".to_owned());
    }
    let (owner, group, mode) = (found.uid(), found.gid(), found.mode());
    if owner != 0 && owner != user {
        Some(format!("belongs to user {owner}, neither to root nor to this program's user {user}"))
    } else if mode & 0o002 != 0 {
        Some(format!("can be written to by everybody (mode {:o})", mode & 0o7777))
    } else if mode & 0o020 != 0 && !groups.contains(&group) {
        Some(format!("can be written to by group {group}, in which this program is not"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    #[test]
    fn only_a_directory_that_no_stranger_can_write_to_is_taken() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("new/claims");
        prepare(&dir).unwrap();
        let mode = |mode| {
            fs_err::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
            fs_err::symlink_metadata(&dir).unwrap()
        };
        assert_eq!(fs_err::symlink_metadata(&dir).unwrap().mode() & 0o7777, 0o700);
        let owner = mode(0o700).uid();
        let group = mode(0o700).gid();
        assert_eq!(fault(&mode(0o755), owner, &[]), None);
        assert_eq!(fault(&mode(0o2770), owner, &[group]), None);
        assert!(fault(&mode(0o2770), owner, &[group + 1]).unwrap().contains("group"));
        assert!(fault(&mode(0o1777), owner, &[group]).unwrap().contains("everybody (mode 1777)"));
        let other = fault(&mode(0o700), owner + 1, &[group]);
        assert_eq!(other.is_none(), owner == 0, "a directory of root is anybody's: {other:?}");

        let error = prepare(&dir).err();
        assert!(error.is_none(), "it is ours: {error:?}");
        let link = top.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        let refused = prepare(&link).unwrap_err();
        assert!(refused.to_string().contains("link") && !refused.passes(), "{refused}");
        assert!(refused.hint().unwrap().contains("install -d -m 2770"), "{:?}", refused.hint());
    }
}
