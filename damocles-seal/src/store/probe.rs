//! Everything that is asked of a store that may not answer, in one go.

use super::{Space, StoreError, StoreErrorKind, error::io_error, persist::PersistStore};
use crate::task::{FoundStore, Probe, Probed, Unusable};
use damocles_core::Error;
use nix::sys::statvfs::{FsFlags, statvfs};

/// Looks at a store. Blocks for as long as its disk does not answer.
pub(crate) fn probe(task: &Probe) -> Probed {
    match find(task) {
        Ok(found) => Probed::Found(found),
        Err(error) => Probed::Unusable((&error).into()),
    }
}

fn find(task: &Probe) -> Result<FoundStore, StoreError> {
    let store = PersistStore::attach(&task.attach, &task.known)?;
    let flags = statvfs(store.location()).map_err(|e| io_error("look at persist store", store.location(), e.into()))?;
    let mounted_read_only = flags.flags().contains(FsFlags::ST_RDONLY);
    let mut present = 0;
    if let Some((sector, size)) = task.sector {
        if task.sweep && !store.is_read_only() && !mounted_read_only {
            store.sweep(sector, size);
        }
        present = store.bytes_of(sector, size);
    }
    let Space { device, free, total } = Space::of(store.location())?;
    Ok(FoundStore { store, device, free, total, mounted_read_only, present })
}

impl From<&StoreError> for Unusable {
    fn from(error: &StoreError) -> Self {
        Self { kind: error.kind(), reason: error.chain(), hint: error.hint().map(ToOwned::to_owned) }
    }
}

impl Unusable {
    /// The same as an error of whoever wanted to use the store.
    pub(crate) fn to_error(&self, op: &'static str) -> StoreError {
        let error = Error::new(self.kind, op).because(self.reason.clone());
        match &self.hint {
            Some(hint) => error.hint_with(hint.clone()),
            None => error,
        }
    }

    pub(crate) fn silent(seconds: u64) -> Self {
        let reason = format!("its disk or server did not answer within {seconds} s");
        Self { kind: StoreErrorKind::Silent, reason, hint: None }
    }
}
