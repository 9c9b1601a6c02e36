//! Who was promised which space on a disk.
//!
//! Two stages that both see the last free bytes would both begin, and both fail hours later. So each asks here first.

use super::error::{StoreError, StoreErrorKind, io_error};
use damocles_core::{ByteSize, Error, SectorId};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Notify;

/// When a file system counts as nearly full, in percent of its size that are free and not promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    low: u8,
    high: u8,
}

impl Marks {
    /// Below `low` no sector is begun; from `high` on it is again. None if they are not in this order or above 100.
    pub const fn new(low: u8, high: u8) -> Option<Self> {
        if low <= high && high <= 100 { Some(Self { low, high }) } else { None }
    }
}

impl Default for Marks {
    /// 2 and 4 percent.
    fn default() -> Self {
        Self { low: 2, high: 4 }
    }
}

/// A file system as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The number of its device.
    pub device: u64,
    /// The bytes that may still be written.
    pub free: u64,
    /// Its size in bytes.
    pub total: u64,
}

impl Space {
    /// The file system of a path. Blocks if its disk does not answer.
    ///
    /// # Errors
    ///
    /// The path is not there, or the file system fails.
    pub fn of(path: &Path) -> Result<Self, StoreError> {
        let op = "read free space";
        let device = std::fs::metadata(path).map_err(|e| io_error(op, path, e))?.dev();
        let stat = nix::sys::statvfs::statvfs(path).map_err(|e| io_error(op, path, e.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Ok(Self { device, free: bytes(stat.blocks_available()), total: bytes(stat.blocks()) })
    }
}

/// What of a claim is on the disk already, in bytes.
pub type Present = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Space that is asked for.
#[derive(Clone)]
pub struct Claim {
    /// For which sector.
    pub sector: SectorId,
    /// Where it is to be written: for the reader of an error.
    pub path: PathBuf,
    /// All bytes that will be there in the end.
    pub total: u64,
    /// How many of them are there. Asked again whenever somebody else asks for space, so that what has been written
    /// since is not counted twice.
    pub present: Present,
    /// Whether it leads to space being freed, as of a sector that is half sealed: it goes before all promises, or it
    /// would wait for those who wait for it.
    pub first: bool,
}

impl Claim {
    fn missing(&self) -> u64 {
        self.total.saturating_sub((self.present)())
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({}, {}, {} bytes)", self.sector, self.path.display(), self.total)
    }
}

/// The promises of one process, by file system. Cheap to clone; all clones are the same ledger.
#[derive(Clone, Debug, Default)]
pub struct DiskLedger(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    marks: Marks,
    disks: Mutex<BTreeMap<u64, Arc<Disk>>>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Disk {
    // Held while the disk is asked, one claim after the other. The book never waits for a disk: a reservation can be
    // dropped anywhere, and a disk that does not answer holds up nobody who writes to another.
    turn: Mutex<()>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    claims: BTreeMap<u64, Claim>,
    nearly_full: bool,
}

impl Disk {
    /// Who has been promised how many bytes that are not written yet.
    fn owed(&self) -> Vec<(SectorId, u64)> {
        let claims: Vec<Claim> = self.book.lock().claims.values().cloned().collect();
        claims.iter().map(|claim| (claim.sector, claim.missing())).collect()
    }

    fn promised(&self) -> u64 {
        sum(&self.owed())
    }
}

fn sum(owed: &[(SectorId, u64)]) -> u64 {
    owed.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add)
}

/// Space that is promised to a sector until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    ledger: DiskLedger,
    device: u64,
    number: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.ledger.disk(self.device).book.lock().claims.remove(&self.number);
        self.ledger.0.released.notify_waiters();
    }
}

impl DiskLedger {
    /// An empty ledger with these marks.
    pub fn new(marks: Marks) -> Self {
        Self(Arc::new(Inner { marks, ..Inner::default() }))
    }

    fn disk(&self, device: u64) -> Arc<Disk> {
        Arc::clone(self.0.disks.lock().entry(device).or_default())
    }

    /// Promises space on `device`, if what is free there suffices for it and for all that is promised.
    ///
    /// # Errors
    ///
    /// It does not ([`StoreErrorKind::DiskFull`], with who has been promised what), or `space` cannot be told.
    pub fn reserve(
        &self,
        device: u64,
        claim: Claim,
        space: impl FnOnce() -> Result<Space, StoreError>,
    ) -> Result<Reservation, StoreError> {
        let disk = self.disk(device);
        let _turn = disk.turn.lock();
        // What is there is looked at before what is free: bytes that are written in between count as needed, not as free.
        let (needed, owed) = (claim.missing(), disk.owed());
        let promised = if claim.first { 0 } else { sum(&owed) };
        let free = space()?.free;
        if needed > free.saturating_sub(promised) {
            let by: Vec<_> = owed.iter().map(|(sector, bytes)| format!("{sector} {}", ByteSize(*bytes))).collect();
            let by = if by.is_empty() { "nobody".to_owned() } else { by.join(", ") };
            return Err(Error::new(StoreErrorKind::DiskFull, "reserve space")
                .with("sector", claim.sector)
                .with("path", claim.path.display())
                .with("needed", ByteSize(needed))
                .with("free", ByteSize(free))
                .with("promised", ByteSize(promised))
                .with("promised to", by)
                .hint_with(
                    "free space on this file system or wait until these sectors are further; it goes on by itself",
                ));
        }
        let mut book = disk.book.lock();
        let number = book.next;
        book.next += 1;
        book.claims.insert(number, claim);
        Ok(Reservation { ledger: self.clone(), device, number })
    }

    /// What is free on a file system and promised to nobody.
    pub fn unpromised(&self, space: Space) -> u64 {
        space.free.saturating_sub(self.promised(space.device))
    }

    /// The bytes that are promised on a device and not written yet.
    pub fn promised(&self, device: u64) -> u64 {
        self.disk(device).promised()
    }

    /// Whether anybody holds a promise: without one, waiting for a release is in vain.
    pub fn is_promising(&self) -> bool {
        self.0.disks.lock().values().any(|disk| !disk.book.lock().claims.is_empty())
    }

    /// Whether a new sector may be begun on this file system: not from the moment at which less than the low mark is free
    /// and not promised, until it is the high mark.
    ///
    /// # Errors
    ///
    /// It may not.
    pub fn may_begin(&self, path: &Path, space: Space) -> Result<(), StoreError> {
        let disk = self.disk(space.device);
        let left = space.free.saturating_sub(disk.promised());
        let mut book = disk.book.lock();
        let percent = |mark: u8| space.total / 100 * u64::from(mark);
        let mark = percent(if book.nearly_full { self.0.marks.high } else { self.0.marks.low });
        book.nearly_full = left < mark;
        if !book.nearly_full {
            return Ok(());
        }
        Err(Error::new(StoreErrorKind::DiskFull, "begin a sector")
            .with("path", path.display())
            .with("free and not promised", ByteSize(left))
            .with("mark", ByteSize(percent(self.0.marks.high)))
            .hint_with("no new sector is begun here until more is free than the mark; those begun go on"))
    }

    /// Ends when space that was promised is so no more. Counts from the call on, not from the first poll.
    pub fn released(&self) -> impl Future<Output = ()> + Send + use<> {
        let inner = Arc::clone(&self.0);
        // The generation is taken now: a release between this call and the first poll is not lost.
        let mut notified = Box::pin(async move {
            inner.released.notified().await;
        });
        let _ = futures::FutureExt::now_or_never(&mut notified);
        notified
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
