//! Ready-made trees over the data of sectors without data.

use super::{StoreError, StoreErrorKind, error::io_error};
use crate::{processor::prepare::tree_d_len, service::comm_d::zero_commitment};
use damocles_core::{Error, SectorSize};
use std::{
    collections::BTreeMap,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

const OP: &str = "use a ready-made data tree";

/// The bytes of a node.
const NODE: u64 = 32;

/// Ready-made data trees of sectors without data: all of one size have the same.
///
/// A sector gets a link to the file, so nothing is copied and the file stays where it is: what is removed with a sector
/// is the link, and nothing writes through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticTrees(Arc<BTreeMap<SectorSize, PathBuf>>);

impl StaticTrees {
    /// These files by sector size.
    pub fn new(files: impl IntoIterator<Item = (SectorSize, PathBuf)>) -> Self {
        Self(Arc::new(files.into_iter().collect()))
    }

    /// The file for sectors of this size.
    pub fn of(&self, size: SectorSize) -> Option<&Path> {
        self.0.get(&size).map(PathBuf::as_path)
    }

    /// Checks that a file is the tree over a sector of zeros: its length, its root, and three nodes of each level. The rest
    /// is not read, so this takes no longer for large sectors.
    ///
    /// # Errors
    ///
    /// It is not there, is another tree, or cannot be read.
    pub fn check(size: SectorSize, file: &Path) -> Result<(), StoreError> {
        let damaged = || Error::new(StoreErrorKind::Damaged, OP).with("path", file.display()).with("sector size", size);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => damaged().because(e),
            _ => io_error(OP, file, e),
        };
        let meta = std::fs::metadata(file).map_err(failed)?;
        let expected = tree_d_len(size.bytes());
        if !meta.is_file() || meta.len() != expected {
            return Err(damaged().with("bytes", meta.len()).with("bytes of such a tree", expected));
        }
        let opened = std::fs::File::open(file).map_err(failed)?;
        let (mut width, mut level, mut covers) = (size.bytes() / NODE, 0, NODE);
        while width > 0 {
            let zeros = zero_commitment(covers);
            for nth in [0, width / 2, width - 1] {
                let (mut node, at) = ([0; 32], (level + nth) * NODE);
                opened.read_exact_at(&mut node, at).map_err(failed)?;
                if node != zeros {
                    let what = if width == 1 { "root" } else { "node" };
                    return Err(damaged()
                        .with("byte", at)
                        .with(what, hex::encode(node))
                        .with("of zeros", hex::encode(zeros)));
                }
            }
            level += width;
            width /= 2;
            covers *= 2;
        }
        Ok(())
    }

    /// Puts the tree at a path as a link, in place of what is there: a second name on one file system, a symbolic link
    /// from another.
    ///
    /// # Errors
    ///
    /// The file cannot be found, or the link cannot be made.
    pub(crate) fn lend(file: &Path, to: &Path) -> Result<(), StoreError> {
        // A symbolic link leads on from where it lies.
        let file = std::fs::canonicalize(file).map_err(|e| io_error(OP, file, e))?;
        match std::fs::remove_file(to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(OP, to, e)),
            _ => {}
        }
        let linked = std::fs::hard_link(&file, to).or_else(|_| std::os::unix::fs::symlink(&file, to));
        linked.map_err(|e| io_error(OP, to, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree over a sector of zeros, all of it.
    fn tree(size: SectorSize) -> Vec<u8> {
        let (mut bytes, mut width, mut covers) = (Vec::new(), size.bytes() / NODE, NODE);
        while width > 0 {
            bytes.extend(zero_commitment(covers).repeat(usize::try_from(width).unwrap()));
            (width, covers) = (width / 2, covers * 2);
        }
        bytes
    }

    #[test]
    fn the_tree_of_zeros_is_known_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tree");
        let size = SectorSize::KiB2;
        let good = tree(size);
        assert_eq!(good.len() as u64, tree_d_len(size.bytes()));
        assert_eq!(good[good.len() - 32..], damocles_core::zero_comm_d(size).0);
        std::fs::write(&file, &good).unwrap();
        StaticTrees::check(size, &file).unwrap();
        assert!(StaticTrees::check(SectorSize::MiB8, &file).is_err(), "for sectors of another size");

        let changed = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let bad =
            [changed(good.len() - 1), changed(0), changed(64 * 32), good[1..].to_vec(), [&good[..], &[0]].concat()];
        for bytes in bad {
            std::fs::write(&file, &bytes).unwrap();
            assert_eq!(StaticTrees::check(size, &file).unwrap_err().kind(), StoreErrorKind::Damaged);
        }
        let gone = dir.path().join("gone");
        assert_eq!(StaticTrees::check(size, &gone).unwrap_err().kind(), StoreErrorKind::Damaged);
        assert!(StaticTrees::check(size, dir.path()).is_err(), "a directory");
    }

    #[test]
    fn what_is_lent_and_removed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (file, lent) = (dir.path().join("tree"), dir.path().join("lent"));
        std::fs::write(&file, tree(SectorSize::KiB2)).unwrap();
        std::fs::write(&lent, "what a crash left").unwrap();
        for _ in 0..2 {
            StaticTrees::lend(&file, &lent).unwrap();
            StaticTrees::check(SectorSize::KiB2, &lent).unwrap();
        }
        std::fs::remove_file(&lent).unwrap();
        // As from another file system.
        std::os::unix::fs::symlink(&file, &lent).unwrap();
        StaticTrees::check(SectorSize::KiB2, &lent).unwrap();
        StaticTrees::lend(&file, &lent).unwrap();
        std::fs::remove_file(&lent).unwrap();
        StaticTrees::check(SectorSize::KiB2, &file).unwrap();
        assert!(StaticTrees::lend(&dir.path().join("gone"), &lent).is_err());
    }
}
