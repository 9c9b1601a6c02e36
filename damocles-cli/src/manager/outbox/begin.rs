//! Which key an operator's call gets.

use super::super::client::ManagerChain;
use crate::exit::Failure;
use anyhow::Context as _;
use damocles_core::chain::{Call, MessageId, SubmitKey};
use serde::{Deserialize, Serialize};
use sqlx::AnyPool;

/// A call that is in the outbox now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::manager) struct Begun {
    /// Its name.
    pub(in crate::manager) id: MessageId,
    /// Whether an earlier command had begun it.
    pub(in crate::manager) again: bool,
}

/// The calls whose end an operator was told.
#[derive(Clone, Debug)]
pub(super) struct Told(AnyPool);

impl Told {
    /// Opens the table; makes it if it is not there.
    pub(super) async fn open(pool: AnyPool) -> Result<Self, Failure> {
        sqlx::query("CREATE TABLE IF NOT EXISTS cli_told (submit_key TEXT PRIMARY KEY)")
            .execute(&pool)
            .await
            .context("open the table of what operators were told")?;
        Ok(Self(pool))
    }

    pub(super) async fn note(&self, id: &MessageId) -> Result<(), Failure> {
        sqlx::query("INSERT INTO cli_told (submit_key) VALUES ($1) ON CONFLICT (submit_key) DO NOTHING")
            .bind(id.as_str())
            .execute(&self.0)
            .await
            .with_context(|| format!("note the end of message {id}"))?;
        Ok(())
    }

    async fn knows(&self, key: &str) -> Result<bool, Failure> {
        let found = sqlx::query("SELECT submit_key FROM cli_told WHERE submit_key = $1")
            .bind(key)
            .fetch_optional(&self.0)
            .await
            .context("look up what operators were told")?;
        Ok(found.is_some())
    }

    /// The first key of `stem` whose end nobody was told.
    pub(super) async fn next(&self, stem: &str) -> Result<SubmitKey, Failure> {
        let mut attempt = 1_u64;
        loop {
            let key = format!("{stem}/{attempt}");
            if !self.knows(&key).await? {
                return Ok(SubmitKey(key));
            }
            attempt += 1;
        }
    }

    /// Submits a call under the first key of `stem` whose end nobody was told.
    pub(super) async fn begin(&self, chain: &ManagerChain, stem: &str, call: &Call) -> Result<Begun, Failure> {
        let key = self.next(stem).await?;
        let again = chain.entries().await?.iter().any(|entry| entry.message.key == key);
        if !again {
            chain.takes(&key, call).await?;
        }
        let id = chain.client().submit(&key, call).await?;
        Ok(Begun { id, again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::any::AnyPoolOptions;

    #[tokio::test]
    async fn what_was_told_stays_told() {
        sqlx::any::install_default_drivers();
        let pool = AnyPoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
        let told = Told::open(pool.clone()).await.unwrap();
        assert!(!told.knows("withdraw/1000/5/1").await.unwrap());
        for _ in 0..2 {
            told.note(&MessageId::new("withdraw/1000/5/1")).await.unwrap();
        }
        let again = Told::open(pool).await.unwrap();
        assert!(again.knows("withdraw/1000/5/1").await.unwrap());
        assert!(!again.knows("withdraw/1000/5/2").await.unwrap());
    }
}
