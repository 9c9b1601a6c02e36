//! The history of a sector.

use super::{DbError, json_of, to_db};
use crate::service::{DealPiece, Report, Seed, Ticket};
use damocles_core::{Epoch, SectorId, StoreId, Timestamp, allocator::Outcome, chain::SubmitKey};
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

/// Something that happened to a sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SectorEvent {
    /// Its number was leased for the first time.
    Leased {
        /// To this store.
        store: StoreId,
        /// On behalf of this worker.
        worker: String,
        /// Under this fence.
        fence: u64,
    },
    /// It was taken up again.
    TakenUp {
        /// For this store.
        store: StoreId,
        /// Under this fence.
        fence: u64,
    },
    /// A lease ended.
    Released {
        /// How.
        outcome: Outcome,
        /// Whether an operator ended it.
        by_operator: bool,
    },
    /// Its pieces were fixed.
    Pieces {
        /// None for committed capacity.
        pieces: Vec<DealPiece>,
    },
    /// A ticket was given out.
    Ticket {
        /// The ticket.
        ticket: Ticket,
    },
    /// A message was decided on.
    Intended {
        /// The key under which it is sent.
        key: SubmitKey,
    },
    /// It was handed to the chain client.
    Sent {
        /// Its key.
        key: SubmitKey,
        /// The client's name for it.
        message: String,
    },
    /// It came to its end.
    Ended {
        /// Its key.
        key: SubmitKey,
        /// How: `landed`, `failed`, `refused` or `dropped`.
        state: String,
        /// Why, if it did not land well.
        reason: Option<String>,
        /// The epoch at which it was executed.
        epoch: Option<Epoch>,
    },
    /// A submission was not accepted.
    Declined {
        /// What the worker was told.
        reason: String,
    },
    /// Its seed was given out.
    Seed {
        /// The seed.
        seed: Seed,
    },
    /// Its replica is in a persist store.
    Persisted {
        /// The store.
        store: String,
    },
    /// A worker reported.
    Reported {
        /// What.
        report: Report,
    },
    /// An operator gave it up.
    Aborted {
        /// Why.
        reason: String,
    },
    /// The incumbent's worker that holds it introduced itself.
    Bound {
        /// Instance and location.
        holder: String,
    },
}

/// An event with its place in the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEvent {
    /// Counts from 1 within the sector.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: SectorEvent,
}

/// Appends an event inside the caller's transaction.
pub(crate) async fn append(
    db: &mut AnyConnection,
    sector: SectorId,
    at: Timestamp,
    event: &SectorEvent,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO seal_sector_events (miner, number, seq, at, detail)
         SELECT $1, $2, COALESCE(MAX(seq), 0) + 1, $3, $4 FROM seal_sector_events WHERE miner = $1 AND number = $2",
    )
    .bind(to_db("miner", sector.miner.0)?)
    .bind(to_db("sector number", sector.number.0)?)
    .bind(at.0)
    .bind(json_of("sector event", event)?)
    .execute(db)
    .await?;
    Ok(())
}
