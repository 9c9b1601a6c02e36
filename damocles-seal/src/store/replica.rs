//! Which files a proven sector needs.

use damocles_core::SectorSize;

/// The names of the files in the cache directory of a replica that PoSt needs: `p_aux`, `t_aux` and the tree over the
/// replica, which the proofs library splits for large sectors.
pub fn replica_cache_files(size: SectorSize) -> Vec<String> {
    let trees = match size {
        SectorSize::KiB2 | SectorSize::MiB8 | SectorSize::MiB512 => 1,
        SectorSize::GiB32 => 8,
        SectorSize::GiB64 => 16,
    };
    let tree = |i| match trees {
        1 => "sc-02-data-tree-r-last.dat".to_owned(),
        _ => format!("sc-02-data-tree-r-last-{i}.dat"),
    };
    ["p_aux", "t_aux"].map(str::to_owned).into_iter().chain((0..trees).map(tree)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_sectors_have_split_trees() {
        assert_eq!(replica_cache_files(SectorSize::KiB2), ["p_aux", "t_aux", "sc-02-data-tree-r-last.dat"]);
        let large = replica_cache_files(SectorSize::GiB32);
        assert_eq!(large.len(), 10);
        assert_eq!(large.last().unwrap(), "sc-02-data-tree-r-last-7.dat");
        assert_eq!(replica_cache_files(SectorSize::GiB64).len(), 18);
    }
}
