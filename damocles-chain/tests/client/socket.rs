//! Requests over WebSocket, at a node that answers rubbish, late, twice or not at all.

use crate::{
    server::{Reply, Server},
    setup::{Home, tipset},
};
use damocles_chain::{
    LotusClient, LotusConfig, Senders,
    rpc::{RpcClient, RpcError, RpcOptions, Timeouts},
};
use damocles_core::{
    Recovery,
    chain::{ChainClient as _, ChainError, ChainErrorKind},
};
use futures::{StreamExt as _, channel::mpsc};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

/// A server that does with each connection what it is told.
async fn server<F, R>(serve: F) -> Server
where
    F: Fn(mpsc::UnboundedReceiver<String>, mpsc::UnboundedSender<String>) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let channels = move |incoming, outgoing| Box::pin(serve(incoming, outgoing)) as _;
    Server::start(Arc::new(|_| Box::pin(async { Reply::text(404, "") })), Some(Arc::new(channels))).await
}

fn client(server: &Server) -> RpcClient {
    RpcClient::new(server.ws_url().parse().unwrap()).unwrap()
}

async fn ask(rpc: &RpcClient, n: u64) -> Result<u64, ChainError> {
    rpc.call("MpoolGetNonce", json!([n])).await
}

/// The number and the ID of a request.
fn read(text: &str) -> (u64, Value) {
    let request: Value = serde_json::from_str(text).unwrap();
    (request["params"][0].as_u64().unwrap(), request["id"].clone())
}

fn answer(text: &str) -> String {
    let (n, id) = read(text);
    json!({"jsonrpc": "2.0", "id": id, "result": n * 10}).to_string()
}

#[tokio::test]
async fn what_is_no_answer_is_malformed_and_shown() {
    let home = Home::new();
    for body in [
        "<html><body>Bad Gateway</body></html>",
        r#"{"jsonrpc":"2.0","id":1,"resu"#,
        "",
        "null",
        "5",
        r#"{"id":1,"jsonrpc":"2.0","result":null}"#,
        r#"{"id":1,"result":{"Cids":[],"Blocks":[],"Height":99999999999999999999999}}"#,
        r#"{"id":1,"result":{"Cids":[],"Blocks":[],"Height":1e400}}"#,
        r#"{"id":1,"result":[[[[]]]]}"#,
    ] {
        let server = Server::scripted_socket(move |_, _| Reply::text(200, body)).await;
        let client = home.client(&server.ws_url()).await;
        let error = client.head().await.unwrap_err();
        assert_eq!(error.kind(), ChainErrorKind::Malformed, "{body}: {}", error.chain());
        assert!(matches!(error.recovery(), Recovery::Retry { .. }));
        assert!(error.chain().contains(&server.ws_url()), "{}", error.chain());
        if body.starts_with("<html>") {
            assert!(error.chain().contains("<html>"), "the first characters are shown: {}", error.chain());
        }
    }
}

#[tokio::test]
async fn errors_have_kinds() {
    for (code, message, kind) in [
        (1, "failed to load tipset: block not found", ChainErrorKind::NotFound),
        (11, "actor not found", ChainErrorKind::NotFound),
        (-32601, "method not found", ChainErrorKind::Rejected),
        (1, "node is syncing", ChainErrorKind::Unavailable),
    ] {
        let server = Server::scripted_socket(move |_, _| Reply::error(code, message)).await;
        let error = ask(&client(&server), 1).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{message}");
        assert_eq!(RpcError::of(&error).unwrap().code, code);
    }
}

#[tokio::test]
async fn answers_come_in_any_order_and_twice() {
    let server = server(|mut incoming, outgoing| async move {
        let mut waiting = Vec::new();
        while let Some(text) = incoming.next().await {
            waiting.push(text);
            if waiting.len() == 20 {
                // Notifications and answers to nobody come in between.
                let _ = outgoing.unbounded_send(r#"{"method":"xrpc.ch.val","params":[1,[]]}"#.to_owned());
                let _ = outgoing.unbounded_send(r#"{"jsonrpc":"2.0","id":999999,"result":5}"#.to_owned());
                let _ = outgoing.unbounded_send(r#"{"jsonrpc":"2.0","id":null,"result":5}"#.to_owned());
                for text in waiting.drain(..).rev() {
                    let _ = outgoing.unbounded_send(answer(&text));
                    let _ = outgoing.unbounded_send(answer(&text));
                }
            }
        }
    })
    .await;
    let rpc = client(&server);
    let answers = futures::future::join_all((0..20).map(|n| ask(&rpc, n))).await;
    for (n, answer) in (0..).zip(answers) {
        assert_eq!(answer.unwrap(), n * 10);
    }
}

#[tokio::test]
async fn a_lost_connection_fails_who_waits_and_is_made_again() {
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    let server = server(move |mut incoming, outgoing| {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            while let Some(text) = incoming.next().await {
                if first && read(&text).0 == 2 {
                    return;
                }
                if first && read(&text).0 == 1 {
                    continue;
                }
                let _ = outgoing.unbounded_send(answer(&text));
            }
        }
    })
    .await;
    let rpc = client(&server);
    assert_eq!(ask(&rpc, 5).await.unwrap(), 50);
    let (one, two) = futures::future::join(ask(&rpc, 1), ask(&rpc, 2)).await;
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!(error.kind(), ChainErrorKind::Unavailable, "{}", error.chain());
        assert!(error.chain().contains(&server.ws_url()), "{}", error.chain());
    }
    assert_eq!(ask(&rpc, 1).await.unwrap(), 10);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn who_gives_up_leaves_the_connection_to_the_others() {
    let server = server(|mut incoming, outgoing| async move {
        let mut late = None;
        while let Some(text) = incoming.next().await {
            match read(&text).0 {
                1 => late = Some(text),
                _ => {
                    // The late answer comes first, to nobody.
                    if let Some(late) = late.take() {
                        let _ = outgoing.unbounded_send(answer(&late));
                    }
                    let _ = outgoing.unbounded_send(answer(&text));
                }
            }
        }
    })
    .await;
    let mut timeouts = Timeouts::default();
    timeouts.methods.insert("Filecoin.StateGetActor".to_owned(), Duration::from_millis(30));
    let options = RpcOptions { timeouts, ..RpcOptions::default() };
    let rpc = RpcClient::with_endpoints(vec![server.ws_url().parse().unwrap()], options).unwrap();
    let error = rpc.call::<u64>("StateGetActor", json!([1])).await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Unavailable);
    assert!(error.chain().contains("no answer within"), "{}", error.chain());
    assert_eq!(ask(&rpc, 3).await.unwrap(), 30);
    let metrics = rpc.metrics();
    assert_eq!(metrics.endpoints[0].methods["Filecoin.StateGetActor"].errors["timeout"], 1);
}

#[tokio::test]
async fn an_error_without_id_is_that_of_the_only_request() {
    let server = server(|mut incoming, outgoing| async move {
        while incoming.next().await.is_some() {
            let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}"#;
            let _ = outgoing.unbounded_send(error.to_owned());
        }
    })
    .await;
    let error = ask(&client(&server), 1).await.unwrap_err();
    assert_eq!(RpcError::of(&error).unwrap().code, -32700);
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_refused() {
    let server = Server::scripted_socket(|_, _| Reply::result(json!("x".repeat(3000)))).await;
    let options = RpcOptions { max_answer: 2000, ..RpcOptions::default() };
    let rpc = RpcClient::with_endpoints(vec![server.ws_url().parse().unwrap()], options.clone()).unwrap();
    rpc.call::<Value>("Version", json!([])).await.unwrap_err();
    let server = Server::scripted(|_, _| Reply::result(json!("x".repeat(3000)))).await;
    let rpc = RpcClient::with_endpoints(vec![server.url.parse().unwrap()], options).unwrap();
    let error = rpc.call::<Value>("Version", json!([])).await.unwrap_err();
    assert!(error.to_string().contains("more than 2000 bytes"), "{error}");
}

#[tokio::test]
async fn a_wrong_token_and_a_server_without_sockets_are_told_apart() {
    for (status, hint) in [(401, "token"), (403, "token"), (404, "http"), (200, "http")] {
        let server = Server::start(Arc::new(move |_| Box::pin(async move { Reply::text(status, "no") })), None).await;
        let rpc = RpcClient::new(format!("s3cret:{}", server.ws_url()).parse().unwrap()).unwrap();
        let error = ask(&rpc, 1).await.unwrap_err();
        assert_eq!(error.kind(), ChainErrorKind::Unavailable);
        assert!(error.hint().unwrap().contains(hint), "{status}: {error}");
        assert_eq!(server.tokens.lock().as_slice(), ["Bearer s3cret"]);
        assert!(!format!("{error:?} {}", error.chain()).contains("s3cret"));
    }
}

#[tokio::test]
async fn a_node_that_is_busy_says_for_how_long() {
    let server = Server::scripted(|_, _| Reply::text(503, "later")).await;
    let error = ask(&RpcClient::new(server.url.parse().unwrap()).unwrap(), 1).await.unwrap_err();
    assert_eq!(error.kind(), ChainErrorKind::Unavailable);
    assert!(matches!(error.recovery(), Recovery::Retry { after: None }));
}

#[tokio::test]
async fn heads_are_followed_beside_the_requests() {
    let home = Home::new();
    let server = Server::scripted_socket(|method, _| match method {
        "ChainHead" => Reply::result(tipset(3, 0, (2, 0))),
        // A node that answers questions over WebSocket and has no channels.
        other => Reply::error(-32601, other),
    })
    .await;
    let config = LotusConfig::new(server.ws_url().parse().unwrap(), Senders::all(home.worker.clone()));
    let client = LotusClient::connect(config, Arc::new(home.keys.clone()), home.database().await).await.unwrap();
    let first = client.head_changes().next().await.unwrap();
    assert_eq!(first, damocles_core::chain::HeadChange::Apply(client.head().await.unwrap()));
}

#[tokio::test]
async fn only_an_error_without_an_id_is_the_answer_to_the_one_open_request() {
    let server = server(|mut incoming, outgoing| async move {
        while let Some(text) = incoming.next().await {
            for nobody in
                [json!({"result": 666}), json!({"id": null, "result": 666}), json!({"id": null, "error": null})]
            {
                let _ = outgoing.unbounded_send(nobody.to_string());
            }
            let (n, _) = read(&text);
            let last = if n == 1 { answer(&text) } else { json!({"error": {"code": 1, "message": "no"}}).to_string() };
            let _ = outgoing.unbounded_send(last);
        }
    })
    .await;
    let rpc = client(&server);
    assert_eq!(ask(&rpc, 1).await.unwrap(), 10);
    let refusal = ask(&rpc, 2).await.unwrap_err();
    assert_eq!(RpcError::of(&refusal).map(|said| said.message.as_str()), Some("no"));
}
