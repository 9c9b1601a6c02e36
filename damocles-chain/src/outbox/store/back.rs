//! Nonces that are held here and may not be used on chain.

use super::{Store, broken, sender_text, value_of};
use crate::{lotus_json::SignedMessage, outbox::OutboxState};
use damocles_core::{
    BoxError,
    chain::{ChainError, SubmitKey},
};
use fvm_shared::address::Address;
use sqlx::{Row as _, any::AnyRow};
use std::collections::BTreeMap;

/// What is noted on a call that was over and is not any more.
const BACK: &str =
    "its message was final on chain and its nonce is not used there any more: it is sent again as it was";

/// By what a nonce is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A message that is not final: it is pushed until it is on chain.
    Open,
    /// The message of a call that is over: nobody pushes it.
    Over,
    /// A row that cannot be read.
    Damaged,
}

impl Held {
    fn of(row: &AnyRow) -> Self {
        let state: Option<String> = row.try_get("state").ok();
        let signed: Result<SignedMessage, BoxError> =
            row.try_get::<String, _>("signed").map_err(BoxError::from).and_then(|text| value_of(&text));
        match state.as_deref() {
            _ if signed.is_err() => Self::Damaged,
            Some(state) if state == OutboxState::Signed.text() => Self::Open,
            Some(_) => Self::Over,
            None => Self::Damaged,
        }
    }
}

impl Store {
    /// By what a sender's nonces are held from one on.
    pub(crate) async fn held_from(&self, sender: &Address, nonce: u64) -> Result<BTreeMap<u64, Held>, ChainError> {
        let op = "read nonces";
        let least = i64::try_from(nonce).map_err(|e| broken(op, e))?;
        let rows = sqlx::query("SELECT nonce, state, signed FROM chain_messages WHERE sender = $1 AND nonce >= $2")
            .bind(sender_text(sender))
            .bind(least)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| broken(op, e))?;
        let read = |row: &AnyRow| -> Result<_, BoxError> {
            Ok((u64::try_from(row.try_get::<i64, _>("nonce")?)?, Held::of(row)))
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|e| broken(op, e))
    }

    /// Takes calls back that are over and whose nonces are not used on chain. Their keys.
    pub(crate) async fn take_back(&self, sender: &Address, nonces: &[u64]) -> Result<Vec<SubmitKey>, ChainError> {
        let op = "take message back";
        let mut transaction = self.pool.begin().await.map_err(|e| broken(op, e))?;
        let mut keys = Vec::new();
        for nonce in nonces {
            let rows = sqlx::query(
                "UPDATE chain_messages SET state = 'signed', tipset = NULL, receipt = NULL, error = $1
                 WHERE sender = $2 AND nonce = $3 AND state IN ('settled', 'dropped') AND signed IS NOT NULL
                 RETURNING submit_key",
            )
            .bind(BACK)
            .bind(sender_text(sender))
            .bind(i64::try_from(*nonce).map_err(|e| broken(op, e))?)
            .fetch_all(&mut *transaction)
            .await
            .map_err(|e| broken(op, e))?;
            for row in rows {
                keys.push(SubmitKey(row.try_get("submit_key").map_err(|e| broken(op, e))?));
            }
        }
        transaction.commit().await.map_err(|e| broken(op, e))?;
        Ok(keys)
    }
}
