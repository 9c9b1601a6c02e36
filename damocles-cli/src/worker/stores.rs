//! The stores of a running worker: from the file to stores, and how they are seen.

use crate::{
    children,
    config::{WorkerConfig, worker::Attached},
    exit::Failure,
};
use anyhow::Context as _;
use damocles_core::{ByteSize, Context};
use damocles_seal::store::{
    Attach, DiskLedger, KnownStores, PersistStores, SealingStore, Space, StoreSettings, StoreState, StoreStatus, Wanted,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// A file system that does not answer in this time is shown without its space.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// What was seen of a store this long ago is looked at anew.
const STALE: Duration = Duration::from_secs(10);

/// Who was promised which space, with the marks of the file.
pub(super) fn ledger(config: &WorkerConfig) -> DiskLedger {
    DiskLedger::new(config.stores.marks().unwrap_or_default())
}

/// The attached stores, and those that the patterns of `scan_persist_stores` find by their `sectorstore.json`. None of
/// them has to be there yet. What is remembered of them lies in the sealing stores.
pub(super) fn persist(config: &WorkerConfig, ledger: &DiskLedger) -> Result<PersistStores, Failure> {
    let of = |a: &Attached| {
        let attach =
            Attach { location: a.location.clone(), name: a.name.clone(), read_only: a.readonly, scanned: false };
        (attach, config.share_of(a.bandwidth))
    };
    let mut found: Vec<_> = config.attached.iter().map(of).collect();
    for pattern in &config.worker.scan_persist_stores {
        let dirs =
            glob::glob(pattern).with_context(|| format!("use `worker.scan_persist_stores` pattern `{pattern}`"))?;
        for dir in dirs {
            let location = dir.with_context(|| format!("scan `{pattern}`"))?;
            // A file beside the mount points can never become a store.
            if !is_plain_file(&location) && found.iter().all(|(attach, _)| attach.location != location) {
                found.push((Attach { location, name: None, read_only: false, scanned: true }, None));
            }
        }
    }
    let probed = |(index, (attach, bytes_per_second))| {
        let prober = Some(children::prober(index, &config.processors)?);
        Ok(Wanted { attach, prober, bytes_per_second })
    };
    let wanted = found.into_iter().enumerate().map(probed).collect::<Result<Vec<_>, Failure>>()?;
    let memory = config.threads().into_iter().map(|thread| thread.location.join("meta").join("persist-stores.json"));
    let mut settings = StoreSettings {
        known: KnownStores::open(memory)?,
        ledger: ledger.clone(),
        bytes_per_second: config.share_of(config.stores.bandwidth),
        ..StoreSettings::default()
    };
    if let Some(limit) = config.stores.stall_limit {
        settings.stall_limit = limit.0;
    }
    Ok(PersistStores::wanted(wanted, settings)?)
}

/// By its own entry: a mount that hangs below it is not touched.
fn is_plain_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
}

/// A store as `info` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Its name; a sealing store has none, nor has one that was never attached and has none in the file.
    pub name: Option<String>,
    /// Where it is.
    pub location: PathBuf,
    /// `sealing` or `persist`.
    pub kind: String,
    /// Whether nothing is written to it.
    pub read_only: bool,
    /// How it is.
    pub state: StoreState,
    /// Why it is not used, if it is not.
    pub reason: Option<String>,
    /// The space that is left, if its file system says so.
    pub free: Option<ByteSize>,
    /// The size of its file system.
    pub total: Option<ByteSize>,
    /// What of the free space is promised to sectors of this worker that have not written it yet.
    pub promised: Option<ByteSize>,
    /// With less free and not promised, no sector is begun in it; only for a sealing store.
    pub low_mark: Option<ByteSize>,
    /// From here on sectors are begun again.
    pub high_mark: Option<ByteSize>,
}

/// A store that cannot be used as it should.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Where it is.
    pub location: PathBuf,
    /// How it is.
    pub state: StoreState,
    /// Why it is not used.
    pub reason: Option<String>,
}

/// The stores of a running worker. However often they are looked at, a disk that hangs keeps one thread at most.
#[derive(Debug)]
pub(super) struct Stores {
    persist: PersistStores,
    refreshing: Arc<AtomicBool>,
    sealing: Vec<Arc<Sealing>>,
}

#[derive(Debug)]
struct Sealing {
    store: Arc<SealingStore>,
    asking: AtomicBool,
    /// What it had, and what of it was promised; none while it does not answer.
    seen: Mutex<Option<(Space, u64)>>,
}

impl Stores {
    pub(super) fn new(persist: PersistStores, sealing: Vec<Arc<SealingStore>>) -> Self {
        let sealing = sealing.into_iter();
        let sealing = sealing.map(|store| Sealing { store, asking: AtomicBool::new(false), seen: Mutex::new(None) });
        Self { persist, refreshing: Arc::default(), sealing: sealing.map(Arc::new).collect() }
    }

    /// The persist stores that cannot be used, as they were seen last.
    pub(super) fn troubles(&self) -> Vec<Trouble> {
        let bad = self.persist.status().into_iter().filter(|status| status.state != StoreState::Attached);
        let trouble = |StoreStatus { name, location, state, reason, .. }| Trouble { name, location, state, reason };
        bad.map(trouble).collect()
    }

    /// All of them, with the space that is left.
    pub(super) async fn views(&self) -> Vec<Store> {
        let sealing = futures::future::join_all(self.sealing.iter().map(|sealing| sealing.view()));
        let (mut all, ()) = tokio::join!(sealing, self.refresh());
        all.extend(self.persist.status().into_iter().map(|status| self.persist_view(status)));
        all
    }

    async fn refresh(&self) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (stores, refreshing) = (self.persist.clone(), Arc::clone(&self.refreshing));
        let looked = tokio::spawn(async move {
            stores.refresh(STALE, &Context::detached()).await;
            refreshing.store(false, Ordering::Release);
        });
        // It goes on without us.
        let _ = timeout(ANSWER_LIMIT, looked).await;
    }

    fn persist_view(&self, status: StoreStatus) -> Store {
        let StoreStatus { name, location, read_only, state, reason, space, .. } = status;
        Store {
            name,
            location,
            kind: "persist".to_owned(),
            read_only,
            state,
            reason,
            free: space.map(|space| ByteSize(space.free)),
            total: space.map(|space| ByteSize(space.total)),
            promised: None,
            low_mark: None,
            high_mark: None,
        }
    }
}

impl Sealing {
    async fn view(self: &Arc<Self>) -> Store {
        if !self.asking.swap(true, Ordering::AcqRel) {
            let this = Arc::clone(self);
            let ask = tokio::task::spawn_blocking(move || {
                let space = Space::of(this.store.location()).ok();
                *this.seen.lock() = space.map(|space| (space, this.store.ledger().promised(space.device)));
                this.asking.store(false, Ordering::Release);
            });
            let _ = timeout(ANSWER_LIMIT, ask).await;
        }
        let seen = if self.asking.load(Ordering::Acquire) { None } else { *self.seen.lock() };
        let (low, high) = self.store.ledger().marks().percents();
        let mark = |percent| seen.map(|(space, _)| ByteSize(space.percent(percent)));
        let (state, reason) = match seen {
            None => (StoreState::Suspect, Some("its disk does not answer".to_owned())),
            Some((space, promised)) if space.free.saturating_sub(promised) < space.percent(low) => {
                (StoreState::Full, Some("less than the low mark is free and not promised".to_owned()))
            }
            Some(_) => (StoreState::Attached, None),
        };
        Store {
            name: None,
            location: self.store.location().to_owned(),
            kind: "sealing".to_owned(),
            read_only: false,
            state,
            reason,
            free: seen.map(|(space, _)| ByteSize(space.free)),
            total: seen.map(|(space, _)| ByteSize(space.total)),
            promised: seen.map(|(_, promised)| ByteSize(promised)),
            low_mark: mark(low),
            high_mark: mark(high),
        }
    }
}
