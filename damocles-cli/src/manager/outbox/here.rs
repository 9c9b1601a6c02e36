//! The outbox in this process.

use super::{
    super::client::ManagerChain,
    Entry,
    begin::{Begun, Told},
};
use crate::{
    database::Database,
    exit::{Exit, Failure},
};
use anyhow::anyhow;
use damocles_chain::{OutboxState, Replacement, Senders};
use damocles_core::{
    Address, Context, Event, EventSink,
    chain::{Call, ChainClientExt as _, MessageId, Receipt},
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
    chain: ManagerChain,
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
        chain: ManagerChain,
        wake: Arc<Wake>,
        senders: Senders,
        database: Database,
    ) -> Result<Self, Failure> {
        let told = Told::open(database.pool.clone()).await?;
        Ok(Self { chain, wake, senders, told, _database: Some(database) })
    }

    /// Over the database of the daemon that this is part of.
    ///
    /// # Errors
    ///
    /// The database cannot be used.
    pub(in crate::manager) async fn of_daemon(
        chain: ManagerChain,
        senders: Senders,
        database: &Database,
    ) -> Result<Self, Failure> {
        let told = Told::open(database.pool.clone()).await?;
        Ok(Self { chain, wake: Arc::default(), senders, told, _database: None })
    }

    pub(super) fn chain(&self) -> &ManagerChain {
        &self.chain
    }

    pub(super) fn senders(&self) -> &Senders {
        &self.senders
    }

    /// Who sends a call that is begun now.
    pub(super) async fn sender(&self, stem: &str, call: &Call) -> Result<Address, Failure> {
        self.chain.sender_of(&self.told.next(stem).await?, call).await
    }

    pub(super) async fn begin(&self, stem: &str, call: &Call) -> Result<Begun, Failure> {
        self.told.begin(&self.chain, stem, call).await
    }

    pub(super) async fn told(&self, id: &MessageId) -> Result<(), Failure> {
        self.told.note(id).await
    }

    pub(super) async fn landed(&self, id: &MessageId, confidence: i64, cx: &Context) -> Result<Receipt, Failure> {
        let stopped = || Failure::new(Exit::Retryable, anyhow!("cancelled before message {id} had landed"));
        let client = self.chain.client();
        let receipt = tokio::select! {
            receipt = client.landed(id, confidence, cx) => receipt?,
            () = self.chain.run(cx.cancel.clone()) => {
                return Err(stopped().hint(format!("`damocles-manager message wait {id}` takes it up again")));
            }
        };
        Ok(receipt)
    }

    pub(super) async fn replace(&self, id: &MessageId, by: Replacement, cx: &Context) -> Result<Entry, Failure> {
        let before = self.chain.replace(id, by).await?;
        self.moved(id, &before, cx).await
    }

    pub(super) async fn cancel(&self, id: &MessageId, cx: &Context) -> Result<Entry, Failure> {
        let before = self.chain.cancel(id).await?;
        self.moved(id, &before, cx).await
    }

    /// Works until a call has another message than before, or is over. A messager has done at once what it does.
    async fn moved(&self, id: &MessageId, before: &Entry, cx: &Context) -> Result<Entry, Failure> {
        if before.messager.is_some() {
            return Ok(before.clone());
        }
        let client = self.chain.client();
        let follow = async {
            let mut heads = client.head_changes();
            loop {
                let now = self.chain.entry(id).await?;
                let message = &now.message;
                let over = matches!(message.state, OutboxState::Settled | OutboxState::Dropped);
                if over || message.landed.is_some() || message.versions.len() > before.message.versions.len() {
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
            () = self.chain.run(cx.cancel.clone()) => {
                Err(Failure::new(Exit::Retryable, anyhow!("cancelled; what was asked for of {id} is recorded")))
            }
        }
    }
}
