//! The least HTTP and WebSocket server that a client can tell from a real one.

use futures::{SinkExt as _, StreamExt as _, channel::mpsc};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{future::Future, pin::Pin, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type Handler = Arc<dyn Fn(String) -> Answer<Reply> + Send + Sync>;
type Channels = Arc<dyn Fn(mpsc::UnboundedReceiver<String>, mpsc::UnboundedSender<String>) -> Answer<()> + Send + Sync>;

/// What is answered to one POST.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into() }
    }

    pub(crate) fn result(value: Value) -> Self {
        Self::text(200, json!({"jsonrpc": "2.0", "id": 1, "result": value}).to_string())
    }

    pub(crate) fn error(code: i64, message: &str) -> Self {
        Self::text(500, json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}}).to_string())
    }
}

/// A server that ends with its value.
pub(crate) struct Server {
    pub(crate) url: String,
    /// The methods that were called, in order.
    pub(crate) called: Arc<Mutex<Vec<String>>>,
    /// The Authorization headers that came.
    pub(crate) tokens: Arc<Mutex<Vec<String>>>,
    cut: Arc<Mutex<CancellationToken>>,
    _alive: DropGuard,
}

impl Server {
    /// A node that answers each method by a function of its name and parameters, without WebSocket.
    pub(crate) async fn scripted(answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let handler: Handler = Arc::new(move |body| {
            let answer = Arc::clone(&answer);
            Box::pin(async move {
                let Ok(request) = serde_json::from_str::<Value>(&body) else { return Reply::text(404, "") };
                let method = request["method"].as_str().unwrap();
                answer(method.strip_prefix("Filecoin.").unwrap_or(method), &request["params"])
            })
        });
        Self::start(handler, None).await
    }

    /// [`Server::scripted`] over WebSocket: requests are answered one after the other, in the order in which they came.
    pub(crate) async fn scripted_socket(answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let answer = Arc::new(answer);
        let called: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&called);
        let channels = move |mut incoming: mpsc::UnboundedReceiver<String>, outgoing: mpsc::UnboundedSender<String>| {
            let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
            Box::pin(async move {
                while let Some(text) = incoming.next().await {
                    let request: Value = serde_json::from_str(&text).unwrap();
                    let method = request["method"].as_str().unwrap();
                    let method = method.strip_prefix("Filecoin.").unwrap_or(method);
                    seen.lock().push(method.to_owned());
                    let reply = String::from_utf8(answer(method, &request["params"]).body).unwrap();
                    let reply = match serde_json::from_str::<Value>(&reply) {
                        Ok(Value::Object(mut envelope)) if envelope.contains_key("id") => {
                            envelope.insert("id".to_owned(), request["id"].clone());
                            Value::Object(envelope).to_string()
                        }
                        _ => reply,
                    };
                    let _ = outgoing.unbounded_send(reply);
                }
            }) as _
        };
        let nobody: Handler = Arc::new(|_| Box::pin(async { Reply::text(404, "") }));
        Self { called, ..Self::start(nobody, Some(Arc::new(channels))).await }
    }

    /// Its address for requests over WebSocket.
    pub(crate) fn ws_url(&self) -> String {
        self.url.replace("http://", "ws://")
    }

    pub(crate) async fn start(handler: Handler, channels: Option<Channels>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let alive = CancellationToken::new();
        let cut = Arc::new(Mutex::new(CancellationToken::new()));
        let (called, tokens) = (Arc::default(), Arc::default());
        let connection = Connection { handler, channels, called: Arc::clone(&called), tokens: Arc::clone(&tokens) };
        let (ending, cutting) = (alive.clone(), Arc::clone(&cut));
        tokio::spawn(async move {
            let mut open = JoinSet::new();
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let connection = connection.clone();
                    let cut = cutting.lock().clone();
                    open.spawn(async move { cut.run_until_cancelled(connection.serve(stream)).await });
                }
            };
            ending.run_until_cancelled(accept).await;
        });
        Self { url, called, tokens, cut, _alive: alive.drop_guard() }
    }

    /// Drops every open connection.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }

    pub(crate) fn was_called(&self, method: &str) -> bool {
        self.called.lock().iter().any(|m| m == method)
    }
}

#[derive(Clone)]
struct Connection {
    handler: Handler,
    channels: Option<Channels>,
    called: Arc<Mutex<Vec<String>>>,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        let mut start = [0; 4];
        while stream.peek(&mut start).await.is_ok_and(|n| n > 0 && n < 4) {
            tokio::task::yield_now().await;
        }
        match (&start, &self.channels) {
            (b"GET ", Some(channels)) => serve_channels(channels, stream).await,
            _ => {
                // A client that goes away is its own business.
                let _ = self.serve_posts(stream).await;
            }
        }
    }

    async fn serve_posts(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let post = line.starts_with("POST ");
            let mut length = 0;
            loop {
                line.clear();
                stream.read_line(&mut line).await?;
                let Some((name, value)) = line.trim_end().split_once(':') else { break };
                if name.eq_ignore_ascii_case("content-length") {
                    length = value.trim().parse().unwrap();
                }
                if name.eq_ignore_ascii_case("authorization") {
                    self.tokens.lock().push(value.trim().to_owned());
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            let reply = if post {
                self.answer(String::from_utf8(body).unwrap()).await
            } else {
                // Whoever refuses an upgrade says so as it does to a request.
                (self.handler)(String::new()).await
            };
            let head = format!("HTTP/1.1 {} x\r\nContent-Length: {}\r\n\r\n", reply.status, reply.body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&reply.body).await?;
            stream.flush().await?;
        }
    }

    async fn answer(&self, body: String) -> Reply {
        let request: Value = serde_json::from_str(&body).unwrap();
        let method = request["method"].as_str().unwrap();
        self.called.lock().push(method.strip_prefix("Filecoin.").unwrap_or(method).to_owned());
        (self.handler)(body).await
    }
}

async fn serve_channels(channels: &Channels, stream: TcpStream) {
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
        () = channels(receive_in, send_out) => {}
    }
}
