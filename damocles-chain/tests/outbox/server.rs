//! A devnet behind the least HTTP and WebSocket server that a client can tell from a real one. What a fault swallows ends
//! its connection.

use damocles_chain::devnet::DevnetRpc;
use futures::{SinkExt as _, StreamExt as _, channel::mpsc};
use std::sync::Arc;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Sees every request before the node does.
pub(crate) type Watch = Arc<dyn Fn(&str) + Send + Sync>;

pub(crate) struct Server {
    pub(crate) url: String,
    _alive: DropGuard,
}

impl Server {
    pub(crate) async fn start(rpc: DevnetRpc, watch: Watch) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let alive = CancellationToken::new();
        let ending = alive.clone();
        tokio::spawn(async move {
            let mut open = JoinSet::new();
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (rpc, watch) = (rpc.clone(), Arc::clone(&watch));
                    open.spawn(async move { serve(rpc, watch, stream).await });
                    while open.try_join_next().is_some() {}
                }
            };
            ending.run_until_cancelled(accept).await;
        });
        Self { url, _alive: alive.drop_guard() }
    }
}

async fn serve(rpc: DevnetRpc, watch: Watch, stream: TcpStream) {
    let mut start = [0; 4];
    while stream.peek(&mut start).await.is_ok_and(|n| n > 0 && n < 4) {
        tokio::task::yield_now().await;
    }
    if &start == b"GET " {
        serve_channels(rpc, stream).await;
    } else {
        // A client that goes away is its own business.
        let _ = serve_posts(rpc, watch, stream).await;
    }
}

async fn serve_posts(rpc: DevnetRpc, watch: Watch, stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = String::from_utf8(body).unwrap();
        watch(&body);
        let Some(reply) = rpc.handle(&body).await else { return Ok(()) };
        let reply = format!("HTTP/1.1 200 x\r\nContent-Length: {}\r\n\r\n{reply}", reply.len());
        stream.write_all(reply.as_bytes()).await?;
        stream.flush().await?;
    }
}

async fn serve_channels(rpc: DevnetRpc, stream: TcpStream) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut out, mut incoming) = socket.split();
    let (send_in, receive_in) = mpsc::unbounded();
    let (send_out, mut receive_out) = mpsc::unbounded::<String>();
    let read = async {
        while let Some(Ok(message)) = incoming.next().await {
            if let Message::Text(text) = message {
                let _ = send_in.unbounded_send(text.to_string());
            }
        }
    };
    let write = async {
        while let Some(text) = receive_out.next().await {
            if out.send(Message::text(text)).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
        _ = rpc.serve_ws(receive_in, send_out.sink_map_err(|_| ())) => {}
    }
}
