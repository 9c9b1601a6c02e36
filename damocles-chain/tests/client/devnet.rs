//! The client against the devnet, over HTTP and WebSocket.

use crate::{
    server::{Reply, Server},
    setup::{Home, recover},
};
use damocles_chain::{
    LotusClient, OutboxState, Senders,
    devnet::{Devnet, DevnetConfig, DevnetRpc},
    lotus_json::from_core,
};
use damocles_core::{
    ActorId, Address, Context, SectorId, SectorNumber, SectorSize,
    chain::{Call, ChainClient as _, ChainClientExt as _, CreateMiner, HeadChange, MessageState, OnChain, SubmitKey},
    conformance,
    testing::FakeVerifier,
};
use futures::{SinkExt as _, StreamExt as _};
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

struct Net {
    devnet: Arc<Devnet>,
    server: Server,
    away: Arc<AtomicBool>,
    home: Home,
}

/// Serves a devnet; as long as `away` is set, no message reaches it.
async fn serve(devnet: &Arc<Devnet>, away: &Arc<AtomicBool>) -> Server {
    let rpc = DevnetRpc::new(Arc::clone(devnet));
    let (posts, away) = (rpc.clone(), Arc::clone(away));
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
    let channels = move |incoming, outgoing: futures::channel::mpsc::UnboundedSender<String>| {
        let rpc = rpc.clone();
        Box::pin(async move {
            let _ = rpc.serve_ws(incoming, outgoing.sink_map_err(|_| ())).await;
        }) as _
    };
    Server::start(Arc::new(handler), Some(Arc::new(channels))).await
}

impl Net {
    async fn new() -> Self {
        let home = Home::new();
        let fund = [&home.owner, &home.worker].map(|a| (from_core(a).unwrap(), TokenAmount::from_whole(10_000)));
        let config =
            DevnetConfig { network_name: "devnet-fake-client".into(), fund: fund.to_vec(), ..DevnetConfig::default() };
        let devnet = Devnet::in_memory(config, Arc::new(FakeVerifier)).unwrap();
        let away = Arc::default();
        let server = serve(&devnet, &away).await;
        Self { devnet, server, away, home }
    }

    async fn client(&self) -> (Arc<LotusClient>, DropGuard) {
        let client = self.home.client(&self.server.url).await;
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
        let client = self.home.client(&self.server.url).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    let net = Net::new().await;
    let (client, _running) = net.client().await;
    let miner = net.create_miner(&client).await;
    assert_eq!(client.miner(&client.head().await.unwrap(), miner).await.unwrap().sector_size, SectorSize::KiB2);
    let landed = async || {
        let all = client.raw("Devnet.Messages", json!([Address::from_actor(miner)])).await.unwrap();
        all.as_array().unwrap().len()
    };
    conformance::chain::all(client.as_ref(), miner, || drop(net.devnet.mine(1).unwrap()), landed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_actor_is_a_receipt_with_its_words() {
    let net = Net::new().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_lose_no_tipset() {
    let net = Net::new().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_client_finishes_what_is_in_its_outbox() {
    let net = Net::new().await;
    let miner = {
        let (client, _running) = net.client().await;
        net.create_miner(&client).await
    };
    let id = {
        // This one never runs.
        let client = net.home.client(&net.server.url).await;
        client.submit(&SubmitKey("later".into()), &recover(miner, 5)).await.unwrap()
    };
    let (client, _running) = net.client().await;
    net.mine_until(client.landed(&id, 1, &Context::detached())).await.unwrap();
    assert!(matches!(client.message(&id, 1).await.unwrap(), MessageState::Landed(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_first_push_was_lost_lands() {
    let net = Net::new().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn senders_by_class_are_used() {
    let net = Net::new().await;
    let senders = Senders { post: Some(net.home.owner.clone()), ..Senders::all(net.home.worker.clone()) };
    let client = net.home.client_of(&net.server.url, senders).await.unwrap();
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
