//! What is written into the tables. What is decided by the state of a row is decided in the statement that changes it.

use super::{Landing, Purpose, Signing, Store, Version, about, broken, json_of, record::kind_text, sender_text};
use crate::{
    lotus_json::to_core,
    outbox::{OutboxState, Replacement},
};
use damocles_core::{
    TokenAmount,
    chain::{Call, CallKind, ChainError, SubmitKey, Transfer},
};
use fvm_shared::address::Address;
use sqlx::{Any, Transaction};

/// What a call that was cancelled is dropped for.
pub(crate) const CANCELLED: &str = "cancelled";

impl Store {
    async fn begin(&self, op: &'static str) -> Result<Transaction<'static, Any>, ChainError> {
        self.pool.begin().await.map_err(|e| broken(op, e))
    }

    /// Puts a call without nonce into a lane.
    pub(crate) async fn put_in_lane(
        &self,
        key: &SubmitKey,
        lane: Option<&Address>,
        kind: CallKind,
    ) -> Result<(), ChainError> {
        let set = match lane {
            Some(lane) => sqlx::query(
                "UPDATE chain_messages SET kind = $1, lane = $2 WHERE submit_key = $3 AND state = 'recorded'",
            )
            .bind(kind_text(kind))
            .bind(sender_text(lane)),
            None => sqlx::query("UPDATE chain_messages SET kind = $1, lane = NULL WHERE submit_key = $2")
                .bind(kind_text(kind)),
        };
        set.bind(&key.0).execute(&self.pool).await.map(drop).map_err(about("put call into lane", key))
    }

    /// Records nonces, messages and signatures of calls, all or nothing; false if one of them was signed or dropped
    /// meanwhile, so that its nonce would be a gap.
    pub(crate) async fn sign(&self, batch: &[Signing]) -> Result<bool, ChainError> {
        let op = "record signature";
        let mut transaction = self.begin(op).await?;
        for Signing { key, version } in batch {
            let message = &version.signed.message;
            let done = sqlx::query(
                "UPDATE chain_messages SET state = 'signed', sender = $1, nonce = $2, cid = $3, signed = $4,
                 purpose = $5, signed_at = $6, error = NULL, waits_since = NULL
                 WHERE submit_key = $7 AND state = 'recorded'",
            )
            .bind(sender_text(&message.from))
            .bind(i64::try_from(message.sequence).map_err(|e| broken(op, e))?)
            .bind(version.cid.to_string())
            .bind(json_of(&version.signed)?)
            .bind(version.purpose.text())
            .bind(version.signed_at)
            .bind(&key.0)
            .execute(&mut *transaction)
            .await
            .map_err(about(op, key))?;
            if done.rows_affected() != 1 {
                transaction.rollback().await.map_err(|e| broken(op, e))?;
                return Ok(false);
            }
        }
        transaction.commit().await.map_err(|e| broken(op, e))?;
        Ok(true)
    }

    /// Records newer messages of calls beside those that they take the place of: any of them may land.
    pub(crate) async fn replace(&self, batch: &[(Signing, Version)]) -> Result<(), ChainError> {
        let op = "record replacement";
        let mut transaction = self.begin(op).await?;
        for (Signing { key, version }, old) in batch {
            sqlx::query(
                "INSERT INTO chain_versions (submit_key, version, cid, purpose, signed, signed_at)
                 VALUES ($1, (SELECT COALESCE(MAX(version), 0) + 1 FROM chain_versions WHERE submit_key = $2),
                 $3, $4, $5, $6)",
            )
            .bind(&key.0)
            .bind(&key.0)
            .bind(old.cid.to_string())
            .bind(old.purpose.text())
            .bind(json_of(&old.signed)?)
            .bind(old.signed_at)
            .execute(&mut *transaction)
            .await
            .map_err(about(op, key))?;
            let done = sqlx::query(
                "UPDATE chain_messages SET cid = $1, signed = $2, purpose = $3, signed_at = $4, asked = NULL, error = NULL
                 WHERE submit_key = $5 AND state = 'signed' AND cid = $6",
            )
            .bind(version.cid.to_string())
            .bind(json_of(&version.signed)?)
            .bind(version.purpose.text())
            .bind(version.signed_at)
            .bind(&key.0)
            .bind(old.cid.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(about(op, key))?;
            if done.rows_affected() != 1 {
                return Err(broken(op, "the message is another one by now").with("key", key));
            }
        }
        transaction.commit().await.map_err(|e| broken(op, e))
    }

    /// Notes where messages were seen on chain.
    pub(crate) async fn landed(&self, batch: &[Landing]) -> Result<(), ChainError> {
        let op = "note landing";
        let mut transaction = self.begin(op).await?;
        for landing in batch {
            sqlx::query(
                "UPDATE chain_messages SET landed = $1, tipset = $2, landed_as = $3, receipt = $4, error = NULL
                 WHERE submit_key = $5 AND state = 'signed'",
            )
            .bind(landing.epoch)
            .bind(&landing.tipset)
            .bind(landing.landed_as.text())
            .bind(json_of(&landing.receipt)?)
            .bind(&landing.key.0)
            .execute(&mut *transaction)
            .await
            .map_err(about(op, &landing.key))?;
        }
        transaction.commit().await.map_err(|e| broken(op, e))
    }

    /// Notes that a tipset is no more on chain, and so are the messages of a sender in it.
    pub(crate) async fn reverted(&self, sender: &Address, tipset: &str) -> Result<(), ChainError> {
        sqlx::query(
            "UPDATE chain_messages SET tipset = NULL, receipt = NULL
             WHERE state = 'signed' AND sender = $1 AND tipset = $2",
        )
        .bind(sender_text(sender))
        .bind(tipset)
        .execute(&self.pool)
        .await
        .map(drop)
        .map_err(|e| broken("note reverted tipset", e).with("tipset", tipset))
    }

    /// Ends the calls of a sender whose messages are in a tipset that is final.
    pub(crate) async fn settle(&self, sender: &Address, tipset: &str) -> Result<(), ChainError> {
        let op = "settle messages";
        let failed = |e| broken(op, e).with("tipset", tipset);
        let mut transaction = self.begin(op).await?;
        for (state, error, landed_as) in
            [(OutboxState::Settled, None, Purpose::Call), (OutboxState::Dropped, Some(CANCELLED), Purpose::Cancel)]
        {
            sqlx::query(
                "UPDATE chain_messages SET state = $1, error = $2
                 WHERE state = 'signed' AND sender = $3 AND tipset = $4 AND COALESCE(landed_as, 'call') = $5",
            )
            .bind(state.text())
            .bind(error)
            .bind(sender_text(sender))
            .bind(tipset)
            .bind(landed_as.text())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// Records messages that fill nonces of nobody, each as the cancelled call that it is. Their keys.
    pub(crate) async fn fill(&self, fillers: &[Version]) -> Result<Vec<SubmitKey>, ChainError> {
        let op = "record filler";
        let mut transaction = self.begin(op).await?;
        let mut keys = Vec::new();
        for version in fillers {
            let message = &version.signed.message;
            let sender = sender_text(&message.from);
            let key = SubmitKey(format!("gap/{sender}/{}", message.sequence));
            let from = to_core(&message.from);
            let call = Call::Send(Transfer { to: from.clone(), from, amount: TokenAmount::ZERO });
            let done = sqlx::query(
                "INSERT INTO chain_messages (submit_key, seq, call, state, lane, kind, sender, nonce, cid, signed, purpose,
                 signed_at, cancel)
                 VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM chain_messages), $2, 'signed', $3, $4, $5, $6, $7,
                 $8, $9, $10, 1) ON CONFLICT DO NOTHING",
            )
            .bind(&key.0)
            .bind(json_of(&call)?)
            .bind(&sender)
            .bind(kind_text(call.kind()))
            .bind(&sender)
            .bind(i64::try_from(message.sequence).map_err(|e| broken(op, e))?)
            .bind(version.cid.to_string())
            .bind(json_of(&version.signed)?)
            .bind(version.purpose.text())
            .bind(version.signed_at)
            .execute(&mut *transaction)
            .await
            .map_err(about(op, &key))?;
            if done.rows_affected() == 1 {
                keys.push(key);
            }
        }
        transaction.commit().await.map_err(|e| broken(op, e))?;
        Ok(keys)
    }

    /// Takes a nonce back that another message used up for good; a call that was cancelled is dropped, and any other goes
    /// into the lane of whoever sends it now. A message that is on chain as far as is known keeps it.
    pub(crate) async fn unsign(&self, key: &SubmitKey, lane: Option<&Address>, reason: &str) -> Result<(), ChainError> {
        let op = "take nonce back";
        let mut transaction = self.begin(op).await?;
        let done = sqlx::query(
            "UPDATE chain_messages
             SET state = CASE cancel WHEN 0 THEN 'recorded' ELSE 'dropped' END, lane = $1, sender = NULL,
             nonce = NULL, cid = NULL, signed = NULL, purpose = NULL, signed_at = NULL, asked = NULL, landed = NULL,
             landed_as = NULL, error = $2
             WHERE submit_key = $3 AND state = 'signed' AND tipset IS NULL",
        )
        .bind(lane.map(sender_text))
        .bind(reason)
        .bind(&key.0)
        .execute(&mut *transaction)
        .await
        .map_err(about(op, key))?;
        if done.rows_affected() == 1 {
            sqlx::query("DELETE FROM chain_versions WHERE submit_key = $1")
                .bind(&key.0)
                .execute(&mut *transaction)
                .await
                .map_err(about(op, key))?;
        }
        transaction.commit().await.map_err(about(op, key))
    }

    /// Gives a call up that has no nonce; whether it had none.
    pub(crate) async fn drop_call(&self, key: &SubmitKey, reason: &str) -> Result<bool, ChainError> {
        sqlx::query(
            "UPDATE chain_messages SET state = 'dropped', error = $1 WHERE submit_key = $2 AND state = 'recorded'",
        )
        .bind(reason)
        .bind(&key.0)
        .execute(&self.pool)
        .await
        .map(|done| done.rows_affected() == 1)
        .map_err(about("drop call", key))
    }

    /// Notes that a call with a nonce is to be cancelled; whether it had one.
    pub(crate) async fn cancel(&self, key: &SubmitKey) -> Result<bool, ChainError> {
        sqlx::query("UPDATE chain_messages SET cancel = 1, asked = NULL WHERE submit_key = $1 AND state = 'signed'")
            .bind(&key.0)
            .execute(&self.pool)
            .await
            .map(|done| done.rows_affected() == 1)
            .map_err(about("cancel call", key))
    }

    /// Notes that a message is to be replaced; none if that was tried or is not wanted any more.
    pub(crate) async fn ask(&self, key: &SubmitKey, fees: Option<Replacement>) -> Result<(), ChainError> {
        let text = fees.as_ref().map(json_of).transpose()?;
        let query = match text {
            Some(text) => {
                sqlx::query("UPDATE chain_messages SET asked = $1 WHERE submit_key = $2 AND state = 'signed'")
                    .bind(text)
            }
            None => sqlx::query("UPDATE chain_messages SET asked = NULL WHERE submit_key = $1"),
        };
        query.bind(&key.0).execute(&self.pool).await.map(drop).map_err(about("ask for replacement", key))
    }

    /// Notes since when a call waits for a lower base fee.
    pub(crate) async fn waits(&self, key: &SubmitKey, epoch: i64) -> Result<(), ChainError> {
        sqlx::query("UPDATE chain_messages SET waits_since = $1 WHERE submit_key = $2 AND state = 'recorded'")
            .bind(epoch)
            .bind(&key.0)
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(about("note wait", key))
    }

    /// Notes why calls do not move, or that they move again; a call that changed its state meanwhile keeps the reason
    /// that it was given with that.
    pub(crate) async fn note(&self, notes: &[(SubmitKey, OutboxState, Option<String>)]) -> Result<(), ChainError> {
        let op = "note error";
        let mut transaction = self.begin(op).await?;
        for (key, state, error) in notes {
            let query = match error {
                Some(text) => {
                    sqlx::query("UPDATE chain_messages SET error = $1 WHERE submit_key = $2 AND state = $3").bind(text)
                }
                None => sqlx::query("UPDATE chain_messages SET error = NULL WHERE submit_key = $1 AND state = $2"),
            };
            let query = query.bind(&key.0).bind(state.text());
            query.execute(&mut *transaction).await.map_err(about(op, key))?;
        }
        transaction.commit().await.map_err(|e| broken(op, e))
    }
}
