//! What people ask about sectors.

use super::{DbError, RecordedEvent, SealDb, SectorEvent, from_db, of_json, to_db};
use crate::service::DealPiece;
use damocles_core::{
    ActorId, CommP, Epoch, PaddedPieceSize, PieceInfo, SealProofType, SectorId, SectorNumber, StoreId, Timestamp,
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, any::AnyRow};
use std::collections::BTreeMap;

/// A sector in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorSummary {
    /// The sector.
    pub sector: SectorId,
    /// How it is sealed.
    pub proof_type: SealProofType,
    /// What is in it; none before its worker asked.
    pub kind: Option<SectorKind>,
    /// The stage that ended last, as its worker reported.
    pub stage_done: Option<String>,
    /// The stage that is next, as its worker reported.
    pub stage_next: Option<String>,
    /// Who works on it.
    pub lease: LeaseView,
    /// The last error that its worker reported since it last moved.
    pub last_error: Option<String>,
    /// The last pre-commit.
    pub pre_commit: Option<Attempt>,
    /// The last prove-commit.
    pub prove_commit: Option<Attempt>,
    /// The persist store that holds its replica.
    pub replica: Option<String>,
    /// Whether it is done with.
    pub finalized: bool,
    /// Why it was given up, if it was.
    pub abort_reason: Option<String>,
}

/// What a sector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SectorKind {
    /// Committed capacity.
    Cc,
    /// At least one piece.
    Data,
}

/// A lease as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The sealing store.
    pub store: StoreId,
    /// The worker that asked.
    pub worker: String,
    /// The fence.
    pub fence: u64,
    /// Until when the holder counts as heard from.
    pub heard_until: Timestamp,
    /// Whether it has been silent for longer than that, and has not ended.
    pub silent: bool,
    /// How it ended: `sealed`, `handed` or `abandoned`.
    pub ended: Option<String>,
    /// Whether an incumbent's worker holds it.
    pub implicit: bool,
}

/// A submission to the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What it submits.
    pub kind: AttemptKind,
    /// The key under which it was submitted.
    pub key: String,
    /// The chain client's name for the message, once it was handed over.
    pub message: Option<String>,
    /// What keeps it from moving, if something does.
    pub trouble: Option<String>,
    /// The CID of the message that landed.
    pub cid: Option<String>,
    /// How it ended: `landed`, `failed`, `refused` or `dropped`.
    pub ended: Option<String>,
    /// Why, if it did not land well.
    pub reason: Option<String>,
    /// The epoch at which it was executed.
    pub epoch: Option<Epoch>,
    /// The actor's exit code.
    pub exit_code: Option<i64>,
}

/// The kinds of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptKind {
    /// A pre-commit.
    #[serde(rename = "precommit")]
    PreCommit,
    /// A prove-commit.
    #[serde(rename = "provecommit")]
    ProveCommit,
}

impl AttemptKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::PreCommit => "precommit",
            Self::ProveCommit => "provecommit",
        }
    }
}

/// Everything about a sector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorDetail {
    /// The sector in one line.
    #[serde(flatten)]
    pub summary: SectorSummary,
    /// Its pieces.
    pub pieces: Vec<DealPiece>,
    /// All submissions in order.
    pub attempts: Vec<Attempt>,
    /// Its history in order.
    pub events: Vec<RecordedEvent>,
}

/// All sectors, by miner and number.
///
/// # Errors
///
/// The database could not be read.
pub async fn list(db: &SealDb, now: Timestamp) -> Result<Vec<SectorSummary>, DbError> {
    let rows = sqlx::query(
        "SELECT s.*, i.store AS replica FROM seal_sectors s
         LEFT JOIN seal_sector_index i ON i.miner = s.miner AND i.number = s.number ORDER BY s.miner, s.number",
    )
    .fetch_all(db.pool())
    .await?;
    let mut attempts: BTreeMap<SectorId, Vec<Attempt>> = BTreeMap::new();
    let intents = sqlx::query("SELECT * FROM seal_intents ORDER BY miner, number, kind, attempt");
    for row in intents.fetch_all(db.pool()).await? {
        attempts.entry(sector_of(&row)?).or_default().push(attempt_of(&row)?);
    }
    rows.iter().map(|row| summary_of(row, attempts.get(&sector_of(row)?).map_or(&[][..], Vec::as_slice), now)).collect()
}

/// One sector.
///
/// # Errors
///
/// The database could not be read.
pub async fn show(db: &SealDb, sector: SectorId, now: Timestamp) -> Result<Option<SectorDetail>, DbError> {
    let (miner, number) = (to_db("miner", sector.miner.0)?, to_db("sector number", sector.number.0)?);
    let row = sqlx::query(
        "SELECT s.*, i.store AS replica FROM seal_sectors s
         LEFT JOIN seal_sector_index i ON i.miner = s.miner AND i.number = s.number
         WHERE s.miner = $1 AND s.number = $2",
    );
    let Some(row) = row.bind(miner).bind(number).fetch_optional(db.pool()).await? else {
        return Ok(None);
    };
    let attempts = sqlx::query("SELECT * FROM seal_intents WHERE miner = $1 AND number = $2 ORDER BY kind, attempt")
        .bind(miner)
        .bind(number)
        .fetch_all(db.pool())
        .await?;
    let attempts = attempts.iter().map(attempt_of).collect::<Result<Vec<_>, _>>()?;
    let events = sqlx::query("SELECT * FROM seal_sector_events WHERE miner = $1 AND number = $2 ORDER BY seq")
        .bind(miner)
        .bind(number)
        .fetch_all(db.pool())
        .await?;
    let summary = summary_of(&row, &attempts, now)?;
    let events = events.iter().map(event_of).collect::<Result<_, _>>()?;
    Ok(Some(SectorDetail { summary, pieces: pieces(db, sector).await?, attempts, events }))
}

/// The pieces that were given to a sector, in the order in which they lie in it.
pub(crate) async fn pieces(db: &SealDb, sector: SectorId) -> Result<Vec<DealPiece>, DbError> {
    let rows = sqlx::query("SELECT * FROM seal_pieces WHERE miner = $1 AND number = $2 ORDER BY size DESC, id")
        .bind(to_db("miner", sector.miner.0)?)
        .bind(to_db("sector number", sector.number.0)?)
        .fetch_all(db.pool())
        .await?;
    rows.iter().map(piece_of).collect()
}

pub(crate) fn piece_of(row: &AnyRow) -> Result<DealPiece, DbError> {
    let text: String = row.try_get("comm_p")?;
    let bytes = from_db("piece size", row.try_get("size")?)?;
    let comm_p: CommP = text
        .parse()
        .map_err(|_| DbError::Range { what: "piece commitment", value: text.chars().take(100).collect() })?;
    let size = PaddedPieceSize::try_from(bytes)
        .map_err(|_| DbError::Range { what: "piece size", value: bytes.to_string() })?;
    Ok(DealPiece {
        piece: PieceInfo { comm_p, size },
        payload_size: from_db("payload size", row.try_get("payload_size")?)?,
    })
}

pub(crate) fn sector_of(row: &AnyRow) -> Result<SectorId, DbError> {
    Ok(SectorId::new(
        ActorId(from_db("miner", row.try_get("miner")?)?),
        SectorNumber(from_db("sector number", row.try_get("number")?)?),
    ))
}

pub(crate) fn proof_type_of(row: &AnyRow) -> Result<SealProofType, DbError> {
    let number: i64 = row.try_get("proof_type")?;
    SealProofType::try_from(number).map_err(|_| DbError::Range { what: "proof type", value: number.to_string() })
}

fn summary_of(row: &AnyRow, attempts: &[Attempt], now: Timestamp) -> Result<SectorSummary, DbError> {
    let heard_until = Timestamp(row.try_get("heard_until")?);
    let ended: Option<String> = row.try_get("ended")?;
    let kind: Option<String> = row.try_get("kind")?;
    let last = |kind| attempts.iter().rev().find(|a| a.kind == kind).cloned();
    Ok(SectorSummary {
        sector: sector_of(row)?,
        proof_type: proof_type_of(row)?,
        kind: kind.map(|k| if k == "data" { SectorKind::Data } else { SectorKind::Cc }),
        stage_done: row.try_get("stage_done")?,
        stage_next: row.try_get("stage_next")?,
        lease: LeaseView {
            store: StoreId::new(row.try_get::<String, _>("store")?),
            worker: row.try_get("worker")?,
            fence: from_db("fence", row.try_get("fence")?)?,
            heard_until,
            silent: ended.is_none() && now > heard_until,
            ended,
            implicit: row.try_get::<i64, _>("implicit")? != 0,
        },
        last_error: row.try_get("last_error")?,
        pre_commit: last(AttemptKind::PreCommit),
        prove_commit: last(AttemptKind::ProveCommit),
        replica: row.try_get("replica")?,
        finalized: row.try_get::<i64, _>("finalized")? != 0,
        abort_reason: row.try_get("abort_reason")?,
    })
}

fn attempt_of(row: &AnyRow) -> Result<Attempt, DbError> {
    let kind: String = row.try_get("kind")?;
    Ok(Attempt {
        kind: if kind == AttemptKind::PreCommit.as_str() { AttemptKind::PreCommit } else { AttemptKind::ProveCommit },
        key: row.try_get("submit_key")?,
        message: row.try_get("message")?,
        trouble: row.try_get("trouble")?,
        cid: row.try_get("cid")?,
        ended: row.try_get("ended")?,
        reason: row.try_get("reason")?,
        epoch: row.try_get::<Option<i64>, _>("epoch")?.map(Epoch),
        exit_code: row.try_get("exit_code")?,
    })
}

fn event_of(row: &AnyRow) -> Result<RecordedEvent, DbError> {
    let detail: String = row.try_get("detail")?;
    let event: SectorEvent = of_json("sector event", &detail)?;
    Ok(RecordedEvent { seq: from_db("event number", row.try_get("seq")?)?, at: Timestamp(row.try_get("at")?), event })
}
