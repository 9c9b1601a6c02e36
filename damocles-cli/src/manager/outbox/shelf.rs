//! The outbox, only looked at: no lock is taken, no key is needed and nothing is changed, whoever works on it.

use super::{Asked, Earlier, Entry, begin::Told};
use crate::{
    config::{ManagerConfig, manager::Home},
    database::Database,
    exit::{Exit, Failure},
    manager::{chain, client::ManagerChain, signer::Keys},
};
use anyhow::{Context as _, anyhow};
use damocles_chain::{OutboxFilter, outbox_entries};
use damocles_core::{
    NullSink,
    chain::{MessageId, SubmitKey},
};
use sqlx::{AnyPool, Row as _};
use std::sync::Arc;

/// What lies in the outbox of a home.
#[derive(Debug)]
pub(in crate::manager) struct Shelf(Option<Opened>);

#[derive(Debug)]
struct Opened {
    pool: AnyPool,
    /// Of a cluster: what knows its calls.
    cluster: Option<ManagerChain>,
}

impl Shelf {
    /// Opens the database to read. One that nobody has made yet holds nothing.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(in crate::manager) async fn open(config: &ManagerConfig, home: &Home) -> Result<Self, Failure> {
        let Some(pool) = Database::look(&home.database()).await? else { return Ok(Self(None)) };
        let table = if config.venus.is_some() { "venus_migrations" } else { "chain_migrations" };
        let there = sqlx::query("SELECT COUNT(*) FROM sqlite_master WHERE name = $1")
            .bind(table)
            .fetch_one(&pool)
            .await
            .with_context(|| format!("read database `{}`", home.database().display()))?;
        if there.try_get::<i64, _>(0).unwrap_or_default() == 0 {
            return Ok(Self(None));
        }
        let cluster = match config.venus {
            Some(_) => {
                let keys = Keys::to_send(config, home)?;
                Some(chain::connect(config, home, &keys, pool.clone(), Arc::new(NullSink)).await?)
            }
            None => None,
        };
        Ok(Self(Some(Opened { pool, cluster })))
    }

    /// All calls.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(in crate::manager) async fn entries(&self) -> Result<Vec<Entry>, Failure> {
        self.some(&OutboxFilter::default()).await
    }

    /// Some of the calls, oldest first.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(in crate::manager) async fn some(&self, which: &OutboxFilter) -> Result<Vec<Entry>, Failure> {
        match &self.0 {
            None => Ok(Vec::new()),
            Some(Opened { cluster: Some(cluster), .. }) => {
                Ok(which.of(cluster.entries().await?, |entry| &entry.message))
            }
            Some(Opened { pool, cluster: None }) => {
                // Whoever works on the outbox writes meanwhile, and calls and their messages are read one after the other:
                // the pool's only connection sees one instant until it is told to go on.
                let instant = async |statement: &'static str| {
                    sqlx::query(statement).execute(pool).await.context("read the outbox at one instant")
                };
                instant("BEGIN").await?;
                let all = outbox_entries(pool.clone(), which).await;
                instant("ROLLBACK").await?;
                Ok(all?.into_iter().map(Entry::of_outbox).collect())
            }
        }
    }

    /// The call that a key, the name at the messager, or the CID of one of its messages names.
    ///
    /// # Errors
    ///
    /// There is none of that name.
    pub(in crate::manager) async fn named(&self, name: &str) -> Result<Entry, Failure> {
        let is_meant = |Entry { message: entry, messager }: &Entry| {
            entry.key.0 == name
                || messager.as_ref().is_some_and(|at| at.uid == name)
                || entry.cid.as_deref() == Some(name)
                || entry.versions.iter().any(|version| version.cid == name)
        };
        let found = self.entries().await?.into_iter().find(is_meant).ok_or_else(|| {
            Failure::new(Exit::Failed, anyhow!("no message of this manager has the key or CID `{name}`"))
                .hint("`message list --all` shows them")
        })?;
        match &self.0 {
            Some(Opened { cluster: Some(cluster), .. }) => {
                cluster.entry(&MessageId::new(found.message.key.0.clone())).await
            }
            _ => Ok(found),
        }
    }

    /// The earlier call that is the same as one that is asked for.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(in crate::manager) async fn earlier(&self, asked: &Asked) -> Result<Option<Earlier>, Failure> {
        let Some(Opened { pool, .. }) = &self.0 else { return Ok(None) };
        Told::look(pool.clone()).await?.earlier(&self.entries().await?, asked).await
    }

    /// The key that a call gets that is begun now.
    ///
    /// # Errors
    ///
    /// The database cannot be read.
    pub(super) async fn next(&self, asked: &Asked) -> Result<SubmitKey, Failure> {
        let Some(Opened { pool, .. }) = &self.0 else { return Ok(asked.first()) };
        Told::look(pool.clone()).await?.next(&self.entries().await?, asked).await
    }
}
