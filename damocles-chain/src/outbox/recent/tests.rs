//! A node that hangs, over HTTP.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed helper is a failed test")]

use super::*;
use crate::{
    rpc::{Endpoint, RpcOptions},
    venus::testing::{Arrived, FakeServer},
};
use std::time::Duration;
use tokio::{sync::Notify, task::yield_now};

const MESSAGES: &str = "Filecoin.ChainGetParentMessages";

/// A node that has no messages, and hangs where it is asked about one block until it is told to go on.
struct Hanging {
    rpc: Arc<RpcClient>,
    recent: Arc<Recent>,
    /// What was asked, as it came.
    asked: Arc<Mutex<Vec<String>>>,
    go_on: Arc<Notify>,
    _server: FakeServer,
}

fn tipset(n: u8) -> TipsetKey {
    TipsetKey(vec![damocles_core::CommP([n; 32]).cid()])
}

impl Hanging {
    async fn at(block: &TipsetKey, patience: Duration) -> Self {
        let (asked, go_on): (Arc<Mutex<Vec<String>>>, Arc<Notify>) = Default::default();
        let (seen, waits, block) = (Arc::clone(&asked), Arc::clone(&go_on), block.0[0].to_string());
        let answering = move |arrived: Arrived| {
            seen.lock().push(arrived.text.clone());
            let (waits, hangs) = (Arc::clone(&waits), arrived.text.contains(&block) && arrived.text.contains(MESSAGES));
            async move {
                if hangs {
                    waits.notified().await;
                }
                Some(json!({"jsonrpc": "2.0", "id": 1, "result": null}).to_string())
            }
            .boxed()
        };
        let server = FakeServer::without_sockets(Arc::new(answering)).await.unwrap();
        let mut options = RpcOptions::default();
        options.timeouts.read = patience;
        options.timeouts.slow = patience;
        let endpoint: Endpoint = server.url().parse().unwrap();
        let rpc = Arc::new(RpcClient::with_endpoints(vec![endpoint], options).unwrap());
        Self { rpc, recent: Arc::new(Recent::new(BTreeSet::new())), asked, go_on, _server: server }
    }

    fn ask(&self, child: &TipsetKey) -> tokio::task::JoinHandle<Answer> {
        let (rpc, recent, child) = (Arc::clone(&self.rpc), Arc::clone(&self.recent), child.clone());
        tokio::spawn(async move { recent.ran(&rpc, &child).await })
    }

    fn asked_for(&self, child: &TipsetKey) -> usize {
        let block = child.0[0].to_string();
        self.asked.lock().iter().filter(|text| text.contains(MESSAGES) && text.contains(&block)).count()
    }

    async fn until_asked(&self, child: &TipsetKey, times: usize) {
        while self.asked_for(child) < times {
            yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_request_that_hangs_holds_up_nobody_else_and_is_made_once() {
    let (slow, quick) = (tipset(1), tipset(2));
    let node = Hanging::at(&slow, Duration::from_secs(600)).await;
    let first = node.ask(&slow);
    node.until_asked(&slow, 1).await;
    let others = [(); 5].map(|()| node.ask(&slow));
    // Somebody else's question is answered meanwhile.
    assert!(node.ask(&quick).await.unwrap().unwrap().is_empty());
    assert!(!first.is_finished() && others.iter().all(|other| !other.is_finished()));
    // Whoever asked first goes away, as a pass does that a proof interrupts.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    node.go_on.notify_one();
    for other in others {
        assert!(other.await.unwrap().is_ok());
    }
    assert_eq!(node.asked_for(&slow), 1, "by all together");
    // What was read is kept.
    assert!(node.ask(&slow).await.unwrap().is_ok());
    assert_eq!(node.asked_for(&slow), 1);
}

#[tokio::test]
async fn all_who_wait_learn_at_once_that_the_node_does_not_answer_and_the_next_asks_again() {
    let slow = tipset(1);
    let node = Hanging::at(&slow, Duration::from_millis(300)).await;
    let waiting = [(); 4].map(|()| node.ask(&slow));
    for answer in waiting {
        let error = answer.await.unwrap().unwrap_err();
        assert!(is_timeout(&error), "{}", error.chain());
        assert_eq!(told(error).kind(), ChainErrorKind::Unavailable);
    }
    assert_eq!(node.asked_for(&slow), 1, "one time out for all");
    let again = node.ask(&slow);
    node.until_asked(&slow, 2).await;
    node.go_on.notify_waiters();
    assert!(again.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_asked_for_anew() {
    let slow = tipset(1);
    let node = Hanging::at(&slow, Duration::from_secs(600)).await;
    let only = node.ask(&slow);
    node.until_asked(&slow, 1).await;
    only.abort();
    assert!(only.await.unwrap_err().is_cancelled());
    let next = node.ask(&slow);
    node.until_asked(&slow, 2).await;
    node.go_on.notify_waiters();
    assert!(next.await.unwrap().is_ok());
    assert_eq!(node.recent.receipts.lock().asked.values().filter(|asked| asked.upgrade().is_some()).count(), 0);
}
