//! A journal in a SQLite file.

use super::{
    Entry, EntryKind, Journal, JournalObserver, JournalSector, NewEntry, Untold,
    entry::EntryFault,
    record::{corrupt, parked, phase_of},
    schema::MIGRATIONS,
    untold,
};
use crate::service::Report;
use async_trait::async_trait;
use damocles_core::{
    ActorId, Clock, Error, Fence, RequestId, SealProofType, SectorId, SectorNumber, StoreId, Timestamp,
    allocator::SectorLease,
    pipeline::{SealError, SealErrorKind, StageId},
};
use sqlx::{
    Connection as _, Row, Sqlite, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The journal of one sealing store, `<location>/meta/journal.db`.
#[derive(Debug)]
pub struct SqliteJournal {
    path: PathBuf,
    pool: SqlitePool,
    clock: Arc<dyn Clock>,
    observer: Option<Arc<dyn JournalObserver>>,
    appends: AtomicU64,
}

impl SqliteJournal {
    /// Opens a journal, and makes it if the file is not there. Its directory must be.
    ///
    /// # Errors
    ///
    /// The file cannot be used, or a newer version wrote it.
    pub async fn open(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, SealError> {
        let path = path.into();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5));
        // One connection: there is one writer, and readers of the same process may wait for it.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(30))
            // A full disk makes SQLite roll back by itself, after which the driver believes that it is still inside the
            // transaction and begins no other one on this connection.
            .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
            .connect_with(options)
            .await
            .map_err(|e| failed("open journal", &path, e))?;
        let journal = Self { path, pool, clock, observer: None, appends: AtomicU64::new(0) };
        journal.migrate().await?;
        Ok(journal)
    }

    /// Tells `observer` of every append.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn JournalObserver>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file after running calls have ended.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn migrate(&self) -> Result<(), SealError> {
        let op = "update journal";
        let mut tx = self.write(op).await?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| failed(op, &self.path, e))?;
        let have = usize::try_from(version).unwrap_or(usize::MAX);
        if have > MIGRATIONS.len() {
            return Err(Error::new(SealErrorKind::Journal, "open journal")
                .with("path", self.path.display())
                .with("version", version)
                .with("newest known", MIGRATIONS.len())
                .recover_by(damocles_core::Recovery::Park)
                .hint_with("a newer version of damocles-worker wrote this journal; use that version"));
        }
        for statements in MIGRATIONS.iter().skip(have) {
            sqlx::raw_sql(*statements).execute(&mut *tx).await.map_err(|e| failed(op, &self.path, e))?;
        }
        if have < MIGRATIONS.len() {
            let set = format!("PRAGMA user_version = {}", MIGRATIONS.len());
            sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut *tx).await.map_err(|e| failed(op, &self.path, e))?;
        }
        tx.commit().await.map_err(|e| failed(op, &self.path, e))
    }

    async fn write(&self, op: &'static str) -> Result<Transaction<'static, Sqlite>, SealError> {
        self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| failed(op, &self.path, e))
    }

    /// Writes one entry and commits the transaction that it is part of.
    async fn commit_entry(
        &self,
        mut tx: Transaction<'static, Sqlite>,
        sector: SectorId,
        fence: Fence,
        mut entry: NewEntry,
    ) -> Result<u64, SealError> {
        let op = "append to journal";
        let sql = |e| failed(op, &self.path, e);
        let (miner, number) = key(sector)?;
        let last: Option<i64> = sqlx::query_scalar("SELECT MAX(seq) FROM entry WHERE miner = ? AND number = ?")
            .bind(miner)
            .bind(number)
            .fetch_one(&mut *tx)
            .await
            .map_err(sql)?;
        let seq = last.unwrap_or(0).checked_add(1).ok_or_else(|| out_of_range("sequence number"))?;
        let seq_written = u64::try_from(seq).map_err(|_| out_of_range("sequence number"))?;
        let (ends, report) = (entry.kind == EntryKind::Ended, entry.report.take());
        let entry = Entry::seal(sector, seq_written, fence, self.clock.now(), entry);
        sqlx::query(
            "INSERT INTO entry (miner, number, seq, kind, stage, version, fence, at, output, checksum) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(miner)
        .bind(number)
        .bind(seq)
        .bind(entry.kind.as_str())
        .bind(entry.stage.as_ref().map(StageId::as_str))
        .bind(entry.version)
        .bind(integer("fence", fence.0)?)
        .bind(entry.at.0)
        .bind(entry.output.as_str())
        .bind(entry.checksum.as_slice())
        .execute(&mut *tx)
        .await
        .map_err(sql)?;
        if ends {
            sqlx::query("UPDATE sector SET ended = 1 WHERE miner = ? AND number = ?")
                .bind(miner)
                .bind(number)
                .execute(&mut *tx)
                .await
                .map_err(sql)?;
            untold::forget(&mut tx, (miner, number), i64::MAX).await.map_err(sql)?;
        }
        if let Some(report) = report {
            untold::add(&mut tx, (miner, number), &report).await.map_err(sql)?;
        }
        let n = self.appends.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(observer) = &self.observer {
            observer.appending(n);
        }
        tx.commit().await.map_err(sql)?;
        if let Some(observer) = &self.observer {
            observer.appended(n);
        }
        Ok(seq_written)
    }

    /// The lease that the last whole entry of its kind tells.
    async fn opened_under(&self, sector: SectorId) -> Result<Option<SectorLease>, SealError> {
        let (miner, number) = key(sector)?;
        let rows =
            sqlx::query("SELECT * FROM entry WHERE miner = ? AND number = ? AND kind = 'opened' ORDER BY seq DESC")
                .bind(miner)
                .bind(number)
                .fetch_all(&self.pool)
                .await
                .map_err(|e| failed("read journal", &self.path, e))?;
        let lease = |row| serde_json::from_value(entry_of(row).ok()?.verified(sector).ok()?).ok();
        Ok(rows.iter().find_map(lease))
    }

    async fn check_fence(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        sector: SectorId,
        fence: Fence,
        op: &'static str,
    ) -> Result<bool, SealError> {
        let (miner, number) = key(sector)?;
        let recorded: Option<i64> = sqlx::query_scalar("SELECT fence FROM sector WHERE miner = ? AND number = ?")
            .bind(miner)
            .bind(number)
            .fetch_optional(&mut **tx)
            .await
            .map_err(|e| failed(op, &self.path, e))?;
        match recorded {
            None => Ok(false),
            Some(recorded) if recorded > integer("fence", fence.0)? => Err(Error::new(SealErrorKind::Fenced, op)
                .with("sector", sector)
                .with("fence", fence)
                .with("recorded", recorded)),
            Some(_) => Ok(true),
        }
    }
}

#[async_trait]
impl Journal for SqliteJournal {
    async fn open(&self, lease: &SectorLease) -> Result<(), SealError> {
        let op = "open sector";
        let sql = |e| failed(op, &self.path, e);
        let mut tx = self.write(op).await?;
        self.check_fence(&mut tx, lease.sector, lease.fence, op).await?;
        let (miner, number) = key(lease.sector)?;
        sqlx::query(
            "INSERT INTO sector (miner, number, proof_type, store, fence, heard_until) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (miner, number) DO UPDATE SET proof_type = excluded.proof_type, store = excluded.store, \
             fence = excluded.fence, heard_until = excluded.heard_until, ended = 0",
        )
        .bind(miner)
        .bind(number)
        .bind(lease.proof_type.number())
        .bind(lease.store.as_str())
        .bind(integer("fence", lease.fence.0)?)
        .bind(lease.heard_until.0)
        .execute(&mut *tx)
        .await
        .map_err(sql)?;
        sqlx::query("DELETE FROM pending_request").execute(&mut *tx).await.map_err(sql)?;
        self.commit_entry(tx, lease.sector, lease.fence, NewEntry::opened(lease)).await.map(drop)
    }

    async fn append(&self, sector: SectorId, fence: Fence, entry: NewEntry) -> Result<u64, SealError> {
        let op = "append to journal";
        let mut tx = self.write(op).await?;
        if !self.check_fence(&mut tx, sector, fence, op).await? {
            return Err(Error::new(SealErrorKind::UnknownSector, op).with("sector", sector));
        }
        self.commit_entry(tx, sector, fence, entry).await
    }

    async fn history(&self, sector: SectorId) -> Result<Vec<Entry>, SealError> {
        let (miner, number) = key(sector)?;
        let rows = sqlx::query("SELECT * FROM entry WHERE miner = ? AND number = ? ORDER BY seq")
            .bind(miner)
            .bind(number)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failed("read journal", &self.path, e))?;
        let mut entries = Vec::with_capacity(rows.len());
        for (row, expected) in rows.iter().zip(1_u64..) {
            let here = |fault| corrupt(sector, expected, fault).with("path", self.path.display());
            let entry = entry_of(row).map_err(here)?;
            if entry.seq != expected {
                return Err(here(EntryFault::Gap { expected }));
            }
            entry.verified(sector).map_err(here)?;
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn active(&self) -> Result<Vec<JournalSector>, SealError> {
        let op = "read journal";
        let sql = |e| failed(op, &self.path, e);
        let rows = sqlx::query("SELECT * FROM sector WHERE ended = 0 ORDER BY miner, number")
            .fetch_all(&self.pool)
            .await
            .map_err(sql)?;
        let mut sectors = Vec::with_capacity(rows.len());
        for row in &rows {
            let here =
                |fault| Error::new(SealErrorKind::CorruptJournal, op).with("path", self.path.display()).because(fault);
            let sector = sector_of(row).map_err(here)?;
            let lease = match lease_of(row) {
                Ok(lease) => lease,
                Err(fault) => {
                    let error = here(fault).with("sector", sector);
                    let Some(lease) = self.opened_under(sector).await? else { return Err(error) };
                    sectors.push(JournalSector { lease, phase: parked(&error) });
                    continue;
                }
            };
            let (miner, number) = key(sector)?;
            let last = sqlx::query(
                "SELECT * FROM entry WHERE miner = ? AND number = ? AND kind IN ('parked', 'resumed', 'ending', 'ended') \
                 ORDER BY seq DESC LIMIT 1",
            )
            .bind(miner)
            .bind(number)
            .fetch_optional(&self.pool)
            .await
            .map_err(sql)?;
            let phase = match last.as_ref().map(entry_of).transpose() {
                Ok(last) => phase_of(sector, last.as_ref()),
                Err(fault) => parked(&corrupt(sector, 0, fault).with("path", self.path.display())),
            };
            sectors.push(JournalSector { lease, phase });
        }
        Ok(sectors)
    }

    async fn tell(&self, sector: SectorId, fence: Fence, report: &Report) -> Result<(), SealError> {
        let op = "record report";
        let sql = |e| failed(op, &self.path, e);
        let mut tx = self.write(op).await?;
        if !self.check_fence(&mut tx, sector, fence, op).await? {
            return Err(Error::new(SealErrorKind::UnknownSector, op).with("sector", sector));
        }
        untold::add(&mut tx, key(sector)?, report).await.map_err(sql)?;
        tx.commit().await.map_err(sql)
    }

    async fn untold(&self, sector: SectorId) -> Result<Vec<Untold>, SealError> {
        let sql = |e| failed("read reports", &self.path, e);
        let mut db = self.pool.acquire().await.map_err(sql)?;
        untold::list(&mut db, key(sector)?).await.map_err(sql)
    }

    async fn told(&self, sector: SectorId, number: u64) -> Result<(), SealError> {
        let sql = |e| failed("forget reports", &self.path, e);
        let mut db = self.pool.acquire().await.map_err(sql)?;
        untold::forget(&mut db, key(sector)?, integer("report", number)?).await.map_err(sql)
    }

    async fn pending_request(&self) -> Result<Option<RequestId>, SealError> {
        let request: Option<String> = sqlx::query_scalar("SELECT request FROM pending_request")
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| failed("read journal", &self.path, e))?;
        Ok(request.map(RequestId::new))
    }

    async fn set_pending_request(&self, request: Option<&RequestId>) -> Result<(), SealError> {
        let op = "record request";
        let sql = |e| failed(op, &self.path, e);
        let mut tx = self.write(op).await?;
        sqlx::query("DELETE FROM pending_request").execute(&mut *tx).await.map_err(sql)?;
        if let Some(request) = request {
            sqlx::query("INSERT INTO pending_request (only_one, request) VALUES (1, ?)")
                .bind(request.as_str())
                .execute(&mut *tx)
                .await
                .map_err(sql)?;
        }
        tx.commit().await.map_err(sql)
    }
}

fn key(sector: SectorId) -> Result<(i64, i64), SealError> {
    Ok((integer("miner", sector.miner.0)?, integer("sector number", sector.number.0)?))
}

fn integer(what: &'static str, value: u64) -> Result<i64, SealError> {
    i64::try_from(value).map_err(|_| out_of_range(what).with("value", value))
}

fn out_of_range(what: &'static str) -> SealError {
    Error::new(SealErrorKind::Journal, "use journal")
        .because(EntryFault::Range { what })
        .recover_by(damocles_core::Recovery::Park)
}

fn entry_of(row: &SqliteRow) -> Result<Entry, EntryFault> {
    let kind: String = column(row, "kind")?;
    Ok(Entry {
        seq: natural(row, "seq")?,
        kind: kind.parse()?,
        stage: column::<Option<String>>(row, "stage")?.map(StageId::read),
        version: u32::try_from(natural(row, "version")?).map_err(|_| EntryFault::Range { what: "version" })?,
        fence: Fence(natural(row, "fence")?),
        at: Timestamp(column(row, "at")?),
        output: column(row, "output")?,
        checksum: column(row, "checksum")?,
    })
}

fn sector_of(row: &SqliteRow) -> Result<SectorId, EntryFault> {
    Ok(SectorId::new(ActorId(natural(row, "miner")?), SectorNumber(natural(row, "number")?)))
}

fn lease_of(row: &SqliteRow) -> Result<SectorLease, EntryFault> {
    let proof_type: i64 = column(row, "proof_type")?;
    Ok(SectorLease {
        sector: sector_of(row)?,
        proof_type: SealProofType::try_from(proof_type).map_err(|_| EntryFault::Range { what: "proof type" })?,
        store: StoreId::new(column::<String>(row, "store")?),
        fence: Fence(natural(row, "fence")?),
        heard_until: Timestamp(column(row, "heard_until")?),
    })
}

fn column<'r, T>(row: &'r SqliteRow, name: &'static str) -> Result<T, EntryFault>
where
    T: sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
{
    // A text that is not UTF-8 ends here as well.
    row.try_get(name).map_err(|_| EntryFault::Range { what: name })
}

fn natural(row: &SqliteRow, name: &'static str) -> Result<u64, EntryFault> {
    u64::try_from(column::<i64>(row, name)?).map_err(|_| EntryFault::Range { what: name })
}

/// SQLite's own codes: <https://www.sqlite.org/rescode.html>.
fn failed(op: &'static str, path: &Path, error: sqlx::Error) -> SealError {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|c| c.parse::<u32>().ok()).map(|c| c & 0xff);
    let kind = match code {
        Some(11 | 26) => SealErrorKind::CorruptJournal,
        Some(13) => SealErrorKind::DiskFull,
        _ => SealErrorKind::Journal,
    };
    Error::new(kind, op).with("path", path.display()).because(error)
}
