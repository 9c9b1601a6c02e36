//! The tables of attempts and events.

use super::{Attempt, AttemptEvent, Intent, schema};
use damocles_core::{ActorId, Epoch, chain::SubmitKey, post::Duty};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{AnyPool, Row, any::AnyRow, migrate::MigrateError};

/// The record of attempts in the manager's database. Rows are only ever added.
#[derive(Clone, Debug)]
pub struct ProofRecords {
    pool: AnyPool,
}

impl ProofRecords {
    /// Makes or updates the tables.
    ///
    /// The pool is the caller's: it chooses the database and, for SQLite, the pragmas.
    ///
    /// # Errors
    ///
    /// The database does not answer, or its tables are newer than this build.
    pub async fn open(pool: AnyPool) -> Result<Self, RecordError> {
        schema::migrator().run(&pool).await?;
        Ok(Self { pool })
    }

    /// Records a further attempt at a duty. If another caller was faster, this fails and nothing is recorded.
    pub(crate) async fn begin(
        &self,
        name: &str,
        number: u32,
        duty: &Duty,
        intent: Intent,
    ) -> Result<Attempt, RecordError> {
        let key = SubmitKey(format!("{name}/{number}"));
        sqlx::query(
            "INSERT INTO post_attempts (key, duty, number, miner, deadline, opens, intent)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&key.0)
        .bind(name)
        .bind(i64::from(number))
        .bind(duty.miner.to_string())
        .bind(duty.deadline.index.to_string())
        .bind(duty.deadline.open.0)
        .bind(json_of("intent", &intent)?)
        .execute(&self.pool)
        .await?;
        let opens = duty.deadline.open;
        Ok(Attempt { duty: name.to_owned(), number, key, opens, intent, call: None, message: None, end: None })
    }

    /// Adds an event to an attempt.
    pub(crate) async fn append(&self, attempt: &mut Attempt, event: AttemptEvent) -> Result<(), RecordError> {
        sqlx::query(
            "INSERT INTO post_events (key, seq, event)
             SELECT $1, COALESCE(MAX(seq), 0) + 1, $2 FROM post_events WHERE key = $3",
        )
        .bind(&attempt.key.0)
        .bind(json_of("event", &event)?)
        .bind(&attempt.key.0)
        .execute(&self.pool)
        .await?;
        attempt.apply(event);
        Ok(())
    }

    /// The last attempt at a duty.
    pub(crate) async fn last(&self, name: &str) -> Result<Option<Attempt>, RecordError> {
        let row = sqlx::query(
            "SELECT key, duty, number, opens, intent FROM post_attempts WHERE duty = $1 ORDER BY number DESC LIMIT 1",
        )
        .bind(name)
        .fetch_optional(&self.pool)
        .await?;
        match row {
            Some(row) => self.read(&row).await.map(Some),
            None => Ok(None),
        }
    }

    /// The attempts of a miner, those of the last deadline first: what was proven when, and by which message.
    ///
    /// # Errors
    ///
    /// The database does not answer, or a row is damaged.
    pub async fn recent(&self, miner: ActorId, limit: u32) -> Result<Vec<Attempt>, RecordError> {
        let rows = sqlx::query(
            "SELECT key, duty, number, opens, intent FROM post_attempts WHERE miner = $1
             ORDER BY opens DESC, duty, number DESC LIMIT $2",
        )
        .bind(miner.to_string())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let mut attempts = Vec::with_capacity(rows.len());
        for row in &rows {
            attempts.push(self.read(row).await?);
        }
        Ok(attempts)
    }

    /// Every event of an attempt, in order.
    ///
    /// # Errors
    ///
    /// The database does not answer, or a row is damaged.
    pub async fn events(&self, key: &SubmitKey) -> Result<Vec<AttemptEvent>, RecordError> {
        let rows = sqlx::query("SELECT event FROM post_events WHERE key = $1 ORDER BY seq")
            .bind(&key.0)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| of_json("event", &row.try_get::<String, _>("event")?)).collect()
    }

    async fn read(&self, row: &AnyRow) -> Result<Attempt, RecordError> {
        let number: i64 = row.try_get("number")?;
        let mut attempt = Attempt {
            duty: row.try_get("duty")?,
            number: u32::try_from(number).map_err(|_| RecordError::Range { what: "attempt", value: number })?,
            key: SubmitKey(row.try_get("key")?),
            opens: Epoch(row.try_get("opens")?),
            intent: of_json("intent", &row.try_get::<String, _>("intent")?)?,
            call: None,
            message: None,
            end: None,
        };
        for event in self.events(&attempt.key).await? {
            attempt.apply(event);
        }
        Ok(attempt)
    }
}

/// Why the record could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The database did not answer.
    #[error("the database could not be used")]
    Sql(#[from] sqlx::Error),
    /// Its tables do not fit this build.
    #[error("the tables could not be brought up to date")]
    Migrate(#[from] MigrateError),
    /// What is in a column is no such number.
    #[error("{what} {value} is out of range")]
    Range {
        /// What the number is.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// A column does not hold what was written.
    #[error("a stored {what} could not be read")]
    Corrupt {
        /// What it should be.
        what: &'static str,
        /// Why it is not.
        #[source]
        source: serde_json::Error,
    },
}

fn json_of<T: Serialize>(what: &'static str, value: &T) -> Result<String, RecordError> {
    serde_json::to_string(value).map_err(|source| RecordError::Corrupt { what, source })
}

fn of_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, RecordError> {
    serde_json::from_str(text).map_err(|source| RecordError::Corrupt { what, source })
}
