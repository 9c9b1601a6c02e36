//! A node that answers errors, nulls, rubbish or nothing: a typed error each, and nothing is sent.

use crate::{
    server::{Reply, Server},
    setup::{Home, cid, recover, tipset},
};
use damocles_chain::{LotusClient, LotusConfig, OutboxState, Senders, rpc::Endpoint, wallet::RemoteWallet};
use damocles_core::{
    ActorId, Address, CancellationToken, CommP, CommR, DeadlineIndex, Epoch, Recovery, SealProofType, SectorId,
    SectorNumber, SectorSet, SectorSize,
    chain::{
        Call, ChainClient as _, ChainError, ChainErrorKind, CreateMiner, HeadChange, MessageState, PreCommit,
        PreCommitBatch, RandomnessKind, SubmitKey, TipsetKey, TipsetRef,
    },
};
use futures::{StreamExt as _, channel::mpsc};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{error::Error as _, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

const MINER: ActorId = ActorId(1000);

fn at() -> TipsetRef {
    TipsetRef { epoch: Epoch(100), key: TipsetKey(vec![CommP([1; 32]).cid()]) }
}

#[tokio::test]
async fn what_is_no_answer_is_malformed_and_shown() {
    let home = Home::new();
    for (status, body) in [
        (502, "<html><body>Bad Gateway</body></html>"),
        (200, "<html>"),
        (200, r#"{"jsonrpc":"2.0","id":1,"resu"#),
        (200, ""),
        (200, "null"),
        (200, "{}"),
        (200, r#"{"id":1,"jsonrpc":"2.0","result":null}"#),
        (200, r#"{"id":1,"result":{"Cids":[],"Blocks":[],"Height":99999999999999999999999}}"#),
        (200, r#"{"id":1,"result":{"Cids":[],"Blocks":[],"Height":1e400}}"#),
        (200, r#"{"id":1,"result":[[[[]]]]}"#),
    ] {
        let server = Server::scripted(move |_, _| Reply::text(status, body)).await;
        let client = home.client(&server.url).await;
        let error = client.head().await.unwrap_err();
        assert_eq!(error.kind(), ChainErrorKind::Malformed, "{body}: {}", error.chain());
        assert!(matches!(error.recovery(), Recovery::Retry { .. }));
        let text = error.chain();
        assert!(text.contains(&server.url), "{text}");
        if body.starts_with("<html>") {
            assert!(text.contains("<html>"), "the first characters are shown: {text}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let home = Home::new();
    let server = Server::scripted(|_, _| Reply::text(200, vec![b' '; (64 << 20) + 1])).await;
    let error = home.client(&server.url).await.head().await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Malformed);
}

#[tokio::test]
async fn errors_have_kinds() {
    let home = Home::new();
    for (code, message, kind) in [
        (1, "failed to load tipset: block not found", ChainErrorKind::NotFound),
        (11, "actor not found", ChainErrorKind::NotFound),
        (-32601, "method 'Filecoin.ChainHead' not found", ChainErrorKind::Rejected),
        (1, "boom", ChainErrorKind::Rejected),
        (1, "node is syncing", ChainErrorKind::Unavailable),
    ] {
        let server = Server::scripted(move |_, _| Reply::error(code, message)).await;
        let error = home.client(&server.url).await.head().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{message}");
        assert!(error.source().unwrap().to_string().contains(message));
    }
    let error = home.client("http://127.0.0.1:1").await.head().await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Unavailable);
}

#[tokio::test]
async fn the_token_is_sent_and_never_shown() {
    let home = Home::new();
    let server = Server::scripted(|_, _| Reply::text(401, "unauthorized")).await;
    let client = home.client(&format!("very.secret.token:{}", server.url)).await;
    let error = client.head().await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Unavailable);
    assert!(error.hint().unwrap().contains("token"));
    assert_eq!(server.tokens.lock().as_slice(), ["Bearer very.secret.token"]);
    assert!(!format!("{error:?} {} {client:?}", error.chain()).contains("very.secret"));
}

#[tokio::test]
async fn every_read_survives_every_rubbish() {
    let home = Home::new();
    let rubbish = [
        json!(null),
        json!(7),
        json!(-1),
        json!("x"),
        json!([]),
        json!({}),
        json!([null, {"LiveSectors": [0, u64::MAX, 5]}]),
        json!([{"AllSectors": [0, 1u64 << 60], "LiveSectors": [0], "FaultySectors": [0], "RecoveringSectors": [0],
            "ActiveSectors": [0], "PostSubmissions": [0, 1u64 << 61]}]),
        json!({"SectorNumber": 7, "SealProof": 99, "SealedCID": {"/": "bafy"}, "InitialPledge": "1e9"}),
        json!({"Index": 50, "WPoStPeriodDeadlines": 48, "WPoStProvingPeriod": 0, "WPoStChallengeWindow": 0,
            "CurrentEpoch": 1, "PeriodStart": 1, "Open": 1, "Close": 1, "Challenge": 1, "FaultCutoff": 1,
            "WPoStChallengeLookback": 1, "FaultDeclarationCutoff": 1}),
        json!({"Owner": "t01", "Worker": "t02", "SectorSize": 1234, "WindowPoStProofType": 10}),
    ];
    for value in rubbish {
        let shown = value.clone();
        let server = Server::scripted(move |_, _| Reply::result(value.clone())).await;
        let client = home.client(&server.url).await;
        let numbers: SectorSet = [SectorNumber(7)].into_iter().collect();
        let kind_of = |error: ChainError| {
            assert!(!error.chain().is_empty());
            error.kind()
        };
        let mut kinds = vec![
            client.head().await.map(drop).map_err(kind_of),
            client.network(&at()).await.map(drop).map_err(kind_of),
            client.miner(&at(), MINER).await.map(drop).map_err(kind_of),
            client.deadline(&at(), MINER).await.map(drop).map_err(kind_of),
            client.partitions(&at(), MINER, DeadlineIndex(3)).await.map(drop).map_err(kind_of),
            client.balance(&home.owner).await.map(drop).map_err(kind_of),
            client.miner_power(&at(), MINER).await.map(drop).map_err(kind_of),
        ];
        for kind in [RandomnessKind::SealTicket, RandomnessKind::WindowPoStChallenge] {
            kinds.push(client.randomness(&at(), kind, Epoch(50), MINER).await.map(drop).map_err(kind_of));
        }
        for (i, kind) in kinds.into_iter().enumerate() {
            assert!(kind.is_err() || (i == 5 && shown == json!(7)), "read {i} took {shown}");
        }
        // Null and an empty list are real answers to these.
        let id = SectorId::new(MINER, SectorNumber(7));
        if let Err(e) = client.sector(&at(), id).await {
            assert_eq!(e.kind(), ChainErrorKind::Malformed, "{shown}");
        }
        if let Err(e) = client.sectors(&at(), MINER, &numbers).await {
            assert_eq!(e.kind(), ChainErrorKind::Malformed, "{shown}");
        }
    }
}

/// Answers everything that sending a message needs, except that one method answers something else.
fn all_but(method: &'static str, reply: fn() -> Reply) -> impl Fn(&str, &Value) -> Reply + Send + Sync {
    move |asked, params| match asked {
        _ if asked == method => reply(),
        "ChainHead" => Reply::result(tipset(100, 0, (99, 0))),
        "ChainGetTipSet" => Reply::result(tipset(100, 0, (99, 0))),
        "StateNetworkName" => Reply::result(json!("devnet-test")),
        "StateNetworkVersion" => Reply::result(json!(28)),
        "StateMinerPreCommitDepositForPower" => Reply::result(json!("5")),
        "MpoolGetNonce" => Reply::result(json!(3)),
        "MpoolPending" => Reply::result(json!(null)),
        "StateGetActor" => Reply::result(json!({"Code": {"/": cid(1, 1)}, "Head": {"/": cid(1, 2)}, "Nonce": 3,
            "Balance": "5000000000000000000", "DelegatedAddress": null})),
        "GasEstimateMessageGas" => {
            let mut message = params[0].clone();
            message["GasLimit"] = json!(1000);
            message["GasFeeCap"] = json!("200");
            message["GasPremium"] = json!("100");
            Reply::result(message)
        }
        "MpoolPush" => Reply::result(json!({"/": cid(1, 9)})),
        "StateSearchMsg" => Reply::result(json!(null)),
        other => Reply::error(-32601, other),
    }
}

fn pre_commit() -> Call {
    let sector = PreCommit {
        number: SectorNumber(1),
        proof_type: SealProofType::of(SectorSize::KiB2),
        comm_r: CommR([7; 32]),
        comm_d: None,
        ticket_epoch: Epoch(50),
        expiration: Epoch(1_000_000),
    };
    Call::PreCommit(PreCommitBatch { miner: MINER, sectors: vec![sector] })
}

#[tokio::test]
async fn nothing_is_sent_on_rubbish() {
    type Case = (&'static str, fn() -> Reply);
    let cases: &[Case] = &[
        ("StateNetworkName", || Reply::result(json!(null))),
        ("StateNetworkName", || Reply::result(json!("mainnet"))),
        ("StateNetworkVersion", || Reply::result(json!(null))),
        ("StateNetworkVersion", || Reply::result(json!(29))),
        ("ChainGetTipSet", || Reply::result(json!(null))),
        ("ChainGetTipSet", || Reply::result(tipset(101, 0, (100, 0)))),
        ("StateMinerPreCommitDepositForPower", || Reply::result(json!(null))),
        ("StateMinerPreCommitDepositForPower", || Reply::result(json!("-5"))),
        ("StateMinerPreCommitDepositForPower", || Reply::result(json!("9".repeat(40)))),
        ("StateMinerPreCommitDepositForPower", || Reply::text(200, "<html>")),
        ("MpoolGetNonce", || Reply::result(json!(null))),
        ("MpoolGetNonce", || Reply::result(json!(-1))),
        ("MpoolGetNonce", || Reply::result(json!(u64::MAX))),
        ("MpoolGetNonce", || Reply::result(json!(4))),
        ("StateGetActor", || Reply::error(11, "actor not found")),
        ("StateGetActor", || {
            Reply::result(json!({"Code": {"/": cid(1, 1)}, "Head": {"/": cid(1, 2)}, "Nonce": 3, "Balance": "204000"}))
        }),
        ("StateMinerPreCommitDepositForPower", || Reply::result(json!("5000000000000000001"))),
        ("GasEstimateMessageGas", || Reply::result(json!(null))),
        ("GasEstimateMessageGas", || Reply::error(1, "not enough funds")),
        ("GasEstimateMessageGas", || {
            Reply::result(json!({"To": "t01000", "From": "t0100", "GasLimit": 9_000_000_000_000i64, "GasFeeCap": "1"}))
        }),
        ("GasEstimateMessageGas", || {
            Reply::result(json!({"To": "t01", "From": "t01", "GasLimit": 9_000_000, "GasFeeCap": "9".repeat(30),
                "GasPremium": "9".repeat(30)}))
        }),
    ];
    for (method, reply) in cases {
        let home = Home::new();
        let server = Server::scripted(all_but(method, *reply)).await;
        let client = home.client(&server.url).await;
        let key = SubmitKey("precommit/1000/1".to_owned());
        client.submit(&key, &pre_commit()).await.unwrap();
        let cancel = CancellationToken::new();
        let running = tokio::spawn({
            let (client, cancel) = (Arc::clone(&client), cancel.clone());
            async move { client.run(cancel).await }
        });
        let entry = loop {
            let entry = client.outbox().await.unwrap().remove(0);
            if entry.error.is_some() {
                break entry;
            }
            tokio::task::yield_now().await;
        };
        cancel.cancel();
        running.await.unwrap();
        assert!(!server.was_called("MpoolPush"), "{method}: {:?}", entry.error);
        assert_eq!(entry.state, OutboxState::Recorded, "{method}");
    }
}

#[tokio::test]
async fn what_a_push_answers_is_read() {
    type Answer = fn() -> Reply;
    let answers: [Answer; 3] =
        [|| Reply::result(json!(null)), || Reply::result(json!({"/": cid(1, 9)})), || Reply::result(json!("<html>"))];
    for answer in answers {
        let home = Home::new();
        let server = Server::scripted(all_but("MpoolPush", answer)).await;
        let client = home.client(&server.url).await;
        client.submit(&SubmitKey("a".to_owned()), &pre_commit()).await.unwrap();
        let cancel = CancellationToken::new();
        let running = tokio::spawn({
            let (client, cancel) = (Arc::clone(&client), cancel.clone());
            async move { client.run(cancel).await }
        });
        let noted = async {
            loop {
                let entry = client.outbox().await.unwrap().remove(0);
                if entry.error.is_some() {
                    break entry;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let entry = tokio::time::timeout(Duration::from_secs(60), noted).await.expect("it is not taken for pushed");
        cancel.cancel();
        running.await.unwrap();
        // It has its nonce and is pushed until the node names it.
        assert_eq!(entry.state, OutboxState::Signed);
        assert!(server.was_called("MpoolPush"));
    }
}

#[tokio::test]
async fn the_node_cannot_change_what_is_signed() {
    let home = Home::new();
    let pushed: Arc<Mutex<Option<Value>>> = Arc::default();
    let seen = Arc::clone(&pushed);
    let good = all_but("", || Reply::text(500, ""));
    let server = Server::scripted(move |method, params| {
        if method == "MpoolPush" {
            *seen.lock() = Some(params[0].clone());
        }
        if method == "GasEstimateMessageGas" {
            return Reply::result(json!({"To": "t0666", "From": "t0666", "Value": "999", "Nonce": 77, "Method": 0,
                "GasLimit": 1000, "GasFeeCap": "200", "GasPremium": "100"}));
        }
        good(method, params)
    })
    .await;
    let client = home.client(&server.url).await;
    client.submit(&SubmitKey("a".to_owned()), &pre_commit()).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let (client, cancel) = (Arc::clone(&client), cancel.clone());
        async move { client.run(cancel).await }
    });
    let message = loop {
        if let Some(signed) = pushed.lock().take() {
            break signed["Message"].clone();
        }
        tokio::task::yield_now().await;
    };
    cancel.cancel();
    running.await.unwrap();
    assert_eq!((&message["To"], &message["Value"], &message["Nonce"]), (&json!("t01000"), &json!("5"), &json!(3)));
    assert_eq!((&message["Method"], &message["GasLimit"]), (&json!(28), &json!(1000)));
    assert_eq!(message["From"], json!(home.worker));
}

#[tokio::test]
async fn without_channels_the_head_is_polled_and_forks_are_told() {
    let home = Home::new();
    let head = Arc::new(Mutex::new(tipset(3, 0, (2, 0))));
    let told = Arc::clone(&head);
    let server = Server::scripted(move |method, params| match method {
        "ChainHead" => Reply::result(told.lock().clone()),
        "ChainGetTipSet" => {
            let text = params[0][0]["/"].as_str().unwrap().to_owned();
            let known = [tipset(2, 0, (1, 0)), tipset(4, 1, (2, 0)), tipset(1, 0, (0, 0)), tipset(3, 0, (2, 0))];
            let found = known.into_iter().find(|t| t["Cids"][0]["/"] == text.as_str());
            found.map_or_else(|| Reply::error(1, "not found"), Reply::result)
        }
        other => Reply::error(-32601, other),
    })
    .await;
    let client = home.client(&server.url).await;
    let mut changes = client.head_changes();
    let mut next = async || match changes.next().await.unwrap() {
        HeadChange::Apply(t) => ('+', t.epoch.0),
        HeadChange::Revert(t) => ('-', t.epoch.0),
    };
    assert_eq!(next().await, ('+', 3));
    *head.lock() = tipset(6, 1, (4, 1));
    assert_eq!([next().await, next().await, next().await], [('-', 3), ('+', 4), ('+', 6)]);
    let mut late = client.head_changes();
    assert!(matches!(late.next().await, Some(HeadChange::Apply(t)) if t.epoch == Epoch(6)));
}

#[tokio::test]
async fn a_subscription_that_is_silent_on_a_living_connection_is_noticed() {
    let home = Home::new();
    let head = Arc::new(Mutex::new(tipset(3, 0, (2, 0))));
    let told = Arc::clone(&head);
    let handler = move |body: String| {
        let reply =
            if body.contains("ChainHead") { Reply::result(told.lock().clone()) } else { Reply::error(1, "not found") };
        Box::pin(async move { reply }) as _
    };
    let current = Arc::clone(&head);
    let channels = move |mut incoming: mpsc::UnboundedReceiver<String>, outgoing: mpsc::UnboundedSender<String>| {
        let current = Arc::clone(&current);
        Box::pin(async move {
            incoming.next().await;
            let notice = json!([{"Type": "current", "Val": current.lock().clone()}]);
            let _ = outgoing.unbounded_send(json!({"jsonrpc": "2.0", "id": 1, "result": 1}).to_string());
            let _ = outgoing.unbounded_send(json!({"method": "xrpc.ch.val", "params": [1, notice]}).to_string());
            std::future::pending().await
        }) as _
    };
    let server = Server::start(Arc::new(handler), Some(Arc::new(channels))).await;
    let mut config = LotusConfig::new(server.url.parse().unwrap(), Senders::all(home.worker.clone()));
    config.silence = Duration::from_millis(20);
    let client = LotusClient::connect(config, Arc::new(home.keys.clone()), home.database().await).await.unwrap();
    let mut changes = client.head_changes();
    assert!(matches!(changes.next().await, Some(HeadChange::Apply(t)) if t.epoch == Epoch(3)));
    *head.lock() = tipset(4, 0, (3, 0));
    assert!(matches!(changes.next().await, Some(HeadChange::Apply(t)) if t.epoch == Epoch(4)));
}

#[tokio::test]
async fn a_node_with_less_history_than_was_seen_is_followed_on() {
    let home = Home::new();
    let head = Arc::new(Mutex::new(tipset(3, 0, (2, 0))));
    let told = Arc::clone(&head);
    let server = Server::scripted(move |method, params| match method {
        "ChainHead" => Reply::result(told.lock().clone()),
        "ChainGetTipSet" => match params[0][0]["/"].as_str() {
            Some(key) if *key == cid(899, 0) => Reply::result(tipset(899, 0, (898, 0))),
            // Restored from a snapshot that begins there.
            _ => Reply::error(1, "failed to load tipset: ipld: could not find bafy2bza"),
        },
        other => Reply::error(-32601, other),
    })
    .await;
    let client = home.client(&server.url).await;
    let mut changes = client.head_changes();
    assert!(matches!(changes.next().await, Some(HeadChange::Apply(t)) if t.epoch == Epoch(3)));
    *head.lock() = tipset(900, 0, (899, 0));
    assert!(matches!(changes.next().await, Some(HeadChange::Revert(t)) if t.epoch == Epoch(3)));
    assert!(matches!(changes.next().await, Some(HeadChange::Apply(t)) if t.epoch == Epoch(900)));
}

#[tokio::test]
async fn a_receipt_of_a_call_that_is_not_ours_is_not_taken() {
    // Another call in the place of ours, and one that cannot have come into its place.
    for pending in [true, false] {
        receipt_of_another(pending).await;
    }
}

async fn receipt_of_another(pending: bool) {
    let home = Home::new();
    let from = if pending { json!(home.worker) } else { json!("t01") };
    let good = all_but("", || Reply::text(500, ""));
    let server = Server::scripted(move |method, params| match method {
        "StateSearchMsg" => {
            Reply::result(json!({"Message": {"/": cid(1, 9)}, "Receipt": {"ExitCode": 0, "Return": null,
            "GasUsed": 5}, "TipSet": [{"/": cid(90, 0)}], "Height": 90}))
        }
        "ChainGetTipSet" if params[0][0]["/"] == cid(90, 0).as_str() => Reply::result(tipset(90, 0, (89, 0))),
        "ChainGetMessage" => {
            Reply::result(json!({"Version": 0, "To": "t01000", "From": from, "Nonce": 3, "Value": "7",
            "GasLimit": 1000, "GasFeeCap": "200", "GasPremium": "100", "Method": 0, "Params": null}))
        }
        _ => good(method, params),
    })
    .await;
    let client = home.client(&server.url).await;
    let id = client.submit(&SubmitKey("a".to_owned()), &pre_commit()).await.unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let (client, cancel) = (Arc::clone(&client), cancel.clone());
        async move { client.run(cancel).await }
    });
    while client.outbox().await.unwrap()[0].state != OutboxState::Signed {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    running.await.unwrap();
    match client.message(&id, 0).await {
        Ok(state) => assert!(pending && matches!(state, MessageState::Pending { .. }), "{state:?}"),
        Err(e) => assert!(!pending && e.kind() == ChainErrorKind::Malformed, "{}", e.chain()),
    }
    assert!(server.was_called("ChainGetMessage"));
}

#[tokio::test]
async fn a_wallet_that_is_away_is_asked_again() {
    let home = Home::new();
    let endpoint = "http://127.0.0.1:1";
    let wallet = RemoteWallet::new(endpoint.parse::<Endpoint>().unwrap()).unwrap();
    let config = LotusConfig::new(endpoint.parse().unwrap(), Senders::all(home.worker.clone()));
    let error = LotusClient::connect(config, Arc::new(wallet), home.database().await).await.unwrap_err();
    assert_eq!((error.kind(), error.recovery()), (ChainErrorKind::Wallet, Recovery::RETRY), "{}", error.chain());
    assert!(
        error.chain().contains("the wallet is unavailable") && error.chain().contains("127.0.0.1:1"),
        "{}",
        error.chain()
    );
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_sender_without_key_is_an_error_at_start() {
    let home = Home::new();
    let stranger: Address = "t1wcuzrs736zqzbbjjdgl2wvyyufuk4pefbymzf2i".parse().unwrap();
    for senders in [
        Senders::all(stranger.clone()),
        Senders { post: Some(stranger.clone().into()), ..Senders::all(home.worker.clone()) },
        Senders { commit: Some(stranger.clone().into()), ..Senders::all(home.worker.clone()) },
    ] {
        let error = home.client_of("http://127.0.0.1:1", senders).await.unwrap_err();
        assert_eq!(error.kind(), ChainErrorKind::NoSender);
        assert!(error.to_string().contains(stranger.as_str()) && error.hint().is_some());
    }
    // A key that is there and cannot be used is no better.
    let file = std::fs::read_dir(home.keys.dir()).unwrap().map(|entry| entry.unwrap().path());
    let file = file.max_by_key(|path| std::fs::read_to_string(path).unwrap().contains("bls")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = home.client_of("http://127.0.0.1:1", Senders::all(home.worker.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::NoSender);
    assert!(error.hint().unwrap().contains("chmod 600"), "{}", error.chain());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let client = home.client("http://127.0.0.1:1").await;
    let create = CreateMiner::new(stranger, home.worker.clone(), SectorSize::KiB2);
    let error = client.submit(&SubmitKey("m".to_owned()), &Call::CreateMiner(create)).await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::NoSender);
    assert!(client.outbox().await.unwrap().is_empty(), "nothing is recorded");
    client.submit(&SubmitKey("r".to_owned()), &recover(MINER, 1)).await.unwrap();
}

#[tokio::test]
async fn another_tipset_than_asked_for_is_malformed() {
    let home = Home::new();
    for (method, answer) in [
        ("ChainGetTipSet", tipset(99, 0, (98, 0))),
        ("ChainGetTipSetByHeight", tipset(51, 0, (50, 0))),
        ("ChainGetTipSetByHeight", tipset(-1, 0, (50, 0))),
        ("ChainHead", json!({"Cids": null, "Blocks": [], "Height": 100})),
        ("ChainHead", json!({"Cids": [], "Blocks": [], "Height": 100})),
    ] {
        let said = answer.clone();
        let server = Server::scripted(move |_, _| Reply::result(said.clone())).await;
        let client = home.client(&server.url).await;
        let error = match method {
            "ChainGetTipSet" => client.tipset(&at().key).await.unwrap_err(),
            "ChainGetTipSetByHeight" => client.tipset_at(&at(), Epoch(50)).await.unwrap_err(),
            _ => client.head().await.unwrap_err(),
        };
        assert_eq!(error.kind(), ChainErrorKind::Malformed, "{method} {answer}: {}", error.chain());
    }
    // After null rounds, the tipset before them is the answer.
    let server = Server::scripted(|_, _| Reply::result(tipset(48, 0, (47, 0)))).await;
    let found = home.client(&server.url).await.tipset_at(&at(), Epoch(50)).await.unwrap();
    assert_eq!(found.epoch, Epoch(48));
}
