//! Who waits for what, for every process to see.

use super::{ClaimError, Resource, Urgency};
use damocles_core::Timestamp;
use fs_err::{File, OpenOptions, os::unix::fs::OpenOptionsExt};
use parking_lot::Mutex;
use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// What stands between a resource's name and a place in its queue.
const MARK: &str = ".want-";

/// A place in the queues of some resources, given up when dropped.
#[derive(Debug)]
pub struct Want {
    place: Place,
    files: Vec<Waiting>,
    refused: Mutex<Option<Resource>>,
}

/// Where somebody stands: the more urgent first, then who came earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    urgency: u8,
    since: i64,
    pid: u32,
    number: u64,
}

impl Place {
    fn text(self) -> String {
        format!("{}-{}-{}-{}", self.urgency, self.since, self.pid, self.number)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let place = Self {
            urgency: parts.next()?.parse().ok()?,
            since: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(place)
    }
}

fn rank(urgency: Urgency) -> u8 {
    match urgency {
        Urgency::Post => 0,
        Urgency::C2 => 1,
        Urgency::Pc2 => 2,
        Urgency::Other => 3,
    }
}

/// The file of a place, locked while its process lives.
#[derive(Debug)]
struct Waiting {
    path: PathBuf,
    _lock: File,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Whoever finds it unlocked removes it.
        let _ = fs_err::remove_file(&self.path);
    }
}

impl Want {
    pub(super) fn register(
        dir: &Path,
        wanted: &[Resource],
        urgency: Urgency,
        since: Timestamp,
    ) -> Result<Self, ClaimError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A clock before 1970 would put a minus sign where the next part begins.
        let place = Place { urgency: rank(urgency), since: since.0.max(0), pid: std::process::id(), number };
        let mut files = Vec::with_capacity(wanted.len());
        for resource in wanted {
            let path = dir.join(format!("{}{MARK}{}", resource.file_name(), place.text()));
            files.push(wait(path)?);
        }
        Ok(Self { place, files, refused: Mutex::new(None) })
    }

    pub(super) fn refused(&self) -> Option<Resource> {
        self.refused.lock().clone()
    }

    pub(super) fn refuse(&self, resource: Resource) {
        *self.refused.lock() = Some(resource);
    }

    /// How many queues it stands in.
    pub fn queues(&self) -> usize {
        self.files.len()
    }
}

/// Makes the file of a place. Under its own name it is locked from the beginning: an unlocked one is a dead one's.
fn wait(path: PathBuf) -> Result<Waiting, ClaimError> {
    let failed = |source| ClaimError::Io { path: path.clone(), source };
    let new = path.with_file_name(format!(".new-{}-{:016x}", std::process::id(), rand::random::<u64>()));
    let lock = OpenOptions::new().write(true).create_new(true).mode(0o660).open(&new).map_err(failed)?;
    let locked = match lock.file().try_lock() {
        Ok(()) => fs_err::rename(&new, &path),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(error)) => Err(error),
    };
    match locked {
        Ok(()) => Ok(Waiting { path, _lock: lock }),
        Err(error) => {
            let _ = fs_err::remove_file(&new);
            Err(failed(error))
        }
    }
}

/// The process that goes before `own`, or before a newcomer of this urgency, in the queue of a resource.
pub(super) fn first(
    dir: &Path,
    resource: &Resource,
    urgency: Urgency,
    own: Option<&Want>,
) -> Result<Option<u32>, ClaimError> {
    let prefix = format!("{}{MARK}", resource.file_name());
    let goes_first = |place: &Place| match own {
        Some(own) => *place < own.place,
        None => place.urgency <= rank(urgency),
    };
    let failed = |source| ClaimError::Io { path: dir.to_owned(), source };
    let mut first: Option<Place> = None;
    let entries = match fs_err::read_dir(dir) {
        // Nobody waits where nothing is.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let place = name.to_str().and_then(|name| name.strip_prefix(&prefix)).and_then(Place::read);
        let Some(place) = place.filter(|place| goes_first(place)) else { continue };
        if first.is_none_or(|first| place < first) && is_alive(&entry.path()) {
            first = Some(place);
        }
    }
    Ok(first.map(|place| place.pid))
}

/// Whether the process of a place lives; the file of a dead one is removed.
fn is_alive(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let Ok(file) = opened else { return false };
    match file.file().try_lock_shared() {
        Ok(()) => {
            let _ = fs_err::remove_file(path);
            false
        }
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        let place = Place { urgency: 1, since: 1_700_000_000_000, pid: 77, number: 3 };
        assert_eq!(Place::read(&place.text()), Some(place));
        for bad in ["", "1-2-3", "1-2-3-4-5", "x-1-2-3", "1-2-3-", "1--2-3-4"] {
            assert_eq!(Place::read(bad), None, "{bad}");
        }
    }
}
