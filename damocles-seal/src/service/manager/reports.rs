//! What workers tell.

use super::{
    ManagerService, intent,
    intent::{End, Intent},
};
use crate::{
    sector_state::{AttemptKind, DbError, SectorEvent, append, to_db},
    service::{Report, ReportAnswer, ServiceError, ServiceErrorKind},
};
use damocles_core::{Error, SectorId, Timestamp, allocator::SectorLease, chain::SubmitKey};
use sqlx::{AnyConnection, Row};

/// Longer texts are cut: they come from workers and stay for ever.
const LONGEST: usize = 4000;

impl ManagerService {
    pub(super) async fn do_report(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError> {
        const OP: &str = "record report";
        let sector = lease.sector;
        let mut tx = self.fenced(OP, lease).await?;
        let done = async {
            let before = answer(&mut tx, sector).await?;
            let ended = before.finalized || before.abort_reason.is_some();
            // The end of a sector is reported again after a crash; it is recorded once.
            if !ended {
                let now = self.clock.now();
                if matches!(report, Report::Aborted { .. })
                    && let Some(proof) = give_up(&mut tx, sector, now).await?
                {
                    return Ok(Err(proof));
                }
                let report = shortened(report);
                apply(&mut tx, sector, &report).await?;
                append(&mut tx, sector, now, &SectorEvent::Reported { report }).await?;
            }
            let after = answer(&mut tx, sector).await?;
            tx.commit().await?;
            Ok::<_, DbError>(Ok(after))
        };
        done.await.map_err(|e| Self::of_db(OP, e).with("sector", sector))?.map_err(|proof| {
            Error::new(ServiceErrorKind::Refused, OP)
                .with("sector", sector)
                .with("proof that may be on chain", proof)
                .hint_with("the sector may be active; wait until its proof failed, or terminate the sector on chain")
        })
    }
}

/// Drops what was decided on and never sent. Returns the key of a proof that may be on chain, which forbids to give the
/// sector up.
async fn give_up(tx: &mut AnyConnection, sector: SectorId, now: Timestamp) -> Result<Option<SubmitKey>, DbError> {
    if let Some(proof) = intent::latest(tx, sector, AttemptKind::ProveCommit).await?.filter(Intent::stands) {
        return Ok(Some(proof.key));
    }
    let unsent = intent::latest(tx, sector, AttemptKind::PreCommit).await?;
    if let Some(unsent) = unsent.filter(|i| i.end.is_none() && i.message.is_none()) {
        let end = End::dropped("the sector was aborted before the message was sent".to_owned());
        intent::end(tx, sector, &unsent.key, &end, now).await?;
    }
    Ok(None)
}

fn shortened(report: &Report) -> Report {
    let cut = |text: &String| text.chars().take(LONGEST).collect();
    match report {
        Report::Failed { stage, error, recovery } => {
            Report::Failed { stage: stage.clone(), error: cut(error), recovery: *recovery }
        }
        Report::Aborted { reason } => Report::Aborted { reason: cut(reason) },
        other => other.clone(),
    }
}

async fn apply(tx: &mut AnyConnection, sector: SectorId, report: &Report) -> Result<(), DbError> {
    let (miner, number) = (to_db("miner", sector.miner.0)?, to_db("sector number", sector.number.0)?);
    let query = match report {
        Report::Moved { done, next } => sqlx::query(
            "UPDATE seal_sectors SET stage_done = $3, stage_next = $4, last_error = NULL
             WHERE miner = $1 AND number = $2",
        )
        .bind(miner)
        .bind(number)
        .bind(done.as_ref().map(|s| s.as_str().to_owned()))
        .bind(next.as_ref().map(|s| s.as_str().to_owned())),
        Report::Failed { stage, error, .. } => {
            sqlx::query("UPDATE seal_sectors SET stage_next = $3, last_error = $4 WHERE miner = $1 AND number = $2")
                .bind(miner)
                .bind(number)
                .bind(stage.as_str().to_owned())
                .bind(error.clone())
        }
        Report::Finalized => sqlx::query(
            "UPDATE seal_sectors SET finalized = 1, stage_next = NULL, last_error = NULL
             WHERE miner = $1 AND number = $2",
        )
        .bind(miner)
        .bind(number),
        Report::Aborted { reason } => {
            sqlx::query("UPDATE seal_sectors SET abort_reason = $3 WHERE miner = $1 AND number = $2")
                .bind(miner)
                .bind(number)
                .bind(reason.clone())
        }
    };
    query.execute(&mut *tx).await?;
    if matches!(report, Report::Finalized | Report::Aborted { .. }) {
        sqlx::query("DELETE FROM seal_reservations WHERE miner = $1 AND number = $2")
            .bind(miner)
            .bind(number)
            .execute(&mut *tx)
            .await?;
    }
    // The data still wants a sector, unless the chain may hold the promise of this one.
    if matches!(report, Report::Aborted { .. })
        && !intent::latest(tx, sector, AttemptKind::PreCommit).await?.is_some_and(|i| i.stands())
    {
        sqlx::query("UPDATE seal_pieces SET miner = NULL, number = NULL WHERE miner = $1 AND number = $2")
            .bind(miner)
            .bind(number)
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

async fn answer(tx: &mut AnyConnection, sector: SectorId) -> Result<ReportAnswer, DbError> {
    let row = sqlx::query("SELECT finalized, abort_reason FROM seal_sectors WHERE miner = $1 AND number = $2")
        .bind(to_db("miner", sector.miner.0)?)
        .bind(to_db("sector number", sector.number.0)?)
        .fetch_one(tx)
        .await?;
    Ok(ReportAnswer { finalized: row.try_get::<i64, _>("finalized")? != 0, abort_reason: row.try_get("abort_reason")? })
}
