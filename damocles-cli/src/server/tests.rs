//! The server as its callers see it.

use super::*;
use async_trait::async_trait;
use damocles_core::CancellationToken;
use futures::{SinkExt as _, StreamExt as _};
use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

struct FakeHandler;

#[async_trait]
impl RpcHandler for FakeHandler {
    async fn handle(&self, headers: &RequestHeaders, body: String) -> Option<String> {
        (body != "notify").then(|| format!("{:?} {:?} {body}", headers.fence, headers.bearer))
    }
}

#[async_trait]
impl WsHandler for FakeHandler {
    async fn serve(
        &self,
        _headers: RequestHeaders,
        mut incoming: WsIncoming,
        mut outgoing: WsOutgoing,
        _cancel: CancellationToken,
    ) {
        while let Some(text) = incoming.next().await {
            if outgoing.send(format!("echo {text}")).await.is_err() {
                return;
            }
        }
    }
}

struct FakeControl;

#[async_trait]
impl RpcHandler for FakeControl {
    async fn handle(&self, _headers: &RequestHeaders, body: String) -> Option<String> {
        Some(match body.contains("Fail") {
            true => r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no such thread"}}"#.to_owned(),
            false => r#"{"jsonrpc":"2.0","id":1,"result":[1,2]}"#.to_owned(),
        })
    }
}

async fn exchange(server: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST /rpc/v0 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

async fn serving() -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<Result<(), ServerError>>) {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let lookup: FileLookup =
        Arc::new(|name| (name == "piece").then(|| concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into()));
    let server = server.route_rpc("/rpc/v0", Arc::new(FakeHandler)).route_ws("/rpc/v0", Arc::new(FakeHandler));
    let server = server.route_files("/piecestore", lookup);
    let (address, cancel) = (server.address(), CancellationToken::new());
    let task = tokio::spawn(server.serve(cancel.clone()));
    (address, cancel, task)
}

#[tokio::test]
async fn rpc_and_files_are_served_until_the_end() {
    let (address, cancel, task) = serving().await;
    let answer = exchange(address, &post("X-Damocles-Fence: 7\r\nAuthorization: Bearer tok\r\n", "hello")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("Some(7) Some(\"tok\") hello"), "{answer}");
    assert!(exchange(address, &post("", "notify")).await.starts_with("HTTP/1.1 204"));
    assert!(exchange(address, &post("X-Damocles-Fence: x\r\n", "hello")).await.starts_with("HTTP/1.1 400"));
    assert!(exchange(address, &post("Idempotency-Key: \r\n", "hello")).await.starts_with("HTTP/1.1 400"));
    let long = format!("Idempotency-Key: {}\r\n", "k".repeat(201));
    assert!(exchange(address, &post(&long, "hello")).await.starts_with("HTTP/1.1 400"), "it is never dropped");
    assert!(exchange(address, &post("Origin: https://evil.example\r\n", "hello")).await.starts_with("HTTP/1.1 403"));
    assert!(exchange(address, &post("Origin: http://127.0.0.1:1789\r\n", "hello")).await.starts_with("HTTP/1.1 200"));

    let get = |name: &str| format!("GET /piecestore/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let file = exchange(address, &get("piece")).await;
    assert!(file.ends_with(include_str!("../../Cargo.toml")), "{file}");
    assert!(exchange(address, &get("..%2Fpiece")).await.starts_with("HTTP/1.1 404"));

    cancel.cancel();
    task.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_and_a_public_address_are_refused() {
    let first = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = Server::bind(first.address()).await.unwrap_err();
    assert!(matches!(error, ServerError::InUse(_)) && error.hint().is_some());
    let error = Server::bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, ServerError::NotLoopback(_)));
    assert_eq!(error.exit(), crate::exit::Exit::Usage);
}

#[tokio::test]
async fn a_websocket_ends_with_the_server() {
    let (address, cancel, task) = serving().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let upgrade = "GET /rpc/v0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut buffer = [0; 1024];
    let n = stream.read(&mut buffer).await.unwrap();
    assert!(String::from_utf8_lossy(&buffer[..n]).starts_with("HTTP/1.1 101"));
    // A masked text frame `hi`, with the mask 0.
    stream.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).await.unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame[2..], b"echo hi");
    cancel.cancel();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection outlived the server");
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_unix_socket_is_private_and_exclusive() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(&dir.path().join("run"), "worker-1");
    let client = UnixClient::new(&path).unwrap();
    let error = client.call::<Vec<u8>>("Worker.List", serde_json::json!([])).await.unwrap_err();
    assert!(matches!(error, ServerError::Unreachable { .. }));

    let server = UnixServer::bind(&path).await.unwrap().route_rpc(CONTROL_PATH, Arc::new(FakeControl));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(server.serve(cancel.clone()));
    assert_eq!(client.call::<Vec<u8>>("Worker.List", serde_json::json!([])).await.unwrap(), [1, 2]);
    let refused = client.call::<Vec<u8>>("Worker.Fail", serde_json::json!([])).await.unwrap_err();
    assert_eq!(refused.to_string(), "`Worker.Fail` was refused: no such thread");
    let second = UnixServer::bind(&path).await.unwrap_err();
    assert!(matches!(second, ServerError::SocketInUse(_)) && second.hint().is_some());
    cancel.cancel();
    task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn what_a_dead_process_left_is_replaced_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.sock");
    // A listener that is dropped without removing its file is what a killed process leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(UnixServer::bind(&path).await.unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(UnixServer::bind(&path).await.unwrap_err(), ServerError::SocketPath { .. }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(UnixServer::bind(&long).await.unwrap_err(), ServerError::SocketPath { .. }));
}
