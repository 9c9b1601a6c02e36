mod replay;

use super::{
    Heads, Pace,
    link::{KEPT, Kept, Link},
};
use crate::rpc::RpcClient;
use cid::Cid;
use damocles_core::{
    CommP, Epoch,
    chain::{ChainErrorKind, HeadChange, TipsetKey, TipsetRef},
};
use std::{sync::Arc, time::Duration};

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
    Heads::new(Arc::new(rpc), Pace::new(Duration::from_secs(1), Duration::from_secs(20)))
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

#[tokio::test]
async fn a_tipset_that_is_its_own_parent_is_no_way() {
    let heads = heads();
    let ring = [link(1, 10, Some(1)), link(2, 20, Some(3)), link(3, 20, Some(2))];
    for l in &ring {
        heads.shared.kept.lock().insert(l.clone());
    }
    for l in &ring {
        let error = heads.shared.parent(l).await.unwrap_err();
        assert_eq!(error.kind(), ChainErrorKind::Malformed);
        assert!(!heads.shared.is_behind(&link(4, 5, None), l).await);
        assert!(heads.shared.way(l, &link(4, 5, None)).await.is_err());
    }
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
