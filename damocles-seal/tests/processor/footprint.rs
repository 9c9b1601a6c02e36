//! What the stages of a real sector write.

use crate::sector::{SIZE, Sector};
use damocles_seal::{stage::id, store::written_by};
use std::{fs, path::Path};

/// What the table adds for directories, auxiliary files and last blocks.
const SLACK: u64 = 1 << 20;

fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes_in(&path) } else { fs::metadata(&path).unwrap().len() }).sum()
}

#[test]
fn a_stage_writes_what_is_reserved_for_it() {
    let sector = Sector::new(7);
    let mut before = 0;
    let mut check = |stage, least: u64| {
        let now = bytes_in(sector.dir.path());
        let (written, table) = (now - before, written_by(&stage, SIZE).unwrap() - SLACK);
        // The auxiliary files of a small sector weigh as much as a tree.
        assert!(written <= table + 4096 && written >= table / least, "{stage}: {written} of {table}");
        before = now;
    };
    let added = sector.add_pieces(Vec::new()).unwrap();
    check(id::ADD_PIECES, 1);
    let tree = sector.tree_d().unwrap();
    check(id::TREE_D, 2);
    let own = sector.cache("sc-02-data-tree-d.dat");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    // The layers alone: the tree is there already.
    fs::rename(&tree.file, &own).unwrap();
    let pc1 = sector.pc1(&added.pieces, Some(own)).unwrap();
    check(id::PC1, 1);
    let sealed = fs::metadata(sector.path("sealed")).unwrap().len();
    assert_eq!(sealed, SIZE.bytes(), "PC1 copies the data to where it will be sealed; PC2 writes over it");
    sector.pc2(&pc1).unwrap();
    let trees = ["tree-c", "tree-r-last"].map(|name| sector.cache(&format!("sc-02-data-{name}.dat")));
    let pc2 = sealed + trees.iter().map(|tree| fs::metadata(tree).unwrap().len()).sum::<u64>();
    let table = written_by(&id::PC2, SIZE).unwrap() - SLACK;
    assert!(pc2 <= table && pc2 >= table / 2, "{pc2} of {table}");
}
