//! Which store a directory is.

use super::{
    error::{StoreError, StoreErrorKind, io_error},
    file::write_new,
};
use damocles_core::Error;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{io, os::unix::fs::MetadataExt, path::Path};

/// The identity file that Lotus, Curio and damocles share.
pub(super) const SHARED: &str = "sectorstore.json";

/// Ours, for stores without an ID there.
const OWN: &str = ".damocles-store";

const MOUNTS: &str = "/proc/self/mountinfo";

/// What the identity files of a directory say.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) read_only: bool,
    /// Whether there is a shared one, with or without an ID.
    pub(super) shared: bool,
}

/// What we read of `sectorstore.json`. Other programs write more into it, and not always all of this.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Shared {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    read_only: bool,
}

#[derive(Debug, Deserialize)]
struct Own {
    id: String,
}

impl Identity {
    pub(super) fn read(op: &'static str, location: &Path) -> Result<Self, StoreError> {
        let shared: Option<Shared> = read(op, &location.join(SHARED))?;
        let there = shared.is_some();
        let Shared { id, name, read_only } = shared.unwrap_or_default();
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let id = match some(id) {
            None => read(op, &location.join(OWN))?.and_then(|own: Own| some(own.id)),
            id => id,
        };
        Ok(Self { id, name: some(name), read_only, shared: there })
    }
}

fn read<T: DeserializeOwned>(op: &'static str, path: &Path) -> Result<Option<T>, StoreError> {
    match std::fs::read(path) {
        // A list would pass for an identity of which every member is missing.
        Ok(text) => serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&text)
            .and_then(|members| serde_json::from_value(serde_json::Value::Object(members)))
            .map(Some)
            .map_err(|e| Error::new(StoreErrorKind::Identity, op).with("path", path.display()).because(e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_error(op, path, e)),
    }
}

/// Gives a directory an identity, and says which one it has.
pub(super) fn write_own(op: &'static str, location: &Path) -> Result<String, StoreError> {
    let path = location.join(OWN);
    let text = format!("{:#}\n", json!({ "id": uuid(rand::random()), "version": 1 }));
    match write_new(op, &path, text.as_bytes()) {
        Err(e) if is_denied(&e) => {
            return Err(Error::new(StoreErrorKind::ReadOnly, op).with("path", path.display()).because(e));
        }
        Err(e) if e.kind() != StoreErrorKind::Exists => return Err(e),
        _ => {}
    }
    // Another process may have been faster: what is there counts for all.
    let own: Option<Own> = read(op, &path)?;
    own.map(|own| own.id).ok_or_else(|| Error::new(StoreErrorKind::Identity, op).with("path", path.display()))
}

fn is_denied(error: &StoreError) -> bool {
    let cause = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    cause.is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
}

/// A random UUID (version 4).
fn uuid(random: u128) -> String {
    let fixed = (random & !(0xf << 76) & !(0b11 << 62)) | (4 << 76) | (0b10 << 62);
    let hex = format!("{fixed:032x}");
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

/// A file system, as far as it can be told from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// What `statfs` calls its id; 0 if it has none.
    pub id: u64,
    /// Its type and what is mounted, as in `/proc/self/mountinfo`.
    pub source: String,
}

impl FileSystem {
    /// That of a path.
    pub(super) fn of(op: &'static str, path: &Path) -> Result<Self, StoreError> {
        let device = std::fs::metadata(path).map_err(|e| io_error(op, path, e))?.dev();
        let stat = nix::sys::statvfs::statvfs(path).map_err(|e| io_error(op, path, e.into()))?;
        let mounts = std::fs::read_to_string(MOUNTS).unwrap_or_default();
        Ok(Self { id: stat.filesystem_id(), source: source_of(&mounts, device).unwrap_or_default() })
    }

    /// Whether it is the same as far as one can tell: the id of some changes with the number of their device, the name of
    /// others with the order in which disks are found.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.id != 0 && self.id == other.id) || (!self.source.is_empty() && self.source == other.source)
    }
}

/// Type and source of the mount of this device.
fn source_of(mounts: &str, device: u64) -> Option<String> {
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    let mut after = line.split(" - ").nth(1)?.split(' ');
    Some(format!("{} {}", after.next()?, after.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn the_mount_of_a_device_is_found() {
        let mounts = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                      37 35 0:52 / /nfs rw - nfs4 server:/export rw\nrubbish\n";
        let device = |major, minor| nix::sys::stat::makedev(major, minor);
        assert_eq!(source_of(mounts, device(98, 0)).unwrap(), "ext3 /dev/root");
        assert_eq!(source_of(mounts, device(0, 52)).unwrap(), "nfs4 server:/export");
        assert_eq!(source_of(mounts, device(8, 1)), None);
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (FileSystem::of("x", dir.path()).unwrap(), FileSystem::of("x", Path::new("/proc")).unwrap());
        assert!(one.is_same(&one) && !one.is_same(&two), "{one:?} {two:?}");
    }
}
