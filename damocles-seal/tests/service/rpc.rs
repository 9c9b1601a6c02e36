//! The wire between workers and managers.

use crate::support::{MINER, Manager, TTL, proof_type, want};
use async_trait::async_trait;
use damocles_core::{
    CommD, CommP, CommR, Epoch, Fence, PaddedPieceSize, PieceInfo, Recovery, SectorId, SectorNumber, StoreId,
    Timestamp,
    allocator::{AllocErrorKind, Outcome, SectorAllocator, SectorLease},
    conformance as core_conformance,
    pipeline::{StageId, Wake},
    verify::Randomness,
};
use damocles_seal::{
    allocator::RemoteAllocator,
    rpc::{Caller, RpcClient, RpcOptions, RpcService, WorkerIdentity, damocles, manager_handler},
    service::{
        CommitState, DealPiece, PieceTerms, PreCommitRequest, Report, SealingService, SeedAnswer, ServiceErrorKind,
        SubmitAnswer, Ticket,
        conformance::{self, World},
    },
};
use jsonrpc_core::{MetaIoHandler, Params};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{error::Error as _, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

fn worker() -> WorkerIdentity {
    WorkerIdentity { instance: "worker-1".to_owned(), location: "/sealing/0".to_owned() }
}

fn client(manager: &Manager) -> RpcClient {
    RpcClient::in_process(Arc::new(manager_handler(manager.service.clone())))
}

fn lease(number: u64, fence: u64) -> SectorLease {
    SectorLease {
        sector: SectorId::new(MINER, SectorNumber(number)),
        proof_type: proof_type(),
        store: StoreId::new("store"),
        fence: Fence(fence),
        heard_until: Timestamp(0),
    }
}

/// A world whose leases come over the wire as well.
#[derive(Debug)]
struct RemoteWorld<'a>(&'a Manager, RemoteAllocator);

#[async_trait]
impl World for RemoteWorld<'_> {
    async fn lease(&self) -> SectorLease {
        self.1.allocate(&self.0.want("store")).await.unwrap().unwrap()
    }

    async fn lease_again(&self, lease: &SectorLease) -> SectorLease {
        self.1.take_up(&lease.store, lease.sector, TTL).await.unwrap()
    }

    async fn tick(&self) {
        self.0.tick(1);
    }

    fn store(&self) -> String {
        self.0.store()
    }

    async fn add_piece(&self, piece: DealPiece) {
        self.0.add_piece(piece).await;
    }

    fn show_replicas(&self, shown: bool) {
        self.0.show_replicas(shown);
    }

    fn refuse_pre_commit(&self, lease: &SectorLease) {
        self.0.refuse_pre_commit(lease);
    }
}

#[tokio::test]
async fn the_service_over_the_wire_keeps_the_contract() {
    let manager = Manager::start().await;
    manager.spawn();
    let service = RpcService::new(client(&manager), worker());
    let world = RemoteWorld(&manager, RemoteAllocator::new(service.client().clone()));
    conformance::all(&service, &world).await;
    manager.cancel.cancel();
}

#[tokio::test]
async fn the_allocator_over_the_wire_keeps_the_contract() {
    let manager = Manager::start().await;
    core_conformance::allocator::all(&RemoteAllocator::new(client(&manager))).await;
}

/// What was asked of an incumbent's manager: method, parameters, headers.
type Asked = Arc<Mutex<Vec<(&'static str, Value, Caller)>>>;

/// An incumbent's manager: answers from a script, and knows nothing of ours.
fn incumbent(answers: &[(&'static str, Value)]) -> (RpcClient, Asked) {
    let asked = Asked::default();
    let mut io = MetaIoHandler::default();
    for (name, answer) in answers {
        let (name, answer, asked) = (*name, answer.clone(), asked.clone());
        io.add_method_with_meta(name, move |params: Params, caller: Caller| {
            asked.lock().push((name, params.parse().unwrap(), caller));
            let answer = answer.clone();
            async move { Ok(answer) }
        });
    }
    (RpcClient::in_process(Arc::new(io)), asked)
}

#[tokio::test]
async fn a_take_up_without_an_answer_is_repeated_under_its_name() {
    let (asked, failures) = (Asked::default(), Arc::new(Mutex::new(1)));
    let mut io = MetaIoHandler::default();
    io.add_method_with_meta("Damocles.Hello", |_: Params, _: Caller| async {
        Ok(json!({"version": "x", "capabilities": ["leases"], "network": null}))
    });
    let (seen, left) = (asked.clone(), failures.clone());
    io.add_method_with_meta("Damocles.TakeUp", move |params: Params, caller: Caller| {
        seen.lock().push(("Damocles.TakeUp", params.parse().unwrap(), caller));
        let fails = std::mem::take(&mut *left.lock()) > 0;
        async move {
            let unavailable = jsonrpc_core::ErrorCode::ServerError(11102);
            if fails { Err(jsonrpc_core::Error::new(unavailable)) } else { Ok(json!(lease(7, 2))) }
        }
    });
    let allocator = RemoteAllocator::new(RpcClient::in_process(Arc::new(io)));
    let (store, sector) = (StoreId::new("store"), lease(7, 1).sector);
    assert_eq!(allocator.take_up(&store, sector, TTL).await.unwrap_err().kind(), AllocErrorKind::Unavailable);
    for _ in 0..2 {
        allocator.take_up(&store, sector, TTL).await.unwrap();
    }
    let keys: Vec<_> = asked.lock().iter().map(|(_, _, caller)| caller.idempotency_key.clone()).collect();
    let [first, repeat, next] = &keys[..] else { panic!("three calls: {keys:?}") };
    assert!(first.is_some());
    assert_eq!(first, repeat, "the same take-up");
    assert_ne!(first, next, "another one");
}

#[tokio::test]
async fn the_dispatch_takes_up_once_a_name() {
    let manager = Manager::start().await;
    let handler = manager_handler(manager.service.clone());
    let held = manager.allocator().allocate(&want("1", "store")).await.unwrap().unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "Damocles.TakeUp",
        "params": [held.store, held.sector, 60_000]})
    .to_string();
    let mut fences = Vec::new();
    for key in [Some("a"), Some("a"), Some("b"), None] {
        let caller = Caller { fence: None, idempotency_key: key.map(str::to_owned) };
        let answer: Value = serde_json::from_str(&handler.handle_request(&body, caller).await.unwrap()).unwrap();
        fences.push(answer["result"]["fence"].as_u64().unwrap());
    }
    assert_eq!(fences, [2, 2, 3, 4]);
}

const ID: &str = r#"{"Miner":1000,"Number":7}"#;

fn id() -> Value {
    serde_json::from_str(ID).unwrap()
}

fn comm_p() -> CommP {
    CommP([3; 32])
}

fn incumbent_answers() -> Vec<(&'static str, Value)> {
    let cid = json!({"/": comm_p().to_string()});
    let store =
        json!({"Name": "nas-1", "Path": "/mnt/nas", "Strict": false, "ReadOnly": false, "Weight": 1, "Meta": {}});
    vec![
        ("Venus.AllocateSector", json!({"ID": id(), "ProofType": 5})),
        ("Venus.FindSectorInAllStates", json!({"ID": id(), "SectorType": 5, "Ticket": null, "Deals": null})),
        (
            "Venus.AcquireDeals",
            json!([
                {"Piece": {"Size": 1024, "PieceCID": cid}, "DealInfo": {"DealID": 3, "PublishCid": null, "AllocationID": 0,
                  "PieceCID": cid, "PieceSize": 1024, "Client": "t3abc", "Provider": "t01000", "Offset": 0, "Length": 1024,
                  "PayloadSize": 900, "StartEpoch": 1, "EndEpoch": 2, "IsBuiltinMarket": true, "IsCompatible": false}},
                {"Piece": {"Size": 1024, "PieceCID": cid}, "DealInfo": null},
            ]),
        ),
        ("Venus.AssignTicket", json!({"Ticket": "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=", "Epoch": 100})),
        ("Venus.SubmitPreCommit", json!({"Res": 1, "Desc": null})),
        ("Venus.PollPreCommitState", json!({"State": 5, "Desc": "out of gas"})),
        ("Venus.StoreReserveSpace", store.clone()),
        ("Venus.StoreBasicInfo", store),
        ("Venus.SubmitPersistedEx", json!(true)),
        ("Venus.WaitSeed", json!({"ShouldWait": true, "Delay": 4500, "Seed": null})),
        ("Venus.SubmitProof", json!({"Res": 4, "Desc": "bad proof"})),
        ("Venus.PollProofState", json!({"State": 3})),
        ("Venus.ReportState", json!({"Id": id(), "Finalized": true, "AbortReason": ""})),
        ("Venus.ReportFinalized", Value::Null),
        ("Venus.ReportAborted", Value::Null),
    ]
}

#[tokio::test]
async fn an_incumbent_manager_is_asked_in_its_own_words() {
    let (client, asked) = incumbent(&incumbent_answers());
    let allocator = RemoteAllocator::new(client.clone());
    let service = RpcService::new(client, worker());
    assert_eq!(service.hello().await.unwrap().capabilities, Vec::<String>::new());

    let mut wanted = want("request-1", "store");
    wanted.miners = vec![MINER];
    wanted.proof_types = vec![proof_type()];
    let given = allocator.allocate(&wanted).await.unwrap().unwrap();
    assert_eq!((given.sector, given.fence), (lease(7, 0).sector, Fence(0)));
    let again = allocator.take_up(&given.store, given.sector, TTL).await.unwrap();
    assert_eq!(again, given, "an incumbent has no fences");
    allocator.renew(&given, TTL).await.unwrap();
    allocator.release(&given, Outcome::Sealed).await.unwrap();
    assert_eq!(allocator.held_by(&given.store).await.unwrap(), []);

    let pieces = service.pieces(&given, PieceTerms::default()).await.unwrap();
    assert_eq!(pieces.iter().map(|p| p.payload_size).collect::<Vec<_>>(), [900, 0], "a filler holds no data");
    let ticket = service.ticket(&given).await.unwrap();
    assert_eq!(ticket, Ticket { randomness: Randomness([5; 32]), epoch: Epoch(100) });
    let request = PreCommitRequest { comm_r: CommR([1; 32]), comm_d: CommD([2; 32]), ticket };
    assert_eq!(service.submit_pre_commit(&given, &request).await.unwrap(), SubmitAnswer::Accepted);
    let failed = CommitState::Failed { reason: "out of gas".to_owned() };
    assert_eq!(service.pre_commit_state(&given).await.unwrap(), failed);
    service.submit_pre_commit(&given, &request).await.unwrap();
    assert_eq!(service.reserve(&given, 2048, &["nas-1".to_owned()]).await.unwrap().unwrap().name, "nas-1");
    assert!(service.persisted(&given, "nas-1").await.unwrap());
    let wait = SeedAnswer::Wait(Wake::After(Duration::from_secs(4500)));
    assert_eq!(service.seed(&given).await.unwrap(), wait);
    let rejected = SubmitAnswer::Rejected { reason: "bad proof".to_owned() };
    assert_eq!(service.submit_proof(&given, &[1, 2, 3]).await.unwrap(), rejected);
    assert_eq!(service.proof_state(&given).await.unwrap(), CommitState::Landed { epoch: Epoch(0) });
    let moved = Report::Moved { done: Some(StageId::new("pc1")), next: Some(StageId::new("pc2")) };
    let answer = service.report(&given, &moved).await.unwrap();
    assert!(answer.finalized && answer.abort_reason.is_none());
    let failed = Report::Failed { stage: StageId::new("pc2"), error: "no gpu".to_owned(), recovery: Recovery::Park };
    service.report(&given, &failed).await.unwrap();
    service.report(&given, &Report::Finalized).await.unwrap();
    service.report(&given, &Report::Aborted { reason: "lost".to_owned() }).await.unwrap();
    service.changed(&given, Duration::from_millis(1)).await.unwrap();

    let (ones, twos) = (vec![1; 32], vec![2; 32]);
    let pre_commit = json!({"CommR": ones, "CommD": twos,
        "Ticket": {"Ticket": "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=", "Epoch": 100}});
    let report = |prev: &str, next: &str, failure: Value| {
        json!([id(), {"Worker": {"Instance": "worker-1", "Location": "/sealing/0"},
            "StateChange": {"Prev": prev, "Next": next, "Event": "None"}, "Failure": failure}])
    };
    let sector = json!({"ID": id(), "ProofType": 5});
    let expected = [
        ("Venus.AllocateSector", json!([{"AllowedMiners": [1000], "AllowedProofTypes": [5]}])),
        ("Venus.FindSectorInAllStates", json!([id()])),
        ("Venus.AcquireDeals", json!([id(), {"MaxDeals": null, "MinUsedSpace": null}])),
        ("Venus.AssignTicket", json!([id()])),
        ("Venus.SubmitPreCommit", json!([sector, pre_commit, false])),
        ("Venus.PollPreCommitState", json!([id()])),
        ("Venus.SubmitPreCommit", json!([sector, pre_commit, true])),
        ("Venus.StoreReserveSpace", json!([id(), 2048, ["nas-1"]])),
        ("Venus.SubmitPersistedEx", json!([id(), "nas-1", false])),
        ("Venus.WaitSeed", json!([id(), 5])),
        ("Venus.SubmitProof", json!([id(), {"Proof": "AQID"}, false])),
        ("Venus.PollProofState", json!([id()])),
        ("Venus.ReportState", report("pc1", "pc2", Value::Null)),
        ("Venus.ReportState", report("", "pc2", json!({"Level": "permanent", "Desc": "no gpu"}))),
        ("Venus.ReportFinalized", json!([id()])),
        ("Venus.ReportAborted", json!([id(), "lost"])),
    ];
    let asked = asked.lock();
    for ((name, params, caller), (wanted, wanted_params)) in asked.iter().zip(&expected) {
        assert_eq!((name, params), (wanted, wanted_params));
        assert_eq!(caller.fence, None, "{name}");
    }
    assert_eq!(asked.len(), expected.len());
}

#[tokio::test]
async fn answers_that_make_no_sense_are_malformed() {
    let cid = json!({"/": comm_p().to_string()});
    let piece = |size: u64, payload: u64| {
        json!([{"Piece": {"Size": size, "PieceCID": cid}, "DealInfo": {"DealID": 1, "PieceCID": cid, "PieceSize": size,
            "PayloadSize": payload}}])
    };
    let bad = [
        ("Venus.AssignTicket", json!({"Ticket": "AQ==", "Epoch": 1})),
        ("Venus.AssignTicket", json!({"Ticket": "no base64!", "Epoch": 1})),
        ("Venus.AssignTicket", Value::Null),
        ("Venus.PollPreCommitState", json!({"State": 99})),
        ("Venus.WaitSeed", json!({"ShouldWait": false})),
        ("Venus.AcquireDeals", piece(1000, 1)),
        ("Venus.AcquireDeals", piece(1024, 2000)),
    ];
    for (name, answer) in bad {
        let (client, _) = incumbent(&[(name, answer.clone())]);
        let service = RpcService::new(client, worker());
        let given = lease(7, 0);
        let error = match name {
            "Venus.AssignTicket" => service.ticket(&given).await.map(|_| ()).unwrap_err(),
            "Venus.PollPreCommitState" => service.pre_commit_state(&given).await.map(|_| ()).unwrap_err(),
            "Venus.WaitSeed" => service.seed(&given).await.map(|_| ()).unwrap_err(),
            _ => service.pieces(&given, PieceTerms::default()).await.map(|_| ()).unwrap_err(),
        };
        assert_eq!(error.kind(), ServiceErrorKind::Malformed, "{name} {answer}: {error}");
        assert!(error.to_string().contains("in-process"), "the endpoint is named: {error}");
    }
}

/// What our manager answers to a raw request.
async fn raw(manager: &Manager, caller: Caller, method: &str, params: Value) -> Value {
    let handler = manager_handler(manager.service.clone());
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    serde_json::from_str(&handler.handle_request(&request, caller).await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_incumbents_worker_is_answered_in_its_own_words() {
    let manager = Manager::start().await;
    let piece = PieceInfo { comm_p: comm_p(), size: PaddedPieceSize::try_from(1024).unwrap() };
    manager.service.add_piece(piece, 900, &manager.piece_file("piece")).await.unwrap();
    let ask = |method: &'static str, params: Value| raw(&manager, Caller::default(), method, params);
    let spec = json!({"AllowedMiners": [], "AllowedProofTypes": null});
    let first = json!({"Miner": 1000, "Number": 1});
    assert_eq!(ask("Venus.AllocateSector", json!([spec])).await["result"], json!({"ID": first, "ProofType": 5}));
    let nothing = json!({"AllowedMiners": [7], "AllowedProofTypes": []});
    assert_eq!(ask("Venus.AllocateSector", json!([nothing])).await["result"], Value::Null);
    let unknown = json!({"AllowedMiners": [], "AllowedProofTypes": [15]});
    assert_eq!(ask("Venus.AllocateSector", json!([unknown])).await["result"], Value::Null, "a proof we do not make");

    let cid = json!({"/": comm_p().to_string()});
    let deals = ask("Venus.AcquireDeals", json!([first, {"MaxDeals": null, "MinUsedSpace": null}])).await;
    let expected = json!([{"Piece": {"Size": 1024, "PieceCID": cid}, "DealInfo": {"DealID": 1, "PublishCid": null,
        "AllocationID": 0, "PieceCID": cid, "PieceSize": 1024, "Client": "<empty>", "Provider": "t01000", "Offset": 0,
        "Length": 1024, "PayloadSize": 900, "StartEpoch": 0, "EndEpoch": 0, "IsBuiltinMarket": false,
        "IsCompatible": false}}]);
    assert_eq!(deals["result"], expected);
    let ticket = ask("Venus.AssignTicket", json!([first])).await["result"].clone();
    assert_eq!(ticket["Epoch"], 100);
    let comm_d = damocles_seal::service::comm_d_of(&[piece], proof_type().sector_size()).unwrap();
    let pre_commit = json!({"CommR": vec![1; 32], "CommD": comm_d.0, "Ticket": ticket});
    let sector = json!({"ID": first, "ProofType": 5});
    let submitted = ask("Venus.SubmitPreCommit", json!([sector, pre_commit, false])).await;
    assert_eq!(submitted["result"], json!({"Res": 1, "Desc": null}));
    assert_eq!(ask("Venus.PollPreCommitState", json!([first])).await["result"], json!({"State": 1, "Desc": null}));
    manager.tick(5);
    assert_eq!(ask("Venus.PollPreCommitState", json!([first])).await["result"], json!({"State": 3, "Desc": null}));
    let wait = ask("Venus.WaitSeed", json!([first, 5])).await["result"].clone();
    assert_eq!((&wait["ShouldWait"], &wait["Delay"], &wait["Seed"]), (&json!(true), &json!(12), &Value::Null));
    manager.tick(30);
    let seed = ask("Venus.WaitSeed", json!([first, 5])).await["result"].clone();
    assert_eq!((&seed["ShouldWait"], &seed["Seed"]["Epoch"]), (&json!(false), &json!(1011)));
    let store =
        json!({"Name": "persist", "Path": "/persist", "Strict": false, "ReadOnly": false, "Weight": 1, "Meta": null});
    assert_eq!(ask("Venus.StoreReserveSpace", json!([first, 2048, null])).await["result"], store);
    assert_eq!(ask("Venus.StoreBasicInfo", json!(["persist"])).await["result"], store);
    assert_eq!(ask("Venus.StoreBasicInfo", json!(["nowhere"])).await["result"], Value::Null);
    assert_eq!(ask("Venus.SubmitPersistedEx", json!([first, "persist", false])).await["result"], true);
    let wrong = ask("Venus.SubmitProof", json!([first, {"Proof": "AQID"}, false])).await["result"].clone();
    assert_eq!(wrong, json!({"Res": 4, "Desc": "the proof does not verify"}));
    assert_eq!(ask("Venus.PollProofState", json!([first])).await["result"], json!({"State": 4, "Desc": null}));

    let report = json!({"Worker": {"Instance": "old", "Location": "/a"},
        "StateChange": {"Prev": "PC1Done", "Next": "PC2Done", "Event": "None"}, "Failure": null});
    let told = ask("Venus.ReportState", json!([first, report])).await["result"].clone();
    assert_eq!(told, json!({"Id": first, "Finalized": false, "AbortReason": null}));
    let shown = manager.service.sectors().await.unwrap();
    assert!(shown[0].lease.implicit);
    assert_eq!(shown[0].lease.store.as_str(), "incumbent:old@/a", "the lease is bound to who reports");
    assert_eq!(shown[0].stage_next.as_deref(), Some("PC2Done"));
    let ping = json!({"Name": "old", "Dest": "10.0.0.1:17890", "Version": "0.13", "Summary": {"Threads": 1, "Empty": 0,
        "Paused": 0, "Running": 1, "Waiting": 0, "Errors": 0}});
    assert_eq!(ask("Venus.WorkerPing", json!([ping])).await["result"], Value::Null);
    assert_eq!(ask("Venus.ReportFinalized", json!([first])).await["result"], Value::Null);
    let again = ask("Venus.ReportState", json!([first, report])).await["result"].clone();
    assert_eq!(again["Finalized"], true);
    assert_eq!(manager.service.sectors().await.unwrap()[0].lease.ended.as_deref(), Some("sealed"));
    let missing = ask("Venus.AssignTicket", json!([{"Miner": 1000, "Number": 99}])).await;
    assert_eq!(missing["error"]["code"], 11001, "the incumbent's worker gives such a sector up");
    assert_eq!(ask("Venus.AllocateSectorsBatch", json!([spec, 2])).await["error"]["code"], -32601);
}

#[tokio::test]
async fn an_incumbents_worker_cannot_touch_what_is_leased_to_ours() {
    let manager = Manager::start().await;
    let ours = manager.lease().await;
    let sector = json!({"Miner": 1000, "Number": ours.sector.number});
    let report = json!({"Worker": {"Instance": "old", "Location": "/a"},
        "StateChange": {"Prev": "a", "Next": "b", "Event": "None"}, "Failure": null});
    for (method, params) in [
        ("Venus.AssignTicket", json!([sector])),
        ("Venus.ReportState", json!([sector, report])),
        ("Venus.ReportAborted", json!([sector, "mine"])),
        ("Venus.ReportFinalized", json!([sector])),
    ] {
        let answer = raw(&manager, Caller::default(), method, params.clone()).await;
        assert!(answer["error"]["message"].as_str().is_some_and(|m| m.contains("newer fence")), "{method}: {answer}");
        let stale = Caller { fence: Some(Fence(99)), idempotency_key: None };
        let answer = raw(&manager, stale, method, params.clone()).await;
        assert_eq!(answer["error"]["code"], 11100, "{method} under a fence that was never given: {answer}");
    }
    let shown = manager.service.sector(ours.sector).await.unwrap().unwrap();
    assert_eq!(shown.events.len(), 1, "nothing of it left a trace: {:?}", shown.events);

    // And ours cannot take an incumbent's, until an operator releases it.
    let theirs = raw(&manager, Caller::default(), "Venus.AllocateSector", json!([{}])).await;
    let theirs = SectorId::new(MINER, SectorNumber(theirs["result"]["ID"]["Number"].as_u64().unwrap()));
    let allocator = RemoteAllocator::new(client(&manager));
    let err = allocator.take_up(&StoreId::new("store"), theirs, TTL).await.unwrap_err();
    assert_eq!(err.kind(), AllocErrorKind::HeldElsewhere);
    assert!(err.hint().is_some_and(|h| h.contains("sectors release")), "the hint crosses the wire");
    manager.allocator().release_by_operator(theirs).await.unwrap();
    let taken = allocator.take_up(&StoreId::new("store"), theirs, TTL).await.unwrap();
    assert!(taken.fence > Fence(0));
    let sector = json!({"Miner": 1000, "Number": theirs.number});
    let answer = raw(&manager, Caller::default(), "Venus.AssignTicket", json!([sector])).await;
    assert_eq!(answer["error"]["code"], 11100, "the old worker lost it: {answer}");
}

#[tokio::test]
async fn an_idempotency_key_makes_a_lost_reply_harmless() {
    let manager = Manager::start().await;
    let keyed = || Caller { fence: None, idempotency_key: Some("key-1".to_owned()) };
    let first = raw(&manager, keyed(), "Venus.AllocateSector", json!([{}])).await;
    let again = raw(&manager, keyed(), "Venus.AllocateSector", json!([{}])).await;
    assert_eq!(first["result"], again["result"]);
    let other = raw(&manager, Caller::default(), "Venus.AllocateSector", json!([{}])).await;
    assert_ne!(first["result"], other["result"]);
}

#[tokio::test]
async fn operators_ask_over_the_wire() {
    let manager = Manager::start().await;
    let client = client(&manager);
    let hello = client.ask::<damocles::Hello>(&[]).await.unwrap();
    let expected = json!({"version": hello.version, "capabilities": ["leases", "events"],
        "network": "devnet-fake-memory", "keys": {"5": {"porep": "fake", "window_post": "fake"}}});
    assert_eq!(serde_json::to_value(&hello).unwrap(), expected);
    let piece = PieceInfo { comm_p: comm_p(), size: PaddedPieceSize::try_from(1024).unwrap() };
    let id = client.ask::<damocles::AddPiece>(&(piece, 900, manager.piece_file("piece"))).await.unwrap();
    assert_eq!(id, 1);
    let given = manager.lease().await;
    let listed = client.ask::<damocles::ListSectors>(&[]).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].sector, given.sector);
    let shown = client.ask::<damocles::ShowSector>(&(given.sector,)).await.unwrap().unwrap();
    let document = serde_json::to_value(&shown).unwrap();
    assert_eq!(
        document["events"][0],
        json!({"seq": 1, "at": 1_000_000, "event": "leased", "store": "store",
        "worker": "worker", "fence": 1})
    );
    let nobody = SectorId::new(MINER, SectorNumber(99));
    assert_eq!(client.ask::<damocles::ShowSector>(&(nobody,)).await.unwrap(), None);
    let err = client.ask::<damocles::ReleaseSector>(&(nobody,)).await.unwrap_err();
    assert_eq!(err.kind(), ServiceErrorKind::UnknownSector, "{}", err.chain());
    let outside = client.ask::<damocles::AddPiece>(&(piece, 900, "/etc/passwd".into())).await.unwrap_err();
    assert!(outside.hint().is_some_and(|h| h.contains("pieces.dirs")), "{}", outside.chain());
    client.ask::<damocles::AbortSector>(&(given.sector,)).await.unwrap();
    let allocator = RemoteAllocator::new(client.clone());
    let err = allocator.take_up(&given.store, given.sector, TTL).await.unwrap_err();
    assert_eq!(err.recovery(), Recovery::Abandon, "its worker is told to give it up, too");
    assert_eq!(client.ask::<damocles::ReleaseSector>(&(given.sector,)).await.unwrap(), Outcome::Abandoned);
}

#[tokio::test]
async fn hostile_requests_are_answered_with_errors() {
    let manager = Manager::start().await;
    let handler = manager_handler(manager.service.clone());
    let huge = format!("[{}]", "1,".repeat(10_000));
    for request in [
        "",
        "null",
        "{}",
        "[]",
        huge.as_str(),
        r#"{"jsonrpc":"2.0","id":1,"method":"Venus.AssignTicket"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"Venus.AssignTicket","params":[{"Miner":-1,"Number":1}]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"Venus.AssignTicket","params":[{"Miner":18446744073709551615,"Number":18446744073709551615}]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"Venus.AssignTicket","params":[1,2,3]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"Damocles.TakeUp","params":["s",{"miner":1,"number":1},18446744073709551615]}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"Venus.SubmitPreCommit","params":[{"ID":{"Miner":1000,"Number":1},"ProofType":5},{"CommR":[1],"CommD":[],"Ticket":{"Ticket":null,"Epoch":1}},false]}"#,
    ] {
        let answer = handler.handle_request(request, Caller::default()).await.unwrap_or_else(|| "{}".to_owned());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer.get("result").is_none(), "{request}: {answer}");
    }
}

/// A server that gives every request the same bytes and keeps what it got.
async fn canned(status: &'static str, body: &'static str) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:secret@{}/rpc/v0?token=secret", listener.local_addr().unwrap());
    let got: Arc<Mutex<String>> = Arc::default();
    let kept = got.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 1 << 16];
            let read = stream.read(&mut buffer).await.unwrap();
            kept.lock().push_str(&String::from_utf8_lossy(&buffer[..read]));
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, got)
}

async fn ticket_from(
    status: &'static str,
    body: &'static str,
) -> (Result<Ticket, damocles_seal::service::ServiceError>, String) {
    let (url, got) = canned(status, body).await;
    let options = RpcOptions { token: Some("secret-token".to_owned()), response_limit: 1000, ..RpcOptions::new(url) };
    let shown = format!("{options:?}");
    assert!(!shown.contains("secret"), "{shown}");
    let client = RpcClient::http(&options).unwrap();
    let shown = format!("{client:?}");
    assert!(!shown.contains("secret"), "{shown}");
    let ticket = RpcService::new(client, worker()).ticket(&lease(7, 3)).await;
    let got = got.lock().clone();
    (ticket, got)
}

const TICKET: &str = r#"{"jsonrpc":"2.0","id":1,"meta":{},"result":{"Ticket":"BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU=","Epoch":100,"More":1},"error":null}"#;

#[tokio::test]
async fn any_status_with_an_answer_is_an_answer() {
    let (ticket, got) = ticket_from("500 Internal Server Error", TICKET).await;
    assert_eq!(ticket.unwrap().epoch, Epoch(100));
    let got = got.to_ascii_lowercase();
    assert!(got.contains("x-damocles-fence: 3"), "{got}");
    assert!(got.contains("authorization: bearer secret-token"), "{got}");
    assert_eq!(got.matches("authorization:").count(), 1, "{got}");
    let gone = r#"{"jsonrpc":"2.0","id":1,"error":{"code":11001,"message":"sector state not found"}}"#;
    let (ticket, _) = ticket_from("500 Internal Server Error", gone).await;
    assert_eq!(ticket.unwrap_err().kind(), ServiceErrorKind::UnknownSector);
}

#[tokio::test]
async fn another_machine_halts_nobody() {
    for (said, recovery) in [("\"halt\"", Recovery::Park), ("\"abandon\"", Recovery::Abandon)] {
        let mut io: MetaIoHandler<Caller> = MetaIoHandler::default();
        let data = json!({"recovery": serde_json::from_str::<Value>(said).unwrap()});
        io.add_method_with_meta("Venus.AssignTicket", move |_: Params, _: Caller| {
            let code = jsonrpc_core::ErrorCode::ServerError(11101);
            let error = jsonrpc_core::Error { code, message: "no".to_owned(), data: Some(data.clone()) };
            async move { Err::<Value, _>(error) }
        });
        let service = RpcService::new(RpcClient::in_process(Arc::new(io)), worker());
        assert_eq!(service.ticket(&lease(7, 1)).await.unwrap_err().recovery(), recovery, "{said}");
    }
}

#[tokio::test]
async fn rubbish_over_http_names_the_endpoint_and_no_secret() {
    let long: &'static str = Box::leak("x".repeat(2000).into_boxed_str());
    for (status, body, kind) in [
        ("502 Bad Gateway", "<html>bad gateway</html>", ServiceErrorKind::Malformed),
        ("200 OK", r#"{"jsonrpc":"2.0","id":1,"resul"#, ServiceErrorKind::Malformed),
        ("200 OK", "", ServiceErrorKind::Malformed),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", "", ServiceErrorKind::Malformed),
        ("200 OK", long, ServiceErrorKind::Unavailable),
    ] {
        let (ticket, _) = ticket_from(status, body).await;
        let error = ticket.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {error}");
        assert!(error.source().is_some());
        assert!(error.chain().contains("http://127.0.0.1:") && error.chain().contains("/rpc/v0"), "{}", error.chain());
        assert!(!format!("{error:?} {}", error.chain()).contains("secret"), "{error:?}");
    }
}

#[tokio::test]
async fn a_manager_that_is_away_or_silent_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/rpc/v0", listener.local_addr().unwrap());
    let options = RpcOptions { timeout: Duration::from_millis(50), ..RpcOptions::new(url) };
    let service = RpcService::new(RpcClient::http(&options).unwrap(), worker());
    let error = service.ticket(&lease(7, 1)).await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Unavailable, "it accepts and never answers: {error}");
    drop(listener);
    let error = service.hello().await.unwrap_err();
    assert_eq!(error.kind(), ServiceErrorKind::Unavailable, "nobody listens: {error}");
    assert_eq!(error.recovery(), Recovery::RETRY);
}

#[tokio::test]
async fn bad_addresses_and_tokens_are_refused_without_being_shown() {
    for url in ["", "ftp://host/", "http://", "user:secret@host", "ws://user:secret@host/"] {
        let error = RpcClient::http(&RpcOptions::new(url)).unwrap_err();
        assert_eq!(error.kind(), ServiceErrorKind::Refused, "{url}");
        assert!(!format!("{error:?}{}", error.chain()).contains("secret"), "{error:?}");
    }
    let options = RpcOptions { token: Some("secret\ntoken".to_owned()), ..RpcOptions::new("http://127.0.0.1:1/") };
    let error = RpcClient::http(&options).unwrap_err();
    assert!(!format!("{error:?}{}", error.chain()).contains("secret"), "{error:?}");
    assert!(RpcClient::http(&RpcOptions::new("https://manager.example/rpc/v0")).is_ok(), "TLS needs no set-up");
}
