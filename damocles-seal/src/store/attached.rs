//! The persist stores of a process: those that are there, and those that are not.

use super::{
    error::{StoreError, StoreErrorKind},
    known::{KnownStore, KnownStores},
    ledger::{DiskLedger, Space},
    mounts,
    persist::{Attach, PersistStore},
    probe::probe,
};
use crate::task::{FoundStore, Probe, Probed, Unusable};
use damocles_core::{
    ByteSize, Context, Error, JobId, SectorId, SectorSize,
    pool::{ProcessorPool, ProcessorPoolExt},
};
use parking_lot::Mutex;
use std::{convert::Infallible, num::NonZeroU64, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};

mod status;

pub use status::{StoreState, StoreStatus};

/// How long a store that failed is left out.
const ASIDE: Duration = Duration::from_secs(600);

/// How often a store that is not there is looked for when no mount changes: a server that was away may be back.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A store that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The store.
    pub attach: Attach,
    /// Where it is looked at: a pool of child processes for this store alone, so that one that does not answer keeps
    /// nobody else's child. Without one it is looked at by a thread of this process, which stays behind then.
    pub prober: Option<Arc<dyn ProcessorPool>>,
    /// The bytes a second that one copy to this store may take; no limit of its own without.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// How stores are attached and used.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// What is remembered of stores.
    pub known: KnownStores,
    /// Who was promised which space.
    pub ledger: DiskLedger,
    /// The bytes a second that one copy to a store may take; no limit without. Copies that run at the same time have it
    /// each: all together take at most as many times this as there are slots for transfers.
    pub bytes_per_second: Option<NonZeroU64>,
    /// How long a store may take to answer.
    pub answer_limit: Duration,
    /// For how long a copy to a store, or a look at a copy there, may stand still before the store is looked at.
    pub stall_limit: Duration,
}

impl Default for StoreSettings {
    /// No memory, no limit, ten seconds, two minutes.
    fn default() -> Self {
        Self {
            known: KnownStores::default(),
            ledger: DiskLedger::default(),
            bytes_per_second: None,
            answer_limit: Duration::from_secs(10),
            stall_limit: Duration::from_secs(120),
        }
    }
}

/// The persist stores that are wanted, each attached while it is there. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct PersistStores(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    settings: StoreSettings,
    slots: Mutex<Vec<Slot>>,
}

#[derive(Clone, Debug)]
struct Slot {
    wanted: Wanted,
    store: Option<Arc<PersistStore>>,
    unusable: Option<Unusable>,
    aside: Option<(Instant, String)>,
    seen: Option<Seen>,
    turn: Arc<Semaphore>,
}

/// What the last look at a store has found.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    space: Space,
    mounted_read_only: bool,
}

impl Slot {
    fn new(wanted: Wanted, store: Option<Arc<PersistStore>>) -> Self {
        Self { wanted, store, unusable: None, aside: None, seen: None, turn: Arc::new(Semaphore::new(1)) }
    }

    fn label(&self) -> String {
        match &self.store {
            Some(store) => label(store),
            None => self.wanted.attach.label(),
        }
    }

    fn is_read_only(&self) -> bool {
        self.wanted.attach.read_only || self.store.as_ref().is_some_and(|store| store.is_read_only())
    }

    /// A directory that a pattern found and that is no store is none of ours.
    fn counts(&self) -> bool {
        self.store.is_some() || !self.wanted.attach.scanned
    }
}

/// The stores that a replica can be put into, and why the others cannot.
#[derive(Debug, Default)]
pub struct Survey {
    /// Those that can take it.
    pub suitable: Vec<FoundStore>,
    /// The others that may be written to: name, place and reason.
    pub unsuitable: Vec<String>,
}

impl PersistStores {
    /// Stores that are there.
    ///
    /// # Errors
    ///
    /// Two have the same name.
    pub fn new(stores: Vec<PersistStore>) -> Result<Self, StoreError> {
        for (i, store) in stores.iter().enumerate() {
            if let Some(other) = stores.iter().skip(i + 1).find(|s| s.name() == store.name()) {
                return Err(same_name(store, other));
            }
        }
        let slot = |store: PersistStore| {
            let attach = Attach {
                location: store.location().to_owned(),
                name: Some(store.name().to_owned()),
                read_only: store.is_read_only(),
                scanned: false,
            };
            let wanted = Wanted { attach, prober: None, bytes_per_second: None };
            Slot::new(wanted, Some(Arc::new(store)))
        };
        let slots = stores.into_iter().map(slot).collect();
        Ok(Self(Arc::new(Inner { settings: StoreSettings::default(), slots: Mutex::new(slots) })))
    }

    /// Stores that are attached when they are there: see [`PersistStores::keep_attached`].
    ///
    /// # Errors
    ///
    /// Two are wanted by the same name.
    pub fn wanted(wanted: Vec<Wanted>, settings: StoreSettings) -> Result<Self, StoreError> {
        for (i, one) in wanted.iter().enumerate() {
            let same = |other: &&Wanted| one.attach.name.is_some() && other.attach.name == one.attach.name;
            if let Some(other) = wanted.iter().skip(i + 1).find(same) {
                return Err(Error::new(StoreErrorKind::Exists, "attach persist stores")
                    .with("one", one.attach.label())
                    .with("other", other.attach.label())
                    .hint_with("give each [[attached]] store a name of its own"));
            }
        }
        let slots = wanted.into_iter().map(|wanted| Slot::new(wanted, None)).collect();
        Ok(Self(Arc::new(Inner { settings, slots: Mutex::new(slots) })))
    }

    /// How they are used.
    pub fn settings(&self) -> &StoreSettings {
        &self.0.settings
    }

    /// Those that are attached.
    pub fn iter(&self) -> impl Iterator<Item = Arc<PersistStore>> {
        let stores: Vec<_> = self.0.slots.lock().iter().filter_map(|slot| slot.store.clone()).collect();
        stores.into_iter()
    }

    /// The attached one of this name.
    pub fn get(&self, name: &str) -> Option<Arc<PersistStore>> {
        self.iter().find(|store| store.name() == name)
    }

    /// The bytes a second that one copy to the store of this name may take.
    pub fn bytes_per_second(&self, name: &str) -> Option<NonZeroU64> {
        let slots = self.0.slots.lock();
        let own = slots.iter().find(|slot| slot.store.as_ref().is_some_and(|store| store.name() == name));
        let own = own.and_then(|slot| slot.wanted.bytes_per_second);
        [own, self.0.settings.bytes_per_second].into_iter().flatten().min()
    }

    /// Whether a store is wanted that may be written to, there or not.
    pub fn any_writable(&self) -> bool {
        self.0.slots.lock().iter().any(|slot| slot.counts() && !slot.is_read_only())
    }

    /// Leaves a store out for some minutes, because it failed, unless no other can be used.
    pub fn set_aside(&self, name: &str, why: impl Into<String>) {
        let mut slots = self.0.slots.lock();
        if let Some(slot) = slots.iter_mut().find(|slot| slot.store.as_ref().is_some_and(|s| s.name() == name)) {
            let why = why.into();
            tracing::warn!(store = name, why, minutes = ASIDE.as_secs() / 60, "a persist store is left out for a time");
            slot.aside = Some((Instant::now() + ASIDE, why));
        }
    }

    /// Attaches every store as soon as it is there, for as long as this is polled. It looks when the kernel says that a
    /// mount has changed, and now and then for those whose server was away.
    pub async fn keep_attached(&self, cx: &Context) -> Infallible {
        let mounts = mounts::Watch::new();
        loop {
            let away: Vec<usize> = {
                let slots = self.0.slots.lock();
                slots.iter().enumerate().filter(|(_, slot)| slot.store.is_none()).map(|(index, _)| index).collect()
            };
            futures::future::join_all(away.into_iter().map(|index| self.look_at(index, None, false, cx))).await;
            // With none away nothing is awaited but a change that takes one away: seen by whoever uses it.
            drop(tokio::time::timeout(LOOK_AGAIN, mounts.changed()).await);
        }
    }

    /// Which stores can take this replica of at most so many bytes; one that was set aside only if no other can. Each is looked at anew, all at the same time, and none
    /// for longer than the limit.
    pub async fn survey(&self, sector: SectorId, size: SectorSize, bytes: u64, cx: &Context) -> Survey {
        let now = Instant::now();
        let slots: Vec<Slot> = self.0.slots.lock().clone();
        let writable = slots.iter().enumerate().filter(|(_, slot)| !slot.is_read_only());
        let looks = writable.map(|(index, slot)| async move {
            let aside = slot.aside.as_ref().filter(|(until, _)| *until > now).map(|(_, why)| why.clone());
            match self.look_at(index, Some((sector, size)), false, cx).await {
                Ok(found) if found.store.is_read_only() => None,
                Ok(found) => Some(self.takes(found, bytes).map(|found| (found, aside))),
                Err(_) if !slot.counts() => None,
                Err(unusable) => Some(Err(format!("{}: {}", slot.label(), unusable.reason))),
            }
        });
        let (mut survey, mut failed) = (Survey::default(), Vec::new());
        for looked in futures::future::join_all(looks).await.into_iter().flatten() {
            match looked {
                Ok((found, None)) => survey.suitable.push(found),
                Ok((found, Some(why))) => failed.push((found, why)),
                Err(why) => survey.unsuitable.push(why),
            }
        }
        if survey.suitable.is_empty() {
            // They look well again, and there is no other.
            survey.suitable.extend(failed.into_iter().map(|(found, _)| found));
        } else {
            survey.unsuitable.extend(failed.into_iter().map(|(found, why)| format!("{}: {why}", label(&found.store))));
        }
        survey
    }

    /// Whether a replica of at most so many bytes can be put into a store as it is now.
    fn takes(&self, found: FoundStore, bytes: u64) -> Result<FoundStore, String> {
        let label = label(&found.store);
        if found.mounted_read_only {
            return Err(format!("{label}: its file system is mounted read-only"));
        }
        let promised = self.0.settings.ledger.promised(found.device);
        let missing = bytes.saturating_sub(found.present);
        if found.free.saturating_sub(promised) >= missing {
            return Ok(found);
        }
        let [missing, free, promised] = [missing, found.free, promised].map(ByteSize);
        Err(format!("{label}: full ({missing} needed, {free} free, {promised} of it promised to others)"))
    }

    /// Looks at the store of this name, and at what it has of a sector: it must be there and still the same.
    ///
    /// # Errors
    ///
    /// It is not.
    pub async fn look(
        &self,
        name: &str,
        sector: Option<(SectorId, SectorSize)>,
        cx: &Context,
    ) -> Result<FoundStore, StoreError> {
        let op = "look at persist store";
        let is = |slot: &Slot| match &slot.store {
            Some(store) => store.name() == name,
            None => slot.wanted.attach.name.as_deref() == Some(name),
        };
        let Some(index) = self.0.slots.lock().iter().position(is) else {
            return Err(Error::new(StoreErrorKind::Missing, op)
                .with("store", name)
                .hint_with("attach this store to the worker with an [[attached]] entry"));
        };
        self.look_at(index, sector, false, cx).await.map_err(|unusable| unusable.to_error(op).with("store", name))
    }

    /// Removes what is left of unfinished copies of a sector, but in the store of this name. What cannot be removed does no
    /// harm but for its space.
    pub async fn sweep_but(&self, name: &str, sector: SectorId, size: SectorSize, cx: &Context) {
        let others: Vec<usize> = {
            let slots = self.0.slots.lock();
            let other = |slot: &Slot| !slot.is_read_only() && slot.store.as_ref().is_some_and(|s| s.name() != name);
            slots.iter().enumerate().filter(|(_, slot)| other(slot)).map(|(index, _)| index).collect()
        };
        let sweeps = others.into_iter().map(|index| self.look_at(index, Some((sector, size)), true, cx));
        futures::future::join_all(sweeps).await;
    }

    async fn look_at(
        &self,
        index: usize,
        sector: Option<(SectorId, SectorSize)>,
        sweep: bool,
        cx: &Context,
    ) -> Result<FoundStore, Unusable> {
        let Some(slot) = self.0.slots.lock().get(index).cloned() else { return Err(Unusable::silent(0)) };
        let mut known = self.0.settings.known.list();
        if let Some(store) = slot.store.as_deref().filter(|s| known.iter().all(|k| k.name != s.name())) {
            known.push(KnownStore::of(store));
        }
        let task = Probe { attach: slot.wanted.attach.clone(), known, sector, sweep };
        let limit = self.0.settings.answer_limit;
        let asked = tokio::time::timeout(limit, ask(&slot, task, cx)).await;
        let probed = asked.unwrap_or_else(|_| Probed::Unusable(Unusable::silent(limit.as_secs())));
        let result = match probed {
            Probed::Found(found) => self.attach(index, &found).await.map(|()| found),
            Probed::Unusable(unusable) => Err(unusable),
        };
        let result = result.map_err(|unusable| self.with_remedy(unusable));
        // Who does not ask any more learns nothing of the store.
        if !cx.cancel.is_cancelled() {
            self.note(index, &slot, result.as_ref().err());
        }
        result
    }

    /// A store that is there: it is remembered before anything is put into it.
    async fn attach(&self, index: usize, found: &FoundStore) -> Result<(), Unusable> {
        let store = &found.store;
        if let Some(other) = self.iter().find(|s| s.name() == store.name() && s.location() != store.location()) {
            return Err((&same_name(store, &other)).into());
        }
        let (known, new) = (self.0.settings.known.clone(), store.clone());
        match tokio::task::spawn_blocking(move || known.remember(&new)).await {
            Ok(Err(error)) => {
                // Its own identity still says which it is.
                tracing::warn!(store = store.name(), error = %error.chain(), "an attached store could not be remembered");
            }
            Ok(Ok(())) => {}
            Err(error) => tracing::warn!(store = store.name(), %error, "an attached store could not be remembered"),
        }
        if let Some(slot) = self.0.slots.lock().get_mut(index) {
            let fresh = slot.store.is_none();
            slot.store = Some(Arc::new(store.clone()));
            let FoundStore { device, free, total, mounted_read_only, .. } = *found;
            let space = Space { device, free, total };
            slot.seen = Some(Seen { at: Instant::now(), space, mounted_read_only });
            if fresh {
                let location = store.location().display();
                tracing::info!(store = store.name(), %location, id = store.id(), "a persist store is attached");
                if store.id().is_none() {
                    tracing::warn!(store = store.name(), %location, "it has no identity: it is known by its file system only");
                }
            }
        }
        Ok(())
    }

    fn with_remedy(&self, unusable: Unusable) -> Unusable {
        let files = self.0.settings.known.files();
        if files.is_empty() || unusable.kind != StoreErrorKind::Replaced {
            return unusable;
        }
        let files: Vec<String> = files.iter().map(|file| format!("`{}`", file.display())).collect();
        let hint = format!(
            "mount the disk of this store; if the other is meant, stop, and take its name out of {}",
            files.join(" and ")
        );
        Unusable { hint: Some(hint), ..unusable }
    }

    fn note(&self, index: usize, before: &Slot, unusable: Option<&Unusable>) {
        let kind = |slot: &Slot| slot.unusable.as_ref().map(|u| u.kind);
        if let Some(unusable) = unusable.filter(|u| kind(before) != Some(u.kind) && before.counts()) {
            let Unusable { reason, hint, .. } = unusable;
            tracing::warn!(store = before.label(), reason, hint, "a persist store is not used");
        }
        if let Some(slot) = self.0.slots.lock().get_mut(index) {
            slot.unusable = unusable.cloned();
        }
    }
}

fn label(store: &PersistStore) -> String {
    format!("`{}` ({})", store.name(), store.location().display())
}

async fn ask(slot: &Slot, task: Probe, cx: &Context) -> Probed {
    let unusable = |kind, reason: String| Probed::Unusable(Unusable { kind, reason, hint: None });
    let Some(prober) = &slot.wanted.prober else {
        // A thread that a disk keeps is not given company.
        let turn = Arc::clone(&slot.turn).acquire_owned().await;
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            probe(&task)
        });
        return asked.await.unwrap_or_else(|e| unusable(StoreErrorKind::Io, e.to_string()));
    };
    let asked = prober.run_task(JobId(rand::random()), None, &task, cx).await;
    asked.unwrap_or_else(|e| unusable(StoreErrorKind::Io, e.chain()))
}

fn same_name(one: &PersistStore, other: &PersistStore) -> StoreError {
    Error::new(StoreErrorKind::Exists, "attach persist stores")
        .with("name", one.name())
        .with("one", one.location().display())
        .with("other", other.location().display())
        .hint_with("give each [[attached]] store a name of its own")
}

#[cfg(test)]
#[path = "attached_tests.rs"]
mod tests;
