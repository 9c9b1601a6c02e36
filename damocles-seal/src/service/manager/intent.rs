//! Messages that were decided on, before, while and after they are sent.

use super::ManagerService;
use crate::sector_state::{
    AttemptKind, DbError, SealDb, SectorEvent, append, from_db, json_of, of_json, sector_of, to_db,
};
use damocles_core::{
    Epoch, SectorId, Timestamp,
    chain::{Call, MessageId, SubmitKey},
};
use sqlx::{AnyConnection, Row, any::AnyRow};

/// A message that was decided on.
#[derive(Clone, Debug)]
pub(super) struct Intent {
    pub(super) key: SubmitKey,
    pub(super) sector: SectorId,
    pub(super) attempt: u64,
    /// What the worker submitted, to recognise a repeat.
    pub(super) content: String,
    pub(super) call: Call,
    pub(super) message: Option<MessageId>,
    /// What keeps it from moving.
    pub(super) trouble: Option<String>,
    pub(super) end: Option<End>,
}

/// How a message ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) state: EndState,
    pub(super) reason: Option<String>,
    pub(super) epoch: Option<Epoch>,
    pub(super) exit_code: Option<i64>,
    pub(super) cid: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    /// On chain with confidence, accepted by the actor.
    Landed,
    /// On chain, refused for a reason that may pass.
    Failed,
    /// On chain, refused for good.
    Refused,
    /// It will never be on chain.
    Dropped,
}

impl Intent {
    /// Whether it may be on chain, now or later: it is open, or it landed well.
    pub(super) fn stands(&self) -> bool {
        self.end.as_ref().is_none_or(|end| end.state == EndState::Landed)
    }
}

impl End {
    /// It will never be on chain.
    pub(super) fn dropped(reason: String) -> Self {
        Self { state: EndState::Dropped, reason: Some(reason), epoch: None, exit_code: None, cid: None }
    }
}

impl EndState {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Landed, "landed"), (Self::Failed, "failed"), (Self::Refused, "refused"), (Self::Dropped, "dropped")];

    fn text(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("dropped", |(_, text)| text)
    }

    fn read(text: &str) -> Result<Self, DbError> {
        let found = Self::ALL.iter().find(|(_, t)| *t == text).map(|(state, _)| *state);
        found.ok_or_else(|| DbError::Range { what: "end of a message", value: text.chars().take(40).collect() })
    }
}

/// A decision that is to be recorded.
#[derive(Debug)]
pub(super) struct NewIntent<'a> {
    pub(super) key: &'a SubmitKey,
    pub(super) sector: SectorId,
    pub(super) kind: AttemptKind,
    pub(super) attempt: u64,
    pub(super) content: &'a str,
    pub(super) call: &'a Call,
}

/// The last decision of a kind for a sector.
pub(super) async fn latest(
    db: &mut AnyConnection,
    sector: SectorId,
    kind: AttemptKind,
) -> Result<Option<Intent>, DbError> {
    let row = sqlx::query(
        "SELECT * FROM seal_intents WHERE miner = $1 AND number = $2 AND kind = $3 ORDER BY attempt DESC LIMIT 1",
    )
    .bind(to_db("miner", sector.miner.0)?)
    .bind(to_db("sector number", sector.number.0)?)
    .bind(kind.as_str())
    .fetch_optional(db)
    .await?;
    row.as_ref().map(read).transpose()
}

/// How a message ended; none while it has not.
pub(super) async fn ended(db: &SealDb, key: &SubmitKey) -> Result<Option<End>, DbError> {
    let row = sqlx::query("SELECT * FROM seal_intents WHERE submit_key = $1")
        .bind(key.0.as_str())
        .fetch_optional(db.pool())
        .await?;
    Ok(row.as_ref().map(read).transpose()?.and_then(|intent| intent.end))
}

/// Decisions without an end. One that cannot be read keeps no other from being sent.
pub(super) async fn open(db: &SealDb) -> Result<Vec<Intent>, DbError> {
    let rows = sqlx::query("SELECT * FROM seal_intents WHERE ended IS NULL ORDER BY created_at, submit_key")
        .fetch_all(db.pool())
        .await?;
    let read = rows.iter().map(read).filter_map(|intent| match intent {
        Ok(intent) => Some(intent),
        Err(error) => {
            let error = ManagerService::of_db("read intents", error);
            tracing::warn!(error = %error.chain(), "a decided message cannot be sent");
            None
        }
    });
    Ok(read.collect())
}

/// Records a decision inside the caller's transaction.
pub(super) async fn record(db: &mut AnyConnection, new: &NewIntent<'_>, now: Timestamp) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO seal_intents (submit_key, miner, number, kind, attempt, content, call, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(new.key.0.as_str())
    .bind(to_db("miner", new.sector.miner.0)?)
    .bind(to_db("sector number", new.sector.number.0)?)
    .bind(new.kind.as_str())
    .bind(to_db("attempt", new.attempt)?)
    .bind(new.content)
    .bind(json_of("call", new.call)?)
    .bind(now.0)
    .execute(&mut *db)
    .await?;
    append(db, new.sector, now, &SectorEvent::Intended { key: new.key.clone() }).await
}

/// Records that the chain client took a message over.
pub(super) async fn sent(db: &SealDb, intent: &Intent, message: &MessageId, now: Timestamp) -> Result<(), DbError> {
    let mut tx = db.write().await?;
    let changed =
        sqlx::query("UPDATE seal_intents SET message = $2, trouble = NULL WHERE submit_key = $1 AND message IS NULL")
            .bind(intent.key.0.as_str())
            .bind(message.as_str())
            .execute(&mut *tx)
            .await?;
    if changed.rows_affected() > 0 {
        let event = SectorEvent::Sent { key: intent.key.clone(), message: message.to_string() };
        append(&mut tx, intent.sector, now, &event).await?;
    }
    Ok(tx.commit().await?)
}

/// Notes what keeps a message from moving, or that it moves again.
pub(super) async fn trouble(db: &SealDb, intent: &Intent, trouble: Option<&str>) -> Result<(), DbError> {
    if intent.trouble.as_deref() == trouble {
        return Ok(());
    }
    // The statement alone is the transaction; an end that came first has the last word.
    sqlx::query("UPDATE seal_intents SET trouble = $2 WHERE submit_key = $1 AND ended IS NULL")
        .bind(intent.key.0.as_str())
        .bind(trouble)
        .execute(db.pool())
        .await?;
    Ok(())
}

/// Records how a message ended, inside the caller's transaction. The first end stands.
pub(super) async fn end(
    db: &mut AnyConnection,
    sector: SectorId,
    key: &SubmitKey,
    end: &End,
    now: Timestamp,
) -> Result<(), DbError> {
    let changed = sqlx::query(
        "UPDATE seal_intents SET ended = $2, reason = $3, epoch = $4, exit_code = $5, cid = $6, trouble = NULL
         WHERE submit_key = $1 AND ended IS NULL",
    )
    .bind(key.0.as_str())
    .bind(end.state.text())
    .bind(end.reason.as_deref())
    .bind(end.epoch.map(|e| e.0))
    .bind(end.exit_code)
    .bind(end.cid.as_deref())
    .execute(&mut *db)
    .await?;
    if changed.rows_affected() > 0 {
        let event = SectorEvent::Ended {
            key: key.clone(),
            state: end.state.text().to_owned(),
            reason: end.reason.clone(),
            epoch: end.epoch,
        };
        append(db, sector, now, &event).await?;
    }
    Ok(())
}

fn read(row: &AnyRow) -> Result<Intent, DbError> {
    let key: String = row.try_get("submit_key")?;
    read_as(SubmitKey(key.clone()), row).map_err(|e| e.in_row("seal_intents", key))
}

fn read_as(key: SubmitKey, row: &AnyRow) -> Result<Intent, DbError> {
    let ended: Option<String> = row.try_get("ended")?;
    let end = match ended {
        None => None,
        Some(text) => Some(End {
            state: EndState::read(&text)?,
            reason: row.try_get("reason")?,
            epoch: row.try_get::<Option<i64>, _>("epoch")?.map(Epoch),
            exit_code: row.try_get("exit_code")?,
            cid: row.try_get("cid")?,
        }),
    };
    Ok(Intent {
        key,
        sector: sector_of(row)?,
        attempt: from_db("attempt", row.try_get("attempt")?)?,
        content: row.try_get("content")?,
        call: of_json("call", &row.try_get::<String, _>("call")?)?,
        message: row.try_get::<Option<String>, _>("message")?.map(MessageId::new),
        trouble: row.try_get("trouble")?,
        end,
    })
}
