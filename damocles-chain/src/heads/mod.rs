//! Head changes: one subscription to the node, any number of subscribers.
//!
//! What the node sends is only taken as news of the head: notifications come twice, late, in the wrong order or not at
//! all, so that each makes the head be asked for, and nothing else is believed. Each subscriber finds its own way from
//! the tipset that it saw last to the head, through parents, so that a lost connection, a slow subscriber, another
//! endpoint and a reorganisation are all the same case and no change is missed or told twice.

mod follow;
mod link;
mod source;
mod way;

#[cfg(test)]
mod tests;

use damocles_core::{
    CancellationToken,
    chain::{BoxStream, HeadChange},
};
pub(crate) use follow::Pace;
use follow::Shared;
use futures::stream;
use link::{Head, Link};
pub(crate) use source::HeadSource;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;
use tracing::debug;

/// The heads of a source. The subscription ends when this and every stream from it are gone.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    shared: Arc<Shared>,
    _alive: Arc<DropGuard>,
}

impl Heads {
    pub(crate) fn new(source: Arc<dyn HeadSource>, pace: Pace) -> Self {
        let cancel = CancellationToken::new();
        let alive = Arc::new(cancel.clone().drop_guard());
        Self { shared: Arc::new(Shared::new(source, pace, cancel)), _alive: alive }
    }

    /// The changes from the current head on.
    pub(crate) fn changes(&self) -> BoxStream<HeadChange> {
        let subscriber =
            Subscriber { heads: self.clone(), news: self.shared.subscribe(), last: None, queue: VecDeque::new() };
        Box::pin(stream::unfold(subscriber, |mut subscriber| async move {
            let change = subscriber.next().await;
            Some((change, subscriber))
        }))
    }
}

struct Subscriber {
    heads: Heads,
    news: watch::Receiver<Option<Head>>,
    last: Option<Link>,
    queue: VecDeque<HeadChange>,
}

impl Subscriber {
    async fn next(&mut self) -> HeadChange {
        // The first one that waits is inside a runtime.
        self.heads.shared.start();
        let pace = self.heads.shared.pace();
        let mut delay = pace.first_delay;
        loop {
            if let Some(change) = self.queue.pop_front() {
                return change;
            }
            let head = self.news.borrow_and_update().as_ref().map(|head| head.link.clone());
            match (head, &self.last) {
                (Some(head), None) => {
                    self.queue.push_back(HeadChange::Apply(head.at.clone()));
                    self.last = Some(head);
                }
                (Some(head), Some(last)) if head.at != last.at => match self.heads.shared.way(last, &head).await {
                    Ok(changes) => {
                        self.queue.extend(changes);
                        self.last = Some(head);
                    }
                    Err(e) => {
                        debug!(error = e.chain(), "the way to the new head cannot be read");
                        follow::pause(delay).await;
                        delay = pace.longer(delay);
                    }
                },
                _ => {
                    // The sender lives in `heads`, so this ends with news only.
                    let _ = self.news.changed().await;
                }
            }
        }
    }
}
