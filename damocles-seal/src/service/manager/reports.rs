//! What workers tell.

use super::{
    ManagerService,
    giving_up::{given_up, may_live},
};
use crate::{
    sector_state::{DbError, SectorEvent, append, to_db},
    service::{Report, ReportAnswer, ServiceError},
};
use damocles_core::{SectorId, Timestamp, allocator::SectorLease, chain::SubmitKey, pipeline::StageId};
use sqlx::{AnyConnection, Row};

/// Longer texts are cut: they come from workers and stay for ever.
const LONGEST: usize = 4000;

impl ManagerService {
    pub(super) async fn do_report(&self, lease: &SectorLease, report: &Report) -> Result<ReportAnswer, ServiceError> {
        const OP: &str = "record report";
        let sector = lease.sector;
        self.leased(OP, lease).await?;
        let _held = match report {
            Report::Aborted { .. } => self.hold_unsent(OP, sector).await?,
            _ => None,
        };
        let (mut tx, found) = self.begin_leased(OP, lease).await?;
        let done = async {
            // The end of a sector is reported again after a crash; it is recorded once.
            if !found.finalized && found.given_up().is_none() {
                let now = self.clock.now();
                let report = shortened(report);
                let known = is_known(&mut tx, sector, &report).await?;
                if let Some(proof) = apply(&mut tx, sector, &report, now).await? {
                    return Ok(Err(proof));
                }
                if !known {
                    append(&mut tx, sector, now, &SectorEvent::Reported { report }).await?;
                }
            }
            let after = answer(&mut tx, sector).await?;
            tx.commit().await?;
            Ok::<_, DbError>(Ok(after))
        };
        let done = done.await.map_err(|e| Self::of_db(OP, e).with("sector", sector))?;
        done.map_err(|proof| may_live(OP, sector, proof))
    }
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

/// Records a report. Returns the key of a proof that may be on chain if that forbids what is reported.
async fn apply(
    tx: &mut AnyConnection,
    sector: SectorId,
    report: &Report,
    now: Timestamp,
) -> Result<Option<SubmitKey>, DbError> {
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
        Report::Aborted { reason } => return given_up(tx, sector, reason, now).await,
    };
    query.execute(&mut *tx).await?;
    if matches!(report, Report::Finalized) {
        sqlx::query("DELETE FROM seal_reservations WHERE miner = $1 AND number = $2")
            .bind(miner)
            .bind(number)
            .execute(&mut *tx)
            .await?;
    }
    Ok(None)
}

/// Whether this is what the sector shows already: a failure that is repeated without end is recorded once, and so is what
/// a worker tells again because it ended before it could note that it was heard.
async fn is_known(tx: &mut AnyConnection, sector: SectorId, report: &Report) -> Result<bool, DbError> {
    let (done, next, error) = match report {
        Report::Failed { stage, error, .. } => (None, Some(stage), Some(error)),
        Report::Moved { done, next } => (Some(done.as_ref()), next.as_ref(), None),
        Report::Finalized | Report::Aborted { .. } => return Ok(false),
    };
    let row =
        sqlx::query("SELECT stage_done, stage_next, last_error FROM seal_sectors WHERE miner = $1 AND number = $2")
            .bind(to_db("miner", sector.miner.0)?)
            .bind(to_db("sector number", sector.number.0)?)
            .fetch_one(tx)
            .await?;
    let shown = |column| row.try_get::<Option<String>, _>(column);
    let text = |stage: Option<&StageId>| stage.map(|stage| stage.as_str().to_owned());
    let same_done = match done {
        Some(done) => shown("stage_done")? == text(done),
        None => true,
    };
    Ok(same_done && shown("stage_next")? == text(next) && shown("last_error")?.as_ref() == error)
}

async fn answer(tx: &mut AnyConnection, sector: SectorId) -> Result<ReportAnswer, DbError> {
    let row = sqlx::query("SELECT finalized, abort_reason FROM seal_sectors WHERE miner = $1 AND number = $2")
        .bind(to_db("miner", sector.miner.0)?)
        .bind(to_db("sector number", sector.number.0)?)
        .fetch_one(tx)
        .await?;
    Ok(ReportAnswer { finalized: row.try_get::<i64, _>("finalized")? != 0, abort_reason: row.try_get("abort_reason")? })
}
