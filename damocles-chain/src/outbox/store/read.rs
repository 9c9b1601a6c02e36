//! What is read of the tables.

use super::{InFlight, Page, Recorded, Row, Store, Version, broken, record::kind_text, sender_text, value_of};
use crate::{
    lotus_json::{SignedMessage, from_core},
    outbox::OutboxFilter,
};
use damocles_core::{
    BoxError,
    chain::{CallKind, ChainError, ChainErrorKind},
};
use fvm_shared::address::Address;
use sqlx::{Row as _, any::AnyRow};
use std::collections::{BTreeMap, HashMap};

/// The rows that a filter chooses, the newest first; its sender is the only parameter.
fn chosen(which: &OutboxFilter) -> String {
    let mut conditions = Vec::new();
    if !which.states.is_empty() {
        let names: Vec<String> = which.states.iter().map(|state| format!("'{}'", state.text())).collect();
        conditions.push(format!("state IN ({})", names.join(", ")));
    }
    if which.from.is_some() {
        conditions.push("COALESCE(sender, lane) = $1".to_owned());
    }
    let conditions = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
    let limit = which.limit.map(|limit| format!("LIMIT {limit}")).unwrap_or_default();
    format!("FROM chain_messages {conditions} ORDER BY seq DESC, submit_key DESC {limit}")
}

impl Store {
    /// One call, with all its messages.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Row>, ChainError> {
        let failed = |e: BoxError| broken("read outbox", e).with("key", key);
        let row = sqlx::query("SELECT * FROM chain_messages WHERE submit_key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| failed(e.into()))?;
        let Some(row) = row else { return Ok(None) };
        let mut row = Row::of(&row).map_err(failed)?;
        let older = sqlx::query("SELECT * FROM chain_versions WHERE submit_key = $1 ORDER BY version")
            .bind(key)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failed(e.into()))?;
        row.older = older.iter().map(Version::of).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Some(row))
    }

    /// Whether a call is there.
    pub(crate) async fn knows(&self, key: &str) -> Result<bool, ChainError> {
        // A damaged call is no free key.
        let row = sqlx::query("SELECT call FROM chain_messages WHERE submit_key = $1")
            .bind(key)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| broken("read outbox", e).with("key", key))?;
        let Some(row) = row else { return Ok(false) };
        let read = || -> Result<damocles_core::chain::Call, BoxError> { value_of(&row.try_get::<String, _>("call")?) };
        read().map(|_| true).map_err(|e| broken("read outbox", e).with("key", key))
    }

    /// All calls that can be read, in the order of their submission, with all their messages.
    pub(crate) async fn all(&self) -> Result<Vec<Row>, ChainError> {
        self.some(&OutboxFilter::default()).await
    }

    /// Those of the calls that are asked for, as [`Store::all`].
    pub(crate) async fn some(&self, which: &OutboxFilter) -> Result<Vec<Row>, ChainError> {
        let failed = |e| broken("read outbox", e);
        let from = which.from.as_ref().map(from_core).transpose();
        let from = from.map_err(|e| ChainError::new(ChainErrorKind::Rejected, "read outbox").because(e))?;
        let chosen = chosen(which);
        let find = async |text: String| {
            let query = sqlx::query(sqlx::AssertSqlSafe(text));
            let query = if let Some(from) = &from { query.bind(sender_text(from)) } else { query };
            query.fetch_all(&self.pool).await.map_err(failed)
        };
        let rows = find(format!("SELECT * {chosen}")).await?;
        let mut rows: Vec<Row> = rows.iter().rev().filter_map(|row| self.readable(row, Row::of)).collect();
        let older = find(format!(
            "SELECT * FROM chain_versions WHERE submit_key IN (SELECT submit_key {chosen}) ORDER BY submit_key, version"
        ));
        let mut older = self.by_key(&older.await?)?;
        for row in &mut rows {
            row.older = older.remove(&row.key.0).unwrap_or_default();
        }
        Ok(rows)
    }

    /// The older messages of calls, from their rows.
    fn by_key(&self, rows: &[AnyRow]) -> Result<HashMap<String, Vec<Version>>, ChainError> {
        let mut older: HashMap<String, Vec<Version>> = HashMap::new();
        for row in rows {
            let key: String = row.try_get("submit_key").map_err(|e| broken("read outbox", e))?;
            older.entry(key).or_default().extend(self.readable(row, Version::of));
        }
        Ok(older)
    }

    /// The first so many calls of a lane after one that have no nonce yet, as far as they can be read, in the order of
    /// their submission: proofs of spacetime, or all others.
    pub(crate) async fn recorded(
        &self,
        lane: Option<&Address>,
        proofs: bool,
        after: i64,
        most: i64,
    ) -> Result<Page, ChainError> {
        let which = if proofs { "kind = $1" } else { "(kind IS NULL OR kind <> $1)" };
        let lane_is = if lane.is_some() { "lane = $4" } else { "lane IS NULL" };
        let text = format!(
            "SELECT submit_key, seq, call, sender, nonce, error, waits_since FROM chain_messages
             WHERE state = 'recorded' AND {which} AND {lane_is} AND seq > $2 ORDER BY seq, submit_key LIMIT $3"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(kind_text(CallKind::PoSt)).bind(after);
        let query = query.bind(most);
        let query = if let Some(lane) = lane { query.bind(sender_text(lane)) } else { query };
        let rows = query.fetch_all(&self.pool).await.map_err(|e| broken("read outbox", e))?;
        let is_full = i64::try_from(rows.len()).is_ok_and(|count| count >= most);
        let last = rows.last().filter(|_| is_full).map(|row| row.try_get("seq")).transpose();
        Ok(Page {
            next: last.map_err(|e| broken("read outbox", e))?,
            rows: rows.iter().filter_map(|row| self.readable(row, Recorded::of)).collect(),
        })
    }

    /// Every call without nonce, with the lane that it is in.
    pub(crate) async fn laned(&self) -> Result<Vec<(Recorded, Option<String>, bool)>, ChainError> {
        let rows = sqlx::query(
            "SELECT submit_key, call, error, waits_since, lane, kind, sender, nonce FROM chain_messages
             WHERE state = 'recorded' ORDER BY seq, submit_key",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| broken("read outbox", e))?;
        let of = |row: &AnyRow| {
            let recorded = self.readable(row, Recorded::of)?;
            let lane = row.try_get::<Option<String>, _>("lane").ok()?;
            let has_kind = row.try_get::<Option<String>, _>("kind").ok()?.is_some();
            Some((recorded, lane, has_kind))
        };
        Ok(rows.iter().filter_map(of).collect())
    }

    /// The messages of a sender that are not known to be on chain and can be read, by nonce.
    pub(crate) async fn in_flight(&self, sender: &Address) -> Result<Vec<InFlight>, ChainError> {
        let rows = sqlx::query(
            "SELECT * FROM chain_messages WHERE state = 'signed' AND sender = $1 AND tipset IS NULL ORDER BY nonce",
        )
        .bind(sender_text(sender))
        .fetch_all(&self.pool)
        .await
        .map_err(|e| broken("read outbox", e))?;
        let mut rows: Vec<InFlight> = rows.iter().filter_map(|row| self.readable(row, InFlight::of)).collect();
        if rows.is_empty() {
            return Ok(rows);
        }
        let query = "SELECT v.* FROM chain_versions v JOIN chain_messages m ON m.submit_key = v.submit_key
             WHERE m.state = 'signed' AND m.sender = $1 AND m.tipset IS NULL ORDER BY v.submit_key, v.version";
        let older = sqlx::query(query).bind(sender_text(sender)).fetch_all(&self.pool).await;
        let mut older = self.by_key(&older.map_err(|e| broken("read outbox", e))?)?;
        for row in &mut rows {
            row.older = older.remove(&row.key.0).unwrap_or_default();
        }
        Ok(rows)
    }

    /// Who has messages with a nonce that are not final.
    pub(crate) async fn senders(&self) -> Result<Vec<String>, ChainError> {
        let rows = sqlx::query("SELECT DISTINCT sender FROM chain_messages WHERE state = 'signed'")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| broken("read outbox", e))?;
        Ok(rows.iter().filter_map(|row| row.try_get::<Option<String>, _>("sender").ok().flatten()).collect())
    }

    /// The tipsets that hold messages of a sender that are not final, with their epochs.
    pub(crate) async fn landed_in(&self, sender: &Address) -> Result<Vec<(i64, String)>, ChainError> {
        let rows = sqlx::query(
            "SELECT DISTINCT landed, tipset FROM chain_messages
             WHERE state = 'signed' AND sender = $1 AND tipset IS NOT NULL ORDER BY landed",
        )
        .bind(sender_text(sender))
        .fetch_all(&self.pool)
        .await
        .map_err(|e| broken("read outbox", e))?;
        let read = |row: &AnyRow| Ok((row.try_get("landed")?, row.try_get("tipset")?));
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(|e| broken("read outbox", e))
    }

    /// The tipsets that hold messages of a sender with this nonce or a higher one that are not final.
    pub(crate) async fn landed_from(&self, sender: &Address, nonce: u64) -> Result<Vec<String>, ChainError> {
        // No message has a nonce that does not fit.
        let Ok(least) = i64::try_from(nonce) else { return Ok(Vec::new()) };
        let rows = sqlx::query(
            "SELECT DISTINCT tipset FROM chain_messages
             WHERE state = 'signed' AND sender = $1 AND tipset IS NOT NULL AND nonce >= $2",
        )
        .bind(sender_text(sender))
        .bind(least)
        .fetch_all(&self.pool)
        .await
        .map_err(|e| broken("read outbox", e))?;
        rows.iter().map(|row| row.try_get("tipset")).collect::<Result<_, _>>().map_err(|e| broken("read outbox", e))
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
}
