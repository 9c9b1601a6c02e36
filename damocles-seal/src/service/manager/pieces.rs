//! The queue of pieces.

use super::ManagerService;
use crate::{
    sector_state::{DbError, SectorEvent, append, from_db, piece_of, pieces, to_db},
    service::{DealPiece, PieceTerms, ServiceError, ServiceErrorKind, terms::Filling},
};
use damocles_core::{CommP, Error, PieceInfo, SectorId, allocator::SectorLease};
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Row};
use std::{
    io,
    path::{Path, PathBuf},
};

/// A piece in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedPiece {
    /// Its place in the queue, for ever.
    pub id: u64,
    /// The piece.
    pub piece: PieceInfo,
    /// The bytes that are data.
    pub payload_size: u64,
    /// The file that holds them.
    pub path: PathBuf,
}

impl ManagerService {
    /// Queues a piece: the next sector that asks for pieces and has room gets it, for ever. Returns its place in the queue.
    ///
    /// # Errors
    ///
    /// The payload is larger than the piece, the file is not among those that may be served, or the database did not
    /// answer.
    pub async fn add_piece(&self, piece: PieceInfo, payload_size: u64, path: &Path) -> Result<u64, ServiceError> {
        const OP: &str = "add piece";
        let refused = |why: &str| {
            Error::new(ServiceErrorKind::Refused, OP).with("piece", piece.comm_p).with("reason", why.to_owned())
        };
        let largest = self.allocator.miners().iter().map(|m| m.proof_type.sector_size().bytes()).max().unwrap_or(0);
        if payload_size > piece.size.unpadded().bytes() {
            return Err(refused("the payload is larger than the piece"));
        }
        if piece.size.bytes() > largest {
            return Err(refused("no miner has sectors that large"));
        }
        let admitted = self.admit(path).await.map_err(|e| {
            let kind = match e.kind() {
                io::ErrorKind::TimedOut => ServiceErrorKind::Unavailable,
                _ => ServiceErrorKind::Refused,
            };
            Error::new(kind, OP).with("piece", piece.comm_p).with("path", path.display()).because(e).hint_with(
                "the manager serves files below the `pieces` of its home and below `pieces.dirs` of manager.toml",
            )
        })?;
        let path = admitted.to_str().ok_or_else(|| refused("the path is not UTF-8"))?;
        self.queue(piece, payload_size, path).await.map_err(|e| Self::of_db(OP, e).with("piece", piece.comm_p))
    }

    /// The file that a path leads to, if it may be served. Its disk may hang.
    async fn admit(&self, path: &Path) -> io::Result<PathBuf> {
        let (dirs, path) = (self.config.piece_dirs.clone(), path.to_owned());
        self.probes.ask("the directories of pieces", self.config.store_timeout, move || dirs.admit(&path)).await
    }

    async fn queue(&self, piece: PieceInfo, payload_size: u64, path: &str) -> Result<u64, DbError> {
        let mut tx = self.db.write().await?;
        let row = sqlx::query("SELECT COALESCE(MAX(id), 0) + 1 AS id FROM seal_pieces").fetch_one(&mut *tx).await?;
        let id: i64 = row.try_get("id")?;
        sqlx::query(
            "INSERT INTO seal_pieces (id, comm_p, size, payload_size, path, queued_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(id)
        .bind(piece.comm_p.to_string())
        .bind(to_db("piece size", piece.size.bytes())?)
        .bind(to_db("payload size", payload_size)?)
        .bind(path)
        .bind(self.clock.now().0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        // A sector may wait for it.
        self.nudge();
        from_db("piece", id)
    }

    /// The file that holds a piece, if it was ever queued and may be served.
    ///
    /// # Errors
    ///
    /// The database could not be read.
    pub async fn piece_path(&self, comm_p: CommP) -> Result<Option<PathBuf>, ServiceError> {
        let found = async {
            let row = sqlx::query("SELECT path FROM seal_pieces WHERE comm_p = $1 ORDER BY id DESC LIMIT 1")
                .bind(comm_p.to_string())
                .fetch_optional(self.db.pool())
                .await?;
            row.map(|r| r.try_get::<String, _>("path").map(PathBuf::from)).transpose()
        };
        let found: Option<PathBuf> =
            found.await.map_err(|e| Self::of_db("find piece", DbError::from(e)).with("piece", comm_p))?;
        let Some(path) = found else { return Ok(None) };
        // It may lead elsewhere by now, or the configuration may have changed.
        match self.admit(&path).await {
            Ok(file) => Ok(Some(file)),
            Err(error) => {
                tracing::warn!(piece = %comm_p, path = %path.display(), %error, "the file of a piece is not served");
                Ok(None)
            }
        }
    }

    pub(super) async fn do_pieces(
        &self,
        lease: &SectorLease,
        terms: PieceTerms,
    ) -> Result<Vec<DealPiece>, ServiceError> {
        const OP: &str = "assign pieces";
        let mut tx = self.fenced(OP, lease).await?;
        let done = async {
            if !is_fixed(&mut tx, lease.sector).await? && self.fix(&mut tx, lease, terms).await? {
                tx.commit().await?;
            } else {
                tx.rollback().await?;
            }
            pieces(&self.db, lease.sector).await
        };
        done.await.map_err(|e| Self::of_db(OP, e).with("sector", lease.sector))
    }

    /// Gives the sector the pieces that the terms allow, or none, for ever. False if nothing is decided yet.
    async fn fix(&self, tx: &mut AnyConnection, lease: &SectorLease, terms: PieceTerms) -> Result<bool, DbError> {
        let sector = lease.sector;
        let (miner, number) = (to_db("miner", sector.miner.0)?, to_db("sector number", sector.number.0)?);
        let chosen = choose(tx, Filling::new(lease.proof_type.sector_size(), &terms)).await?;
        if chosen.is_empty() && !terms.settles {
            return Ok(false);
        }
        for (id, _) in &chosen {
            let taken = sqlx::query("UPDATE seal_pieces SET miner = $2, number = $3 WHERE id = $1 AND miner IS NULL")
                .bind(id)
                .bind(miner)
                .bind(number)
                .execute(&mut *tx)
                .await?;
            // A database that lets two transactions read the same row: the other one has it, and this one is done again.
            if taken.rows_affected() != 1 {
                return Err(sqlx::Error::RowNotFound.into());
            }
        }
        sqlx::query("UPDATE seal_sectors SET kind = $3 WHERE miner = $1 AND number = $2")
            .bind(miner)
            .bind(number)
            .bind(if chosen.is_empty() { "cc" } else { "data" })
            .execute(&mut *tx)
            .await?;
        let mut given: Vec<DealPiece> = chosen.into_iter().map(|(_, piece)| piece).collect();
        given.sort_by_key(|piece| std::cmp::Reverse(piece.piece.size.bytes()));
        append(tx, sector, self.clock.now(), &SectorEvent::Pieces { pieces: given }).await?;
        Ok(true)
    }
}

/// The pieces that waited longest and fit, with their places in the queue; none if they are not enough.
async fn choose(tx: &mut AnyConnection, mut filling: Filling) -> Result<Vec<(i64, DealPiece)>, DbError> {
    let (mut chosen, mut last) = (Vec::new(), 0_i64);
    // The room only shrinks: what was too large for it once is too large for the rest.
    while let Some(room) = filling.room() {
        let row =
            sqlx::query("SELECT * FROM seal_pieces WHERE miner IS NULL AND size <= $1 AND id > $2 ORDER BY id LIMIT 1")
                .bind(to_db("room", room)?)
                .bind(last)
                .fetch_optional(&mut *tx)
                .await?;
        let Some(row) = row else { break };
        let piece = piece_of(&row)?;
        last = row.try_get("id")?;
        filling.take(piece.piece.size.bytes());
        chosen.push((last, piece));
    }
    Ok(if filling.is_enough() { chosen } else { Vec::new() })
}

async fn is_fixed(db: &mut AnyConnection, sector: SectorId) -> Result<bool, DbError> {
    let row = sqlx::query("SELECT kind FROM seal_sectors WHERE miner = $1 AND number = $2")
        .bind(to_db("miner", sector.miner.0)?)
        .bind(to_db("sector number", sector.number.0)?)
        .fetch_one(db)
        .await?;
    Ok(row.try_get::<Option<String>, _>("kind")?.is_some())
}
