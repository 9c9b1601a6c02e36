mod replay;

use super::{
    HeadSource, Heads, Pace, Subscriber,
    link::{Head, KEPT, Kept, Link},
    source::News,
    way::Astray,
};
use crate::rpc::FeedError;
use async_trait::async_trait;
use cid::Cid;
use damocles_core::{
    CommP, Epoch,
    chain::{ChainError, ChainErrorKind, HeadChange, TipsetKey, TipsetRef},
};
use futures::StreamExt as _;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

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

#[tokio::test]
async fn ways_cross_null_rounds_and_forks() {
    let chain = [link(1, 1, None), link(2, 2, Some(1)), link(3, 5, Some(2)), link(4, 6, Some(3))];
    let fork = [link(13, 4, Some(2)), link(14, 7, Some(13))];
    let mut long = vec![link(1, 1, None)];
    for epoch in 2..=1200 {
        let mut digest = [9; 32];
        digest[..8].copy_from_slice(&i64::to_le_bytes(epoch));
        let at = TipsetRef { epoch: Epoch(epoch), key: TipsetKey(vec![CommP(digest).cid()]) };
        let parents = long.last().map(|last| last.at.key.clone());
        long.push(Link { at, parents });
    }
    let all: Vec<Link> = [&chain[..], &fork, &long, &[link(99, 3, None)]].concat();
    let heads = fixed(&all);
    let way = async |a: &Link, b: &Link| texts(&heads.shared.way(a, b).await.unwrap());
    assert_eq!(way(&chain[0], &chain[3]).await, [('+', 2), ('+', 5), ('+', 6)]);
    assert_eq!(way(&chain[3], &fork[1]).await, [('-', 6), ('-', 5), ('+', 4), ('+', 7)]);
    assert_eq!(way(&chain[3], &chain[1]).await, [('-', 6), ('-', 5)]);
    assert_eq!(way(&chain[3], &link(99, 3, None)).await, [('-', 6), ('+', 3)], "another chain");
    assert_eq!(way(&chain[0], &long[1199]).await, [('-', 1), ('+', 1200)], "too long a way");
    assert!(heads.shared.way(&chain[0], &link(98, 9, Some(97))).await.is_err(), "nobody has its parent");
}

#[tokio::test]
async fn a_tipset_that_is_its_own_parent_is_no_way() {
    let ring = [link(1, 10, Some(1)), link(2, 20, Some(3)), link(3, 20, Some(2))];
    let heads = fixed(&ring);
    for l in &ring {
        heads.shared.kept.lock().insert(l.clone());
    }
    for l in &ring {
        assert!(matches!(heads.shared.parent(l).await, Err(Astray::Contradiction(_))));
        assert!(!heads.shared.is_behind(&link(4, 5, None), l).await);
        assert!(heads.shared.way(l, &link(4, 5, None)).await.is_err());
    }
}

#[tokio::test]
async fn a_wrong_height_that_was_kept_is_asked_for_again() {
    let chain = [link(1, 1, None), link(2, 2, Some(1)), link(3, 3, Some(2)), link(4, 4, Some(3)), link(5, 5, Some(4))];
    for wrong in [-7, 0, 4, 5, 10_000_000] {
        let heads = fixed(&chain);
        heads.shared.kept.lock().insert(link(3, wrong, Some(2)));
        // A walk that was led past what both have is not believed, and the next one finds the way.
        let mut way = heads.shared.way(&chain[1], &chain[4]).await;
        if way.is_err() {
            way = heads.shared.way(&chain[1], &chain[4]).await;
        }
        assert_eq!(texts(&way.unwrap()), [('+', 3), ('+', 4), ('+', 5)], "{wrong}");
        assert_eq!(heads.shared.parent(&chain[3]).await.unwrap(), Some(chain[2].clone()), "{wrong}");
    }
}

#[tokio::test]
async fn what_was_seen_is_not_overwritten_by_what_is_told() {
    let chain = [link(1, 1, None), link(2, 2, Some(1)), link(3, 3, Some(2))];
    let heads = fixed(&chain);
    assert_eq!(heads.shared.parent(&chain[2]).await.unwrap(), Some(chain[1].clone()));
    let mut kept = heads.shared.kept.lock();
    kept.insert(link(3, 9, Some(2)));
    kept.learn(link(3, 9, Some(2)));
    assert_eq!(kept.get(&key(3)), Some(chain[2].clone()));
    // Of what is told by the way only that is kept which fits.
    kept.learn(link(4, 3, Some(3)));
    kept.learn(link(5, 7, Some(99)));
    kept.learn(link(6, 4, Some(3)));
    assert_eq!([4, 5, 6].map(|n| kept.get(&key(n)).is_some()), [false, false, true]);
}

#[tokio::test]
async fn a_tipset_that_is_not_found_at_first_is_no_reason_to_leave_its_chain() {
    let chain = [link(1, 1, None), link(2, 2, Some(1)), link(3, 3, Some(2))];
    for (misses, told) in [(7, vec![('+', 2), ('+', 3)]), (1000, vec![('-', 1), ('+', 3)])] {
        let source = Fixed::new(&chain);
        source.misses.store(misses, Ordering::SeqCst);
        let heads = Heads::new(Arc::new(source), AT_ONCE);
        let subscriber = Subscriber { last: Some(chain[0].clone()), ..heads.subscriber() };
        heads.shared.head_is(Head { link: chain[2].clone(), from: 0 });
        let changes: Vec<_> = subscriber.stream().take(2).collect().await;
        assert_eq!(texts(&changes), told);
    }
}

#[tokio::test]
async fn a_last_head_with_a_wrong_height_is_told_anew() {
    let chain = [link(1, 50, None), link(2, 51, Some(1)), link(3, 52, Some(2)), link(4, 53, Some(3))];
    let heads = fixed(&chain);
    let subscriber = Subscriber { last: Some(link(2, 7, Some(1))), ..heads.subscriber() };
    heads.shared.head_is(Head { link: chain[3].clone(), from: 0 });
    let changes: Vec<_> = subscriber.stream().take(4).collect().await;
    assert_eq!(texts(&changes), [('-', 7), ('+', 51), ('+', 52), ('+', 53)]);
}

/// A node that tells tipsets by their keys, the first of them some time late, and nothing else.
#[derive(Debug)]
struct Fixed {
    links: HashMap<TipsetKey, Link>,
    misses: AtomicU32,
}

impl Fixed {
    fn new(links: &[Link]) -> Self {
        let links = links.iter().map(|link| (link.at.key.clone(), link.clone())).collect();
        Self { links, misses: AtomicU32::new(0) }
    }
}

#[async_trait]
impl HeadSource for Fixed {
    async fn head(&self) -> Result<Head, ChainError> {
        Err(ChainError::new(ChainErrorKind::Unavailable, "read head"))
    }

    async fn tipset(&self, key: &TipsetKey) -> Result<Link, ChainError> {
        let missing = || ChainError::new(ChainErrorKind::NotFound, "read tipset");
        if self.misses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(missing());
        }
        self.links.get(key).cloned().ok_or_else(missing)
    }

    fn doubt(&self, _: &TipsetKey) {}

    async fn subscribe(&self) -> Result<Box<dyn News>, FeedError> {
        Err(FeedError::Lost(ChainError::new(ChainErrorKind::Unavailable, "subscribe")))
    }
}

const AT_ONCE: Pace = Pace {
    poll_every: Duration::from_secs(1),
    silence: Duration::from_secs(20),
    first_delay: Duration::ZERO,
    last_delay: Duration::ZERO,
};

fn fixed(links: &[Link]) -> Heads {
    Heads::new(Arc::new(Fixed::new(links)), AT_ONCE)
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
