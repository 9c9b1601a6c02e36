//! The least HTTP server that a client can tell from a real one, on loopback and on a Unix socket.

use damocles_chain::wallet::{WalletCaller, WalletRpc};
use damocles_core::CancellationToken;
use std::{future::Future, path::Path, pin::Pin, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, UnixListener},
};
use tokio_util::sync::DropGuard;

type Answer = Pin<Box<dyn Future<Output = (u16, String)> + Send>>;
/// Answers a body, given the bearer token.
pub(crate) type Handler = Arc<dyn Fn(Option<String>, String) -> Answer + Send + Sync>;

/// A server that ends with its value.
pub(crate) struct Server {
    pub(crate) url: String,
    _alive: DropGuard,
}

pub(crate) fn wallet(rpc: WalletRpc) -> Handler {
    Arc::new(move |bearer, body| {
        let rpc = rpc.clone();
        Box::pin(async move {
            let answer = rpc.handle(&WalletCaller::Remote { bearer }, &body).await;
            (200, answer.unwrap_or_default())
        })
    })
}

pub(crate) fn owned(rpc: WalletRpc) -> Handler {
    Arc::new(move |_, body| {
        let rpc = rpc.clone();
        Box::pin(async move { (200, rpc.handle(&WalletCaller::Owner, &body).await.unwrap_or_default()) })
    })
}

/// Answers each request with what a function makes of its body.
pub(crate) fn scripted(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> Handler {
    let answer = Arc::new(answer);
    Arc::new(move |_, body| {
        let answer = Arc::clone(&answer);
        Box::pin(async move { answer(&body) })
    })
}

impl Server {
    pub(crate) async fn tcp(handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let alive = CancellationToken::new();
        let ending = alive.clone();
        tokio::spawn(async move {
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (handler, ending) = (Arc::clone(&handler), ending.clone());
                    tokio::spawn(async move { ending.run_until_cancelled(serve(stream, handler)).await });
                }
            };
            ending.run_until_cancelled(accept).await;
        });
        Self { url, _alive: alive.drop_guard() }
    }

    pub(crate) async fn unix(path: &Path, handler: Handler) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let alive = CancellationToken::new();
        let ending = alive.clone();
        tokio::spawn(async move {
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (handler, ending) = (Arc::clone(&handler), ending.clone());
                    tokio::spawn(async move { ending.run_until_cancelled(serve(stream, handler)).await });
                }
            };
            ending.run_until_cancelled(accept).await;
        });
        Self { url: String::new(), _alive: alive.drop_guard() }
    }
}

/// A client that goes away is its own business.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Handler) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let (mut length, mut bearer) = (0, None);
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
            if name.eq_ignore_ascii_case("authorization") {
                bearer = value.trim().strip_prefix("Bearer ").map(str::to_owned);
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let (status, answer) = handler(bearer, String::from_utf8(body).unwrap()).await;
        let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}
