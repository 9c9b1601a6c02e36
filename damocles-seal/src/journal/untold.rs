//! The rows of what a manager is to be told.

use super::{MOST_UNTOLD, Untold};
use crate::service::Report;
use sqlx::{Row, SqliteConnection};

/// A sector as the tables know it: its miner and its number.
pub(super) type Key = (i64, i64);

/// Adds a report after those that wait. Returns an error of the database only: every report can be written.
pub(super) async fn add(db: &mut SqliteConnection, of: Key, report: &Report) -> sqlx::Result<()> {
    let text = serde_json::to_string(report).map_err(|e| sqlx::Error::Encode(e.into()))?;
    if matches!(report, Report::Failed { .. }) {
        let last: Option<String> =
            sqlx::query_scalar("SELECT report FROM untold WHERE miner = ? AND number = ? ORDER BY id DESC LIMIT 1")
                .bind(of.0)
                .bind(of.1)
                .fetch_optional(&mut *db)
                .await?;
        if last.as_ref() == Some(&text) {
            return Ok(());
        }
    }
    sqlx::query("INSERT INTO untold (miner, number, report) VALUES (?, ?, ?)")
        .bind(of.0)
        .bind(of.1)
        .bind(text)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM untold WHERE miner = ? AND number = ? AND id NOT IN \
         (SELECT id FROM untold WHERE miner = ? AND number = ? ORDER BY id DESC LIMIT ?)",
    )
    .bind(of.0)
    .bind(of.1)
    .bind(of.0)
    .bind(of.1)
    .bind(MOST_UNTOLD)
    .execute(db)
    .await
    .map(drop)
}

/// Those that wait, oldest first. One that cannot be read goes with the next that is told.
pub(super) async fn list(db: &mut SqliteConnection, of: Key) -> sqlx::Result<Vec<Untold>> {
    let rows = sqlx::query("SELECT id, report FROM untold WHERE miner = ? AND number = ? ORDER BY id")
        .bind(of.0)
        .bind(of.1)
        .fetch_all(db)
        .await?;
    let read = |row: &sqlx::sqlite::SqliteRow| {
        let number = u64::try_from(row.try_get::<i64, _>("id").ok()?).ok()?;
        let report = serde_json::from_str(&row.try_get::<String, _>("report").ok()?).ok()?;
        Some(Untold { number, report })
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// Forgets those up to a number.
pub(super) async fn forget(db: &mut SqliteConnection, of: Key, up_to: i64) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM untold WHERE miner = ? AND number = ? AND id <= ?")
        .bind(of.0)
        .bind(of.1)
        .bind(up_to)
        .execute(db)
        .await
        .map(drop)
}
