//! A journal without a file.

use super::{
    Entry, EntryKind, Journal, JournalObserver, JournalSector, MOST_UNTOLD, NewEntry, Untold, record::phase_of,
};
use crate::service::Report;
use async_trait::async_trait;
use damocles_core::{
    Error, Fence, RequestId, SectorId, Timestamp,
    allocator::SectorLease,
    pipeline::{SealError, SealErrorKind},
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// A journal in memory. It keeps the whole contract but for durability.
#[derive(Debug, Default)]
pub struct InMemoryJournal {
    state: Mutex<State>,
    observer: Option<Arc<dyn JournalObserver>>,
}

#[derive(Debug, Default)]
struct State {
    sectors: BTreeMap<SectorId, Sector>,
    request: Option<RequestId>,
    appends: u64,
    failing: u32,
}

#[derive(Debug)]
struct Sector {
    lease: SectorLease,
    entries: Vec<Entry>,
    untold: Vec<Untold>,
    told: u64,
}

impl Sector {
    fn tell(&mut self, report: Report) {
        let last = self.untold.last().map(|untold| &untold.report);
        if matches!(report, Report::Failed { .. }) && last == Some(&report) {
            return;
        }
        self.told += 1;
        self.untold.push(Untold { number: self.told, report });
        if self.untold.len() > usize::try_from(MOST_UNTOLD).unwrap_or(usize::MAX) {
            self.untold.remove(0);
        }
    }
}

impl InMemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells `observer` of every append.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn JournalObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Makes the next `appends` fail and write nothing.
    pub fn fail_next(&self, appends: u32) {
        self.state.lock().failing = appends;
    }

    fn push(&self, state: &mut State, id: SectorId, fence: Fence, entry: NewEntry) -> Result<u64, SealError> {
        if state.failing > 0 {
            state.failing -= 1;
            return Err(Error::new(SealErrorKind::Journal, "append to journal").with("sector", id));
        }
        state.appends += 1;
        let n = state.appends;
        if let Some(observer) = &self.observer {
            observer.appending(n);
        }
        let sector = state.sectors.get_mut(&id).ok_or_else(|| unknown(id))?;
        let seq = u64::try_from(sector.entries.len()).unwrap_or(u64::MAX).saturating_add(1);
        if entry.kind == EntryKind::Ended {
            sector.untold.clear();
        }
        if let Some(report) = entry.report.clone() {
            sector.tell(report);
        }
        sector.entries.push(Entry::seal(id, seq, fence, Timestamp(0), entry));
        if let Some(observer) = &self.observer {
            observer.appended(n);
        }
        Ok(seq)
    }
}

fn unknown(id: SectorId) -> SealError {
    Error::new(SealErrorKind::UnknownSector, "append to journal").with("sector", id)
}

fn fenced(op: &'static str, id: SectorId) -> SealError {
    Error::new(SealErrorKind::Fenced, op).with("sector", id)
}

#[async_trait]
impl Journal for InMemoryJournal {
    async fn open(&self, lease: &SectorLease) -> Result<(), SealError> {
        let mut state = self.state.lock();
        if state.sectors.get(&lease.sector).is_some_and(|s| s.lease.fence > lease.fence) {
            return Err(fenced("open sector", lease.sector));
        }
        let known = state.sectors.contains_key(&lease.sector);
        let fresh = || Sector { lease: lease.clone(), entries: Vec::new(), untold: Vec::new(), told: 0 };
        state.sectors.entry(lease.sector).or_insert_with(fresh);
        let pushed = self.push(&mut state, lease.sector, lease.fence, NewEntry::opened(lease));
        if pushed.is_err() && !known {
            state.sectors.remove(&lease.sector);
        }
        pushed?;
        if let Some(sector) = state.sectors.get_mut(&lease.sector) {
            sector.lease = lease.clone();
        }
        state.request = None;
        Ok(())
    }

    async fn append(&self, sector: SectorId, fence: Fence, entry: NewEntry) -> Result<u64, SealError> {
        let mut state = self.state.lock();
        match state.sectors.get(&sector) {
            None => Err(unknown(sector)),
            Some(known) if known.lease.fence > fence => Err(fenced("append to journal", sector)),
            Some(_) => self.push(&mut state, sector, fence, entry),
        }
    }

    async fn history(&self, sector: SectorId) -> Result<Vec<Entry>, SealError> {
        Ok(self.state.lock().sectors.get(&sector).map(|s| s.entries.clone()).unwrap_or_default())
    }

    async fn active(&self) -> Result<Vec<JournalSector>, SealError> {
        let state = self.state.lock();
        let lives = |s: &&Sector| {
            let turn = |e: &&Entry| matches!(e.kind, EntryKind::Opened | EntryKind::Ended);
            s.entries.iter().rev().find(turn).is_some_and(|e| e.kind == EntryKind::Opened)
        };
        let tells = |e: &&Entry| {
            matches!(e.kind, EntryKind::Parked | EntryKind::Resumed | EntryKind::Ending | EntryKind::Ended)
        };
        let active = state.sectors.values().filter(lives).map(|s| JournalSector {
            lease: s.lease.clone(),
            phase: phase_of(s.lease.sector, s.entries.iter().rev().find(tells)),
        });
        Ok(active.collect())
    }

    async fn tell(&self, sector: SectorId, fence: Fence, report: &Report) -> Result<(), SealError> {
        match self.state.lock().sectors.get_mut(&sector) {
            None => Err(unknown(sector)),
            Some(known) if known.lease.fence > fence => Err(fenced("record report", sector)),
            Some(known) => {
                known.tell(report.clone());
                Ok(())
            }
        }
    }

    async fn untold(&self, sector: SectorId) -> Result<Vec<Untold>, SealError> {
        Ok(self.state.lock().sectors.get(&sector).map(|s| s.untold.clone()).unwrap_or_default())
    }

    async fn told(&self, sector: SectorId, number: u64) -> Result<(), SealError> {
        if let Some(known) = self.state.lock().sectors.get_mut(&sector) {
            known.untold.retain(|untold| untold.number > number);
        }
        Ok(())
    }

    async fn pending_request(&self) -> Result<Option<RequestId>, SealError> {
        Ok(self.state.lock().request.clone())
    }

    async fn set_pending_request(&self, request: Option<&RequestId>) -> Result<(), SealError> {
        self.state.lock().request = request.cloned();
        Ok(())
    }
}
