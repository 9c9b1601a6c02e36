//! Where replicas are.

use super::ManagerService;
use crate::{
    sector_state::{DbError, SectorEvent, append, from_db, to_db},
    service::{ServiceError, ServiceErrorKind, StoreChoice},
};
use damocles_core::{Error, SealProofType, SectorId, allocator::SectorLease};
use sqlx::{AnyConnection, Row};
use std::{collections::BTreeMap, fmt, io, path::PathBuf};

/// The persist stores that the manager sees. Calls block and may hang with the disk behind them.
///
/// # Contract
///
/// - `has_all_files` is true only if the sealed file, with the size of its sector, and every cache file that a PoSt
///   reads are there.
/// - A name that is not in `names` is [`io::ErrorKind::NotFound`].
pub trait ReplicaStores: fmt::Debug + Send + Sync + 'static {
    /// Their names.
    fn names(&self) -> Vec<String>;

    /// Whether a store holds a whole replica.
    fn has_all_files(&self, store: &str, sector: SectorId, proof_type: SealProofType) -> io::Result<bool>;

    /// The bytes that a store has room for; zero if nothing may be written to it.
    fn free_bytes(&self, store: &str) -> io::Result<u64>;

    /// Where a store is on this machine.
    fn path(&self, store: &str) -> Option<PathBuf>;
}

/// What the stores said.
#[derive(Default)]
struct Seen {
    /// The room in each that answered.
    free: BTreeMap<String, u64>,
    /// Why the others did not.
    failed: BTreeMap<String, io::Error>,
    /// The store that was chosen before, if the whole replica is there.
    holds: Option<String>,
}

impl ManagerService {
    /// The persist store that holds the replica of a sector.
    ///
    /// # Errors
    ///
    /// The database could not be read.
    pub async fn locate(&self, sector: SectorId) -> Result<Option<String>, ServiceError> {
        self.located(sector).await.map_err(|e| Self::of_db("locate replica", e).with("sector", sector))
    }

    async fn located(&self, sector: SectorId) -> Result<Option<String>, DbError> {
        let row = sqlx::query("SELECT store FROM seal_sector_index WHERE miner = $1 AND number = $2")
            .bind(to_db("miner", sector.miner.0)?)
            .bind(to_db("sector number", sector.number.0)?)
            .fetch_optional(self.db.pool())
            .await?;
        Ok(row.map(|r| r.try_get("store")).transpose()?)
    }

    pub(super) async fn do_reserve(
        &self,
        lease: &SectorLease,
        bytes: u64,
        candidates: &[String],
    ) -> Result<Option<StoreChoice>, ServiceError> {
        const OP: &str = "reserve store";
        self.check(OP, lease).await?;
        let before = self.reserved(lease.sector).await.map_err(|e| Self::of_db(OP, e).with("sector", lease.sector))?;
        let seen = self.look(lease, before).await;
        let chosen = self.choose(OP, lease, bytes, candidates, &seen).await?;
        let wanted = |name: &String| candidates.is_empty() || candidates.contains(name);
        match chosen {
            None if seen.failed.keys().any(wanted) => {
                let failed = seen.failed.iter().filter(|(name, _)| wanted(name));
                let failed: Vec<_> = failed.map(|(name, error)| format!("`{name}`: {error}")).collect();
                Err(Error::new(ServiceErrorKind::Unavailable, OP)
                    .with("sector", lease.sector)
                    .with("stores that do not answer", failed.join(", "))
                    .hint_with("no other persist store has room; check the mounts of these"))
            }
            chosen => Ok(chosen),
        }
    }

    /// Asks all stores at once, so that one that hangs holds nothing up but itself.
    async fn look(&self, lease: &SectorLease, before: Option<String>) -> Seen {
        let (sector, proof_type) = (lease.sector, lease.proof_type);
        let asked = self.stores.names().into_iter().map(|name| {
            let (stores, before) = (self.stores.clone(), before.as_ref() == Some(&name));
            async move {
                let store = name.clone();
                let answer = self.probes.ask(&name, self.config.store_timeout, move || {
                    let holds = before && matches!(stores.has_all_files(&store, sector, proof_type), Ok(true));
                    Ok((stores.free_bytes(&store)?, holds))
                });
                let answer = answer.await;
                (name, answer)
            }
        });
        let mut seen = Seen::default();
        for (name, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok((free, holds)) => {
                    if holds {
                        seen.holds = Some(name.clone());
                    }
                    seen.free.insert(name, free);
                }
                Err(error) => {
                    tracing::warn!(store = name, %error, "a persist store does not answer");
                    seen.failed.insert(name, error);
                }
            }
        }
        seen
    }

    /// The store that was chosen before.
    async fn reserved(&self, sector: SectorId) -> Result<Option<String>, DbError> {
        let row = sqlx::query("SELECT store FROM seal_reservations WHERE miner = $1 AND number = $2")
            .bind(to_db("miner", sector.miner.0)?)
            .bind(to_db("sector number", sector.number.0)?)
            .fetch_optional(self.db.pool())
            .await?;
        Ok(row.map(|r| r.try_get("store")).transpose()?)
    }

    async fn choose(
        &self,
        op: &'static str,
        lease: &SectorLease,
        bytes: u64,
        candidates: &[String],
        seen: &Seen,
    ) -> Result<Option<StoreChoice>, ServiceError> {
        let mut tx = self.fenced(op, lease).await?;
        let chosen = async {
            let chosen = choose_in(&mut tx, lease.sector, bytes, candidates, seen).await?;
            tx.commit().await?;
            Ok::<_, DbError>(chosen)
        };
        chosen.await.map_err(|e| Self::of_db(op, e).with("sector", lease.sector))
    }

    pub(super) async fn do_persisted(&self, lease: &SectorLease, store: &str) -> Result<bool, ServiceError> {
        const OP: &str = "check replica";
        self.check(OP, lease).await?;
        // Only names that are known get a thread.
        if !self.stores.names().iter().any(|name| name == store) {
            return Ok(false);
        }
        let (stores, name, sector, proof_type) =
            (self.stores.clone(), store.to_owned(), lease.sector, lease.proof_type);
        let found = self.probes.ask(store, self.config.store_timeout, move || {
            match stores.has_all_files(&name, sector, proof_type) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
                other => other,
            }
        });
        let found = found.await.map_err(|e| {
            Error::new(ServiceErrorKind::Unavailable, OP)
                .with("sector", sector)
                .with("store", store)
                .because(e)
                .hint_with("the manager cannot read this persist store; check its mount")
        });
        if !found? {
            return Ok(false);
        }
        self.index(lease, store).await.map_err(|e| e.with("store", store))?;
        self.nudge();
        Ok(true)
    }

    async fn index(&self, lease: &SectorLease, store: &str) -> Result<(), ServiceError> {
        const OP: &str = "record replica";
        let sector = lease.sector;
        let mut tx = self.fenced(OP, lease).await?;
        let done = async {
            let before = sqlx::query("SELECT store FROM seal_sector_index WHERE miner = $1 AND number = $2")
                .bind(to_db("miner", sector.miner.0)?)
                .bind(to_db("sector number", sector.number.0)?)
                .fetch_optional(&mut *tx)
                .await?;
            if before.map(|r| r.try_get::<String, _>("store")).transpose()?.as_deref() == Some(store) {
                return Ok(());
            }
            sqlx::query(
                "INSERT INTO seal_sector_index (miner, number, store) VALUES ($1, $2, $3)
                 ON CONFLICT (miner, number) DO UPDATE SET store = $3",
            )
            .bind(to_db("miner", sector.miner.0)?)
            .bind(to_db("sector number", sector.number.0)?)
            .bind(store)
            .execute(&mut *tx)
            .await?;
            let event = SectorEvent::Persisted { store: store.to_owned() };
            append(&mut tx, sector, self.clock.now(), &event).await?;
            tx.commit().await?;
            Ok::<(), DbError>(())
        };
        done.await.map_err(|e| Self::of_db(OP, e).with("sector", sector))
    }
}

/// The store that was chosen before if it still serves, else the one with most room left by other reservations.
async fn choose_in(
    tx: &mut AnyConnection,
    sector: SectorId,
    bytes: u64,
    candidates: &[String],
    seen: &Seen,
) -> Result<Option<StoreChoice>, DbError> {
    let (miner, number) = (to_db("miner", sector.miner.0)?, to_db("sector number", sector.number.0)?);
    let mut reserved: BTreeMap<String, u64> = BTreeMap::new();
    let mut before = None;
    for row in sqlx::query("SELECT * FROM seal_reservations").fetch_all(&mut *tx).await? {
        let store: String = row.try_get("store")?;
        if row.try_get::<i64, _>("miner")? == miner && row.try_get::<i64, _>("number")? == number {
            before = Some(store);
            continue;
        }
        let sum = reserved.entry(store).or_default();
        *sum = sum.saturating_add(from_db("reservation", row.try_get("bytes")?)?);
    }
    let room = |name: &String, free: &u64| free.saturating_sub(reserved.get(name).copied().unwrap_or(0));
    let wanted = |name: &String| candidates.is_empty() || candidates.contains(name);
    // A store that may not be written to has no room at all.
    let fits = |name: &String, free: &u64| wanted(name) && *free > 0 && room(name, free) >= bytes;
    if let Some(before) = before
        && ((wanted(&before) && seen.holds.as_ref() == Some(&before))
            || seen.free.get(&before).is_some_and(|free| fits(&before, free)))
    {
        return Ok(Some(StoreChoice { name: before }));
    }
    let fitting = seen.free.iter().filter(|(name, free)| fits(name, free));
    let Some((name, _)) = fitting.max_by_key(|(name, free)| room(name, free)) else {
        return Ok(None);
    };
    sqlx::query(
        "INSERT INTO seal_reservations (miner, number, store, bytes) VALUES ($1, $2, $3, $4)
         ON CONFLICT (miner, number) DO UPDATE SET store = $3, bytes = $4",
    )
    .bind(miner)
    .bind(number)
    .bind(name.as_str())
    .bind(to_db("reservation", bytes)?)
    .execute(&mut *tx)
    .await?;
    Ok(Some(StoreChoice { name: name.clone() }))
}
