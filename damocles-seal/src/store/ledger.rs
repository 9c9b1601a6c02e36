//! Who was promised which space on a disk.
//!
//! Two stages that both see the last free bytes would both begin, and both fail hours later; two sectors that both begin
//! on a disk with room for one would wait for each other for ever. So a sector is begun only where there is room for all
//! that it will ever write, and each of its stages asks here before it writes its part.

use super::{
    admission::{Party, may_leave, may_take},
    error::{StoreError, StoreErrorKind, io_error},
};
use damocles_core::{ByteSize, Error, SectorId};
use parking_lot::Mutex;
use serde::Serialize;
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

impl Marks {
    /// The hundredths below which no sector is begun, and those from which on it is again.
    pub const fn percents(self) -> (u8, u8) {
        (self.low, self.high)
    }
}

impl Default for Marks {
    /// 2 and 4 percent.
    fn default() -> Self {
        Self { low: 2, high: 4 }
    }
}

/// A file system as it is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    /// What is free is what everybody may write (`f_bavail`), also for root: children have no capability to use the
    /// blocks that a file system reserves, may run as another user, and a file system without its reserve gets slow.
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

impl Space {
    /// So many hundredths of its size.
    pub const fn percent(self, mark: u8) -> u64 {
        (self.total / 100).saturating_mul(mark as u64)
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
    /// Whether it is a part of what the [`Stay`] of its sector needs on this disk, and not counted again.
    pub in_stay: bool,
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

/// What a sector takes of its disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What it will still write until its end.
    pub needs: u64,
    /// What it has written, which its end frees.
    pub holds: u64,
}

/// A sector that lies on a disk from before it is begun until its end.
#[derive(Clone)]
pub struct Stay {
    /// The sector; none while it is not known which it will be.
    pub sector: Option<SectorId>,
    /// Where it lies.
    pub path: PathBuf,
    /// Asked again whenever somebody asks for space.
    pub usage: Arc<dyn Fn() -> Usage + Send + Sync>,
}

impl fmt::Debug for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stay({:?}, {})", self.sector, self.path.display())
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
    stays: BTreeMap<u64, Stay>,
    nearly_full: bool,
}

/// What a disk owes to whom at one moment.
#[derive(Debug, Default)]
struct Account {
    /// The sectors that lie there, and what they need and hold.
    parties: Vec<(Option<SectorId>, Party)>,
    /// What was given to those sectors' stages, or to others, and is not written yet.
    given: u64,
    /// Everybody who is owed something.
    owed: Vec<(String, u64)>,
}

impl Account {
    /// All that is promised and not written yet.
    fn promised(&self) -> u64 {
        self.parties.iter().map(|(_, party)| party.needs).fold(self.given, u64::saturating_add)
    }

    fn party_of(&self, sector: SectorId) -> Option<usize> {
        self.parties.iter().position(|(of, _)| *of == Some(sector))
    }

    /// Whether so many bytes more may be written by whom the claim is of.
    fn allows(&self, claim: &Claim, needed: u64, free: u64) -> bool {
        let Some(who) = self.party_of(claim.sector) else {
            return needed <= free.saturating_sub(self.promised());
        };
        let parties: Vec<Party> = self.parties.iter().map(|(_, party)| *party).collect();
        let free = free.saturating_sub(self.given);
        if claim.in_stay { may_take(free, &parties, who, needed) } else { may_leave(free, &parties, who, needed) }
    }

    /// That there is too little.
    fn too_little(&self, op: &'static str, path: &Path, needed: u64, free: u64) -> StoreError {
        let by: Vec<_> = self.owed.iter().map(|(who, bytes)| format!("{who} {}", ByteSize(*bytes))).collect();
        let by = if by.is_empty() { "nobody".to_owned() } else { by.join(", ") };
        Error::new(StoreErrorKind::DiskFull, op)
            .with("path", path.display())
            .with("needed", ByteSize(needed))
            .with("free", ByteSize(free))
            .with("promised", ByteSize(self.promised()))
            .with("promised to", by)
            .hint_with("free space on this file system or wait until these sectors are further; it goes on by itself")
    }
}

impl Disk {
    /// Asks everybody what is there by now. Looks at files, so that nothing is locked meanwhile.
    fn account(&self) -> Account {
        let (claims, stays) = {
            let book = self.book.lock();
            (book.claims.values().cloned().collect::<Vec<_>>(), book.stays.values().cloned().collect::<Vec<_>>())
        };
        let mut account = Account::default();
        for stay in stays {
            let Usage { needs, holds } = (stay.usage)();
            account.parties.push((stay.sector, Party { needs, holds }));
            let who = stay.sector.map_or_else(|| "a sector that begins".to_owned(), |sector| sector.to_string());
            account.owed.push((who, needs));
        }
        for claim in claims {
            let missing = claim.missing();
            account.given = account.given.saturating_add(missing);
            match account.party_of(claim.sector).filter(|_| claim.in_stay) {
                Some(who) => {
                    if let Some((_, party)) = account.parties.get_mut(who) {
                        party.needs = party.needs.saturating_sub(missing);
                        party.holds = party.holds.saturating_add(missing);
                    }
                }
                None => account.owed.push((claim.sector.to_string(), missing)),
            }
        }
        account.owed.retain(|(_, bytes)| *bytes > 0);
        account
    }
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

/// A sector's place on a disk until this is dropped.
#[derive(Debug)]
pub struct Booking {
    ledger: DiskLedger,
    device: u64,
    number: u64,
}

impl Booking {
    /// It is known now which sector it is.
    pub fn assign(&self, sector: SectorId) {
        if let Some(stay) = self.ledger.disk(self.device).book.lock().stays.get_mut(&self.number) {
            stay.sector = Some(sector);
        }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.ledger.disk(self.device).book.lock().stays.remove(&self.number);
        self.ledger.0.released.notify_waiters();
    }
}

impl Book {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
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

    /// Promises space on `device`. A sector that lies there gets it if it and everybody else who lies there can still be
    /// finished; others if what is free suffices for it and for all that is promised.
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
        let (needed, account) = (claim.missing(), disk.account());
        let free = space()?.free;
        if !account.allows(&claim, needed, free) {
            let refused = account.too_little("reserve space", &claim.path, needed, free).with("sector", claim.sector);
            let whole = account.party_of(claim.sector).and_then(|who| account.parties.get(who));
            return Err(match whole {
                Some((_, party)) => refused.with("needed until its end", ByteSize(party.needs)),
                None => refused,
            });
        }
        let mut book = disk.book.lock();
        let number = book.number();
        book.claims.insert(number, claim);
        Ok(Reservation { ledger: self.clone(), device, number })
    }

    /// Lets a sector begin on `device`: there is room for all that it will write beside all that is promised, and the disk
    /// is not nearly full. It is that from the moment at which less than the low mark is free and not promised, until it is
    /// the high mark.
    ///
    /// # Errors
    ///
    /// It may not begin ([`StoreErrorKind::DiskFull`]), or `space` cannot be told.
    pub fn begin(
        &self,
        device: u64,
        stay: Stay,
        space: impl FnOnce() -> Result<Space, StoreError>,
    ) -> Result<Booking, StoreError> {
        let disk = self.disk(device);
        let _turn = disk.turn.lock();
        let (needed, account) = ((stay.usage)().needs, disk.account());
        let space = space()?;
        self.may_begin(&disk, &stay.path, space, account.promised())?;
        if needed > space.free.saturating_sub(account.promised()) {
            return Err(account.too_little("begin a sector", &stay.path, needed, space.free));
        }
        Ok(self.book(&disk, device, stay))
    }

    /// Counts a sector that lies on `device` already, whether there is room for the rest of it or not: its stages wait
    /// until there is.
    pub fn resume(&self, device: u64, stay: Stay) -> Booking {
        self.book(&self.disk(device), device, stay)
    }

    fn book(&self, disk: &Disk, device: u64, stay: Stay) -> Booking {
        let mut book = disk.book.lock();
        let number = book.number();
        book.stays.insert(number, stay);
        Booking { ledger: self.clone(), device, number }
    }

    fn may_begin(&self, disk: &Disk, path: &Path, space: Space, promised: u64) -> Result<(), StoreError> {
        let left = space.free.saturating_sub(promised);
        let mut book = disk.book.lock();
        let mark = if book.nearly_full { self.0.marks.high } else { self.0.marks.low };
        book.nearly_full = left < space.percent(mark);
        if !book.nearly_full {
            return Ok(());
        }
        Err(Error::new(StoreErrorKind::DiskFull, "begin a sector")
            .with("path", path.display())
            .with("free and not promised", ByteSize(left))
            .with("mark", ByteSize(space.percent(self.0.marks.high)))
            .hint_with("no new sector is begun here until more is free than the mark; those begun go on"))
    }

    /// When it counts file systems as nearly full.
    pub fn marks(&self) -> Marks {
        self.0.marks
    }

    /// What is free on a file system and promised to nobody.
    pub fn unpromised(&self, space: Space) -> u64 {
        space.free.saturating_sub(self.promised(space.device))
    }

    /// The bytes that are promised on a device and not written yet. Looks at files: blocks if a disk does not answer.
    pub fn promised(&self, device: u64) -> u64 {
        self.disk(device).account().promised()
    }

    /// Whether anybody holds a promise.
    pub fn is_promising(&self) -> bool {
        self.0.disks.lock().values().any(|disk| {
            let book = disk.book.lock();
            !book.claims.is_empty() || !book.stays.is_empty()
        })
    }

    /// Whether anybody but this sector holds a promise: without one, waiting for a release is in vain.
    pub fn is_promising_others(&self, sector: SectorId) -> bool {
        self.0.disks.lock().values().any(|disk| {
            let book = disk.book.lock();
            let claims = book.claims.values().any(|claim| claim.sector != sector);
            claims || book.stays.values().any(|stay| stay.sector != Some(sector))
        })
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

#[cfg(test)]
#[path = "ledger_crowd_tests.rs"]
mod crowd_tests;
