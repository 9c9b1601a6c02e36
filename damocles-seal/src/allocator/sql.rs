//! Sectors and leases in the manager's database.

use super::MinerPolicy;
use crate::sector_state::{DbError, SealDb, SectorEvent, append, from_db, proof_type_of, sector_of, to_db};
use async_trait::async_trait;
use damocles_core::{
    ActorId, Clock, Error, Fence, Recovery, RequestId, SectorId, SectorNumber, StoreId, Timestamp,
    allocator::{AllocError, AllocErrorKind, AllocateRequest, Outcome, SectorAllocator, SectorLease},
    chain::{ChainClient, ChainError, OnChain, TipsetRef},
};
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::{sync::Arc, time::Duration};

/// The store of a sector whose worker is an incumbent's and has not reported yet.
pub(crate) const INCUMBENT_STORE: &str = "incumbent:";

/// Numbers that are in use on chain and can be skipped in one call, and the time that it may take: workers wait longer.
const MAX_SKIPS: usize = 200;
const LONGEST_CALL: Duration = Duration::from_secs(20);

const SKIPPING: &str =
    "numbers in use on chain are skipped one by one; to be faster, raise the miner's `min_number` above them";

/// Leases sectors out of the manager's database.
///
/// Several processes may allocate from one database: each number is taken in one transaction that also records its
/// lease, so a crash neither loses a number nor hands one out twice.
#[derive(Debug)]
pub struct SqlAllocator {
    db: SealDb,
    chain: Arc<dyn ChainClient>,
    miners: Vec<MinerPolicy>,
    clock: Arc<dyn Clock>,
}

/// A lease as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The lease.
    pub lease: SectorLease,
    /// How it ended, if it did.
    pub ended: Option<Outcome>,
    /// Whether an incumbent's worker holds it, without knowing it.
    pub implicit: bool,
    /// Whether the sector is done with.
    pub finalized: bool,
    /// Why the sector was given up, if that is recorded.
    pub abort_reason: Option<String>,
}

impl LeaseRecord {
    /// Why its holder is to give the sector up, if it is.
    pub(crate) fn given_up(&self) -> Option<&str> {
        let released = (self.ended == Some(Outcome::Abandoned)).then_some("its lease ended so");
        self.abort_reason.as_deref().or(released)
    }
}

enum Taken {
    Lease(SectorLease),
    Raced,
    Full,
}

impl SqlAllocator {
    /// An allocator of sectors of these miners.
    pub fn new(db: SealDb, chain: Arc<dyn ChainClient>, miners: Vec<MinerPolicy>, clock: Arc<dyn Clock>) -> Self {
        Self { db, chain, miners, clock }
    }

    /// The miners that it allocates for.
    pub fn miners(&self) -> &[MinerPolicy] {
        &self.miners
    }

    /// The lease of a sector.
    ///
    /// # Errors
    ///
    /// The database could not be read.
    pub async fn find(&self, sector: SectorId) -> Result<Option<LeaseRecord>, AllocError> {
        let found = async {
            let mut db = self.db.pool().acquire().await?;
            record(&mut db, sector).await
        };
        found.await.map_err(|e| of_db("read lease", e).with("sector", sector))
    }

    /// Ends the lease of a sector, whoever holds it, so that any store may take it up. Returns what was recorded before.
    /// [`ManagerService::release_by_operator`](crate::service::ManagerService::release_by_operator) looks first whether
    /// another store could do anything with it.
    ///
    /// # Errors
    ///
    /// [`AllocErrorKind::Unknown`] if there is no such lease, [`AllocErrorKind::Refused`] if it ended.
    pub async fn release_by_operator(&self, sector: SectorId) -> Result<LeaseRecord, AllocError> {
        const OP: &str = "release sector";
        self.change(OP, sector, |found, _| match found.ended {
            None | Some(Outcome::Handed) => Ok(Change {
                fence: found.lease.fence,
                ended: Some(Outcome::Handed),
                event: found
                    .ended
                    .is_none()
                    .then_some(SectorEvent::Released { outcome: Outcome::Handed, by_operator: true }),
                ..Change::keep(&found)
            }),
            Some(_) => Err(AllocErrorKind::Refused),
        })
        .await
        .map(|(before, _)| before)
    }

    /// Takes a sector up again, once a request: a repeat returns the same lease, and one that arrives after another
    /// request took the sector up changes nothing.
    ///
    /// # Errors
    ///
    /// As [`SectorAllocator::take_up`], and [`AllocErrorKind::Fenced`] if the request was served and overtaken since.
    pub async fn take_up_once(
        &self,
        request: &RequestId,
        store: &StoreId,
        sector: SectorId,
        ttl: Duration,
    ) -> Result<SectorLease, AllocError> {
        let taken =
            self.change_once("take sector up", sector, Some(request), |found, now| taken_up(&found, store, ttl, now));
        taken.await.map(|(_, after)| after)
    }

    /// Leases a new sector to an incumbent's worker, which knows no leases.
    pub(crate) async fn allocate_implicit(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
        self.allocate_for(want, true).await
    }

    /// Records which incumbent's worker holds an implicit lease.
    pub(crate) async fn bind_implicit(&self, sector: SectorId, holder: &str, ttl: Duration) -> Result<(), AllocError> {
        let now = self.clock.now();
        self.change("bind lease", sector, |found, _| {
            if !found.implicit {
                return Err(AllocErrorKind::HeldElsewhere);
            }
            let store = StoreId::new(format!("{INCUMBENT_STORE}{holder}"));
            let event =
                (store != found.lease.store).then(|| SectorEvent::Bound { holder: holder.chars().take(200).collect() });
            Ok(Change { store, heard_until: now.plus(ttl), event, ..Change::keep(&found) })
        })
        .await
        .map(|_| ())
    }

    async fn allocate_for(&self, want: &AllocateRequest, implicit: bool) -> Result<Option<SectorLease>, AllocError> {
        const OP: &str = "allocate sector";
        let known = async {
            let mut db = self.db.pool().acquire().await?;
            by_request(&mut db, want).await
        };
        match known.await.map_err(|e| of_db(OP, e))? {
            Some(Ok(lease)) => return Ok(Some(lease)),
            Some(Err(kind)) => return Err(Error::new(kind, OP).with("request", &want.request)),
            None => {}
        }
        let wanted: Vec<_> = self.miners.iter().filter(|m| m.serves(want)).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        // Numbers that were skipped stay so, and a number that was taken is its request's: nothing is lost with the call.
        let found = async {
            let head = self.chain.head().await.map_err(|e| of_chain(OP, e))?;
            for policy in wanted {
                if let Some(lease) = self.allocate_of(policy, want, &head, implicit).await? {
                    return Ok(Some(lease));
                }
            }
            Ok(None)
        };
        match tokio::time::timeout(LONGEST_CALL, found).await {
            Ok(found) => found,
            Err(e) => Err(Error::new(AllocErrorKind::Unavailable, OP).hint_with(SKIPPING).because(e)),
        }
    }

    async fn allocate_of(
        &self,
        policy: &MinerPolicy,
        want: &AllocateRequest,
        head: &TipsetRef,
        implicit: bool,
    ) -> Result<Option<SectorLease>, AllocError> {
        const OP: &str = "allocate sector";
        let at = |e: DbError| of_db(OP, e).with("miner", policy.miner);
        for _ in 0..MAX_SKIPS {
            if self.is_full(policy).await.map_err(at)? {
                return Ok(None);
            }
            let number = self.peek(policy).await.map_err(at)?.max(policy.min_number);
            let sector = SectorId::new(policy.miner, SectorNumber(number));
            let on_chain = self.chain.sector(head, sector).await.map_err(|e| of_chain(OP, e).with("sector", sector))?;
            if on_chain != OnChain::Absent {
                self.skip(policy.miner, number).await.map_err(at)?;
                continue;
            }
            match self.take(policy, number, want, implicit).await.map_err(at)? {
                Ok(Taken::Lease(lease)) => return Ok(Some(lease)),
                Ok(Taken::Full) => return Ok(None),
                Ok(Taken::Raced) => {}
                Err(kind) => return Err(Error::new(kind, OP).with("request", &want.request)),
            }
        }
        Err(Error::new(AllocErrorKind::Unavailable, OP)
            .with("miner", policy.miner)
            .with("numbers in use on chain, below", self.peek(policy).await.map_err(at)?)
            .hint_with(SKIPPING))
    }

    /// Never looks at this number again: what is in use on chain stays so.
    async fn skip(&self, miner: ActorId, number: u64) -> Result<(), DbError> {
        let mut tx = self.db.write().await?;
        if next_number(&mut tx, miner).await? <= number {
            set_next(&mut tx, miner, number.saturating_add(1)).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn is_full(&self, policy: &MinerPolicy) -> Result<bool, DbError> {
        let mut db = self.db.pool().acquire().await?;
        full(&mut db, policy).await
    }

    async fn peek(&self, policy: &MinerPolicy) -> Result<u64, DbError> {
        let mut db = self.db.pool().acquire().await?;
        next_number(&mut db, policy.miner).await
    }

    async fn take(
        &self,
        policy: &MinerPolicy,
        number: u64,
        want: &AllocateRequest,
        implicit: bool,
    ) -> Result<Result<Taken, AllocErrorKind>, DbError> {
        let mut tx = self.db.write().await?;
        // The same request may have been served while the chain was asked.
        if let Some(known) = by_request(&mut tx, want).await? {
            return Ok(known.map(Taken::Lease));
        }
        if full(&mut tx, policy).await? {
            return Ok(Ok(Taken::Full));
        }
        if next_number(&mut tx, policy.miner).await? > number {
            return Ok(Ok(Taken::Raced));
        }
        let now = self.clock.now();
        let sector = SectorId::new(policy.miner, SectorNumber(number));
        let lease = SectorLease {
            sector,
            proof_type: policy.proof_type,
            store: want.store.clone(),
            fence: if implicit { Fence(0) } else { Fence(1) },
            heard_until: now.plus(want.ttl),
        };
        set_next(&mut tx, policy.miner, number.saturating_add(1)).await?;
        insert(&mut tx, &lease, want, implicit, now).await?;
        let event =
            SectorEvent::Leased { store: want.store.clone(), worker: want.worker.clone(), fence: lease.fence.0 };
        append(&mut tx, sector, now, &event).await?;
        tx.commit().await?;
        Ok(Ok(Taken::Lease(lease)))
    }

    /// Reads the lease of a sector, lets `decide` change it, and writes it, in one transaction.
    async fn change(
        &self,
        op: &'static str,
        sector: SectorId,
        decide: impl FnOnce(LeaseRecord, Timestamp) -> Result<Change, AllocErrorKind> + Send,
    ) -> Result<(LeaseRecord, SectorLease), AllocError> {
        self.change_once(op, sector, None, decide).await
    }

    /// As [`Self::change`], but a request that made its change before makes no other.
    async fn change_once(
        &self,
        op: &'static str,
        sector: SectorId,
        request: Option<&RequestId>,
        decide: impl FnOnce(LeaseRecord, Timestamp) -> Result<Change, AllocErrorKind> + Send,
    ) -> Result<(LeaseRecord, SectorLease), AllocError> {
        let now = self.clock.now();
        let run = async {
            let mut tx = self.db.write().await?;
            let Some(before) = record(&mut tx, sector).await? else {
                return Ok(Err((AllocErrorKind::Unknown, false)));
            };
            if let Some(request) = request
                && let Some(fence) = served(&mut tx, sector, request).await?
            {
                let lease = before.lease.clone();
                let stands = before.ended.is_none() && lease.fence == fence;
                return Ok(if stands { Ok((before, lease)) } else { Err((AllocErrorKind::Fenced, false)) });
            }
            let change = match decide(before.clone(), now) {
                Ok(change) => change,
                Err(kind) => return Ok(Err((kind, before.given_up().is_some()))),
            };
            let after = SectorLease {
                store: change.store.clone(),
                fence: change.fence,
                heard_until: change.heard_until,
                ..before.lease.clone()
            };
            sqlx::query(
                "UPDATE seal_sectors SET store = $3, fence = $4, heard_until = $5, ended = $6, implicit = $7
                 WHERE miner = $1 AND number = $2",
            )
            .bind(to_db("miner", sector.miner.0)?)
            .bind(to_db("sector number", sector.number.0)?)
            .bind(after.store.as_str())
            .bind(to_db("fence", after.fence.0)?)
            .bind(after.heard_until.0)
            .bind(change.ended.map(outcome_text))
            .bind(i64::from(change.implicit))
            .execute(&mut *tx)
            .await?;
            if let Some(event) = &change.event {
                append(&mut tx, sector, now, event).await?;
            }
            if let Some(request) = request {
                serve(&mut tx, &after, request).await?;
            }
            tx.commit().await?;
            Ok(Ok((before, after)))
        };
        match run.await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err((AllocErrorKind::Refused, true))) => Err(Error::new(AllocErrorKind::Refused, op)
                .with("sector", sector)
                .with("reason", "the sector was given up")
                .recover_by(Recovery::Abandon)),
            Ok(Err((kind, _))) => Err(Error::new(kind, op).with("sector", sector)),
            Err(e) => Err(of_db(op, e).with("sector", sector)),
        }
    }
}

struct Change {
    store: StoreId,
    fence: Fence,
    heard_until: Timestamp,
    ended: Option<Outcome>,
    implicit: bool,
    event: Option<SectorEvent>,
}

impl Change {
    fn keep(found: &LeaseRecord) -> Self {
        Self {
            store: found.lease.store.clone(),
            fence: found.lease.fence,
            heard_until: found.lease.heard_until,
            ended: found.ended,
            implicit: found.implicit,
            event: None,
        }
    }
}

fn taken_up(found: &LeaseRecord, store: &StoreId, ttl: Duration, now: Timestamp) -> Result<Change, AllocErrorKind> {
    match found.ended {
        None if found.lease.store != *store => return Err(AllocErrorKind::HeldElsewhere),
        // Its holder is to clean up under the lease that it has.
        _ if found.given_up().is_some() => return Err(AllocErrorKind::Refused),
        None | Some(Outcome::Handed) => {}
        Some(_) => return Err(AllocErrorKind::Refused),
    }
    let fence = Fence(found.lease.fence.0.saturating_add(1));
    Ok(Change {
        store: store.clone(),
        fence,
        heard_until: now.plus(ttl),
        ended: None,
        implicit: false,
        event: Some(SectorEvent::TakenUp { store: store.clone(), fence: fence.0 }),
    })
}

#[async_trait]
impl SectorAllocator for SqlAllocator {
    async fn allocate(&self, want: &AllocateRequest) -> Result<Option<SectorLease>, AllocError> {
        self.allocate_for(want, false).await
    }

    async fn take_up(&self, store: &StoreId, sector: SectorId, ttl: Duration) -> Result<SectorLease, AllocError> {
        let taken = self.change("take sector up", sector, |found, now| taken_up(&found, store, ttl, now));
        taken.await.map(|(_, after)| after)
    }

    async fn held_by(&self, store: &StoreId) -> Result<Vec<SectorLease>, AllocError> {
        let held = async {
            let rows =
                sqlx::query("SELECT * FROM seal_sectors WHERE store = $1 AND ended IS NULL ORDER BY miner, number")
                    .bind(store.as_str())
                    .fetch_all(self.db.pool())
                    .await?;
            rows.iter().map(|row| lease_of(row).map(|r| r.lease)).collect::<Result<Vec<_>, DbError>>()
        };
        held.await.map_err(|e| of_db("list leases", e).with("store", store))
    }

    async fn renew(&self, lease: &SectorLease, ttl: Duration) -> Result<SectorLease, AllocError> {
        let renewed = self.change("renew lease", lease.sector, |found, now| {
            if found.ended.is_some() || found.lease.fence != lease.fence || found.lease.store != lease.store {
                return Err(AllocErrorKind::Fenced);
            }
            Ok(Change { heard_until: now.plus(ttl), ..Change::keep(&found) })
        });
        renewed.await.map(|(_, after)| after)
    }

    async fn release(&self, lease: &SectorLease, outcome: Outcome) -> Result<(), AllocError> {
        let released = self.change("release lease", lease.sector, |found, _| {
            if found.lease.fence != lease.fence
                || found.lease.store != lease.store
                || found.ended.is_some_and(|o| o != outcome)
            {
                return Err(AllocErrorKind::Fenced);
            }
            let event = found.ended.is_none().then_some(SectorEvent::Released { outcome, by_operator: false });
            Ok(Change { ended: Some(outcome), event, ..Change::keep(&found) })
        });
        released.await.map(|_| ())
    }
}

/// Ends the lease of a sector inside the caller's transaction.
pub(crate) async fn end_lease(db: &mut AnyConnection, sector: SectorId, outcome: Outcome) -> Result<(), DbError> {
    sqlx::query("UPDATE seal_sectors SET ended = $3 WHERE miner = $1 AND number = $2")
        .bind(to_db("miner", sector.miner.0)?)
        .bind(to_db("sector number", sector.number.0)?)
        .bind(outcome_text(outcome))
        .execute(db)
        .await?;
    Ok(())
}

async fn by_request(
    db: &mut AnyConnection,
    want: &AllocateRequest,
) -> Result<Option<Result<SectorLease, AllocErrorKind>>, DbError> {
    let row = sqlx::query("SELECT * FROM seal_sectors WHERE request = $1")
        .bind(want.request.as_str())
        .fetch_optional(db)
        .await?;
    let Some(found) = row.as_ref().map(lease_of).transpose()? else {
        return Ok(None);
    };
    let same = found.ended.is_none() && found.lease.store == want.store;
    Ok(Some(if same { Ok(found.lease) } else { Err(AllocErrorKind::Refused) }))
}

/// The fence under which a request took a sector up, if it did.
async fn served(db: &mut AnyConnection, sector: SectorId, request: &RequestId) -> Result<Option<Fence>, DbError> {
    let row = sqlx::query("SELECT fence FROM seal_take_ups WHERE miner = $1 AND number = $2 AND request = $3")
        .bind(to_db("miner", sector.miner.0)?)
        .bind(to_db("sector number", sector.number.0)?)
        .bind(request.as_str())
        .fetch_optional(db)
        .await?;
    row.map(|row| from_db("fence", row.try_get("fence")?).map(Fence)).transpose()
}

async fn serve(db: &mut AnyConnection, lease: &SectorLease, request: &RequestId) -> Result<(), DbError> {
    sqlx::query("INSERT INTO seal_take_ups (miner, number, request, fence) VALUES ($1, $2, $3, $4)")
        .bind(to_db("miner", lease.sector.miner.0)?)
        .bind(to_db("sector number", lease.sector.number.0)?)
        .bind(request.as_str())
        .bind(to_db("fence", lease.fence.0)?)
        .execute(db)
        .await?;
    Ok(())
}

async fn record(db: &mut AnyConnection, sector: SectorId) -> Result<Option<LeaseRecord>, DbError> {
    // A number that no column holds is a number that was never leased.
    let (Ok(miner), Ok(number)) = (to_db("miner", sector.miner.0), to_db("sector number", sector.number.0)) else {
        return Ok(None);
    };
    let row = sqlx::query("SELECT * FROM seal_sectors WHERE miner = $1 AND number = $2")
        .bind(miner)
        .bind(number)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(lease_of).transpose()
}

async fn next_number(db: &mut AnyConnection, miner: ActorId) -> Result<u64, DbError> {
    let row = sqlx::query("SELECT next FROM seal_numbers WHERE miner = $1")
        .bind(to_db("miner", miner.0)?)
        .fetch_optional(db)
        .await?;
    row.map_or(Ok(0), |row| from_db("sector number", row.try_get("next")?))
}

async fn set_next(db: &mut AnyConnection, miner: ActorId, next: u64) -> Result<(), DbError> {
    sqlx::query("INSERT INTO seal_numbers (miner, next) VALUES ($1, $2) ON CONFLICT (miner) DO UPDATE SET next = $2")
        .bind(to_db("miner", miner.0)?)
        .bind(to_db("sector number", next)?)
        .execute(db)
        .await?;
    Ok(())
}

async fn full(db: &mut AnyConnection, policy: &MinerPolicy) -> Result<bool, DbError> {
    let Some(limit) = policy.max_sectors else {
        return Ok(false);
    };
    let row = sqlx::query(
        "SELECT COUNT(*) AS sectors FROM seal_sectors
         WHERE miner = $1 AND abort_reason IS NULL AND (ended IS NULL OR ended <> 'abandoned')",
    )
    .bind(to_db("miner", policy.miner.0)?)
    .fetch_one(db)
    .await?;
    Ok(from_db("number of sectors", row.try_get("sectors")?)? >= limit)
}

async fn insert(
    db: &mut AnyConnection,
    lease: &SectorLease,
    want: &AllocateRequest,
    implicit: bool,
    now: Timestamp,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO seal_sectors
         (miner, number, proof_type, request, store, worker, fence, heard_until, implicit, finalized, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, $10)",
    )
    .bind(to_db("miner", lease.sector.miner.0)?)
    .bind(to_db("sector number", lease.sector.number.0)?)
    .bind(lease.proof_type.number())
    .bind(want.request.as_str())
    .bind(lease.store.as_str())
    .bind(want.worker.as_str())
    .bind(to_db("fence", lease.fence.0)?)
    .bind(lease.heard_until.0)
    .bind(i64::from(implicit))
    .bind(now.0)
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) fn lease_of(row: &AnyRow) -> Result<LeaseRecord, DbError> {
    let sector = sector_of(row)?;
    read_lease(sector, row).map_err(|e| e.in_row("seal_sectors", sector))
}

fn read_lease(sector: SectorId, row: &AnyRow) -> Result<LeaseRecord, DbError> {
    let ended: Option<String> = row.try_get("ended")?;
    Ok(LeaseRecord {
        lease: SectorLease {
            sector,
            proof_type: proof_type_of(row)?,
            store: StoreId::new(row.try_get::<String, _>("store")?),
            fence: Fence(from_db("fence", row.try_get("fence")?)?),
            heard_until: Timestamp(row.try_get("heard_until")?),
        },
        ended: ended.map(|text| outcome_of(&text)).transpose()?,
        implicit: row.try_get::<i64, _>("implicit")? != 0,
        finalized: row.try_get::<i64, _>("finalized")? != 0,
        abort_reason: row.try_get("abort_reason")?,
    })
}

fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Sealed => "sealed",
        Outcome::Handed => "handed",
        _ => "abandoned",
    }
}

fn outcome_of(text: &str) -> Result<Outcome, DbError> {
    match text {
        "sealed" => Ok(Outcome::Sealed),
        "handed" => Ok(Outcome::Handed),
        "abandoned" => Ok(Outcome::Abandoned),
        other => Err(DbError::Range { what: "outcome", value: other.chars().take(40).collect() }),
    }
}

fn of_db(op: &'static str, cause: DbError) -> AllocError {
    // What cannot be read now cannot be read later either.
    let kind = if cause.stays() { AllocErrorKind::Refused } else { AllocErrorKind::Unavailable };
    Error::new(kind, op).because(cause)
}

fn of_chain(op: &'static str, cause: ChainError) -> AllocError {
    let kind = match cause.recovery() {
        Recovery::Retry { .. } => AllocErrorKind::Unavailable,
        _ => AllocErrorKind::Refused,
    };
    Error::new(kind, op).recover_by(cause.recovery()).because(cause)
}
