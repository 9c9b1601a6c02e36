//! Workers that introduced themselves.

use super::ManagerService;
use crate::{
    sector_state::DbError,
    service::{ServiceError, ServiceErrorKind},
};
use damocles_core::{Error, pipeline::Wake};
use std::time::Duration;

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
