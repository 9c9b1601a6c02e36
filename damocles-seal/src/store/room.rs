//! The space of a sector in its sealing store, from its begin to its end.

use super::{
    error::StoreError,
    footprint,
    ledger::{Booking, Claim, Reservation, Space, Stay, Usage},
    sealing::SealingStore,
};
use crate::stage::id;
use damocles_core::{SectorId, SectorSize, pipeline::StageId};
use parking_lot::Mutex;
use std::sync::Arc;

/// The place of a store's sector on its disk.
#[derive(Debug)]
pub(super) struct Place {
    booking: Booking,
    occupant: Arc<Mutex<Occupant>>,
}

/// What lies there, or is to.
#[derive(Clone, Debug)]
struct Occupant {
    sector: Option<SectorId>,
    /// None while it is not known how large it will be.
    size: Option<SectorSize>,
    /// What of it is done.
    done: Vec<StageId>,
}

impl Occupant {
    fn usage(&self, store: &SealingStore) -> Usage {
        match (self.sector, self.size) {
            (Some(sector), Some(size)) => Usage {
                needs: footprint::to_come(store, sector, size, &self.done),
                holds: footprint::held(store, sector),
            },
            (None, Some(size)) => Usage { needs: footprint::whole(size), holds: 0 },
            (_, None) => Usage::default(),
        }
    }
}

impl SealingStore {
    fn stay(self: &Arc<Self>, occupant: Occupant) -> (Stay, Arc<Mutex<Occupant>>) {
        let sector = occupant.sector;
        let (store, occupant) = (Arc::downgrade(self), Arc::new(Mutex::new(occupant)));
        let of = Arc::clone(&occupant);
        let usage = move || {
            // Cloned: files are not looked at under a lock.
            let occupant = of.lock().clone();
            store.upgrade().map(|store| occupant.usage(&store)).unwrap_or_default()
        };
        (Stay { sector, path: self.location().to_owned(), usage: Arc::new(usage) }, occupant)
    }

    /// Lets a new sector of at most this size begin here: there is room for all that it will write, beside what is
    /// promised to others. Blocks if the disk does not answer.
    ///
    /// # Errors
    ///
    /// It may not begin, or the file system fails.
    pub fn begin(self: &Arc<Self>, size: Option<SectorSize>) -> Result<(), StoreError> {
        self.leave();
        let device = Space::of(self.location())?.device;
        let (stay, occupant) = self.stay(Occupant { sector: None, size, done: Vec::new() });
        let booking = self.ledger.begin(device, stay, || Space::of(self.location()))?;
        *self.place.lock() = Some(Place { booking, occupant });
        Ok(())
    }

    /// Counts this sector, which has done these stages, as the one that lies here: it keeps the place of the one that was
    /// let begin, or gets one, room or not. Blocks if the disk does not answer.
    ///
    /// # Errors
    ///
    /// The file system fails.
    pub fn hold(self: &Arc<Self>, sector: SectorId, size: SectorSize, done: &[StageId]) -> Result<(), StoreError> {
        let done = footprint::WRITERS.into_iter().filter(|stage| done.contains(stage)).collect();
        let now = Occupant { sector: Some(sector), size: Some(size), done };
        if let Some(place) = &*self.place.lock() {
            *place.occupant.lock() = now;
            place.booking.assign(sector);
            return Ok(());
        }
        let device = Space::of(self.location())?.device;
        let (stay, occupant) = self.stay(now);
        let booking = self.ledger.resume(device, stay);
        *self.place.lock() = Some(Place { booking, occupant });
        Ok(())
    }

    /// No sector lies here any more.
    pub fn leave(&self) {
        let place = self.place.lock().take();
        drop(place);
    }

    /// Whether a sector has a place here.
    pub fn is_held(&self) -> bool {
        self.place.lock().is_some()
    }

    /// Promises a sector the space that a stage will write and has not written yet. None if it writes nothing here.
    /// Blocks if the disk does not answer.
    ///
    /// # Errors
    ///
    /// There is too little that is free and not promised to others, or the file system fails.
    pub fn reserve(
        self: &Arc<Self>,
        stage: &StageId,
        sector: SectorId,
        size: SectorSize,
    ) -> Result<Option<Reservation>, StoreError> {
        let Some(total) = footprint::written_by(stage, size) else { return Ok(None) };
        let (store, stage) = (Arc::downgrade(self), stage.clone());
        let present = move || store.upgrade().map_or(0, |store| footprint::present(&store, &stage, sector));
        let claim = self.claim(sector, total, Arc::new(present), true);
        self.promise(claim).map(Some)
    }

    /// Promises a sector the space for pieces of so many bytes that are fetched.
    ///
    /// # Errors
    ///
    /// As for [`SealingStore::reserve`].
    pub fn reserve_pieces(self: &Arc<Self>, sector: SectorId, bytes: u64) -> Result<Option<Reservation>, StoreError> {
        if bytes == 0 {
            return Ok(None);
        }
        let store = Arc::downgrade(self);
        let present = move || store.upgrade().map_or(0, |store| footprint::present(&store, &id::PIECES, sector));
        self.promise(self.claim(sector, bytes, Arc::new(present), false)).map(Some)
    }

    fn claim(&self, sector: SectorId, total: u64, present: super::Present, in_stay: bool) -> Claim {
        Claim { sector, path: self.location().to_owned(), total, present, in_stay }
    }

    fn promise(&self, claim: Claim) -> Result<Reservation, StoreError> {
        let device = Space::of(self.location())?.device;
        self.ledger.reserve(device, claim, || Space::of(self.location()))
    }
}
