//! The outbox's tables.

mod back;
mod migrations;
mod read;
mod record;
mod rows;
mod write;

pub(crate) use back::Held;
pub(crate) use rows::{InFlight, Landing, Page, Purpose, Recorded, Row, Signing, Version};
pub(crate) use write::CANCELLED;

#[cfg(test)]
pub(crate) use migrations::old as old_tables;

use crate::lotus_json::text_of;
use damocles_core::{
    BoxError,
    chain::{ChainError, ChainErrorKind, SubmitKey},
};
use fvm_shared::address::Address;
use parking_lot::Mutex;
use record::Queue;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{AnyPool, Row as _, any::AnyRow};
use std::{collections::HashSet, sync::Arc};
use tracing::error;

/// The tables. Each method is one transaction.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: AnyPool,
    /// The damaged rows that were reported, so that each is once.
    reported: Arc<Mutex<HashSet<String>>>,
    /// Calls that are recorded together.
    queue: Arc<Queue>,
}

impl Store {
    /// Opens the tables; makes them if they are not there.
    pub(crate) async fn open(pool: AnyPool) -> Result<Self, ChainError> {
        migrations::run(&pool).await.map_err(|e| broken("open outbox", e))?;
        Ok(Self { pool, reported: Arc::default(), queue: Arc::default() })
    }

    /// The row, if it can be read. A damaged one is reported and left where it is: it must not stop the others.
    fn readable<T>(&self, row: &AnyRow, read: fn(&AnyRow) -> Result<T, BoxError>) -> Option<T> {
        let report = |e: &BoxError| {
            let key: String = row.try_get("submit_key").unwrap_or_default();
            if self.reported.lock().insert(key.clone()) {
                let sender: Option<String> = row.try_get("sender").unwrap_or_default();
                let nonce: Option<i64> = row.try_get("nonce").unwrap_or_default();
                error!(key, sender, nonce, error = %e, "a call in the outbox is damaged; a nonce that it has is not \
                    filled, and later messages of the sender wait for it");
            }
        };
        read(row).inspect_err(report).ok()
    }
}

fn broken(op: &'static str, e: impl Into<BoxError>) -> ChainError {
    ChainError::new(ChainErrorKind::Outbox, op).because(e)
}

/// An error about one call.
fn about<'k>(op: &'static str, key: &'k SubmitKey) -> impl Fn(sqlx::Error) -> ChainError + 'k {
    move |e| broken(op, e).with("key", key)
}

fn json_of<T: Serialize>(value: &T) -> Result<String, ChainError> {
    serde_json::to_string(value).map_err(|e| broken("write outbox", e))
}

fn value_of<T: DeserializeOwned>(text: &str) -> Result<T, BoxError> {
    Ok(serde_json::from_str(text)?)
}

/// How a sender is written in the tables.
fn sender_text(sender: &Address) -> String {
    text_of(sender)
}
