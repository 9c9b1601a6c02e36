//! Giving sectors up.

use super::{
    ManagerService, intent,
    intent::{End, Intent},
};
use crate::{
    allocator::{LeaseRecord, end_lease},
    sector_state::{AttemptKind, DbError, SectorEvent, append, to_db},
    service::{ServiceError, ServiceErrorKind},
};
use damocles_core::{
    Error, SectorId, Timestamp,
    allocator::Outcome,
    chain::{ChainErrorKind, MessageId, SubmitKey},
};
use sqlx::AnyConnection;
use tokio::sync::MutexGuard;

const BY_OPERATOR: &str = "an operator gave it up";

impl ManagerService {
    /// Gives a sector up: nothing more of it is sent, its data goes to another sector, its number is burnt. Its worker
    /// hears of it with the next thing that it asks or tells, and removes what it sealed. May be repeated.
    ///
    /// # Errors
    ///
    /// It is not known, is done with, or its proof may be on chain; the database or the chain did not answer.
    pub async fn abort_by_operator(&self, sector: SectorId) -> Result<(), ServiceError> {
        const OP: &str = "abort sector";
        let _held = self.hold_unsent(OP, sector).await?;
        let (mut tx, found) = self.begin(OP, sector).await?;
        if found.abort_reason.is_some() {
            return Ok(());
        }
        refuse_done(OP, &found)?;
        let now = self.clock.now();
        let done = async {
            if let Some(proof) = given_up(&mut tx, sector, BY_OPERATOR, now).await? {
                return Ok(Err(proof));
            }
            let event = SectorEvent::Aborted { reason: BY_OPERATOR.to_owned() };
            append(&mut tx, sector, now, &event).await?;
            tx.commit().await?;
            Ok::<_, DbError>(Ok(()))
        };
        done.await
            .map_err(|e| Self::of_db(OP, e).with("sector", sector))?
            .map_err(|proof| may_live(OP, sector, proof))?;
        self.nudge();
        Ok(())
    }

    /// Ends the lease of a sector, whoever holds it. Without a replica in a persist store the sector cannot be finished by
    /// anybody else, so that it is given up, too. Returns how the lease ended.
    ///
    /// # Errors
    ///
    /// It is not known, or its lease ended before; the database or the chain did not answer.
    pub async fn release_by_operator(&self, sector: SectorId) -> Result<Outcome, ServiceError> {
        const OP: &str = "release sector";
        let _held = self.hold_unsent(OP, sector).await?;
        let stored = self.locate(sector).await?.is_some();
        let (mut tx, found) = self.begin(OP, sector).await?;
        refuse_done(OP, &found)?;
        if found.ended == Some(Outcome::Abandoned) {
            return Err(Error::new(ServiceErrorKind::Refused, OP)
                .with("sector", sector)
                .with("reason", "it was given up and released before"));
        }
        let now = self.clock.now();
        let done = async {
            let lost = if found.abort_reason.is_some() {
                true
            } else {
                !stored && given_up(&mut tx, sector, BY_OPERATOR, now).await?.is_none()
            };
            let outcome = if lost { Outcome::Abandoned } else { Outcome::Handed };
            if found.ended != Some(outcome) {
                end_lease(&mut tx, sector, outcome).await?;
                append(&mut tx, sector, now, &SectorEvent::Released { outcome, by_operator: true }).await?;
            }
            tx.commit().await?;
            Ok::<_, DbError>(outcome)
        };
        let outcome = done.await.map_err(|e| Self::of_db(OP, e).with("sector", sector))?;
        self.nudge();
        Ok(outcome)
    }

    /// Keeps messages of the sector from being sent until the guard is dropped. A pre-commit that is not known to have
    /// been sent is looked for first: the client may have taken it before a crash.
    pub(super) async fn hold_unsent(
        &self,
        op: &'static str,
        sector: SectorId,
    ) -> Result<Option<MutexGuard<'_, ()>>, ServiceError> {
        let held = self.hold(sector).await;
        let latest = self.latest(op, sector, AttemptKind::PreCommit).await?;
        let Some(unsent) = latest.filter(|i| i.end.is_none() && i.message.is_none()) else {
            return Ok(held);
        };
        // Clients name messages by their keys.
        let message = MessageId::new(unsent.key.0.clone());
        match self.chain.message(&message, 0).await {
            Ok(_) => {
                let sent = intent::sent(&self.db, &unsent, &message, self.clock.now()).await;
                sent.map_err(|e| Self::of_db(op, e).with("sector", sector))?;
            }
            Err(e) if e.kind() == ChainErrorKind::NotFound => {}
            Err(e) => return Err(Self::of_chain(op, e).with("sector", sector).with("message", &message)),
        }
        Ok(held)
    }
}

/// Gives a sector up inside the caller's transaction: drops what was never sent and frees what is bound to it. Returns
/// the key of a proof that may be on chain, which forbids it; then nothing is changed.
///
/// From here on no proof of it is taken, so that it never becomes active and its data may be sealed anew, even if its
/// pre-commit lands.
pub(super) async fn given_up(
    tx: &mut AnyConnection,
    sector: SectorId,
    reason: &str,
    now: Timestamp,
) -> Result<Option<SubmitKey>, DbError> {
    if let Some(proof) = intent::latest(tx, sector, AttemptKind::ProveCommit).await?.filter(Intent::stands) {
        return Ok(Some(proof.key));
    }
    let unsent = intent::latest(tx, sector, AttemptKind::PreCommit).await?;
    if let Some(unsent) = unsent.filter(|i| i.end.is_none() && i.message.is_none()) {
        let end = End::dropped("the sector was aborted before the message was sent".to_owned());
        intent::end(tx, sector, &unsent.key, &end, now).await?;
    }
    let (miner, number) = (to_db("miner", sector.miner.0)?, to_db("sector number", sector.number.0)?);
    for sql in [
        "DELETE FROM seal_reservations WHERE miner = $1 AND number = $2",
        "UPDATE seal_pieces SET miner = NULL, number = NULL WHERE miner = $1 AND number = $2",
    ] {
        sqlx::query(sql).bind(miner).bind(number).execute(&mut *tx).await?;
    }
    sqlx::query("UPDATE seal_sectors SET abort_reason = $3 WHERE miner = $1 AND number = $2")
        .bind(miner)
        .bind(number)
        .bind(reason)
        .execute(&mut *tx)
        .await?;
    Ok(None)
}

/// Why a sector with such a proof is not given up.
pub(super) fn may_live(op: &'static str, sector: SectorId, proof: SubmitKey) -> ServiceError {
    Error::new(ServiceErrorKind::Refused, op)
        .with("sector", sector)
        .with("proof that may be on chain", proof)
        .hint_with("the sector may be active; wait until its proof failed, or terminate the sector on chain")
}

fn refuse_done(op: &'static str, found: &LeaseRecord) -> Result<(), ServiceError> {
    if found.finalized || found.ended == Some(Outcome::Sealed) {
        return Err(Error::new(ServiceErrorKind::Refused, op)
            .with("sector", found.lease.sector)
            .with("reason", "it is proven and done with"));
    }
    Ok(())
}
