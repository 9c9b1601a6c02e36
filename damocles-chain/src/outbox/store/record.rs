//! Recording calls: those that come at the same time are one transaction, because what takes time is to sync it.

use super::{Store, broken, json_of};
use crate::{lotus_json::text_of, outbox::OutboxState};
use damocles_core::chain::{Call, CallKind, ChainError, SubmitKey};
use fvm_shared::address::Address;
use parking_lot::Mutex;
use std::mem;
use tokio::sync::{Mutex as AsyncMutex, oneshot};

/// The most calls that are recorded at once.
const TOGETHER: usize = 500;

/// Calls that wait for whoever records next.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Vec<Waiting>>,
    turn: AsyncMutex<()>,
}

#[derive(Debug)]
struct Waiting {
    key: String,
    call: String,
    kind: String,
    lane: String,
    done: oneshot::Sender<bool>,
}

/// How a class is written in the tables.
pub(super) fn kind_text(kind: CallKind) -> String {
    kind.to_string()
}

impl Store {
    /// Records a call; false if its key was there before. Dropped before it is done, the call may be recorded or not.
    pub(crate) async fn record(&self, key: &SubmitKey, call: &Call, lane: &Address) -> Result<bool, ChainError> {
        let (text, kind) = (json_of(call)?, kind_text(call.kind()));
        loop {
            let (done, mut told) = oneshot::channel();
            let waiting =
                Waiting { key: key.0.clone(), call: text.clone(), kind: kind.clone(), lane: text_of(lane), done };
            self.queue.waiting.lock().push(waiting);
            let turn = self.queue.turn.lock().await;
            // Whoever had the turn before has taken this one along.
            if let Ok(new) = told.try_recv() {
                return Ok(new);
            }
            let batch = {
                let mut waiting = self.queue.waiting.lock();
                let rest = waiting.len().min(TOGETHER);
                let later = waiting.split_off(rest);
                mem::replace(&mut *waiting, later)
            };
            let recorded = self.record_all(&batch).await.map_err(|e| e.with("key", key))?;
            for (waiting, new) in batch.into_iter().zip(recorded) {
                // Nobody waits for it any more.
                let _ = waiting.done.send(new);
            }
            drop(turn);
            // The batch was full, or whoever took this one was dropped: it is recorded again, which changes nothing.
            if let Ok(new) = told.try_recv() {
                return Ok(new);
            }
        }
    }

    async fn record_all(&self, batch: &[Waiting]) -> Result<Vec<bool>, ChainError> {
        let failed = |e| broken("record call", e);
        let mut new = Vec::with_capacity(batch.len());
        let mut transaction = self.pool.begin().await.map_err(failed)?;
        for call in batch {
            let done = sqlx::query(
                "INSERT INTO chain_messages (submit_key, seq, call, state, lane, kind)
                 VALUES ($1, (SELECT COALESCE(MAX(seq), 0) + 1 FROM chain_messages), $2, $3, $4, $5)
                 ON CONFLICT (submit_key) DO NOTHING",
            )
            .bind(&call.key)
            .bind(&call.call)
            .bind(OutboxState::Recorded.text())
            .bind(&call.lane)
            .bind(&call.kind)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
            new.push(done.rows_affected() == 1);
        }
        transaction.commit().await.map_err(failed)?;
        Ok(new)
    }
}
