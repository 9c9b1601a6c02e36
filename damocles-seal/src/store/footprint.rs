//! What the files of a sector take.
//!
//! The shapes are those of the proofs library (version 19): a layer is as large as the sector, a binary tree has all its
//! rows, the trees of base 8 are split as [`super::replica_cache_files`] says, and of the one over the replica the three
//! lowest rows are left out. For 32 GiB that is what operators see: layers 352 GiB, tree C 37 GiB, tree D 64 GiB, tree R
//! 73 MiB.

use super::SealingStore;
use crate::stage::id;
use damocles_core::{SectorId, SectorSize, pipeline::StageId};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// For directories, auxiliary files, and the last block of each file.
const SLACK: u64 = 1 << 20;
const NODE: u64 = 32;
const LAYER: &str = "sc-02-data-layer-";
const TREE_D: &str = "sc-02-data-tree-d";

/// What a stage leaves in a sealing store at most, in bytes; none if it writes nothing there.
pub fn written_by(stage: &StageId, size: SectorSize) -> Option<u64> {
    let sector = size.bytes();
    let bytes = if *stage == id::ADD_PIECES {
        sector
    } else if *stage == id::TREE_D {
        sector.saturating_mul(2)
    } else if *stage == id::PC1 {
        // The data is copied to where it will be sealed, too.
        sector.saturating_mul(layers(size) + 1)
    } else if *stage == id::PC2 {
        sector.saturating_add(tree_c(size)).saturating_add(tree_r(size))
    } else {
        // What C1 writes is small beside all this, and is not worth a wait.
        return None;
    };
    Some(bytes.saturating_add(SLACK))
}

/// The stages that write large files to a sealing store.
pub(crate) const WRITERS: [StageId; 4] = [id::ADD_PIECES, id::TREE_D, id::PC1, id::PC2];

/// What a sector writes to a sealing store from its begin to its end at most, in bytes, without pieces that are fetched:
/// nothing of it is removed before.
pub fn whole(size: SectorSize) -> u64 {
    let all = WRITERS.iter().filter_map(|stage| written_by(stage, size)).fold(0, u64::saturating_add);
    // PC2 writes the replica where PC1 has put a copy of the data.
    all.saturating_sub(size.bytes())
}

/// What a sector that has done these stages will still write to a sealing store.
pub(super) fn to_come(store: &SealingStore, sector: SectorId, size: SectorSize, done: &[StageId]) -> u64 {
    let missing = |stage: &StageId| {
        let (total, there) = (written_by(stage, size).unwrap_or_default(), present(store, stage, sector));
        if *stage != id::PC2 || done.contains(&id::PC1) {
            return total.saturating_sub(there);
        }
        // The replica lies where PC1 puts a copy of the data, and is counted there.
        let replica = on_disk(&store.sealed(sector), |_| true);
        total.saturating_sub(size.bytes()).saturating_sub(there.saturating_sub(replica))
    };
    WRITERS.iter().filter(|stage| !done.contains(stage)).map(missing).fold(0, u64::saturating_add)
}

/// What the end of a sector frees in a sealing store.
pub(super) fn held(store: &SealingStore, sector: SectorId) -> u64 {
    let all = |_: &str| true;
    // The tree of the data is linked into the cache, where it takes nothing.
    let cache = on_disk(&store.cache(sector), |name| !name.starts_with(TREE_D));
    let rest = [store.staged(sector), store.prepared(sector), store.sealed(sector), store.pieces(sector)];
    rest.iter().map(|path| on_disk(path, all)).fold(cache, u64::saturating_add)
}

const fn layers(size: SectorSize) -> u64 {
    match size {
        SectorSize::KiB2 | SectorSize::MiB8 | SectorSize::MiB512 => 2,
        SectorSize::GiB32 | SectorSize::GiB64 => 11,
    }
}

const fn trees(size: SectorSize) -> u64 {
    match size {
        SectorSize::KiB2 | SectorSize::MiB8 | SectorSize::MiB512 => 1,
        SectorSize::GiB32 => 8,
        SectorSize::GiB64 => 16,
    }
}

/// The nodes of a tree of base 8 over so many leaves: 8^k + ... + 8 + 1.
const fn nodes(leaves: u64) -> u64 {
    leaves.saturating_mul(8).saturating_sub(1) / 7
}

fn tree_c(size: SectorSize) -> u64 {
    trees(size).saturating_mul(nodes(size.bytes() / NODE / trees(size))).saturating_mul(NODE)
}

fn tree_r(size: SectorSize) -> u64 {
    match size {
        // Too low to leave rows out for sure.
        SectorSize::KiB2 => tree_c(size),
        _ => trees(size).saturating_mul(nodes(size.bytes() / NODE / trees(size) / 512)).saturating_mul(NODE),
    }
}

/// What of the files of a stage is there, in bytes on the disk.
pub(super) fn present(store: &SealingStore, stage: &StageId, sector: SectorId) -> u64 {
    let all = |_: &str| true;
    if *stage == id::ADD_PIECES {
        on_disk(&store.staged(sector), all)
    } else if *stage == id::TREE_D {
        on_disk(&store.prepared(sector), all)
    } else if *stage == id::PC1 {
        let layers = on_disk(&store.cache(sector), |name| name.starts_with(LAYER));
        layers.saturating_add(on_disk(&store.sealed(sector), all))
    } else if *stage == id::PC2 {
        let beside = |name: &str| !name.starts_with(LAYER) && !name.starts_with(TREE_D);
        on_disk(&store.sealed(sector), all).saturating_add(on_disk(&store.cache(sector), beside))
    } else if *stage == id::PIECES {
        on_disk(&store.pieces(sector), all)
    } else {
        on_disk(&store.work(sector), all)
    }
}

/// The bytes that a file takes, or the files right below a directory whose names are liked. What is not there or cannot
/// be looked at counts nothing.
fn on_disk(path: &Path, like: impl Fn(&str) -> bool) -> u64 {
    let of =
        |path: PathBuf| std::fs::symlink_metadata(path).ok().filter(|m| m.is_file()).map_or(0, |m| m.blocks() * 512);
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let entries = entries.flatten().filter(|e| like(&e.file_name().to_string_lossy()));
            entries.map(|e| of(e.path())).fold(0, u64::saturating_add)
        }
        Err(_) => of(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::{ActorId, SectorNumber};
    use std::fs::File;

    #[test]
    fn the_figures_are_those_of_the_field() {
        let gib = |stage: StageId, size| (written_by(&stage, size).unwrap() - SLACK) as f64 / (1_u64 << 30) as f64;
        let large = SectorSize::GiB32;
        assert_eq!([id::ADD_PIECES, id::TREE_D, id::PC1].map(|s| gib(s, large)), [32.0, 64.0, 352.0 + 32.0]);
        // The sealed file, tree C (37 GiB) and tree R.
        let pc2 = gib(id::PC2, large) - 32.0;
        assert!((36.5..37.5).contains(&pc2), "{pc2}");
        // The length of such a file of a real sector.
        assert_eq!(tree_r(large), 8 * 9_586_976);
        assert_eq!(tree_r(SectorSize::GiB64), 16 * 9_586_976);
        assert_eq!(tree_c(SectorSize::KiB2), 73 * 32);
        assert_eq!(gib(id::PC1, SectorSize::GiB64), 704.0 + 64.0);
        assert_eq!(written_by(&id::SEED, large), None);
        // What operators plan with: 520 GiB.
        let all = (whole(large) - 4 * SLACK) as f64 / (1_u64 << 30) as f64;
        assert!((516.0..518.0).contains(&all), "{all}");
    }

    #[test]
    fn what_is_there_is_counted_by_stage() {
        let dir = tempfile::tempdir().unwrap();
        SealingStore::init(dir.path()).unwrap();
        let store = SealingStore::open(dir.path()).unwrap();
        let sector = SectorId::new(ActorId(1000), SectorNumber(7));
        let there = || {
            let stages = [id::ADD_PIECES, id::TREE_D, id::PC1, id::PC2, id::C1];
            stages.map(|stage| present(&store, &stage, sector))
        };
        assert_eq!(there(), [0; 5]);
        for dir in [store.cache(sector), store.prepared(sector), store.work(sector)] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let write = |path: PathBuf| {
            std::fs::File::create(path).and_then(|mut f| {
                std::io::Write::write_all(&mut f, &[1; 65_536])?;
                f.sync_all()
            })
        };
        write(store.staged(sector)).unwrap();
        write(store.prepared(sector).join("sc-02-data-tree-d.dat")).unwrap();
        write(store.cache(sector).join("sc-02-data-tree-d.dat")).unwrap();
        write(store.cache(sector).join("sc-02-data-layer-1.dat")).unwrap();
        write(store.cache(sector).join("sc-02-data-layer-2.dat")).unwrap();
        write(store.cache(sector).join("sc-02-data-tree-c-0.dat")).unwrap();
        write(store.work(sector).join("c1.json")).unwrap();
        let one = 65_536;
        assert_eq!(there(), [one, one, 2 * one, one, one]);
        // A file with holes takes what was written, not its length.
        std::fs::File::create(store.sealed(sector)).unwrap().set_len(1 << 30).unwrap();
        assert!(present(&store, &id::PC2, sector) < 2 * one);
        // The tree in the cache is a link to the other.
        assert_eq!(held(&store, sector), 5 * one);
        assert_eq!(to_come(&store, sector, SectorSize::GiB32, &WRITERS), 0);
    }

    #[test]
    fn what_is_to_come_shrinks_with_what_is_there_and_done() {
        let dir = tempfile::tempdir().unwrap();
        SealingStore::init(dir.path()).unwrap();
        let store = SealingStore::open(dir.path()).unwrap();
        let (sector, size) = (SectorId::new(ActorId(1000), SectorNumber(7)), SectorSize::MiB8);
        let left = |done: &[StageId]| to_come(&store, sector, size, done);
        assert_eq!(left(&[]), whole(size));
        std::fs::write(store.staged(sector), vec![1; 1 << 20]).unwrap();
        File::open(store.staged(sector)).unwrap().sync_all().unwrap();
        assert_eq!(left(&[]), whole(size) - (1 << 20));
        let parts = [1, 2, 3].map(|n| left(&WRITERS[..n]));
        let written = |stage| written_by(&stage, size).unwrap();
        assert_eq!(parts[1] - parts[2], written(id::PC1) - size.bytes());
        assert_eq!((parts[0] - parts[1], parts[2]), (written(id::TREE_D), written(id::PC2)));
    }
}
