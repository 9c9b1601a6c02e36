//! Keeping the head current.

use super::{
    link::{Head, Kept, Link},
    source::{HeadSource, News},
    way::{Astray, LONGEST_WAY, contradiction},
};
use crate::rpc::FeedError;
use damocles_core::{
    CancellationToken,
    chain::{ChainError, TipsetKey},
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

/// After so many polls it is tried again whether the node offers channels by now.
const POLLS: u32 = 60;

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between two questions for the head, at a node that does not tell of it by itself.
    pub(crate) poll_every: Duration,
    /// For news, before the head is asked for all the same.
    pub(crate) silence: Duration,
    /// After a first failure.
    pub(crate) first_delay: Duration,
    /// After many.
    pub(crate) last_delay: Duration,
}

impl Pace {
    pub(crate) fn new(poll_every: Duration, silence: Duration) -> Self {
        Self { poll_every, silence, first_delay: Duration::from_millis(100), last_delay: Duration::from_secs(10) }
    }

    pub(super) fn longer(&self, delay: Duration) -> Duration {
        self.last_delay.min(delay * 2)
    }
}

/// Waits so long, and lets others work if that is no time at all.
pub(super) async fn pause(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        sleep(time).await;
    }
}

/// What a head that was told is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Another head than was known.
    New,
    /// Nothing new.
    Known,
    /// A head that lies behind on the same chain. It is believed if it is told again.
    Doubtful,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) source: Arc<dyn HeadSource>,
    pace: Pace,
    head: watch::Sender<Option<Head>>,
    pub(super) kept: Mutex<Kept>,
    doubted: Mutex<Option<TipsetKey>>,
    started: AtomicBool,
    cancel: CancellationToken,
}

impl Shared {
    pub(super) fn new(source: Arc<dyn HeadSource>, pace: Pace, cancel: CancellationToken) -> Self {
        let (kept, doubted) = (Mutex::new(Kept::default()), Mutex::new(None));
        Self { source, pace, head: watch::Sender::new(None), kept, doubted, started: AtomicBool::new(false), cancel }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Head>> {
        self.head.subscribe()
    }

    /// Starts the subscription, once.
    pub(super) fn start(self: &Arc<Self>) {
        if !self.started.swap(true, Ordering::AcqRel) {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                let cancel = shared.cancel.clone();
                cancel.run_until_cancelled(shared.follow()).await;
            });
        }
    }

    /// Keeps `head` current for ever.
    async fn follow(&self) {
        let mut delay = self.pace.first_delay;
        loop {
            let end = match self.source.subscribe().await {
                Ok(mut news) => self.listen(news.as_mut(), &mut delay).await,
                Err(end) => Some(end),
            };
            match end {
                None => warn!("the node's head moves and its subscription is silent, connecting again"),
                Some(FeedError::Unsupported(e)) => {
                    debug!(error = e.chain(), "the node offers no channels, its head is polled");
                    self.poll().await;
                    continue;
                }
                Some(FeedError::Lost(e)) => warn!(error = e.chain(), "the node's head is lost, connecting again"),
            }
            pause(delay).await;
            delay = self.pace.longer(delay);
            // Whoever waits for heads need not wait until the subscription comes back.
            self.ask_and_warn().await;
        }
    }

    /// Listens until the subscription ends; none if it is only silent.
    async fn listen(&self, news: &mut dyn News, delay: &mut Duration) -> Option<FeedError> {
        let mut sure = true;
        loop {
            let wait = if sure { self.pace.silence } else { self.pace.silence.min(*delay) };
            match news.next(wait).await {
                Ok(Some(links)) => {
                    *delay = self.pace.first_delay;
                    let mut kept = self.kept.lock();
                    links.into_iter().for_each(|link| kept.learn(link));
                }
                Ok(None) if sure => {
                    // A quiet chain and a dead subscription sound the same.
                    match self.ask_and_warn().await {
                        Some(Told::New) => return None,
                        told => sure = told != Some(Told::Doubtful),
                    }
                    continue;
                }
                Ok(None) => *delay = self.pace.longer(*delay),
                Err(end) => return Some(end),
            }
            sure = matches!(self.ask_and_warn().await, Some(Told::New | Told::Known));
        }
    }

    async fn poll(&self) {
        for _ in 0..POLLS {
            self.ask_and_warn().await;
            pause(self.pace.poll_every).await;
        }
    }

    async fn ask_and_warn(&self) -> Option<Told> {
        match self.ask().await {
            Ok(told) => Some(told),
            Err(e) => {
                warn!(error = e.chain(), "the head cannot be read");
                None
            }
        }
    }

    /// Asks for the head.
    async fn ask(&self) -> Result<Told, ChainError> {
        let told = self.source.head().await?;
        if let Err(Astray::Contradiction(e) | Astray::Failed(e)) = self.check(&told.link).await {
            return Err(e);
        }
        let known = self.head.borrow().clone();
        if let Some(known) = known {
            if known.link == told.link {
                *self.doubted.lock() = None;
                return Ok(Told::Known);
            }
            if told.link.at.epoch < known.link.at.epoch && self.is_behind(&told.link, &known.link).await {
                if told.from != known.from {
                    // Another node that has yet to see what was seen already: nothing was reverted.
                    return Ok(Told::Known);
                }
                // No node goes back on its own chain by itself. An old answer looks the same.
                let mut doubted = self.doubted.lock();
                if doubted.as_ref() != Some(&told.link.at.key) {
                    *doubted = Some(told.link.at.key);
                    return Ok(Told::Doubtful);
                }
            }
        }
        *self.doubted.lock() = None;
        self.head.send_replace(Some(told));
        Ok(Told::New)
    }

    #[cfg(test)]
    pub(super) fn head_is(&self, head: Head) {
        self.head.send_replace(Some(head));
    }

    /// Refuses a head that contradicts what is known: its height decides how far others walk, and what is final.
    async fn check(&self, told: &Link) -> Result<(), Astray> {
        let key = &told.at.key;
        let kept = self.kept.lock().get(key);
        if kept.as_ref() == Some(told) {
            return Ok(());
        }
        if kept.is_some() {
            // Which of both is wrong says a third answer.
            self.kept.lock().remove(key);
            let again = self.ask_again(key).await?;
            if again != *told {
                return Err(contradiction(key, "it was told with other heights or parents"));
            }
        }
        match self.parent(told).await {
            Err(contradiction @ Astray::Contradiction(_)) => Err(contradiction),
            // What came before a head may be known to nobody who can be asked now.
            _ => Ok(()),
        }
    }

    /// Whether one tipset is an ancestor of the other, and not further than the longest way.
    pub(super) async fn is_behind(&self, old: &Link, new: &Link) -> bool {
        let mut at = new.clone();
        for _ in 0..LONGEST_WAY {
            if at.at.epoch <= old.at.epoch {
                break;
            }
            match self.parent(&at).await {
                Ok(Some(parent)) => at = parent,
                _ => return false,
            }
        }
        at.at == old.at
    }
}
