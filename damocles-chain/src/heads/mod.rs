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
    chain::{BoxStream, HeadChange, TipsetKey},
};
pub(crate) use follow::Pace;
use follow::Shared;
use futures::stream;
use link::{Head, Link};
pub(crate) use source::HeadSource;
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;
use tracing::{debug, warn};
use way::Astray;

/// So often it is looked for a tipset that nobody has before its chain is taken for one that is forgotten: a node forgets
/// an old chain, and one that was restored from a snapshot has less history of the new one than was seen here.
const MISSES: u32 = 8;

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
        self.subscriber().stream()
    }

    fn subscriber(&self) -> Subscriber {
        Subscriber {
            heads: self.clone(),
            news: self.shared.subscribe(),
            last: None,
            missing: None,
            queue: VecDeque::new(),
        }
    }
}

struct Subscriber {
    heads: Heads,
    news: watch::Receiver<Option<Head>>,
    last: Option<Link>,
    /// The tipset that nobody had, and how often in a row.
    missing: Option<(TipsetKey, u32)>,
    queue: VecDeque<HeadChange>,
}

impl Subscriber {
    fn stream(self) -> BoxStream<HeadChange> {
        Box::pin(stream::unfold(self, |mut subscriber| async move {
            let change = subscriber.next().await;
            Some((change, subscriber))
        }))
    }

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
                (Some(head), Some(last)) if head.at != last.at => {
                    let last = last.clone();
                    if !self.go(&last, head).await {
                        follow::pause(delay).await;
                        delay = pace.longer(delay);
                    }
                }
                _ => {
                    // The sender lives in `heads`, so this ends with news only.
                    let _ = self.news.changed().await;
                }
            }
        }
    }

    /// Finds the way to a head. Whether it was found.
    async fn go(&mut self, last: &Link, head: Link) -> bool {
        let shared = Arc::clone(&self.heads.shared);
        let changes = match shared.way(last, &head).await {
            Ok(changes) => changes,
            Err(Astray::Missing(key)) => {
                let times = self.missing.as_ref().filter(|(missing, _)| *missing == key).map_or(0, |(_, times)| *times);
                debug!(tipset = %key, times, "a tipset on the way to the new head is not found");
                if times < MISSES {
                    self.missing = Some((key, times + 1));
                    return false;
                }
                way::unrelated(last, &head)
            }
            Err(Astray::Contradiction(e)) => {
                warn!(error = e.chain(), "no way leads to the new head");
                self.correct(last).await;
                return false;
            }
            Err(Astray::Failed(e)) => {
                debug!(error = e.chain(), "the way to the new head cannot be read");
                return false;
            }
        };
        self.missing = None;
        self.queue.extend(changes);
        self.last = Some(head);
        true
    }

    /// Tells the last head anew if it was told with a wrong height: no way leads from there.
    async fn correct(&mut self, last: &Link) {
        if let Ok(again) = self.heads.shared.ask_again(&last.at.key).await
            && again != *last
        {
            self.queue.extend(way::unrelated(last, &again));
            self.last = Some(again);
        }
    }
}
