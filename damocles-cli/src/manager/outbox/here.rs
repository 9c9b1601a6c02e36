//! The outbox in this process.

use super::begin::{Begun, Told};
use crate::{
    database::Database,
    exit::{Exit, Failure},
};
use anyhow::anyhow;
use damocles_chain::{LotusClient, OutboxEntry, OutboxState, Replacement, Senders};
use damocles_core::{
    Context, Event, EventSink,
    chain::{Call, ChainClient as _, ChainClientExt as _, MessageId, Receipt},
};
use futures::StreamExt as _;
use std::sync::Arc;
use tokio::sync::Notify;

/// Wakes whoever waits for a message to move.
#[derive(Debug, Default)]
pub(super) struct Wake(Notify);

impl EventSink for Wake {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Message { .. }) {
            self.0.notify_one();
        }
    }
}

/// The outbox, which works while something is waited for.
#[derive(Debug)]
pub(in crate::manager) struct Here {
    client: Arc<LotusClient>,
    wake: Arc<Wake>,
    senders: Senders,
    told: Told,
    /// The lock on it, if it is this one's.
    _database: Option<Database>,
}

impl Here {
    /// Over a database that nobody else has.
    ///
    /// # Errors
    ///
    /// The database cannot be used.
    pub(super) async fn new(
        client: Arc<LotusClient>,
        wake: Arc<Wake>,
        senders: Senders,
        database: Database,
    ) -> Result<Self, Failure> {
        let told = Told::open(database.pool.clone()).await?;
        Ok(Self { client, wake, senders, told, _database: Some(database) })
    }

    /// Over the database of the daemon that this is part of.
    ///
    /// # Errors
    ///
    /// The database cannot be used.
    pub(in crate::manager) async fn of_daemon(
        client: Arc<LotusClient>,
        senders: Senders,
        database: &Database,
    ) -> Result<Self, Failure> {
        let told = Told::open(database.pool.clone()).await?;
        Ok(Self { client, wake: Arc::default(), senders, told, _database: None })
    }

    pub(super) fn client(&self) -> &LotusClient {
        &self.client
    }

    pub(super) fn senders(&self) -> &Senders {
        &self.senders
    }

    pub(super) async fn begin(&self, stem: &str, call: &Call) -> Result<Begun, Failure> {
        self.told.begin(&self.client, stem, call).await
    }

    pub(super) async fn told(&self, id: &MessageId) -> Result<(), Failure> {
        self.told.note(id).await
    }

    pub(super) async fn landed(&self, id: &MessageId, confidence: i64, cx: &Context) -> Result<Receipt, Failure> {
        let stopped = || Failure::new(Exit::Retryable, anyhow!("cancelled before message {id} had landed"));
        let receipt = tokio::select! {
            receipt = self.client.landed(id, confidence, cx) => receipt?,
            () = self.client.run(cx.cancel.clone()) => {
                return Err(stopped().hint(format!("`damocles-manager message wait {id}` takes it up again")));
            }
        };
        Ok(receipt)
    }

    pub(super) async fn replace(&self, id: &MessageId, by: Replacement, cx: &Context) -> Result<OutboxEntry, Failure> {
        let before = self.client.replace_message(id, by).await?;
        self.moved(id, &before, cx).await
    }

    pub(super) async fn cancel(&self, id: &MessageId, cx: &Context) -> Result<OutboxEntry, Failure> {
        let before = self.client.cancel_message(id).await?;
        self.moved(id, &before, cx).await
    }

    /// Works until a call has another message than before, or is over.
    async fn moved(&self, id: &MessageId, before: &OutboxEntry, cx: &Context) -> Result<OutboxEntry, Failure> {
        let follow = async {
            let mut heads = self.client.head_changes();
            loop {
                let now = self.client.outbox_entry(id).await?;
                let over = matches!(now.state, OutboxState::Settled | OutboxState::Dropped) || now.landed.is_some();
                if over || now.versions.len() > before.versions.len() {
                    return Ok::<_, Failure>(now);
                }
                // Its messages move at once where nothing new comes of the chain.
                tokio::select! {
                    _ = heads.next() => {}
                    () = self.wake.0.notified() => {}
                }
            }
        };
        tokio::select! {
            now = follow => now,
            () = self.client.run(cx.cancel.clone()) => {
                Err(Failure::new(Exit::Retryable, anyhow!("cancelled; what was asked for of {id} is recorded")))
            }
        }
    }
}
