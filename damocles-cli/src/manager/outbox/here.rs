//! The outbox in this process.

use super::{
    super::client::ManagerChain,
    Entry,
    begin::{Asked, Begun, Told},
    standing::Standing,
};
use crate::{
    database::Database,
    exit::{Exit, Failure},
};
use anyhow::anyhow;
use damocles_chain::{Fees, OutboxState, Replacement, Senders};
use damocles_core::{
    Address, Context, Event, EventSink,
    chain::{ChainClientExt as _, ChainErrorKind, MessageId, MessageState},
};
use futures::StreamExt as _;
use std::{sync::Arc, time::Duration};
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
    standing: Standing,
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
        let standing = Standing { network: None, senders, fees: Fees::default() };
        Ok(Self { chain, wake, standing, told, _database: Some(database) })
    }

    /// Over the database of the daemon that this is part of.
    ///
    /// # Errors
    ///
    /// The database cannot be used.
    pub(in crate::manager) async fn of_daemon(
        chain: ManagerChain,
        standing: Standing,
        database: &Database,
    ) -> Result<Self, Failure> {
        let told = Told::open(database.pool.clone()).await?;
        Ok(Self { chain, wake: Arc::default(), standing, told, _database: None })
    }

    pub(super) fn chain(&self) -> &ManagerChain {
        &self.chain
    }

    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Who sends a call that is begun now.
    pub(super) async fn sender(&self, asked: &Asked) -> Result<Address, Failure> {
        let key = self.told.next(&self.chain.entries().await?, asked).await?;
        self.chain.sender_of(&key, asked.call()).await
    }

    pub(super) async fn begin(&self, asked: &Asked, from: &Address) -> Result<Begun, Failure> {
        self.told.begin(&self.chain, asked, from).await
    }

    pub(super) async fn told(&self, id: &MessageId) -> Result<(), Failure> {
        self.told.note(id).await
    }

    /// How a call ended; none if the command was cancelled before.
    pub(super) async fn ended(
        &self,
        id: &MessageId,
        confidence: i64,
        cx: &Context,
    ) -> Result<Option<MessageState>, Failure> {
        let client = self.chain.client();
        let landed = tokio::select! {
            landed = client.landed(id, confidence, cx) => landed,
            () = self.chain.run(cx.cancel.clone()) => return Ok(None),
        };
        match landed {
            Ok(receipt) => Ok(Some(MessageState::Landed(receipt))),
            Err(e) if e.kind() == ChainErrorKind::Dropped => {
                let entry = self.chain.entry(id).await?;
                Ok(Some(MessageState::Dropped { reason: entry.message.error.unwrap_or_else(|| e.to_string()) }))
            }
            Err(e) if e.kind() == ChainErrorKind::Cancelled => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) async fn replace(&self, id: &MessageId, by: Replacement, cx: &Context) -> Result<Entry, Failure> {
        let before = self.chain.replace(id, by).await?;
        self.moved(id, &before, cx).await
    }

    pub(super) async fn cancel(&self, id: &MessageId, cx: &Context) -> Result<Entry, Failure> {
        let before = self.chain.cancel(id).await?;
        self.moved(id, &before, cx).await
    }

    /// Works until a call has another message than before, is over, or cannot go on. A messager has done at once what it
    /// does.
    async fn moved(&self, id: &MessageId, before: &Entry, cx: &Context) -> Result<Entry, Failure> {
        if before.messager.is_some() {
            return Ok(before.clone());
        }
        let client = self.chain.client();
        let follow = async {
            let mut heads = client.head_changes();
            let mut looks = tokio::time::interval(LOOK);
            let mut passes = 0_u32;
            loop {
                let now = self.chain.entry(id).await?;
                let message = &now.message;
                let over = matches!(message.state, OutboxState::Settled | OutboxState::Dropped);
                if over || message.landed.is_some() || message.versions.len() > before.message.versions.len() {
                    return Ok::<_, Failure>(now);
                }
                let trouble = message.error.as_ref();
                // The same trouble as before is not told of again: only that nothing changes shows it.
                if trouble.is_some() && (trouble != before.message.error.as_ref() || passes >= PASSES) {
                    return Err(stuck(id, trouble));
                }
                // Its messages move at once where nothing new comes of the chain. What is refused may be noted in silence.
                tokio::select! {
                    head = heads.next() => {
                        if head.is_none() {
                            return Err(stuck(id, trouble));
                        }
                    }
                    () = self.wake.0.notified() => {}
                    _ = looks.tick() => passes += 1,
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

/// How often a message is looked at of which nothing is told.
const LOOK: Duration = Duration::from_secs(3);
/// After so many looks a message whose trouble is as before has been tried again and did not move.
const PASSES: u32 = 10;

fn stuck(id: &MessageId, trouble: Option<&String>) -> Failure {
    let trouble = trouble.map_or("no head comes of the node", String::as_str);
    Failure::new(Exit::Parked, anyhow!("message {id} does not move: {trouble}"))
        .hint("`message show` tells what was signed for it; a replacement is asked for anew")
}
