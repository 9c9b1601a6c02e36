//! Workers that introduce themselves.

use crate::support::Manager;
use damocles_core::Timestamp;
use damocles_seal::{
    rpc::{
        RpcClient,
        damocles::{ListWorkers, RemoveWorker, ThreadCounts},
        manager_handler,
        venus::{WorkerInfo, WorkerPing, WorkerSummary},
    },
    service::ServiceErrorKind,
};
use std::{sync::Arc, time::Duration};

fn client(manager: &Manager) -> RpcClient {
    RpcClient::in_process(Arc::new(manager_handler(manager.service.clone())))
}

fn info(name: &str, running: u64) -> WorkerInfo {
    WorkerInfo {
        name: name.to_owned(),
        dest: "10.0.0.1:17890".to_owned(),
        version: "1.2.3".to_owned(),
        summary: WorkerSummary { threads: 3, running, errors: 1, ..WorkerSummary::default() },
        last_error: Some("no space is left".to_owned()),
    }
}

#[tokio::test]
async fn the_last_word_of_each_worker_is_kept() {
    let mut manager = Manager::start().await;
    let ping = async |manager: &Manager, info: WorkerInfo| client(manager).ask::<WorkerPing>(&(info,)).await;
    ping(&manager, info("b", 1)).await.unwrap();
    ping(&manager, info("a", 1)).await.unwrap();
    manager.clock.advance(Duration::from_secs(30));
    ping(&manager, info("b", 2)).await.unwrap();
    for bad in ["", &"n".repeat(5000)] {
        assert_eq!(ping(&manager, info(bad, 1)).await.unwrap_err().kind(), ServiceErrorKind::Refused);
    }
    // What another version recorded tells at least when it was heard from.
    manager.service.heard_from("c", "x", "no JSON").await.unwrap();
    manager.restart().await;
    let client = client(&manager);
    let workers = client.ask::<ListWorkers>(&[]).await.unwrap();
    let seen: Vec<_> = workers.iter().map(|w| (w.name.as_str(), w.threads.running, w.last_ping)).collect();
    let (early, late) = (Timestamp(1_000_000), Timestamp(1_030_000));
    assert_eq!(seen, [("a", 1, early), ("b", 2, late), ("c", 0, late)]);
    let b = workers.into_iter().nth(1).unwrap();
    let threads = ThreadCounts { all: 3, running: 2, errors: 1, ..ThreadCounts::default() };
    assert_eq!((b.address.as_str(), b.version.as_str(), b.threads), ("10.0.0.1:17890", "1.2.3", threads));
    assert_eq!(b.last_error.as_deref(), Some("no space is left"));
    assert!(client.ask::<RemoveWorker>(&("b".to_owned(),)).await.unwrap());
    assert!(!client.ask::<RemoveWorker>(&("b".to_owned(),)).await.unwrap());
    assert_eq!(client.ask::<ListWorkers>(&[]).await.unwrap().len(), 2);
}
