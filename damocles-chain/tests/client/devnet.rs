//! The client against the devnet: one suite, over HTTP and over WebSocket.

use crate::{
    server::{Reply, Server},
    setup::{Home, client_of_all, recover},
};
use damocles_chain::{
    LotusClient, LotusConfig, OutboxState, Senders,
    devnet::{Devnet, DevnetConfig, DevnetRpc},
    lotus_json::from_core,
    rpc::HealthState,
};
use damocles_core::{
    ActorId, Address, Context, DeadlineIndex, Epoch, SectorId, SectorNumber, SectorSize,
    chain::{
        Call, ChainClient as _, ChainClientExt as _, ChainError, ChainErrorKind, CreateMiner, HeadChange, MessageState,
        OnChain, RandomnessKind, SubmitKey, TipsetRef, Transfer,
    },
    conformance,
    testing::FakeVerifier,
};
use futures::{
    SinkExt as _, StreamExt as _,
    channel::mpsc::{UnboundedReceiver, UnboundedSender},
};
use fvm_shared::econ::TokenAmount;
use serde_json::json;
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How requests travel to the node.
#[derive(Clone, Copy, Debug)]
enum Over {
    Http,
    WebSocket,
}

impl Over {
    fn url(self, server: &Server) -> String {
        match self {
            Self::Http => server.url.clone(),
            Self::WebSocket => server.ws_url(),
        }
    }
}

struct Net {
    over: Over,
    devnet: Arc<Devnet>,
    server: Server,
    away: Arc<AtomicBool>,
    home: Home,
}

/// Serves a devnet; as long as `away` is set, no message reaches it.
async fn serve(devnet: &Arc<Devnet>, away: &Arc<AtomicBool>) -> Server {
    let rpc = DevnetRpc::new(Arc::clone(devnet));
    let (posts, away, is_away) = (rpc.clone(), Arc::clone(away), Arc::clone(away));
    let handler = move |body: String| {
        let rpc = posts.clone();
        let lost = body.contains("Filecoin.MpoolPush") && away.load(Ordering::SeqCst);
        Box::pin(async move {
            if lost {
                return Reply::text(502, "");
            }
            Reply::text(200, rpc.handle(&body).await.unwrap_or_default())
        }) as _
    };
    let gone = Arc::clone(&is_away);
    let channels = move |incoming: UnboundedReceiver<String>, outgoing: UnboundedSender<String>| {
        let (rpc, gone) = (rpc.clone(), Arc::clone(&gone));
        // The connection ends with a message that is to be lost.
        let incoming = incoming.take_while(move |text| {
            let lost = text.contains("Filecoin.MpoolPush") && gone.load(Ordering::SeqCst);
            std::future::ready(!lost)
        });
        Box::pin(async move {
            let _ = rpc.serve_ws(incoming, outgoing.sink_map_err(|_| ())).await;
        }) as _
    };
    Server::start(Arc::new(handler), Some(Arc::new(channels))).await
}

impl Net {
    async fn new(over: Over) -> Self {
        let home = Home::new();
        let fund = [&home.owner, &home.worker].map(|a| (from_core(a).unwrap(), TokenAmount::from_whole(10_000)));
        let config =
            DevnetConfig { network_name: "devnet-fake-client".into(), fund: fund.to_vec(), ..DevnetConfig::default() };
        let devnet = Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap();
        let away = Arc::default();
        let server = serve(&devnet, &away).await;
        Self { over, devnet, server, away, home }
    }

    fn url(&self) -> String {
        self.over.url(&self.server)
    }

    async fn client(&self) -> (Arc<LotusClient>, DropGuard) {
        let client = self.home.client(&self.url()).await;
        let cancel = CancellationToken::new();
        let (running, token) = (Arc::clone(&client), cancel.clone());
        tokio::spawn(async move { running.run(token).await });
        (client, cancel.drop_guard())
    }

    /// Mines while something is waited for.
    async fn mine_until<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        for _ in 0..500 {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(Duration::from_millis(10)) => drop(self.devnet.mine(1).unwrap()),
            }
        }
        let client = self.home.client(&self.url()).await;
        panic!("not done after 500 epochs: {:?}, called {:?}", client.outbox().await, self.server.called.lock());
    }

    async fn create_miner(&self, client: &LotusClient) -> ActorId {
        let (owner, worker) = (self.home.owner.clone(), self.home.worker.clone());
        let call = Call::CreateMiner(CreateMiner::new(owner, worker, SectorSize::KiB2));
        let id = client.submit(&SubmitKey("create".into()), &call).await.unwrap();
        let receipt = self.mine_until(client.landed(&id, 2, &Context::detached())).await.unwrap();
        assert!(receipt.is_success(), "{receipt:?}");
        receipt.created.unwrap()
    }
}

async fn the_contract_holds(net: Net) {
    let (client, _running) = net.client().await;
    let miner = net.create_miner(&client).await;
    assert_eq!(client.miner(&client.head().await.unwrap(), miner).await.unwrap().sector_size, SectorSize::KiB2);
    let landed = async || {
        let all = client.raw("Devnet.Messages", json!([Address::from_actor(miner)])).await.unwrap();
        all.as_array().unwrap().len()
    };
    conformance::chain::all(client.as_ref(), miner, || drop(net.devnet.mine(1).unwrap()), landed).await;
}

async fn a_refusal_of_the_actor_is_a_receipt_with_its_words(net: Net) {
    let (client, _running) = net.client().await;
    let miner = net.create_miner(&client).await;
    let id = client.submit(&SubmitKey("recover".into()), &recover(miner, 5)).await.unwrap();
    let receipt = net.mine_until(client.landed(&id, 1, &Context::detached())).await.unwrap();
    assert_ne!(receipt.exit_code, 0);
    assert!(receipt.error.is_some_and(|e| !e.is_empty()));
    let head = client.head().await.unwrap();
    let sector = SectorId::new(miner, SectorNumber(5));
    assert_eq!(client.sector(&head, sector).await.unwrap(), OnChain::Absent);
    assert!(client.balance(&net.home.owner).await.unwrap() < damocles_core::TokenAmount::from_fil(10_000));
}

async fn lost_connections_lose_no_tipset(net: Net) {
    let (client, _running) = net.client().await;
    let mut changes = client.head_changes();
    let Some(HeadChange::Apply(first)) = changes.next().await else { panic!("the head comes first") };
    let mut seen = vec![first.epoch.0];
    for _ in 0..3 {
        net.server.cut();
        net.devnet.mine(5).unwrap();
        let top = net.devnet.head().epoch.0;
        while *seen.last().unwrap() < top {
            match changes.next().await.unwrap() {
                HeadChange::Apply(t) => seen.push(t.epoch.0),
                HeadChange::Revert(t) => panic!("nothing was reverted: {t:?}"),
            }
        }
    }
    let expected: Vec<i64> = (first.epoch.0..=net.devnet.head().epoch.0).collect();
    assert_eq!(seen, expected);
}

async fn a_restarted_client_finishes_what_is_in_its_outbox(net: Net) {
    let miner = {
        let (client, _running) = net.client().await;
        net.create_miner(&client).await
    };
    let id = {
        // This one never runs.
        let client = net.home.client(&net.url()).await;
        client.submit(&SubmitKey("later".into()), &recover(miner, 5)).await.unwrap()
    };
    let (client, _running) = net.client().await;
    net.mine_until(client.landed(&id, 1, &Context::detached())).await.unwrap();
    assert!(matches!(client.message(&id, 1).await.unwrap(), MessageState::Landed(_)));
}

async fn a_message_whose_first_push_was_lost_lands(net: Net) {
    let (client, _running) = net.client().await;
    let miner = net.create_miner(&client).await;
    net.away.store(true, Ordering::SeqCst);
    let id = client.submit(&SubmitKey("lost".into()), &recover(miner, 5)).await.unwrap();
    let failed = async {
        while client.outbox().await.unwrap()[1].error.is_none() {
            tokio::task::yield_now().await;
        }
    };
    net.mine_until(failed).await;
    assert_eq!(client.outbox().await.unwrap()[1].state, OutboxState::Signed);
    net.away.store(false, Ordering::SeqCst);
    net.mine_until(client.landed(&id, 1, &Context::detached())).await.unwrap();
}

async fn senders_by_class_are_used(net: Net) {
    let senders = Senders { post: Some(net.home.owner.clone().into()), ..Senders::all(net.home.worker.clone()) };
    let client = net.home.client_of(&net.url(), senders).await.unwrap();
    let cancel = CancellationToken::new();
    let _guard = cancel.clone().drop_guard();
    let running = Arc::clone(&client);
    tokio::spawn(async move { running.run(cancel).await });
    let miner = net.create_miner(&client).await;
    let id = client.submit(&SubmitKey("r".into()), &recover(miner, 5)).await.unwrap();
    net.mine_until(client.landed(&id, 1, &Context::detached())).await.unwrap();
    let entries = client.outbox().await.unwrap();
    assert_eq!(entries[1].sender.as_deref(), Some(net.home.owner.as_str()));
}

async fn every_read_is_answered(net: Net) {
    let (client, _running) = net.client().await;
    let miner = net.create_miner(&client).await;
    let head = client.head().await.unwrap();
    let old = client.tipset_at(&head, Epoch(head.epoch.0 - 1)).await.unwrap();
    assert_eq!(client.tipset(&old.key).await.unwrap(), old);
    assert_eq!(client.network(&head).await.unwrap().name, "devnet-fake-client");
    assert_eq!(client.network_name().await.unwrap(), "devnet-fake-client");
    assert!(!client.version().await.unwrap().version.is_empty());
    let worker = client.miner(&head, miner).await.unwrap().worker;
    assert_eq!(worker.actor_id(), Some(client.lookup_id(&head, &net.home.worker).await.unwrap()));
    assert_eq!(client.deadline(&head, miner).await.unwrap().current, head.epoch);
    assert!(client.partitions(&head, miner, DeadlineIndex(1)).await.unwrap().partitions.is_empty());
    assert!(client.sectors(&head, miner, &[SectorNumber(1)].into_iter().collect()).await.unwrap().is_empty());
    for kind in [RandomnessKind::SealTicket, RandomnessKind::InteractiveSeed, RandomnessKind::PoStChainCommit] {
        client.randomness(&head, kind, old.epoch, miner).await.unwrap();
    }
    assert!(client.available_balance(&head, miner).await.is_ok() && client.miner_power(&head, miner).await.is_ok());
    let error = client.tipset_at(&head, Epoch(head.epoch.0 + 5)).await.unwrap_err();
    assert!(error.to_string().contains(&net.url()), "{error}");
    // All of it over the one way that was asked for.
    let posts = net.server.called.lock().len();
    assert_eq!(posts == 0, matches!(net.over, Over::WebSocket), "{posts} posts");
    let metrics = client.metrics();
    assert_eq!(metrics.endpoints[0].endpoint, net.url());
    let asked = &metrics.endpoints[0].methods["Filecoin.StateMinerInfo"];
    assert!(asked.calls > 0 && asked.bytes > 100 && asked.errors.is_empty(), "{asked:?}");
}

/// What is asked again until a connection that was cut is there again.
async fn again<T>(work: impl AsyncFn() -> Result<T, ChainError>) -> T {
    loop {
        match work().await {
            Err(e) if e.kind() == ChainErrorKind::Unavailable => tokio::task::yield_now().await,
            done => return done.unwrap(),
        }
    }
}

async fn reorganisations_are_told_tipset_by_tipset(net: Net) {
    let senders = Senders::all(net.home.worker.clone());
    let mut config = LotusConfig::new(net.url().parse().unwrap(), senders);
    config.silence = Duration::from_millis(20);
    let keys = Arc::new(net.home.keys.clone());
    let client = LotusClient::connect(config, keys, net.home.database().await).await.unwrap();
    net.devnet.mine(30).unwrap();
    let rule = |kind| json!({"Method": "xrpc.ch.val", "Kind": kind, "PerMille": 300});
    let rules = [rule("DropAnswer"), rule("DuplicateAnswer")];
    client.raw("Devnet.Faults", json!([{"Seed": 7, "Rules": rules}])).await.unwrap();
    let mut changes = client.head_changes();
    let Some(HeadChange::Apply(mut tip)) = changes.next().await else { panic!("the head comes first") };
    let parent = async |of: &TipsetRef| again(async || client.tipset_at(of, Epoch(of.epoch.0 - 1)).await).await;
    let mut reverts = 0;
    for depth in [1, 3, 20, 2, 7] {
        net.devnet.call("Devnet.Fork", json!([{"Depth": depth}])).unwrap();
        net.server.cut();
        net.devnet.mine(2).unwrap();
        let head = net.devnet.head();
        while tip != head {
            match changes.next().await.unwrap() {
                HeadChange::Apply(t) => {
                    assert_eq!(parent(&t).await, tip);
                    tip = t;
                }
                HeadChange::Revert(t) => {
                    assert_eq!(t, tip);
                    tip = parent(&t).await;
                    reverts += 1;
                }
            }
        }
    }
    assert_eq!(reverts, 1 + 3 + 20 + 2 + 7, "each once");
}

async fn another_endpoint_stands_in(net: Net) {
    let second = serve(&net.devnet, &net.away).await;
    let client = client_of_all(&net.home, &[&net.url(), &net.over.url(&second)]).await;
    let mut changes = client.head_changes();
    let Some(HeadChange::Apply(first)) = changes.next().await else { panic!("the head comes first") };
    let mut last = first.epoch.0;
    let (over, devnet) = (net.over, Arc::clone(&net.devnet));
    let gone = over.url(&net.server);
    // The node is gone, with the connections to it.
    drop(net.server);
    devnet.mine(3).unwrap();
    let top = devnet.head().epoch.0;
    while last < top {
        let HeadChange::Apply(t) = changes.next().await.unwrap() else { panic!("nothing was reverted") };
        assert_eq!(t.epoch.0, last + 1);
        last = t.epoch.0;
    }
    assert_eq!(client.head().await.unwrap().epoch.0, top);
    let health = client.endpoints();
    assert_eq!((health[0].endpoint.as_str(), health[0].state), (gone.as_str(), HealthState::Away));
    assert!(health[1].preferred && health[1].state == HealthState::Ok, "{health:?}");
}

/// The suite, once for each way.
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod over_http {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Net::new(super::Over::Http).await).await;
            })*
        }

        mod over_websocket {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Net::new(super::Over::WebSocket).await).await;
            })*
        }
    };
}

suite! {
    the_contract_holds,
    a_refusal_of_the_actor_is_a_receipt_with_its_words,
    lost_connections_lose_no_tipset,
    a_restarted_client_finishes_what_is_in_its_outbox,
    a_message_whose_first_push_was_lost_lands,
    senders_by_class_are_used,
    every_read_is_answered,
    reorganisations_are_told_tipset_by_tipset,
    another_endpoint_stands_in,
}

#[tokio::test]
async fn no_message_leaves_while_no_endpoint_serves_the_network() {
    let net = Net::new(Over::Http).await;
    let lie = Arc::new(AtomicBool::new(false));
    let refusable = async || {
        let (rpc, lie) = (DevnetRpc::new(Arc::clone(&net.devnet)), Arc::clone(&lie));
        let handler = move |body: String| {
            let (rpc, lies) = (rpc.clone(), lie.load(Ordering::SeqCst));
            Box::pin(async move {
                if lies && body.contains("Filecoin.StateNetworkName") {
                    return Reply::result(json!("elsewhere"));
                }
                Reply::text(200, rpc.handle(&body).await.unwrap_or_default())
            }) as _
        };
        Server::start(Arc::new(handler), None).await
    };
    let (one, two) = (refusable().await, refusable().await);
    let client = client_of_all(&net.home, &[&one.url, &two.url]).await;
    let states = || client.endpoints().iter().map(|e| e.state).collect::<Vec<_>>();
    client.check_endpoints().await;
    assert_eq!(states(), [HealthState::Ok; 2]);
    lie.store(true, Ordering::SeqCst);
    client.check_endpoints().await;
    assert_eq!(states(), [HealthState::Refused; 2]);

    let pay = Transfer {
        to: net.home.owner.clone(),
        from: net.home.worker.clone(),
        amount: damocles_core::TokenAmount::from_fil(1),
    };
    client.submit(&SubmitKey("a".to_owned()), &Call::Send(pay)).await.unwrap();
    let cancel = CancellationToken::new();
    let _ends = cancel.clone().drop_guard();
    let running = Arc::clone(&client);
    tokio::spawn(async move { running.run(cancel).await });
    let looked = |server: &Server| server.called.lock().iter().filter(|m| *m == "ChainHead").count();
    let until = looked(&one) + 3;
    while looked(&one) < until || looked(&two) < until {
        net.devnet.mine(1).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = client.head().await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Unavailable);
    assert!(error.to_string().contains(&one.url) && error.to_string().contains(&two.url));
    assert_eq!(client.outbox().await.unwrap()[0].state, OutboxState::Recorded);
    let has_left = || one.was_called("MpoolPush") || two.was_called("MpoolPush");
    assert!(!has_left());

    // As soon as they serve it again, the same message does.
    lie.store(false, Ordering::SeqCst);
    while !has_left() {
        net.devnet.mine(1).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
