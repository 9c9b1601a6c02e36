//! The parent cache of the layers, made so that a crash cannot spoil it.
//!
//! PC1 looks up the parents of every node in a file that is the same for all sectors of a size (56 GiB for 32 GiB
//! sectors). The proofs library makes it at full length and then fills it, and takes any file that is there: after a
//! kill every later replica would be wrong. Here it is made under another name, compared with the digest that the
//! library publishes for it, and put in place whole. A file of unknown origin is compared with the digest too, once:
//! then a mark beside it remembers what was checked.

use crate::processor::{
    files::{parent, remove_if_there, replace, sync_dir, temporary},
    library,
};
use damocles_core::{BoxError, SealProofType};
use filecoin_proofs::constants::DefaultTreeHasher;
use fs_err as fs;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use storage_proofs_core::{
    crypto::{FEISTEL_DST, derive_porep_domain_seed},
    drgraph::{BASE_DEGREE, Graph},
    merkle::Hasher,
    parameter_cache::{ParameterSetMetadata, VERSION},
    settings::SETTINGS,
};
use storage_proofs_porep::stacked::{EXP_DEGREE, StackedBucketGraph};

const DEGREE: usize = BASE_DEGREE + EXP_DEGREE;
/// Nodes that are computed and written at a time.
const BATCH: u64 = 1 << 18;
const BLOCK: usize = 4 << 20;

/// A directory of parent caches.
#[derive(Clone, Debug)]
pub struct ParentCache {
    dir: PathBuf,
}

/// What was checked, so that it is not checked again as long as the file is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    sha256: String,
    len: u64,
    inode: u64,
    modified: (i64, i64),
}

impl ParentCache {
    /// The caches in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory that the proofs library reads in this process: `FIL_PROOFS_PARENT_CACHE`, else
    /// `/var/tmp/filecoin-parents`.
    pub fn of_library() -> Self {
        Self::new(&SETTINGS.parent_cache)
    }

    /// Makes sure that there is a good cache for sectors of this kind, and gives its path. Blocks; several processes
    /// take turns.
    ///
    /// # Errors
    ///
    /// The cache cannot be read, written or computed.
    pub fn ensure(&self, proof_type: SealProofType) -> Result<PathBuf, ParentCacheError> {
        let graph = graph(proof_type)?;
        let name = name(&graph, proof_type);
        let path = self.dir.join(format!("{name}.cache"));
        let digest = published(&name).ok_or_else(|| ParentCacheError::Unpublished { path: path.clone() })?;
        let failed = |source| ParentCacheError::Io { path: path.clone(), source };
        if Mark::fits(&path, digest) {
            return Ok(path);
        }
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let lock = path.with_extension("lock");
        let options = || fs::OpenOptions::new();
        let lock = match options().create(true).truncate(false).write(true).open(lock) {
            Ok(lock) => lock,
            // Whoever may only read the directory can use what is there.
            Err(_) if self.is_good(&path, digest).map_err(failed)? => return Ok(path),
            Err(error) => return Err(failed(error)),
        };
        lock.file().lock().map_err(failed)?;
        if self.is_good(&path, digest).map_err(failed)? {
            return Ok(path);
        }
        remove_if_there(&path).map_err(failed)?;
        let temporary = temporary(&path);
        let placed = write(&graph, &temporary).and_then(|made| {
            if made != digest {
                return Err(ParentCacheError::Digest { path: path.clone(), made, published: digest.to_owned() });
            }
            fs::rename(&temporary, &path).map_err(failed)
        });
        if placed.is_err() {
            // 56 GiB for large sectors. The error that is under way says more.
            let _ = remove_if_there(&temporary);
        }
        placed?;
        sync_dir(parent(&path)).map_err(failed)?;
        Mark::of(&path, digest).map_err(failed)?.try_save(&path);
        Ok(path)
    }

    fn is_good(&self, path: &Path, digest: &str) -> io::Result<bool> {
        let mark = match Mark::of(path, digest) {
            Ok(mark) => mark,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if Mark::fits(path, digest) {
            return Ok(true);
        }
        // Somebody else's, perhaps whole, perhaps half-written and written out later: synced before it is believed.
        fs::File::open(path)?.sync_all()?;
        let good = hash(path)? == digest && Mark::of(path, digest)? == mark;
        if good {
            mark.try_save(path);
        }
        Ok(good)
    }
}

impl Mark {
    fn of(path: &Path, digest: &str) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        let modified = (file.mtime(), file.mtime_nsec());
        Ok(Self { sha256: digest.to_owned(), len: file.len(), inode: file.ino(), modified })
    }

    fn path(cache: &Path) -> PathBuf {
        cache.with_extension("checked")
    }

    /// The mark of an earlier check; a mark that cannot be read is none.
    fn read(cache: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(cache)).ok()?).ok()
    }

    /// Whether the cache is the one that was checked.
    fn fits(cache: &Path, digest: &str) -> bool {
        Self::read(cache).is_some_and(|read| Self::of(cache, digest).is_ok_and(|now| now == read))
    }

    /// Without a mark the cache is checked again the next time, which costs no more than time.
    fn try_save(&self, cache: &Path) {
        if let Ok(json) = serde_json::to_vec(self) {
            let _ = replace(&Self::path(cache), |file| file.write_all(&json));
        }
    }
}

type SdrGraph = StackedBucketGraph<DefaultTreeHasher>;

fn graph(proof_type: SealProofType) -> Result<SdrGraph, ParentCacheError> {
    let config = library::seal_proof(proof_type).as_v1_config();
    let nodes = usize::try_from(proof_type.sector_size().bytes() / 32).unwrap_or(usize::MAX);
    SdrGraph::new_stacked(nodes, BASE_DEGREE, EXP_DEGREE, config.porep_id, config.api_version)
        .map_err(|e| ParentCacheError::Graph { source: e.into() })
}

/// The library's name for the cache of a graph, without extension.
fn name(graph: &SdrGraph, proof_type: SealProofType) -> String {
    let porep_id = library::seal_proof(proof_type).as_v1_config().porep_id;
    let mut hasher = Sha256::new();
    hasher.update(DefaultTreeHasher::name());
    hasher.update(graph.identifier());
    // The four Feistel keys, little-endian: the very bytes of the seed.
    hasher.update(derive_porep_domain_seed(FEISTEL_DST, porep_id));
    hasher.update(u32::try_from(graph.size()).unwrap_or(u32::MAX).to_le_bytes());
    format!("v{VERSION}-sdr-parent-{}", hex::encode(hasher.finalize()))
}

/// Names and SHA-256, by size: the manifest `parent_cache.json` of storage-proofs-porep 19, which keeps it to itself. Of
/// the two for each size one is for V1 proofs.
const PUBLISHED: [(&str, &str); 10] = [
    (
        "v28-sdr-parent-3f0eef38bb48af1f48ad65e14eb85b4ebfc167cec18cd81764f6d998836c9899",
        "3da49221e2ed55371b86d0bf3d6526fcf128af61bed904f966428db1b531750d",
    ),
    (
        "v28-sdr-parent-494d91dc80f2df5272c4b9e129bc7ade9405225993af9fe34e6542a39a47554b",
        "840057702eea7652cf97e04306c30fe57174714d90de156a25eddd6075c25b97",
    ),
    (
        "v28-sdr-parent-5eed212119fd91aa6220a27f31a8966444a9381842bceb3a1ea61525bd47a5b5",
        "03cd13565ded97c240a5f52e54295ad127bd0461b57904cb3a4d79b097bbecab",
    ),
    (
        "v28-sdr-parent-dcdabb0fbe4364bf0ac28b6a18c66de246409fa1a9020a00f33fb3e3053da6dc",
        "a76604f2f59f2744c7151653bbb1d8596b6b57d295e6fa6c1f0c41d725b502ce",
    ),
    (
        "v28-sdr-parent-2aa9c77c3e58259481351cc4be2079cc71e1c9af39700866545c043bfa30fb42",
        "3adcc092423aa76d6a7184016893406da44dd974b219a89cd3ece25e4e3018f5",
    ),
    (
        "v28-sdr-parent-7ba215a1d2345774ab90b8cb1158d296e409d6068819d7b8c7baf0b25d63dc34",
        "b5877d1963793efebc261fd8fde4dd6bc59e6b5c7abf52617a4ee023b8dc173a",
    ),
    (
        "v28-sdr-parent-21981246c370f9d76c7a77ab273d94bde0ceb4e938292334960bce05585dc117",
        "93deeac5e3052b6927467d4b2641bb782f05491de18d510147c93eeedd8672da",
    ),
    (
        "v28-sdr-parent-e1fa5d5b811ddbd118be3412c4a8c329156b8b8acc72632bca459455b5a05a13",
        "3c4f9841fcc75aed8c695800e58d08480629f25af3a2aefd81904181d75cc0b6",
    ),
    (
        "v28-sdr-parent-4905486b7af19558ac3649bc6261411858b6add534438878c4ee3b29d8b9de0b",
        "2698b74eb2606b55b98d8b095e18b6320b47f46e00075956d48640ccd1641b03",
    ),
    (
        "v28-sdr-parent-8a99e8d6b6be7ab87a56b632e6739ff201c23ea14e99737c74690f0e265574d6",
        "2778a732ad46a7dc18e0564dfdf59fd321dcde74ab476fd6d3c4e6735d7cd89c",
    ),
];

fn published(name: &str) -> Option<&'static str> {
    PUBLISHED.iter().find(|(published, _)| *published == name).map(|(_, digest)| *digest)
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            n => hasher.update(block.get(..n).unwrap_or_default()),
        }
    }
}

/// Writes the parents of all nodes, syncs the file and gives its digest.
fn write(graph: &SdrGraph, path: &Path) -> Result<String, ParentCacheError> {
    let failed = |source| ParentCacheError::Io { path: path.to_owned(), source };
    let mut file = fs::File::create(path).map_err(failed)?;
    let mut hasher = Sha256::new();
    let nodes = graph.size() as u64;
    for first in (0..nodes).step_by(usize::try_from(BATCH).unwrap_or(usize::MAX)) {
        let batch: Result<Vec<[u8; DEGREE * 4]>, BoxError> =
            (first..nodes.min(first + BATCH)).into_par_iter().map(|node| entry(graph, node)).collect();
        let batch = batch.map_err(|source| ParentCacheError::Graph { source })?;
        let bytes = batch.as_flattened();
        hasher.update(bytes);
        file.write_all(bytes).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    Ok(hex::encode(hasher.finalize()))
}

fn entry(graph: &SdrGraph, node: u64) -> Result<[u8; DEGREE * 4], BoxError> {
    let mut parents = [0; DEGREE];
    graph.parents(usize::try_from(node)?, &mut parents)?;
    let mut bytes = [0; DEGREE * 4];
    for (bytes, parent) in bytes.chunks_exact_mut(4).zip(parents) {
        bytes.copy_from_slice(&parent.to_le_bytes());
    }
    Ok(bytes)
}

/// Why there is no parent cache.
#[derive(Debug, thiserror::Error)]
pub enum ParentCacheError {
    /// A file could not be used.
    #[error("the parent cache {} cannot be used", path.display())]
    Io {
        /// The cache.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The graph could not be computed.
    #[error("the graph of the layers cannot be computed")]
    Graph {
        /// Why.
        source: BoxError,
    },
    /// Nobody says how it must come out.
    #[error("the proofs library publishes no digest for the parent cache {}", path.display())]
    Unpublished {
        /// The cache.
        path: PathBuf,
    },
    /// What was computed is not what everybody else has.
    #[error("the parent cache {} came out as {made}, not as {published}", path.display())]
    Digest {
        /// The cache.
        path: PathBuf,
        /// The SHA-256 of what was computed.
        made: String,
        /// The one that it must have.
        published: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use damocles_core::SectorSize;

    #[test]
    fn names_are_the_librarys() {
        for (index, size) in SectorSize::ALL.into_iter().enumerate() {
            let proof_type = SealProofType::of(size);
            let name = name(&graph(proof_type).unwrap(), proof_type);
            let place = PUBLISHED.iter().position(|(published, _)| *published == name);
            assert_eq!(place.map(|place| place / 2), Some(index), "{size}: {name}");
        }
    }

    #[test]
    fn half_written_files_are_replaced_and_good_ones_kept() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ParentCache::new(dir.path());
        let proof_type = SealProofType::of(SectorSize::KiB2);
        let path = cache.ensure(proof_type).unwrap();
        let good = fs::read(&path).unwrap();
        assert_eq!(good.len(), 64 * DEGREE * 4);
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let first = inode(&path);
        cache.ensure(proof_type).unwrap();
        assert_eq!(inode(&path), first, "a good file is kept");

        let mut half = good.clone();
        half[good.len() / 2..].fill(0);
        // With the mark of the good file still there, without any mark, and with a mark that is rubbish.
        for mark in [None, Some(None), Some(Some("{\"sha256\""))] {
            match mark {
                Some(None) => fs::remove_file(Mark::path(&path)).unwrap(),
                Some(Some(text)) => fs::write(Mark::path(&path), text).unwrap(),
                None => {}
            }
            fs::remove_file(&path).unwrap();
            fs::write(&path, &half).unwrap();
            assert_eq!(cache.ensure(proof_type).unwrap(), path);
            assert_eq!(fs::read(&path).unwrap(), good, "a half-written file is replaced");
        }
        fs::write(&path, &good[..100]).unwrap();
        fs::write(temporary(&path), "left by a kill").unwrap();
        cache.ensure(proof_type).unwrap();
        assert_eq!(fs::read(&path).unwrap(), good);

        fs::remove_file(Mark::path(&path)).unwrap();
        let foreign = inode(&path);
        cache.ensure(proof_type).unwrap();
        assert_eq!(inode(&path), foreign, "another program's good file is kept");
        assert!(Mark::path(&path).exists(), "and not checked again");
    }

    #[test]
    fn a_good_cache_is_used_where_nothing_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let cache = ParentCache::new(dir.path());
        let proof_type = SealProofType::of(SectorSize::KiB2);
        let path = cache.ensure(proof_type).unwrap();
        // Neither the lock nor the mark can be written, whoever runs this.
        for name in [path.with_extension("lock"), Mark::path(&path)] {
            fs::remove_file(&name).unwrap();
            fs::create_dir_all(name.join("in the way")).unwrap();
        }
        assert_eq!(cache.ensure(proof_type).unwrap(), path);
        fs::write(&path, "spoilt").unwrap();
        cache.ensure(proof_type).unwrap_err();
    }

    #[test]
    fn larger_sectors_come_out_as_published() {
        let dir = tempfile::tempdir().unwrap();
        ParentCache::new(dir.path()).ensure(SealProofType::of(SectorSize::MiB8)).unwrap();
    }
}
