//! The three files of a set, as the proofs library names and lays them out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bellperson::groth16::VerifyingKey;
use blstrs::Bls12;
use storage_proofs_core::parameter_cache::{CacheEntryMetadata, metadata_id, parameter_id, verifying_key_id};

use super::error::ParamsError;

/// Where the files of one set lie.
#[derive(Clone, Debug)]
pub(crate) struct SetFiles {
    pub(crate) params: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) meta: PathBuf,
}

/// What was found of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found<T> {
    Absent,
    /// Cut short, or not what its name says.
    Broken,
    Whole(T),
}

/// Bytes of a verifying key before its points of the public inputs, their count included.
const KEY_HEAD: usize = 3 * 96 + 3 * 192 + 4;
/// The largest circuit, WindowPoSt for 32 GiB, has 26 thousand public inputs; a count beyond this is damage.
const MAX_INPUTS: usize = 1 << 16;
const TEMPORARY: &str = "damocles-tmp";

impl SetFiles {
    pub(crate) fn new(dir: &Path, cache_identifier: &str) -> Self {
        Self {
            params: dir.join(parameter_id(cache_identifier)),
            key: dir.join(verifying_key_id(cache_identifier)),
            meta: dir.join(metadata_id(cache_identifier)),
        }
    }

    /// The bytes of the verifying key at the head of `.params`, if the whole file has the length that its counts demand.
    pub(crate) fn read_params(&self) -> Result<Found<Vec<u8>>, ParamsError> {
        let Some(file) = open(&self.params)? else {
            return Ok(Found::Absent);
        };
        let len = file.metadata().map_err(|e| ParamsError::file("read", &self.params, e))?.len();
        whole_or_broken(read_params(BufReader::new(file), len), &self.params)
    }

    /// The verifying key at the head of a `.params` that is not whole, if at least that is.
    pub(crate) fn read_params_head(&self) -> Result<Found<Vec<u8>>, ParamsError> {
        match open(&self.params)? {
            Some(file) => whole_or_broken(read_key(&mut BufReader::new(file)), &self.params),
            None => Ok(Found::Absent),
        }
    }

    /// The bytes of `.vk`, if they are a verifying key and nothing else.
    pub(crate) fn read_key(&self) -> Result<Found<Vec<u8>>, ParamsError> {
        let Some(file) = open(&self.key)? else {
            return Ok(Found::Absent);
        };
        let mut file = BufReader::new(file);
        let whole = read_key(&mut file).and_then(|key| match file.read(&mut [0])? {
            0 => Ok(key),
            _ => Err(io::ErrorKind::InvalidData.into()),
        });
        whole_or_broken(whole, &self.key)
    }

    pub(crate) fn read_meta(&self) -> Result<Found<u64>, ParamsError> {
        let Some(file) = open(&self.meta)? else {
            return Ok(Found::Absent);
        };
        let meta: Result<CacheEntryMetadata, io::Error> =
            serde_json::from_reader(BufReader::new(file)).map_err(io::Error::from);
        whole_or_broken(meta.map(|m| m.sector_size), &self.meta)
    }

    pub(crate) fn stage_meta(&self, sector_size: u64) -> Result<Staged, ParamsError> {
        let mut staged = Staged::create(&self.meta)?;
        let written = serde_json::to_writer(&mut staged.writer, &CacheEntryMetadata { sector_size });
        written.map_err(|e| staged.failed(e.into()))?;
        Ok(staged)
    }

    pub(crate) fn stage_key(&self, key: &[u8]) -> Result<Staged, ParamsError> {
        let mut staged = Staged::create(&self.key)?;
        staged.writer.write_all(key).map_err(|e| staged.failed(e))?;
        Ok(staged)
    }
}

/// A file under a temporary name beside its final one. Dropped without [`Staged::place`], it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) writer: BufWriter<File>,
    temporary: PathBuf,
    place: PathBuf,
    placed: bool,
}

impl Staged {
    /// Starts anew over what a killed process may have left: only the holder of the lock comes here.
    pub(crate) fn create(place: &Path) -> Result<Self, ParamsError> {
        let mut name = place.as_os_str().to_owned();
        name.push(".");
        name.push(TEMPORARY);
        let temporary = PathBuf::from(name);
        let file = File::create(&temporary).map_err(|e| ParamsError::file("create", &temporary, e))?;
        let writer = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { writer, temporary, place: place.to_owned(), placed: false })
    }

    /// Names the temporary file as the one that failed.
    pub(crate) fn failed(&self, source: io::Error) -> ParamsError {
        ParamsError::file("write", &self.temporary, source)
    }

    /// Makes the content durable. Nothing has its final name yet.
    pub(crate) fn sync(&mut self) -> Result<(), ParamsError> {
        let synced = self.writer.flush().and_then(|()| self.writer.get_ref().sync_all());
        synced.map_err(|e| self.failed(e))
    }

    /// Gives a synced file its final name.
    pub(crate) fn place(mut self) -> Result<(), ParamsError> {
        fs::rename(&self.temporary, &self.place).map_err(|e| ParamsError::file("rename to", &self.place, e))?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            // The directory may be gone or full: the next holder of the lock starts the same file anew.
            drop(fs::remove_file(&self.temporary));
        }
    }
}

/// Makes renames in the directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), ParamsError> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| ParamsError::file("sync", dir, e))
}

/// Removes what killed processes left. Only the holder of the lock may call it.
pub(crate) fn remove_temporaries(dir: &Path) -> Result<(), ParamsError> {
    let entries = fs::read_dir(dir).map_err(|e| ParamsError::file("list", dir, e))?;
    for entry in entries {
        let path = entry.map_err(|e| ParamsError::file("list", dir, e))?.path();
        if is_temporary(&path) {
            fs::remove_file(&path).map_err(|e| ParamsError::file("remove", &path, e))?;
        }
    }
    Ok(())
}

/// Whether a file is a half of ours: the library and others keep more in the same directory.
fn is_temporary(path: &Path) -> bool {
    let of_a_set = |stem: &OsStr| {
        Path::new(stem)
            .extension()
            .is_some_and(|kind| ["params", "vk", "meta", "srs"].iter().any(|known| kind == *known))
    };
    path.extension().is_some_and(|extension| extension == TEMPORARY) && path.file_stem().is_some_and(of_a_set)
}

fn open(path: &Path) -> Result<Option<File>, ParamsError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(ParamsError::file("open", path, e)),
    }
}

/// Sorts damage of the content from failures of the disk, which must not lead to a new set.
pub(crate) fn whole_or_broken<T>(read: io::Result<T>, path: &Path) -> Result<Found<T>, ParamsError> {
    match read {
        Ok(content) => Ok(Found::Whole(content)),
        Err(e) if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => Ok(Found::Broken),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(Found::Broken),
        Err(e) => Err(ParamsError::file("read", path, e)),
    }
}

fn read_key(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut key = vec![0; KEY_HEAD];
    reader.read_exact(&mut key)?;
    let inputs = key.last_chunk().map_or(0, |count| u32::from_be_bytes(*count));
    let inputs = usize::try_from(inputs).ok().filter(|n| *n <= MAX_INPUTS).ok_or(io::ErrorKind::InvalidData)?;
    let mut points = vec![0; inputs * 96];
    reader.read_exact(&mut points)?;
    key.append(&mut points);
    // The library checks every point when it loads the key: so do we, before anybody relies on the file.
    VerifyingKey::<Bls12>::read(key.as_slice())?;
    Ok(key)
}

fn read_params(mut reader: impl Read + Seek, len: u64) -> io::Result<Vec<u8>> {
    let key = read_key(&mut reader)?;
    let mut position = key.len() as u64;
    for point in [96_u64, 96, 96, 96, 192] {
        let mut count = [0; 4];
        reader.read_exact(&mut count)?;
        position += 4 + u64::from(u32::from_be_bytes(count)) * point;
        if position > len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reader.seek(SeekFrom::Start(position))?;
    }
    if position == len { Ok(key) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_halves_of_sets_are_temporary() {
        let ours =
            ["v28-x.params.damocles-tmp", "v28-x.vk.damocles-tmp", "v28-x.meta.damocles-tmp", "v28-x.srs.damocles-tmp"];
        let others = [".file.1-00ff.damocles-tmp", "x.cache.damocles-tmp", "v28-x.params", "vk.damocles-tmp"];
        assert!(ours.iter().all(|name| is_temporary(Path::new(name))));
        assert!(!others.iter().any(|name| is_temporary(Path::new(name))));
    }
}
