//! An allocator without a database.

use crate::{
    ActorId, Clock, Error, Fence, RequestId, SealProofType, SectorId, SectorNumber, StoreId,
    allocator::{AllocError, AllocErrorKind, AllocateRequest, Outcome, SectorAllocator, SectorLease},
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Leases numbers of one miner, in memory.
#[derive(Debug)]
pub struct InMemoryAllocator {
    miner: ActorId,
    proof_type: SealProofType,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    limit: Option<u64>,
    sectors: BTreeMap<SectorId, Entry>,
}

#[derive(Debug)]
struct Entry {
    request: RequestId,
    lease: SectorLease,
    ended: Option<Outcome>,
}

impl InMemoryAllocator {
    /// An allocator of numbers from 1 for `miner`.
    pub fn new(miner: ActorId, proof_type: SealProofType, clock: Arc<dyn Clock>) -> Self {
        Self { miner, proof_type, clock, state: Mutex::new(State { next: 1, ..State::default() }) }
    }

    /// Hands out at most this many sectors.
    #[must_use]
    pub fn with_limit(self, sectors: u64) -> Self {
        self.state.lock().limit = Some(sectors);
        self
    }

    fn entry<T>(
        &self,
        sector: SectorId,
        op: &'static str,
        act: impl FnOnce(&mut Entry) -> Result<T, AllocErrorKind>,
    ) -> Result<T, AllocError> {
        let mut state = self.state.lock();
        let found = state.sectors.get_mut(&sector).ok_or(AllocErrorKind::Unknown).and_then(act);
        found.map_err(|kind| Error::new(kind, op).with("sector", sector))
    }
}

#[async_trait]
impl SectorAllocator for InMemoryAllocator {
    async fn allocate(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
        let wanted = (want.miners.is_empty() || want.miners.contains(&self.miner))
            && (want.proof_types.is_empty() || want.proof_types.contains(&self.proof_type));
        let mut state = self.state.lock();
        if let Some(entry) = state.sectors.values().find(|e| e.request == want.request) {
            return if entry.ended.is_some() || entry.lease.store != want.store {
                Err(Error::new(AllocErrorKind::Refused, "allocate sector").with("request", &want.request))
            } else {
                Ok(Some(entry.lease.clone()))
            };
        }
        if !wanted || state.limit.is_some_and(|limit| state.next > limit) {
            return Ok(None);
        }
        let sector = SectorId::new(self.miner, SectorNumber(state.next));
        state.next += 1;
        let lease = SectorLease {
            sector,
            proof_type: self.proof_type,
            store: want.store.clone(),
            fence: Fence(1),
            heard_until: self.clock.now().plus(want.ttl),
        };
        let entry = Entry { request: want.request.clone(), lease: lease.clone(), ended: None };
        state.sectors.insert(sector, entry);
        Ok(Some(lease))
    }

    async fn take_up(&self, store: &StoreId, sector: SectorId, ttl: Duration) -> Result<SectorLease, AllocError> {
        self.entry(sector, "take sector up", |entry| {
            match entry.ended {
                Some(Outcome::Handed) => entry.lease.store = store.clone(),
                Some(_) => return Err(AllocErrorKind::Refused),
                None if entry.lease.store != *store => return Err(AllocErrorKind::HeldElsewhere),
                None => {}
            }
            entry.ended = None;
            entry.lease.fence = Fence(entry.lease.fence.0 + 1);
            entry.lease.heard_until = self.clock.now().plus(ttl);
            Ok(entry.lease.clone())
        })
    }

    async fn held_by(&self, store: &StoreId) -> Result<Vec<SectorLease>, AllocError> {
        let state = self.state.lock();
        let held = state.sectors.values().filter(|e| e.ended.is_none() && e.lease.store == *store);
        Ok(held.map(|e| e.lease.clone()).collect())
    }

    async fn renew(&self, lease: &SectorLease, ttl: Duration) -> Result<SectorLease, AllocError> {
        self.entry(lease.sector, "renew lease", |entry| {
            if entry.ended.is_some() || entry.lease.fence != lease.fence {
                return Err(AllocErrorKind::Fenced);
            }
            entry.lease.heard_until = self.clock.now().plus(ttl);
            Ok(entry.lease.clone())
        })
    }

    async fn release(&self, lease: &SectorLease, outcome: Outcome) -> Result<(), AllocError> {
        self.entry(lease.sector, "release lease", |entry| {
            if entry.lease.fence != lease.fence || entry.ended.is_some_and(|o| o != outcome) {
                return Err(AllocErrorKind::Fenced);
            }
            entry.ended = Some(outcome);
            Ok(())
        })
    }
}
