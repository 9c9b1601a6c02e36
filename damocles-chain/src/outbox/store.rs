//! The outbox's table.

use crate::lotus_json::SignedMessage;
use cid::Cid;
use damocles_core::{
    BoxError,
    chain::{Call, CallKind, ChainError, ChainErrorKind, Receipt, SubmitKey},
};
use fvm_shared::address::Address;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::{
    AnyPool, Row as _, SqlSafeStr as _,
    any::AnyRow,
    migrate::{Migration, MigrationType, Migrator},
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use tracing::error;

const SCHEMA: &str = "
CREATE TABLE chain_messages (
    submit_key TEXT PRIMARY KEY,
    seq BIGINT NOT NULL,
    call TEXT NOT NULL,
    state TEXT NOT NULL,
    sender TEXT,
    nonce BIGINT,
    cid TEXT,
    signed TEXT,
    receipt TEXT,
    error TEXT
);
CREATE UNIQUE INDEX chain_messages_nonce ON chain_messages (sender, nonce);
CREATE INDEX chain_messages_state ON chain_messages (state);
";
/// The epoch at which a message was last seen on chain.
const LANDED: &str = "ALTER TABLE chain_messages ADD COLUMN landed BIGINT";

/// How far a call in the outbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OutboxState {
    /// Recorded, without nonce.
    Recorded,
    /// Signed with a nonce: it is pushed until it is on chain.
    Signed,
    /// On chain for good.
    Settled,
    /// Given up before it had a nonce.
    Dropped,
}

impl OutboxState {
    const fn text(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::Signed => "signed",
            Self::Settled => "settled",
            Self::Dropped => "dropped",
        }
    }
}

/// A call in the outbox, as shown to operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// Its key.
    pub key: SubmitKey,
    /// Its class.
    pub kind: CallKind,
    /// How far it is.
    pub state: OutboxState,
    /// Who sends it, once signed.
    pub sender: Option<String>,
    /// Its nonce, once signed.
    pub nonce: Option<u64>,
    /// The CID of its message, once signed.
    pub cid: Option<String>,
    /// Why it does not move, or why it was dropped.
    pub error: Option<String>,
}

/// A call in the outbox.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) key: SubmitKey,
    pub(crate) call: Call,
    pub(crate) state: OutboxState,
    pub(crate) sender: Option<String>,
    pub(crate) nonce: Option<u64>,
    pub(crate) cid: Option<Cid>,
    pub(crate) signed: Option<SignedMessage>,
    pub(crate) receipt: Option<Receipt>,
    pub(crate) error: Option<String>,
}

impl Row {
    pub(crate) fn entry(&self) -> OutboxEntry {
        OutboxEntry {
            key: self.key.clone(),
            kind: self.call.kind(),
            state: self.state,
            sender: self.sender.clone(),
            nonce: self.nonce,
            cid: self.cid.map(|c| c.to_string()),
            error: self.error.clone(),
        }
    }
}

/// The table. Each method is one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: AnyPool,
    /// The damaged rows that were reported, so that each is once.
    reported: Arc<Mutex<HashSet<String>>>,
}

fn broken(op: &'static str, e: impl Into<BoxError>) -> ChainError {
    ChainError::new(ChainErrorKind::Outbox, op).because(e)
}

fn json_of<T: Serialize>(value: &T) -> Result<String, ChainError> {
    serde_json::to_string(value).map_err(|e| broken("write outbox", e))
}

fn value_of<T: DeserializeOwned>(text: &str) -> Result<T, BoxError> {
    Ok(serde_json::from_str(text)?)
}

fn row_of(row: &AnyRow) -> Result<Row, BoxError> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let state: String = row.try_get("state")?;
    let states = [OutboxState::Recorded, OutboxState::Signed, OutboxState::Settled, OutboxState::Dropped];
    let state = states.into_iter().find(|s| s.text() == state).ok_or_else(|| format!("unknown state `{state}`"))?;
    let nonce = row.try_get::<Option<i64>, _>("nonce")?.map(u64::try_from).transpose()?;
    Ok(Row {
        key: SubmitKey(row.try_get("submit_key")?),
        call: value_of(&row.try_get::<String, _>("call")?)?,
        state,
        sender: text("sender")?,
        nonce,
        cid: text("cid")?.map(|c| Cid::try_from(c.as_str())).transpose()?,
        signed: text("signed")?.map(|s| value_of(&s)).transpose()?,
        receipt: text("receipt")?.map(|r| value_of(&r)).transpose()?,
        error: text("error")?,
    })
}

/// A call that is neither settled nor dropped.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    pub(crate) key: SubmitKey,
    pub(crate) error: Option<String>,
    pub(crate) stage: Stage,
}

/// How far a call is that is not finished.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// It waits for its nonce.
    Recorded(Call),
    /// It has one. The call is missing if only that is damaged: the nonce has to be filled all the same.
    Signed {
        call: Option<Call>,
        signed: Box<SignedMessage>,
        /// When it was last seen on chain.
        landed: Option<i64>,
    },
}

impl Unfinished {
    fn of(row: &AnyRow) -> Result<Self, BoxError> {
        let call = row.try_get::<String, _>("call").map_err(BoxError::from).and_then(|text| value_of(&text));
        let stage = match row.try_get::<Option<String>, _>("signed")? {
            None => Stage::Recorded(call?),
            Some(signed) => {
                Stage::Signed { call: call.ok(), signed: Box::new(value_of(&signed)?), landed: row.try_get("landed")? }
            }
        };
        Ok(Self { key: SubmitKey(row.try_get("submit_key")?), error: row.try_get("error")?, stage })
    }

    /// Its class, if that can be read.
    pub(crate) fn kind(&self) -> Option<CallKind> {
        match &self.stage {
            Stage::Recorded(call) | Stage::Signed { call: Some(call), .. } => Some(call.kind()),
            Stage::Signed { call: None, .. } => None,
        }
    }

    /// The call, if it has no nonce yet.
    pub(crate) const fn recorded(&self) -> Option<&Call> {
        match &self.stage {
            Stage::Recorded(call) => Some(call),
            Stage::Signed { .. } => None,
        }
    }

    pub(crate) const fn state(&self) -> OutboxState {
        match self.stage {
            Stage::Recorded(_) => OutboxState::Recorded,
            Stage::Signed { .. } => OutboxState::Signed,
        }
    }
}

impl Store {
    /// Opens the table; makes it if it is not there.
    pub(crate) async fn open(pool: AnyPool) -> Result<Self, ChainError> {
        let migration = |version, name: &'static str, sql: &'static str| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
        };
        let mut migrator =
            Migrator::with_migrations(vec![migration(1, "outbox", SCHEMA), migration(2, "landed", LANDED)]);
        migrator.dangerous_set_table_name("chain_migrations");
        migrator.run(&pool).await.map_err(|e| broken("open outbox", e))?;
        Ok(Self { pool, reported: Arc::default() })
    }

    /// Records a call; false if its key was there before.
    pub(crate) async fn record(&self, key: &SubmitKey, call: &Call) -> Result<bool, ChainError> {
        let done = sqlx::query(
            "INSERT INTO chain_messages (submit_key, seq, call, state)
             VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM chain_messages), $2, 'recorded')
             ON CONFLICT (submit_key) DO NOTHING",
        )
        .bind(&key.0)
        .bind(json_of(call)?)
        .execute(&self.pool)
        .await
        .map_err(|e| broken("record call", e).with("key", key))?;
        Ok(done.rows_affected() == 1)
    }

    /// One call.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Row>, ChainError> {
        let failed = |e: BoxError| broken("read outbox", e).with("key", key);
        let row = sqlx::query("SELECT * FROM chain_messages WHERE submit_key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| failed(e.into()))?;
        row.as_ref().map(row_of).transpose().map_err(failed)
    }

    /// All calls that can be read, in the order of their submission.
    pub(crate) async fn all(&self) -> Result<Vec<Row>, ChainError> {
        let rows = sqlx::query("SELECT * FROM chain_messages ORDER BY seq, submit_key").fetch_all(&self.pool).await;
        let rows = rows.map_err(|e| broken("read outbox", e))?;
        Ok(rows.iter().filter_map(|row| self.readable(row, row_of)).collect())
    }

    /// The row, if it can be read. A damaged one is reported and left where it is: it must not stop the others.
    fn readable<T>(&self, row: &AnyRow, read: fn(&AnyRow) -> Result<T, BoxError>) -> Option<T> {
        let report = |e: &BoxError| {
            let key: String = row.try_get("submit_key").unwrap_or_default();
            if self.reported.lock().insert(key.clone()) {
                let sender: Option<String> = row.try_get("sender").unwrap_or_default();
                let nonce: Option<i64> = row.try_get("nonce").unwrap_or_default();
                error!(key, sender, nonce, error = %e, "a call in the outbox is damaged; a nonce that it has is not \
                    filled, and later messages of the sender wait for it");
            }
        };
        read(row).inspect_err(report).ok()
    }

    /// Calls that can be read and are neither settled nor dropped, of the senders that are asked for (none is that of
    /// a call without nonce): signed ones by nonce, then the others in the order of their submission.
    pub(crate) async fn unfinished(&self, of: impl Fn(Option<&str>) -> bool) -> Result<Vec<Unfinished>, ChainError> {
        let rows = sqlx::query(
            "SELECT * FROM chain_messages WHERE state IN ('signed', 'recorded')
             ORDER BY CASE state WHEN 'signed' THEN 0 ELSE 1 END, sender, nonce, seq, submit_key",
        )
        .fetch_all(&self.pool)
        .await;
        let rows = rows.map_err(|e| broken("read outbox", e))?;
        let asked = |row: &&AnyRow| of(row.try_get::<Option<String>, _>("sender").ok().flatten().as_deref());
        Ok(rows.iter().filter(asked).filter_map(|row| self.readable(row, Unfinished::of)).collect())
    }

    /// The messages of a sender from a nonce on; none for one that is damaged.
    pub(crate) async fn signed_from(
        &self,
        sender: &Address,
        nonce: u64,
    ) -> Result<BTreeMap<u64, Option<SignedMessage>>, ChainError> {
        let least = i64::try_from(nonce).map_err(|e| broken("read nonces", e))?;
        let rows = sqlx::query("SELECT nonce, signed FROM chain_messages WHERE sender = $1 AND nonce >= $2")
            .bind(sender_text(sender))
            .bind(least)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| broken("read nonces", e))?;
        let read = |row: &AnyRow| -> Result<_, BoxError> {
            let nonce = u64::try_from(row.try_get::<i64, _>("nonce")?)?;
            Ok((nonce, row.try_get::<String, _>("signed").ok().and_then(|text| value_of(&text).ok())))
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|e| broken("read nonces", e))
    }

    /// Notes that a message was seen on chain.
    pub(crate) async fn landed(&self, key: &SubmitKey, epoch: i64) -> Result<(), ChainError> {
        sqlx::query("UPDATE chain_messages SET landed = $1 WHERE submit_key = $2 AND state = 'signed'")
            .bind(epoch)
            .bind(&key.0)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|e| broken("note landing", e).with("key", key))
    }

    /// The nonce after the highest that was assigned to a sender.
    pub(crate) async fn next_nonce(&self, sender: &Address) -> Result<u64, ChainError> {
        let row = sqlx::query("SELECT COALESCE(MAX(nonce), -1) + 1 AS next FROM chain_messages WHERE sender = $1")
            .bind(sender_text(sender))
            .fetch_one(&self.pool)
            .await
            .map_err(|e| broken("read nonce", e))?;
        let next: i64 = row.try_get("next").map_err(|e| broken("read nonce", e))?;
        u64::try_from(next).map_err(|e| broken("read nonce", e))
    }

    /// Records nonce, message and signature, all or nothing; false if the call was signed before.
    pub(crate) async fn sign(&self, key: &SubmitKey, signed: &SignedMessage, cid: &Cid) -> Result<bool, ChainError> {
        let nonce = i64::try_from(signed.message.sequence).map_err(|e| broken("record signature", e))?;
        let done = sqlx::query(
            "UPDATE chain_messages SET state = 'signed', sender = $1, nonce = $2, cid = $3, signed = $4, error = NULL
             WHERE submit_key = $5 AND state = 'recorded'",
        )
        .bind(sender_text(&signed.message.from))
        .bind(nonce)
        .bind(cid.to_string())
        .bind(json_of(signed)?)
        .bind(&key.0)
        .execute(&self.pool)
        .await
        .map_err(|e| broken("record signature", e).with("key", key))?;
        Ok(done.rows_affected() == 1)
    }

    /// Takes a nonce back that another message used up for good. A message that was ever seen on chain keeps it.
    pub(crate) async fn unsign(&self, key: &SubmitKey, reason: &str) -> Result<(), ChainError> {
        sqlx::query(
            "UPDATE chain_messages
             SET state = 'recorded', sender = NULL, nonce = NULL, cid = NULL, signed = NULL, error = $1
             WHERE submit_key = $2 AND state = 'signed' AND landed IS NULL",
        )
        .bind(reason)
        .bind(&key.0)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| broken("take nonce back", e).with("key", key))
    }

    /// Records the receipt of a message that is final.
    pub(crate) async fn settle(&self, key: &SubmitKey, receipt: &Receipt) -> Result<(), ChainError> {
        sqlx::query(
            "UPDATE chain_messages SET state = 'settled', receipt = $1, error = NULL
             WHERE submit_key = $2 AND state = 'signed'",
        )
        .bind(json_of(receipt)?)
        .bind(&key.0)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| broken("settle message", e).with("key", key))
    }

    /// Gives a call up that has no nonce.
    pub(crate) async fn drop_call(&self, key: &SubmitKey, reason: &str) -> Result<(), ChainError> {
        sqlx::query(
            "UPDATE chain_messages SET state = 'dropped', error = $1 WHERE submit_key = $2 AND state = 'recorded'",
        )
        .bind(reason)
        .bind(&key.0)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| broken("drop call", e).with("key", key))
    }

    /// Notes why a call does not move, or that it moves again; a call that changed its state meanwhile keeps the
    /// reason that it was given with that.
    pub(crate) async fn note(
        &self,
        key: &SubmitKey,
        state: OutboxState,
        error: Option<String>,
    ) -> Result<(), ChainError> {
        let query = match error {
            Some(text) => {
                sqlx::query("UPDATE chain_messages SET error = $1 WHERE submit_key = $2").bind(text).bind(&key.0)
            }
            None => sqlx::query("UPDATE chain_messages SET error = NULL WHERE submit_key = $1 AND state = $2")
                .bind(&key.0)
                .bind(state.text()),
        };
        query.execute(&self.pool).await.map(drop).map_err(|e| broken("note error", e).with("key", key))
    }
}

/// How a sender is written in the table.
fn sender_text(sender: &Address) -> String {
    crate::lotus_json::text_of(sender)
}
