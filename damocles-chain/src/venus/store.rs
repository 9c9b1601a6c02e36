//! The table of calls that go through a messager.

use crate::lotus_json::{Lotus, SignedMessage, parse_address, text_of};
use damocles_core::{
    BoxError,
    chain::{Call, ChainError, ChainErrorKind, Receipt, SubmitKey},
};
use fvm_shared::{address::Address, message::Message};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{
    AnyPool, Row as _, SqlSafeStr as _,
    any::AnyRow,
    migrate::{Migration, MigrationType, Migrator},
};
use std::{collections::HashSet, sync::Arc};
use tracing::error;

const SCHEMA: &str = "
CREATE TABLE venus_messages (
    submit_key TEXT PRIMARY KEY,
    seq BIGINT NOT NULL,
    uid TEXT NOT NULL,
    call TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT,
    signed TEXT,
    landed BIGINT,
    gone BIGINT,
    cancelled BIGINT NOT NULL DEFAULT 0,
    receipt TEXT,
    error TEXT
);
CREATE UNIQUE INDEX venus_messages_uid ON venus_messages (uid);
CREATE INDEX venus_messages_state ON venus_messages (state);
";

/// Who sends a call, chosen when it is recorded.
const SENDER: &str = "ALTER TABLE venus_messages ADD COLUMN sender TEXT";

const MIGRATIONS: [(i64, &str, &str); 2] = [(1, "venus messages", SCHEMA), (2, "venus senders", SENDER)];

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VenusState {
    /// Recorded; nothing of it has left.
    Recorded,
    /// Handed to the messager, which may or may not have taken it.
    Sent,
    /// The messager has it.
    Taken,
    /// On chain for good.
    Settled,
    /// Given up: nothing of it is on chain, and nothing will be.
    Dropped,
}

impl VenusState {
    const ALL: [Self; 5] = [Self::Recorded, Self::Sent, Self::Taken, Self::Settled, Self::Dropped];

    const fn text(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Sent => "sent",
            Self::Taken => "taken",
            Self::Settled => "settled",
            Self::Dropped => "dropped",
        }
    }
}

/// A call.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: SubmitKey,
    pub(super) uid: String,
    pub(super) call: Call,
    /// Who sends it, chosen when it was recorded; none in rows of old tables of which nothing had left.
    pub(super) sender: Option<Address>,
    pub(super) state: VenusState,
    /// What the messager was last handed.
    pub(super) message: Option<Message>,
    /// What the messager has signed: the last one of each nonce.
    pub(super) signed: Vec<SignedMessage>,
    /// The epoch at which it was last seen on chain.
    pub(super) landed: Option<i64>,
    /// The epoch since which the messager has shown that it will not sign it.
    pub(super) gone: Option<i64>,
    /// Whether an operator gave it up.
    pub(super) cancelled: bool,
    pub(super) receipt: Option<Receipt>,
    pub(super) error: Option<String>,
}

fn broken(op: &'static str, e: impl Into<BoxError>) -> ChainError {
    ChainError::new(ChainErrorKind::Outbox, op).because(e)
}

fn json_of<T: Serialize>(value: &T) -> Result<String, ChainError> {
    serde_json::to_string(value).map_err(|e| broken("write messages", e))
}

fn value_of<T: DeserializeOwned>(text: &str) -> Result<T, BoxError> {
    Ok(serde_json::from_str(text)?)
}

fn row_of(row: &AnyRow) -> Result<Row, BoxError> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let state: String = row.try_get("state")?;
    let known = VenusState::ALL.into_iter().find(|s| s.text() == state);
    let message = text("message")?.map(|m| value_of::<Lotus<Message>>(&m)).transpose()?.map(|m| m.0);
    let sender = text("sender")?.map(|s| parse_address(&s)).transpose()?;
    Ok(Row {
        key: SubmitKey(row.try_get("submit_key")?),
        uid: row.try_get("uid")?,
        call: value_of(&row.try_get::<String, _>("call")?)?,
        state: known.ok_or_else(|| format!("unknown state `{state}`"))?,
        // What was handed in once is handed in again by nobody else.
        sender: message.as_ref().map(|message| message.from).or(sender),
        message,
        signed: text("signed")?.map(|s| value_of(&s)).transpose()?.unwrap_or_default(),
        landed: row.try_get("landed")?,
        gone: row.try_get("gone")?,
        cancelled: row.try_get::<i64, _>("cancelled")? != 0,
        receipt: text("receipt")?.map(|r| value_of(&r)).transpose()?,
        error: text("error")?,
    })
}

/// The table. Each method is one statement.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pool: AnyPool,
    /// The damaged rows that were reported, so that each is once.
    reported: Arc<Mutex<HashSet<String>>>,
}

impl Store {
    /// Opens the table; makes it if it is not there.
    pub(super) async fn open(pool: AnyPool) -> Result<Self, ChainError> {
        let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        let mut migrator = Migrator::with_migrations(MIGRATIONS.map(migration).into());
        migrator.dangerous_set_table_name("venus_migrations");
        migrator.run(&pool).await.map_err(|e| broken("open messages", e))?;
        Ok(Self { pool, reported: Arc::default() })
    }

    /// Records a call; false if its key was there before.
    pub(super) async fn record(
        &self,
        key: &SubmitKey,
        uid: &str,
        call: &Call,
        sender: &Address,
    ) -> Result<bool, ChainError> {
        let done = sqlx::query(
            "INSERT INTO venus_messages (submit_key, seq, uid, call, state, sender)
             VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM venus_messages), $2, $3, 'recorded', $4)
             ON CONFLICT (submit_key) DO NOTHING",
        )
        .bind(&key.0)
        .bind(uid)
        .bind(json_of(call)?)
        .bind(text_of(sender))
        .execute(&self.pool)
        .await
        .map_err(|e| broken("record call", e).with("key", key))?;
        Ok(done.rows_affected() == 1)
    }

    /// One call.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Row>, ChainError> {
        let failed = |e: BoxError| broken("read messages", e).with("key", key);
        let row = sqlx::query("SELECT * FROM venus_messages WHERE submit_key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| failed(e.into()))?;
        row.as_ref().map(row_of).transpose().map_err(failed)
    }

    /// All calls that can be read, in the order of their submission.
    pub(super) async fn all(&self) -> Result<Vec<Row>, ChainError> {
        let rows = sqlx::query("SELECT * FROM venus_messages ORDER BY seq, submit_key").fetch_all(&self.pool).await;
        Ok(self.readable(&rows.map_err(|e| broken("read messages", e))?))
    }

    /// Calls that can be read and are neither settled nor dropped, in the order of their submission.
    pub(super) async fn unfinished(&self) -> Result<Vec<Row>, ChainError> {
        let rows = sqlx::query(
            "SELECT * FROM venus_messages WHERE state IN ('recorded', 'sent', 'taken') ORDER BY seq, submit_key",
        )
        .fetch_all(&self.pool)
        .await;
        Ok(self.readable(&rows.map_err(|e| broken("read messages", e))?))
    }

    /// The rows that can be read. A damaged one is reported and left where it is: it must not stop the others.
    fn readable(&self, rows: &[AnyRow]) -> Vec<Row> {
        let read = |row: &AnyRow| {
            let report = |e: &BoxError| {
                let key: String = row.try_get("submit_key").unwrap_or_default();
                if self.reported.lock().insert(key.clone()) {
                    error!(key, error = %e, "a call is damaged and is not worked on");
                }
            };
            row_of(row).inspect_err(report).ok()
        };
        rows.iter().filter_map(read).collect()
    }

    async fn run(
        &self,
        op: &'static str,
        key: &SubmitKey,
        query: sqlx::query::Query<'_, sqlx::Any, sqlx::any::AnyArguments>,
    ) -> Result<bool, ChainError> {
        let done = query.execute(&self.pool).await.map_err(|e| broken(op, e).with("key", key))?;
        Ok(done.rows_affected() == 1)
    }

    /// Notes what the messager is about to be handed; false if the call was given up meanwhile.
    pub(super) async fn sent(&self, key: &SubmitKey, message: &Message) -> Result<bool, ChainError> {
        let query = sqlx::query(
            "UPDATE venus_messages SET state = 'sent', message = $1
             WHERE submit_key = $2 AND state IN ('recorded', 'sent') AND cancelled = 0",
        );
        self.run("note sending", key, query.bind(json_of(&Lotus(message.clone()))?).bind(&key.0)).await
    }

    /// Notes that the messager has it.
    pub(super) async fn taken(&self, key: &SubmitKey) -> Result<(), ChainError> {
        let query = sqlx::query("UPDATE venus_messages SET state = 'taken' WHERE submit_key = $1 AND state = 'sent'");
        self.run("note taking", key, query.bind(&key.0)).await.map(drop)
    }

    /// Notes what the messager has signed.
    pub(super) async fn signed(&self, key: &SubmitKey, signed: &[SignedMessage]) -> Result<(), ChainError> {
        let query = sqlx::query("UPDATE venus_messages SET signed = $1 WHERE submit_key = $2");
        self.run("note signature", key, query.bind(json_of(&signed)?).bind(&key.0)).await.map(drop)
    }

    /// Notes that a message was seen on chain.
    pub(super) async fn landed(&self, key: &SubmitKey, epoch: i64) -> Result<(), ChainError> {
        let query = sqlx::query("UPDATE venus_messages SET landed = $1 WHERE submit_key = $2 AND state = 'taken'");
        self.run("note landing", key, query.bind(epoch).bind(&key.0)).await.map(drop)
    }

    /// Notes since when the messager will not sign a message, or that it may.
    pub(super) async fn gone(&self, key: &SubmitKey, since: Option<i64>) -> Result<(), ChainError> {
        let query = match since {
            Some(epoch) => {
                sqlx::query("UPDATE venus_messages SET gone = $1 WHERE submit_key = $2").bind(epoch).bind(&key.0)
            }
            None => sqlx::query("UPDATE venus_messages SET gone = NULL WHERE submit_key = $1").bind(&key.0),
        };
        self.run("note absence", key, query).await.map(drop)
    }

    /// Notes that an operator gave a call up; true if nothing of it had left, so that it is dropped.
    pub(super) async fn cancel(&self, key: &SubmitKey, reason: &str) -> Result<bool, ChainError> {
        if self.drop_call(key, VenusState::Recorded, reason).await? {
            return Ok(true);
        }
        let query = sqlx::query("UPDATE venus_messages SET cancelled = 1 WHERE submit_key = $1");
        self.run("cancel message", key, query.bind(&key.0)).await?;
        Ok(false)
    }

    /// Gives up a call that is in this state; false if it is not.
    pub(super) async fn drop_call(&self, key: &SubmitKey, state: VenusState, reason: &str) -> Result<bool, ChainError> {
        let query =
            sqlx::query("UPDATE venus_messages SET state = 'dropped', error = $1 WHERE submit_key = $2 AND state = $3");
        self.run("drop call", key, query.bind(reason).bind(&key.0).bind(state.text())).await
    }

    /// Records the receipt of a message that is final.
    pub(super) async fn settle(&self, key: &SubmitKey, receipt: &Receipt) -> Result<(), ChainError> {
        let query = sqlx::query(
            "UPDATE venus_messages SET state = 'settled', receipt = $1, error = NULL
             WHERE submit_key = $2 AND state IN ('sent', 'taken')",
        );
        self.run("settle message", key, query.bind(json_of(receipt)?).bind(&key.0)).await.map(drop)
    }

    /// Notes why a call does not move, or that it moves again; one that is finished keeps its reason.
    pub(super) async fn note(&self, key: &SubmitKey, error: Option<&str>) -> Result<(), ChainError> {
        let query = match error {
            Some(text) => sqlx::query(
                "UPDATE venus_messages SET error = $1
                 WHERE submit_key = $2 AND state IN ('recorded', 'sent', 'taken')",
            )
            .bind(text)
            .bind(&key.0),
            None => sqlx::query(
                "UPDATE venus_messages SET error = NULL
                 WHERE submit_key = $1 AND state IN ('recorded', 'sent', 'taken')",
            )
            .bind(&key.0),
        };
        self.run("note error", key, query).await.map(drop)
    }
}
