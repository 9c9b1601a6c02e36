//! The structured reference string (SRS) of proof aggregation: one file, shared by all circuits and sector sizes.
//!
//! The SRS for 32 and 64 GiB sectors comes from a ceremony, like their proving keys. Small sectors exist on no public
//! network, so that theirs may come from a published trapdoor; but there is one file name for both, so that ours is made
//! only in a cache that serves no large sectors, and never serves to verify proofs of such.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use bellperson::groth16::aggregate::setup_fake_srs;
use blake2b_simd::Params as Blake2b;
use blstrs::{Bls12, G1Affine, G1Projective, Scalar};
use ff::Field;
use group::Group;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use storage_proofs_core::parameter_cache::{
    PARAMETER_METADATA_EXT, PARAMETERS, SRS_KEY_EXT, SRS_SHARED_KEY_NAME, VERSION,
};
use tokio_util::sync::CancellationToken;

use super::cache::{Action, ParameterCache};
use super::error::ParamsError;
use super::files::{Found, Staged, remove_temporaries, sync_dir, whole_or_broken};
use super::lock::CacheLock;
use super::progress::ParamProgress;

/// The smallest sectors whose SRS comes from the ceremony.
const LARGE: u64 = 32 << 30;

/// The library reads no more powers than this of any file.
const LIBRARY_POWERS: usize = (2 << 14) + 1;

/// How many Groth16 proofs an aggregate of ours may hold. The network takes 819 sectors of one partition, or 65
/// non-interactive ones of 13: both are padded to this.
const OUR_CAPACITY: usize = 1024;

/// Changing this changes the SRS, and proofs made before no longer verify.
const DOMAIN: &[u8] = b"damocles aggregation srs v1";

/// Bytes of the four lists in the file: powers of alpha and beta in G1, then both in G2.
const POINTS: [u64; 4] = [48, 48, 96, 96];

/// A whole SRS in a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Srs {
    /// Whether it was made from the trapdoor that everybody knows.
    pub published_trapdoor: bool,
    /// How many Groth16 proofs an aggregate may hold.
    pub capacity: usize,
}

impl ParameterCache {
    /// The SRS in this cache, if there is one. Reads its head and its length, not the whole file.
    ///
    /// # Errors
    /// When the file is damaged or cannot be read.
    pub fn srs(&self) -> Result<Option<Srs>, ParamsError> {
        let path = path(self.dir());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ParamsError::file("open", &path, e)),
        };
        let len = file.metadata().map_err(|e| ParamsError::file("read", &path, e))?.len();
        match whole_or_broken(read(BufReader::new(file), len), &path)? {
            Found::Whole(srs) => Ok(Some(srs)),
            Found::Absent | Found::Broken => Err(ParamsError::SrsDamaged { path }),
        }
    }

    /// The SRS for proofs of sectors of this size.
    ///
    /// # Errors
    /// There is none, it is damaged, or its trapdoor is public and the sectors are such as public networks have.
    pub fn srs_for(&self, sector_size: u64) -> Result<Srs, ParamsError> {
        let path = path(self.dir());
        match self.srs()? {
            None => Err(ParamsError::SrsMissing { path }),
            Some(srs) if srs.published_trapdoor && sector_size >= LARGE => {
                Err(ParamsError::SrsOfCeremonyOnly { path, large: None })
            }
            Some(srs) => Ok(srs),
        }
    }

    /// Makes sure that the cache has an SRS, and blocks until it has: one that is there is used, whoever made it.
    ///
    /// What is made is the same on every machine. It takes about a second and 600 KB. Other processes are waited for, as
    /// in [`ensure`](Self::ensure).
    ///
    /// # Errors
    /// When the cache holds a file for 32 or 64 GiB sectors and no SRS, and when the file that is there is damaged:
    /// nothing is overwritten.
    pub fn ensure_srs(
        &self,
        cancel: &CancellationToken,
        progress: &dyn Fn(ParamProgress),
    ) -> Result<(Srs, Action), ParamsError> {
        if let Some(srs) = self.srs()? {
            return Ok((srs, Action::Found));
        }
        self.holds_no_large_sectors()?;
        let dir = self.dir();
        fs::create_dir_all(dir).map_err(|e| ParamsError::file("create", dir, e))?;
        let _lock = CacheLock::acquire(dir, cancel, || progress(ParamProgress::Waiting))?;
        // Looked at again, because the process that was waited for may have made it, or something else.
        if let Some(srs) = self.srs()? {
            return Ok((srs, Action::Found));
        }
        self.holds_no_large_sectors()?;
        remove_temporaries(dir)?;
        let path = path(dir);
        let mut staged = Staged::create(&path)?;
        let srs = setup_fake_srs::<Bls12, _>(&mut published_rng(), OUR_CAPACITY);
        srs.write(&mut staged.writer).map_err(|e| staged.failed(e))?;
        if cancel.is_cancelled() {
            return Err(ParamsError::Cancelled);
        }
        staged.sync()?;
        staged.place()?;
        sync_dir(dir)?;
        let srs = self.srs()?.ok_or_else(|| ParamsError::file("read back", &path, io::ErrorKind::NotFound.into()))?;
        Ok((srs, Action::Generated))
    }

    fn holds_no_large_sectors(&self) -> Result<(), ParamsError> {
        let large = PARAMETERS.iter().filter(|(_, data)| data.sector_size >= LARGE);
        for (name, _) in large {
            let file = self.dir().join(name);
            for file in [file.with_extension(PARAMETER_METADATA_EXT), file] {
                if file.try_exists().map_err(|e| ParamsError::file("look for", &file, e))? {
                    return Err(ParamsError::SrsOfCeremonyOnly { path: path(self.dir()), large: Some(file) });
                }
            }
        }
        Ok(())
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(format!("v{VERSION}-{SRS_SHARED_KEY_NAME}.{SRS_KEY_EXT}"))
}

/// Whoever knows what this gives can aggregate what was never proven. That is harmless where [`ParameterCache::srs_for`]
/// lets it be used.
fn published_rng() -> ChaCha20Rng {
    let hash = Blake2b::new().hash_length(32).hash(DOMAIN);
    let mut seed = [0; 32];
    for (to, from) in seed.iter_mut().zip(hash.as_bytes()) {
        *to = *from;
    }
    ChaCha20Rng::from_seed(seed)
}

/// The first power of our alpha, by which an SRS of ours is known.
fn fingerprint() -> [u8; 48] {
    let alpha = Scalar::random(&mut published_rng());
    G1Affine::from(G1Projective::generator() * alpha).to_compressed()
}

fn read(mut reader: impl Read + Seek, len: u64) -> io::Result<Srs> {
    let mut powers = None;
    let mut position = 0;
    let mut published_trapdoor = false;
    for (list, point) in POINTS.into_iter().enumerate() {
        let mut count = [0; 4];
        reader.read_exact(&mut count)?;
        let count = u32::from_be_bytes(count);
        if count < 2 || powers.is_some_and(|powers| powers != count) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        powers = Some(count);
        if list == 0 {
            let mut head = [[0; 48]; 2];
            head.iter_mut().try_for_each(|power| reader.read_exact(power))?;
            let [_, first] = head;
            published_trapdoor = first == fingerprint();
        }
        position += 4 + u64::from(count) * point;
        if position > len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reader.seek(SeekFrom::Start(position))?;
    }
    if position != len {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let powers = powers.and_then(|n| usize::try_from(n).ok()).unwrap_or(0).min(LIBRARY_POWERS);
    // An aggregate of n proofs takes 2n powers, and n is a power of two.
    let capacity = (powers / 2).checked_ilog2().map_or(0, |log| 1 << log);
    Ok(Srs { published_trapdoor, capacity })
}
