//! What the incumbent does not have. Values have the forms that they have everywhere else in this workspace.

use super::{
    method::method,
    venus::{WorkerInfo, WorkerSummary},
};
use crate::{
    sector_state::{SectorDetail, SectorSummary},
    service::{Hello as ManagerHello, KnownWorker},
};
use damocles_core::{
    PieceInfo, SectorId, StoreId, Timestamp,
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

/// A worker as it introduced itself last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its name.
    pub name: String,
    /// Where it takes orders: an address, or `unix:` and a path on its machine.
    pub address: String,
    /// Its version; empty if it does not tell.
    pub version: String,
    /// How many of its sealing threads are in each state.
    pub threads: ThreadCounts,
    /// The error of one of its threads, if it tells.
    pub last_error: Option<String>,
    /// When it was heard from last, in milliseconds since 1970.
    pub last_ping: Timestamp,
}

/// How many sealing threads of a worker are in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadCounts {
    /// All.
    pub all: u64,
    /// Without a sector.
    pub empty: u64,
    /// Paused, by an operator or by an error.
    pub paused: u64,
    /// At work.
    pub running: u64,
    /// Waiting for the chain, the manager, or another try.
    pub waiting: u64,
    /// Of all: those with an error.
    pub errors: u64,
}

impl From<KnownWorker> for WorkerView {
    fn from(known: KnownWorker) -> Self {
        // What was recorded under another version may have another form; that it was heard from stays true.
        let info = serde_json::from_str::<WorkerInfo>(&known.document);
        let (version, summary, last_error) =
            info.map(|info| (info.version, info.summary, info.last_error)).unwrap_or_default();
        let WorkerSummary { threads: all, empty, paused, running, waiting, errors } = summary;
        Self {
            name: known.name,
            address: known.dest,
            version,
            threads: ThreadCounts { all, empty, paused, running, waiting, errors },
            last_error,
            last_ping: known.last_ping,
        }
    }
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
method!(/// The workers that introduced themselves, by name.
    ListWorkers, "Damocles.ListWorkers", [(); 0] => Vec<WorkerView>);
method!(/// Forgets a worker, until it introduces itself again. Answers whether it was known.
    RemoveWorker, "Damocles.RemoveWorker", (String,) => bool);
