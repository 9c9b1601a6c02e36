//! Workers that introduced themselves.

use super::ManagerService;
use crate::{
    sector_state::DbError,
    service::{ServiceError, ServiceErrorKind},
};
use damocles_core::{Error, Timestamp, pipeline::Wake};
use sqlx::Row as _;
use std::time::Duration;

/// A worker as it introduced itself last. It is recorded: a manager that starts again still knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownWorker {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub dest: String,
    /// What it told of itself, a JSON text.
    pub document: String,
    /// When that was.
    pub last_ping: Timestamp,
}

/// Longer texts are not a worker's.
const LONGEST: usize = 4000;

impl ManagerService {
    /// Records that a worker is alive, where it listens, and what it tells of itself.
    ///
    /// # Errors
    ///
    /// It has no name, tells too much, or the database did not answer.
    pub async fn heard_from(&self, name: &str, dest: &str, document: &str) -> Result<(), ServiceError> {
        const OP: &str = "record worker";
        if name.is_empty() || dest.is_empty() || name.len() + dest.len() + document.len() > LONGEST {
            return Err(Error::new(ServiceErrorKind::Refused, OP)
                .with("reason", "a worker has a name and an address, and no more to tell than a page"));
        }
        let recorded = sqlx::query(
            "INSERT INTO seal_workers (name, dest, info, last_ping) VALUES ($1, $2, $3, $4)
             ON CONFLICT (name) DO UPDATE SET dest = $2, info = $3, last_ping = $4",
        )
        .bind(name)
        .bind(dest)
        .bind(document)
        .bind(self.clock.now().0)
        .execute(self.db.pool());
        recorded.await.map(|_| ()).map_err(|e| Self::of_db(OP, DbError::from(e)).with("worker", name))
    }

    /// The workers that introduced themselves, by name.
    ///
    /// # Errors
    ///
    /// The database did not answer.
    pub async fn workers(&self) -> Result<Vec<KnownWorker>, ServiceError> {
        let read = async {
            let rows = sqlx::query("SELECT * FROM seal_workers ORDER BY name").fetch_all(self.db.pool()).await?;
            let of = |row: &sqlx::any::AnyRow| {
                Ok(KnownWorker {
                    name: row.try_get("name")?,
                    dest: row.try_get("dest")?,
                    document: row.try_get("info")?,
                    last_ping: Timestamp(row.try_get("last_ping")?),
                })
            };
            rows.iter().map(of).collect::<Result<Vec<_>, _>>()
        };
        read.await.map_err(|e: DbError| Self::of_db("list workers", e))
    }

    /// Forgets a worker, until it introduces itself again. False if none has that name.
    ///
    /// # Errors
    ///
    /// The database did not answer.
    pub async fn forget_worker(&self, name: &str) -> Result<bool, ServiceError> {
        let removed = sqlx::query("DELETE FROM seal_workers WHERE name = $1").bind(name).execute(self.db.pool());
        let removed = removed.await.map_err(|e| Self::of_db("forget worker", DbError::from(e)).with("worker", name))?;
        Ok(removed.rows_affected() > 0)
    }

    /// How long it takes until then, for those who cannot wait for epochs.
    ///
    /// # Errors
    ///
    /// The chain does not answer.
    pub async fn time_until(&self, wake: Wake) -> Result<Duration, ServiceError> {
        match wake {
            Wake::After(wait) => Ok(wait),
            Wake::Epoch(epoch) => {
                let head = self.head("read head").await?;
                let block = self.network(&head).await?.block_delay_secs;
                let epochs = u64::try_from(epoch - head.epoch).unwrap_or(0);
                Ok(Duration::from_secs(epochs.saturating_mul(block)))
            }
            _ => Ok(self.config.poll),
        }
    }
}
