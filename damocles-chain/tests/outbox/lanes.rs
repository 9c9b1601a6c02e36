//! Several senders of one role, until everything is on chain.

use crate::home::Home;
use damocles_chain::{Fees, Lanes, OutboxState, Senders};
use damocles_core::{
    ActorId, CancellationToken, DeadlineIndex, PartitionIndex, SectorNumber,
    chain::{Call, ChainClient as _, DeclareFaultsRecovered, PartitionSectors, SubmitKey},
};
use futures::future::join_all;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const KEYS: u64 = 200;

fn key(n: u64) -> SubmitKey {
    SubmitKey(format!("recover/1000/{n}"))
}

fn call(n: u64) -> Call {
    let part = PartitionSectors {
        deadline: DeadlineIndex(0),
        partition: PartitionIndex(0),
        sectors: [SectorNumber(n)].into_iter().collect(),
    };
    Call::DeclareFaultsRecovered(DeclareFaultsRecovered { miner: ActorId(1000), recoveries: vec![part] })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lanes_of_a_role_share_its_messages_and_each_key_lands_once_by_its_first_sender() {
    let home = Home::new(3, 100, Fees::default(), Arc::new(|_| {})).await;
    home.devnet.mine(5).unwrap();
    let database = home.database().await;
    let [default, a, b] = [0, 1, 2].map(|n| home.senders[n].clone());
    let with_post =
        |post: &[_]| Senders { post: Some(Lanes::new(post.to_vec()).unwrap()), ..Senders::all(default.clone()) };
    // The first process records all, and ends before it sends anything.
    let first = home.client_of(&database, with_post(&[a.clone(), b.clone()])).await.unwrap();
    join_all((0..KEYS).map(async |n| first.submit(&key(n), &call(n)).await.unwrap())).await;
    let mut chosen = BTreeMap::new();
    for n in 0..KEYS {
        chosen.insert(key(n).0, first.sender_of(&key(n), &call(n)).await.unwrap());
    }
    drop(first);
    // The next one knows only one of the two as a sender of proofs.
    let client = home.client_of(&database, with_post(std::slice::from_ref(&b))).await.unwrap();
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let running = Arc::clone(&client);
    tokio::spawn(async move { running.run(cancel).await });
    let mut entries = Vec::new();
    for _ in 0..300 {
        home.devnet.mine(1).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        entries = client.outbox().await.unwrap();
        if entries.iter().all(|entry| entry.landed.is_some()) {
            break;
        }
    }
    let mut nonces: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for entry in &entries {
        assert!(entry.landed.is_some() && entry.state == OutboxState::Signed, "{entry:?}");
        let sender = entry.sender.clone().unwrap();
        assert_eq!(Some(sender.as_str()), chosen.get(&entry.key.0).map(|sender| sender.as_str()));
        assert!(nonces.entry(sender).or_default().insert(entry.nonce.unwrap()));
    }
    for sender in [&a, &b] {
        let of = &nonces[sender.as_str()];
        assert!((70..=130).contains(&of.len()), "{}", of.len());
        assert_eq!(of.last(), Some(&(of.len() as u64 - 1)), "no gap");
    }
    let landed = home.devnet.call("Devnet.Messages", json!([null])).unwrap();
    let ours =
        landed.as_array().unwrap().iter().filter(|m| [a.as_str(), b.as_str()].contains(&m["From"].as_str().unwrap()));
    assert_eq!(ours.count() as u64, KEYS);
}
