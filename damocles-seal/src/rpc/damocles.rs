//! What the incumbent does not have. Values have the forms that they have everywhere else in this workspace.

use super::method::method;
use crate::{
    sector_state::{SectorDetail, SectorSummary},
    service::Hello as ManagerHello,
};
use damocles_core::{
    PieceInfo, SectorId, StoreId,
    allocator::{AllocateRequest, Outcome, SectorLease},
};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// What became of one lease in a list of renewals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renewal {
    /// It was renewed.
    Renewed(SectorLease),
    /// It was not.
    Failed {
        /// The code that a single call would have failed with.
        code: i64,
        /// Why.
        message: String,
    },
}

/// The longest that a call waits for an event.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

method!(/// Who the manager is.
    Hello, "Damocles.Hello", [(); 0] => ManagerHello);
method!(/// Leases a new sector.
    AllocateSector, "Damocles.AllocateSector", (AllocateRequest,) => Option<SectorLease>);
method!(/// Takes a sector up again; the time to live is in milliseconds. Calls with one idempotency key take it up once.
    TakeUp, "Damocles.TakeUp", (StoreId, SectorId, u64) => SectorLease);
method!(/// The leases of a store.
    HeldBy, "Damocles.HeldBy", (StoreId,) => Vec<SectorLease>);
method!(/// Renews leases; the time to live is in milliseconds.
    RenewLeases, "Damocles.RenewLeases", (Vec<SectorLease>, u64) => Vec<Renewal>);
method!(/// Ends a lease.
    ReleaseLease, "Damocles.ReleaseLease", (SectorLease, Outcome) => ());
method!(/// Waits until something about a sector may have changed, for so many milliseconds at most.
    Events, "Damocles.Events", (SectorId, u64) => (), LONGEST_WAIT);
method!(/// Queues a piece: what it is, the bytes that are data, and the file that holds them.
    AddPiece, "Damocles.AddPiece", (PieceInfo, u64, PathBuf) => u64);
method!(/// All sectors.
    ListSectors, "Damocles.ListSectors", [(); 0] => Vec<SectorSummary>);
method!(/// One sector.
    ShowSector, "Damocles.ShowSector", (SectorId,) => Option<SectorDetail>);
method!(/// Ends the lease of a sector. One without a stored replica is given up. Answers how the lease ended.
    ReleaseSector, "Damocles.ReleaseSector", (SectorId,) => Outcome);
method!(/// Gives a sector up.
    AbortSector, "Damocles.AbortSector", (SectorId,) => ());
