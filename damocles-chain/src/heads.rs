//! Head changes: one subscription to the node, any number of subscribers.
//!
//! What the node sends is only taken as news of the head. Each subscriber finds its own way from the tipset that it
//! saw last to the head, through parents, so that a lost connection, a slow subscriber and a reorganisation are all
//! the same case and no change is missed or told twice.

use crate::{
    lotus_json::{HeadChange as Notice, HeadChangeKind, Lotus, TipSet},
    rpc::{FeedError, RpcClient},
};
use damocles_core::{
    CancellationToken,
    chain::{BoxStream, ChainError, ChainErrorKind, HeadChange, TipsetKey, TipsetRef},
};
use futures::stream;
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::DropGuard;
use tracing::{debug, warn};

/// Tipsets that are kept, so that a walk rarely asks the node.
const KEPT: usize = 4096;
/// The most tipsets that a way leads over: finality.
const LONGEST_WAY: usize = 900;
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LAST_DELAY: Duration = Duration::from_secs(10);
/// After so many polls it is tried again whether the node offers channels by now.
const POLLS: u32 = 60;

/// A tipset and what came before it.
#[derive(Clone, Debug, PartialEq)]
struct Link {
    at: TipsetRef,
    parents: Option<TipsetKey>,
}

impl Link {
    fn of(tipset: &TipSet) -> Self {
        Self { at: tipset.to_ref(), parents: tipset.parents().filter(|key| !key.0.is_empty()) }
    }
}

#[derive(Debug, Default)]
struct Kept {
    links: HashMap<TipsetKey, Link>,
    order: VecDeque<TipsetKey>,
}

impl Kept {
    fn insert(&mut self, link: Link) {
        let key = link.at.key.clone();
        if self.links.insert(key.clone(), link).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > KEPT {
            if let Some(old) = self.order.pop_front() {
                self.links.remove(&old);
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    rpc: Arc<RpcClient>,
    poll_every: Duration,
    silence: Duration,
    head: watch::Sender<Option<Link>>,
    kept: Mutex<Kept>,
    started: AtomicBool,
    cancel: CancellationToken,
}

/// The heads of one node. The subscription ends when this and every stream from it are gone.
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    shared: Arc<Shared>,
    _alive: Arc<DropGuard>,
}

impl Heads {
    pub(crate) fn new(rpc: Arc<RpcClient>, poll_every: Duration, silence: Duration) -> Self {
        let cancel = CancellationToken::new();
        let alive = Arc::new(cancel.clone().drop_guard());
        let started = AtomicBool::new(false);
        let kept = Mutex::new(Kept::default());
        let shared = Shared { rpc, poll_every, silence, head: watch::Sender::new(None), kept, started, cancel };
        Self { shared: Arc::new(shared), _alive: alive }
    }

    /// The changes from the current head on.
    pub(crate) fn changes(&self) -> BoxStream<HeadChange> {
        let subscriber =
            Subscriber { heads: self.clone(), news: self.shared.head.subscribe(), last: None, queue: VecDeque::new() };
        Box::pin(stream::unfold(subscriber, |mut subscriber| async move {
            let change = subscriber.next().await;
            Some((change, subscriber))
        }))
    }

    /// Starts the subscription with the first subscriber that waits, which is inside a runtime.
    fn start(&self) {
        if !self.shared.started.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move {
                let cancel = shared.cancel.clone();
                cancel.run_until_cancelled(shared.follow()).await;
            });
        }
    }
}

struct Subscriber {
    heads: Heads,
    news: watch::Receiver<Option<Link>>,
    last: Option<Link>,
    queue: VecDeque<HeadChange>,
}

impl Subscriber {
    async fn next(&mut self) -> HeadChange {
        self.heads.start();
        let mut delay = FIRST_DELAY;
        loop {
            if let Some(change) = self.queue.pop_front() {
                return change;
            }
            let head = self.news.borrow_and_update().clone();
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
                        sleep(delay).await;
                        delay = LAST_DELAY.min(delay * 2);
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

impl Shared {
    /// Keeps `head` current for ever.
    async fn follow(&self) {
        let mut delay = FIRST_DELAY;
        loop {
            match self.rpc.head_feed().await {
                Ok(mut feed) => loop {
                    match feed.next(self.silence).await {
                        Ok(Some(notices)) => {
                            delay = FIRST_DELAY;
                            self.take(&notices).await;
                        }
                        // A quiet chain and a dead subscription sound the same.
                        Ok(None) => {
                            if self.ask().await {
                                warn!("the node's head moves and its subscription is silent, connecting again");
                                break;
                            }
                        }
                        Err(FeedError::Unsupported(e)) => {
                            debug!(error = e.chain(), "the node offers no channels, its head is polled");
                            self.poll().await;
                            break;
                        }
                        Err(FeedError::Lost(e)) => {
                            warn!(error = e.chain(), "the node's head is lost, connecting again");
                            break;
                        }
                    }
                },
                Err(FeedError::Unsupported(e)) => {
                    debug!(error = e.chain(), "the node offers no channels, its head is polled");
                    self.poll().await;
                    continue;
                }
                Err(FeedError::Lost(e)) => warn!(error = e.chain(), "the node cannot be followed, trying again"),
            }
            sleep(delay).await;
            delay = LAST_DELAY.min(delay * 2);
            // Whoever waits for heads need not wait until the subscription comes back.
            self.ask().await;
        }
    }

    async fn take(&self, notices: &[Notice]) {
        for notice in notices {
            self.kept.lock().insert(Link::of(&notice.val));
        }
        match notices.last() {
            Some(last) if last.kind != HeadChangeKind::Revert => drop(self.lead(Link::of(&last.val))),
            // Only what is gone was told, so that the head has to be asked for.
            Some(_) => drop(self.ask().await),
            None => {}
        }
    }

    async fn poll(&self) {
        for _ in 0..POLLS {
            self.ask().await;
            sleep(self.poll_every).await;
        }
    }

    /// Asks for the head; whether it is another one than was known.
    async fn ask(&self) -> bool {
        match self.rpc.call::<TipSet>("ChainHead", json!([])).await {
            Ok(tipset) => {
                self.kept.lock().insert(Link::of(&tipset));
                self.lead(Link::of(&tipset))
            }
            Err(e) => {
                warn!(error = e.chain(), "the head cannot be read");
                false
            }
        }
    }

    fn lead(&self, head: Link) -> bool {
        self.head.send_if_modified(|now| {
            let news = now.as_ref() != Some(&head);
            *now = Some(head);
            news
        })
    }

    /// What has to be reverted and applied to come from one head to another.
    async fn way(&self, from: &Link, to: &Link) -> Result<Vec<HeadChange>, ChainError> {
        let (mut reverts, mut applies) = (Vec::new(), Vec::new());
        let (mut old, mut new) = (from.clone(), to.clone());
        while old.at != new.at {
            // After a long absence, the way is neither held in memory nor waited for.
            if reverts.len().max(applies.len()) >= LONGEST_WAY {
                return Ok(unrelated(from, to));
            }
            let (old_epoch, new_epoch) = (old.at.epoch, new.at.epoch);
            if new_epoch >= old_epoch {
                applies.push(HeadChange::Apply(new.at.clone()));
                match self.known_parent(&new).await? {
                    Some(parent) => new = parent,
                    None => return Ok(unrelated(from, to)),
                }
            }
            if old_epoch >= new_epoch {
                reverts.push(HeadChange::Revert(old.at.clone()));
                match self.known_parent(&old).await? {
                    Some(parent) => old = parent,
                    None => return Ok(unrelated(from, to)),
                }
            }
        }
        reverts.extend(applies.into_iter().rev());
        Ok(reverts)
    }

    /// The parent, if there is one and the node has it: a node forgets an old chain, and one that was restored from a
    /// snapshot has less history of the new one than this has seen.
    async fn known_parent(&self, link: &Link) -> Result<Option<Link>, ChainError> {
        match self.parent(link).await {
            Err(e) if e.kind() == ChainErrorKind::NotFound => Ok(None),
            parent => parent,
        }
    }

    async fn parent(&self, link: &Link) -> Result<Option<Link>, ChainError> {
        let Some(key) = &link.parents else { return Ok(None) };
        if let Some(kept) = self.kept.lock().links.get(key).cloned() {
            return Ok(Some(kept));
        }
        let params = json!([Lotus(key.0.clone())]);
        let parent = Link::of(&self.rpc.call::<TipSet>("ChainGetTipSet", params).await?);
        if parent.at.epoch >= link.at.epoch || parent.at.key != *key {
            return Err(ChainError::new(ChainErrorKind::Malformed, "walk to parent")
                .with("tipset", &link.at.key)
                .with("parent", &parent.at.key));
        }
        self.kept.lock().insert(parent.clone());
        Ok(Some(parent))
    }
}

/// The change between two chains that have nothing in common.
fn unrelated(from: &Link, to: &Link) -> Vec<HeadChange> {
    vec![HeadChange::Revert(from.at.clone()), HeadChange::Apply(to.at.clone())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use cid::Cid;
    use damocles_core::{CommP, Epoch};

    fn key(n: u8) -> TipsetKey {
        TipsetKey(vec![cid(n)])
    }

    fn cid(n: u8) -> Cid {
        CommP([n; 32]).cid()
    }

    fn link(n: u8, epoch: i64, parent: Option<u8>) -> Link {
        Link { at: TipsetRef { epoch: Epoch(epoch), key: key(n) }, parents: parent.map(key) }
    }

    fn texts(changes: &[HeadChange]) -> Vec<(char, i64)> {
        let text = |c: &HeadChange| match c {
            HeadChange::Apply(t) => ('+', t.epoch.0),
            HeadChange::Revert(t) => ('-', t.epoch.0),
        };
        changes.iter().map(text).collect()
    }

    fn heads() -> Heads {
        // Nothing listens there: these walks never leave the kept tipsets.
        let rpc = RpcClient::new("http://127.0.0.1:1".parse().unwrap()).unwrap();
        Heads::new(Arc::new(rpc), Duration::from_secs(1), Duration::from_secs(20))
    }

    #[tokio::test]
    async fn ways_cross_null_rounds_and_forks() {
        let heads = heads();
        let chain = [link(1, 1, None), link(2, 2, Some(1)), link(3, 5, Some(2)), link(4, 6, Some(3))];
        let fork = [link(13, 4, Some(2)), link(14, 7, Some(13))];
        for l in chain.iter().chain(&fork) {
            heads.shared.kept.lock().insert(l.clone());
        }
        let way = async |a: &Link, b: &Link| texts(&heads.shared.way(a, b).await.unwrap());
        assert_eq!(way(&chain[0], &chain[3]).await, [('+', 2), ('+', 5), ('+', 6)]);
        assert_eq!(way(&chain[3], &fork[1]).await, [('-', 6), ('-', 5), ('+', 4), ('+', 7)]);
        assert_eq!(way(&chain[3], &chain[1]).await, [('-', 6), ('-', 5)]);
        assert_eq!(way(&chain[3], &link(99, 3, None)).await, [('-', 6), ('+', 3)], "another chain");
        let mut long = link(1, 1, None);
        for epoch in 2..=1200 {
            let mut digest = [9; 32];
            digest[..8].copy_from_slice(&i64::to_le_bytes(epoch));
            let at = TipsetRef { epoch: Epoch(epoch), key: TipsetKey(vec![CommP(digest).cid()]) };
            long = Link { at, parents: Some(long.at.key) };
            heads.shared.kept.lock().insert(long.clone());
        }
        assert_eq!(way(&chain[0], &long).await, [('-', 1), ('+', 1200)], "too long a way");
        assert!(heads.shared.way(&chain[0], &link(98, 9, Some(97))).await.is_err(), "the node is away");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        for i in 0..(KEPT + 10) {
            let bytes = u32::try_from(i).unwrap().to_le_bytes();
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&bytes);
            let key = TipsetKey(vec![CommP(digest).cid()]);
            kept.insert(Link { at: TipsetRef { epoch: Epoch(0), key }, parents: None });
        }
        assert_eq!((kept.links.len(), kept.order.len()), (KEPT, KEPT));
    }
}
