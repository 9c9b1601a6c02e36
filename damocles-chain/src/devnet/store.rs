//! The devnet's file: an append-only list of records, one per tipset, each written by one call.
//!
//! A record that a kill cut off is dropped when the file is opened, so a tipset is there as a whole or not at all.

use super::{
    chain::Entry,
    error::{DevnetError, DevnetErrorKind},
    node::encode,
    randomness::blake2b,
};
use cid::Cid;
use fs_err as fs;
use fvm_ipld_blockstore::Blockstore;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::RwLock;
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fmt,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The first bytes of the file; the last of them is the version of what follows.
const MAGIC: &[u8; 8] = b"DMDEVNT2";
/// Version 1 knew no forks, no base fees and no parameters. What it recorded is read as it is.
const MAGIC_1: &[u8; 8] = b"DMDEVNT1";
/// Length and checksum before each record.
const FRAME: usize = 4 + 8;
/// No tipset comes near this; a longer one is damage.
const MAX_RECORD: usize = 256 << 20;
/// More than the name and the lengths of a block take.
const RECORD_OVERHEAD: usize = 128;

/// Where a devnet keeps its blocks and its history.
pub(super) struct DevnetStore {
    backing: Backing,
}

enum Backing {
    Memory(RwLock<MemoryLog>),
    File(RwLock<FileLog>),
}

#[derive(Default)]
struct MemoryLog {
    entries: Vec<Vec<u8>>,
    blocks: HashMap<Cid, Vec<u8>>,
}

struct FileLog {
    path: PathBuf,
    file: Flock<std::fs::File>,
    end: u64,
    index: HashMap<Cid, (u64, u32)>,
}

impl fmt::Debug for DevnetStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backing {
            Backing::Memory(_) => f.write_str("DevnetStore(memory)"),
            Backing::File(log) => write!(f, "DevnetStore({})", log.read().path.display()),
        }
    }
}

/// Blocks by CID, as they are appended.
pub(super) type Blocks = Vec<(Cid, Vec<u8>)>;

impl DevnetStore {
    /// One that forgets.
    pub(super) fn in_memory() -> Self {
        Self { backing: Backing::Memory(RwLock::default()) }
    }

    /// Opens or makes the file `path`. Returns the entries that are in it with the store.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Vec<u8>>), DevnetError> {
        let failed = |op: &'static str| {
            move |e: std::io::Error| {
                DevnetError::new(DevnetErrorKind::Store, op).with("path", path.display()).because(e)
            }
        };
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(failed("open the devnet's file"))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
            DevnetError::new(DevnetErrorKind::Locked, "lock the devnet's file").with("path", path.display()).because(e)
        })?;
        let len = file.metadata().map_err(failed("read the devnet's file"))?.len();
        let mut log = FileLog { path: path.to_owned(), file, end: 0, index: HashMap::new() };
        let mut entries = Vec::new();
        if len < MAGIC.len() as u64 {
            log.file.set_len(0).map_err(failed("start the devnet's file"))?;
            log.file.write_all_at(MAGIC, 0).map_err(failed("start the devnet's file"))?;
            log.end = MAGIC.len() as u64;
        } else {
            entries = log.replay(len)?;
            if log.end < len {
                tracing::info!(path = %path.display(), bytes = len - log.end, "dropped a record that was cut off");
                log.file.set_len(log.end).map_err(failed("cut the devnet's file"))?;
            }
            // From here on there are records that version 1 would not understand.
            log.file.write_all_at(MAGIC, 0).map_err(failed("mark the devnet's file"))?;
        }
        Ok((Self { backing: Backing::File(RwLock::new(log)) }, entries))
    }

    /// Appends an entry and its blocks: all of it is there afterwards, or nothing.
    pub(super) fn append(&self, entry: &[u8], blocks: Blocks) -> Result<(), DevnetError> {
        match &self.backing {
            Backing::Memory(log) => {
                let mut log = log.write();
                log.entries.push(entry.to_vec());
                log.blocks.extend(blocks);
                Ok(())
            }
            Backing::File(log) => log.write().append(entry, &blocks),
        }
    }

    /// A block, if it is there.
    pub(super) fn read(&self, cid: &Cid) -> Result<Option<Vec<u8>>, DevnetError> {
        match &self.backing {
            Backing::Memory(log) => Ok(log.read().blocks.get(cid).cloned()),
            Backing::File(log) => {
                let log = log.read();
                let Some((offset, len)) = log.index.get(cid).copied() else { return Ok(None) };
                let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
                log.file.read_exact_at(&mut bytes, offset).map_err(|e| {
                    DevnetError::new(DevnetErrorKind::Store, "read a block").with("path", log.path.display()).because(e)
                })?;
                Ok(Some(bytes))
            }
        }
    }

    /// Whether a block is there.
    pub(super) fn contains(&self, cid: &Cid) -> bool {
        match &self.backing {
            Backing::Memory(log) => log.read().blocks.contains_key(cid),
            Backing::File(log) => log.read().index.contains_key(cid),
        }
    }
}

impl DevnetStore {
    /// Writes all of it into a new file, which another devnet can be started from.
    pub(super) fn snapshot(&self, path: &Path) -> Result<(), DevnetError> {
        let failed = |e: std::io::Error| {
            DevnetError::new(DevnetErrorKind::Store, "write a snapshot").with("path", path.display()).because(e)
        };
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(path).map_err(failed)?;
        match &self.backing {
            Backing::File(log) => {
                let log = log.read();
                let mut part = vec![0; 1 << 20];
                let mut at = 0;
                while at < log.end {
                    let len = usize::try_from(log.end - at).unwrap_or(usize::MAX).min(part.len());
                    let part = part.get_mut(..len).unwrap_or_default();
                    log.file.read_exact_at(part, at).map_err(failed)?;
                    file.write_all_at(part, at).map_err(failed)?;
                    at += len as u64;
                }
                file.sync_all().map_err(failed)
            }
            Backing::Memory(log) => {
                file.write_all_at(MAGIC, 0).map_err(failed)?;
                let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| failed(e.into()))?;
                let end = MAGIC.len() as u64;
                let mut out = FileLog { path: path.to_owned(), file, end, index: HashMap::new() };
                let log = log.read();
                for (at, entry) in log.entries.iter().enumerate() {
                    out.append(entry, &Blocks::new())?;
                    if at == 0 {
                        out.append_blocks(&log.blocks)?;
                    }
                }
                out.file.sync_all().map_err(failed)
            }
        }
    }

    /// Reads a snapshot into memory. Returns the entries with the store.
    pub(super) fn load(path: &Path) -> Result<(Self, Vec<Vec<u8>>), DevnetError> {
        let failed = |e: std::io::Error| {
            DevnetError::new(DevnetErrorKind::Store, "read a snapshot").with("path", path.display()).because(e)
        };
        let file = std::fs::File::open(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();
        let file = Flock::lock(file, FlockArg::LockSharedNonblock).map_err(|(_, e)| {
            DevnetError::new(DevnetErrorKind::Locked, "lock a snapshot").with("path", path.display()).because(e)
        })?;
        let mut log = FileLog { path: path.to_owned(), file, end: 0, index: HashMap::new() };
        if len < MAGIC.len() as u64 {
            return Err(DevnetError::new(DevnetErrorKind::Corrupt, "read a snapshot").with("path", path.display()));
        }
        let entries = log.replay(len)?;
        let from = Self { backing: Backing::File(RwLock::new(log)) };
        let Backing::File(log) = &from.backing else { return Ok((Self::in_memory(), Vec::new())) };
        let cids: Vec<Cid> = log.read().index.keys().copied().collect();
        let mut blocks = HashMap::with_capacity(cids.len());
        for cid in cids {
            blocks.insert(cid, from.read(&cid)?.unwrap_or_default());
        }
        let memory = MemoryLog { entries: entries.clone(), blocks };
        Ok((Self { backing: Backing::Memory(RwLock::new(memory)) }, entries))
    }
}

impl FileLog {
    /// Appends blocks that belong to no entry.
    fn append_blocks(&mut self, all: &HashMap<Cid, Vec<u8>>) -> Result<(), DevnetError> {
        let entry = encode(&Entry::Blocks)?;
        let mut blocks = Blocks::new();
        let mut bytes = 0;
        for (cid, block) in all {
            bytes += block.len() + RECORD_OVERHEAD;
            blocks.push((*cid, block.clone()));
            if bytes > MAX_RECORD / 4 {
                self.append(&entry, &blocks)?;
                blocks.clear();
                bytes = 0;
            }
        }
        self.append(&entry, &blocks)
    }

    fn replay(&mut self, len: u64) -> Result<Vec<Vec<u8>>, DevnetError> {
        let corrupt = |path: &Path, at: u64| {
            DevnetError::new(DevnetErrorKind::Corrupt, "read the devnet's file")
                .with("path", path.display())
                .with("offset", at)
                .hint_with("move the file away to start a new devnet")
        };
        let failed = |path: &Path, e: std::io::Error| {
            DevnetError::new(DevnetErrorKind::Store, "read the devnet's file").with("path", path.display()).because(e)
        };
        let mut reader = BufReader::new(fs::File::open(&self.path).map_err(|e| failed(&self.path, e))?);
        let mut magic = [0; 8];
        reader.read_exact(&mut magic).map_err(|e| failed(&self.path, e))?;
        if &magic != MAGIC && &magic != MAGIC_1 {
            let known = magic.starts_with(b"DMDEVNT");
            let other = || {
                DevnetError::new(DevnetErrorKind::Version, "read the devnet's file")
                    .with("path", self.path.display())
                    .with("version", char::from(magic[7]))
            };
            return Err(if known { other() } else { corrupt(&self.path, 0) });
        }
        let mut entries = Vec::new();
        let mut at = MAGIC.len() as u64;
        loop {
            self.end = at;
            let left = len - at;
            if left < FRAME as u64 {
                return Ok(entries);
            }
            let mut size = [0; 4];
            let mut checksum = [0; 8];
            reader
                .read_exact(&mut size)
                .and_then(|()| reader.read_exact(&mut checksum))
                .map_err(|e| failed(&self.path, e))?;
            let size = u64::from(u32::from_be_bytes(size));
            if left - (FRAME as u64) < size {
                return Ok(entries);
            }
            let size =
                usize::try_from(size).ok().filter(|s| *s <= MAX_RECORD).ok_or_else(|| corrupt(&self.path, at))?;
            let mut payload = vec![0; size];
            reader.read_exact(&mut payload).map_err(|e| failed(&self.path, e))?;
            let next = at + (FRAME + size) as u64;
            if blake2b(&payload).first_chunk() != Some(&checksum) {
                // A torn write can only be the last one.
                return if next == len { Ok(entries) } else { Err(corrupt(&self.path, at)) };
            }
            let (entry, places) = parse(&payload).ok_or_else(|| corrupt(&self.path, at))?;
            let base = at + FRAME as u64;
            self.index.extend(places.into_iter().map(|(cid, offset, len)| (cid, (base + u64::from(offset), len))));
            entries.push(entry);
            at = next;
        }
    }

    fn append(&mut self, entry: &[u8], blocks: &Blocks) -> Result<(), DevnetError> {
        let too_big = || DevnetError::new(DevnetErrorKind::Store, "write a record").with("path", self.path.display());
        let len32 = |len: usize| u32::try_from(len).map_err(|_| too_big());
        let mut record = vec![0; FRAME];
        record.extend_from_slice(&len32(entry.len())?.to_be_bytes());
        record.extend_from_slice(entry);
        let mut places = Vec::with_capacity(blocks.len());
        for (cid, data) in blocks {
            let name = cid.to_bytes();
            record.extend_from_slice(&len32(name.len())?.to_be_bytes());
            record.extend_from_slice(&name);
            record.extend_from_slice(&len32(data.len())?.to_be_bytes());
            places.push((*cid, (self.end + record.len() as u64, len32(data.len())?)));
            record.extend_from_slice(data);
        }
        let payload = record.get(FRAME..).unwrap_or_default();
        let size = len32(payload.len())?.to_be_bytes();
        let checksum = blake2b(payload);
        for (to, from) in record.iter_mut().zip(size.iter().chain(&checksum)).take(FRAME) {
            *to = *from;
        }
        self.file.write_all_at(&record, self.end).map_err(|e| {
            // What is left of it would stand before the next record; should that fail too, opening finds it.
            let _ = self.file.set_len(self.end);
            DevnetError::new(DevnetErrorKind::Store, "write a record").with("path", self.path.display()).because(e)
        })?;
        self.end += record.len() as u64;
        self.index.extend(places);
        Ok(())
    }
}

/// Blocks by CID, with offset and length in their record.
type Places = Vec<(Cid, u32, u32)>;

/// The entry in a record, and where its blocks lie in the payload.
fn parse(payload: &[u8]) -> Option<(Vec<u8>, Places)> {
    let mut rest = payload;
    let take = |what: &mut &[u8]| -> Option<Vec<u8>> {
        let (len, tail) = what.split_first_chunk::<4>()?;
        let (bytes, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
        *what = tail;
        Some(bytes.to_vec())
    };
    let entry = take(&mut rest)?;
    let mut places = Vec::new();
    while !rest.is_empty() {
        let cid = Cid::try_from(take(&mut rest)?.as_slice()).ok()?;
        let offset = u32::try_from(payload.len() - rest.len() + 4).ok()?;
        let len = u32::try_from(take(&mut rest)?.len()).ok()?;
        places.push((cid, offset, len));
    }
    Some((entry, places))
}

impl Blockstore for DevnetStore {
    fn get(&self, k: &Cid) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.read(k)?)
    }

    fn has(&self, k: &Cid) -> anyhow::Result<bool> {
        Ok(self.contains(k))
    }

    fn put_keyed(&self, k: &Cid, _: &[u8]) -> anyhow::Result<()> {
        Err(anyhow::anyhow!("block {k} is written outside of a tipset"))
    }
}

/// What a tipset writes, on top of what is there. Nothing of it lasts until it is appended.
#[derive(Debug)]
pub(super) struct Overlay<'s> {
    base: &'s DevnetStore,
    new: RefCell<HashMap<Cid, Vec<u8>>>,
}

impl<'s> Overlay<'s> {
    pub(super) fn new(base: &'s DevnetStore) -> Self {
        Self { base, new: RefCell::default() }
    }

    /// The new blocks that the roots lead to; intermediate states are left behind.
    pub(super) fn reachable(&self, roots: impl IntoIterator<Item = Cid>) -> Blocks {
        let new = self.new.borrow();
        let mut seen = HashSet::new();
        let mut queue: Vec<Cid> = roots.into_iter().collect();
        let mut out = Vec::new();
        while let Some(cid) = queue.pop() {
            if !seen.insert(cid) {
                continue;
            }
            if let Some(block) = new.get(&cid) {
                links(block, &mut queue);
                out.push((cid, block.clone()));
            }
        }
        out
    }
}

/// Everything in a CBOR block that may be a link. Bytes that only look like one lead nowhere and do no harm.
fn links(block: &[u8], into: &mut Vec<Cid>) {
    for (at, window) in block.windows(5).enumerate() {
        if let [0xd8, 0x2a, 0x58, len, 0x00] = window {
            let start = at + 5;
            let end = start + usize::from(*len).saturating_sub(1);
            if let Some(cid) = block.get(start..end).and_then(|bytes| Cid::try_from(bytes).ok()) {
                into.push(cid);
            }
        }
    }
}

impl Blockstore for Overlay<'_> {
    fn get(&self, k: &Cid) -> anyhow::Result<Option<Vec<u8>>> {
        match self.new.borrow().get(k) {
            Some(block) => Ok(Some(block.clone())),
            None => self.base.get(k),
        }
    }

    fn has(&self, k: &Cid) -> anyhow::Result<bool> {
        Ok(self.new.borrow().contains_key(k) || self.base.contains(k))
    }

    fn put_keyed(&self, k: &Cid, block: &[u8]) -> anyhow::Result<()> {
        if !self.base.contains(k) {
            self.new.borrow_mut().insert(*k, block.to_vec());
        }
        Ok(())
    }
}
