//! A loopback server for texts over HTTP and WebSocket.

use futures::{SinkExt as _, StreamExt as _, future::BoxFuture};
use parking_lot::Mutex;
use std::{collections::HashMap, fmt, io, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// One text that came, and how.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// The text.
    pub text: String,
    /// The path that was asked for.
    pub path: String,
    /// The headers, by lower-case names.
    pub headers: HashMap<String, String>,
    /// The connection, if it came over WebSocket.
    pub socket: Option<Socket>,
}

impl Arrived {
    /// A header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An open WebSocket.
#[derive(Clone, Debug)]
pub struct Socket {
    out: mpsc::UnboundedSender<String>,
    /// Fires when it is closed.
    pub gone: CancellationToken,
}

impl Socket {
    /// Sends a text, if the other side is still there.
    pub fn send(&self, text: impl Into<String>) {
        // A connection that is gone takes nothing, as in life.
        let _ = self.out.send(text.into());
    }
}

/// Answers a text; none closes the connection.
pub type Answering = Arc<dyn Fn(Arrived) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// A server on loopback that ends with its value.
pub struct FakeServer {
    address: std::net::SocketAddr,
    cut: Arc<Mutex<CancellationToken>>,
    _alive: DropGuard,
}

impl fmt::Debug for FakeServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FakeServer").field(&self.address).finish()
    }
}

impl FakeServer {
    /// Listens on a free port.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn start(answering: Answering) -> io::Result<Self> {
        Self::listen(answering, true).await
    }

    /// Listens on a free port and speaks HTTP only.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn without_sockets(answering: Answering) -> io::Result<Self> {
        Self::listen(answering, false).await
    }

    async fn listen(answering: Answering, sockets: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (alive, cut) = (CancellationToken::new(), Arc::new(Mutex::new(CancellationToken::new())));
        let (ending, cutting) = (alive.clone(), Arc::clone(&cut));
        tokio::spawn(async move {
            let mut open = JoinSet::new();
            let accept = async {
                while let Ok((stream, _)) = listener.accept().await {
                    let (answering, cut) = (Arc::clone(&answering), cutting.lock().clone());
                    open.spawn(async move { cut.run_until_cancelled(serve(stream, &answering, sockets)).await });
                }
            };
            ending.run_until_cancelled(accept).await;
        });
        Ok(Self { address, cut, _alive: alive.drop_guard() })
    }

    /// Where it is, as a URL without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every open connection.
    pub fn cut(&self) {
        std::mem::take(&mut *self.cut.lock()).cancel();
    }
}

async fn serve(mut stream: TcpStream, answering: &Answering, sockets: bool) {
    let mut start = [0; 4];
    while stream.peek(&mut start).await.is_ok_and(|n| n > 0 && n < 4) {
        tokio::task::yield_now().await;
    }
    if &start == b"GET " && !sockets {
        // A client that goes away is its own business.
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    } else if &start == b"GET " {
        serve_socket(stream, answering).await;
    } else {
        // A client that goes away is its own business.
        let _ = serve_posts(stream, answering).await;
    }
}

async fn serve_posts(stream: TcpStream, answering: &Answering) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut arrived = Arrived { path, ..Arrived::default() };
        loop {
            line.clear();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            arrived.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; arrived.header("content-length").parse().unwrap_or_default()];
        stream.read_exact(&mut body).await?;
        arrived.text = String::from_utf8_lossy(&body).into_owned();
        let Some(answer) = answering(arrived).await else { return Ok(()) };
        // One write: a second one would wait until the other side acknowledges the first.
        let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(whole.as_bytes()).await?;
        stream.flush().await?;
    }
}

async fn serve_socket(stream: TcpStream, answering: &Answering) {
    let mut opening = Arrived::default();
    #[expect(clippy::result_large_err, reason = "the form that the library asks for")]
    let read = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        opening.path = request.uri().path().to_owned();
        for (name, value) in request.headers() {
            opening.headers.insert(name.as_str().to_owned(), value.to_str().unwrap_or_default().to_owned());
        }
        Ok(response)
    };
    let Ok(socket) = accept_hdr_async(stream, read).await else { return };
    let (mut out, mut incoming) = socket.split();
    let (send, mut sending) = mpsc::unbounded_channel::<String>();
    let gone = CancellationToken::new();
    let _ends = gone.clone().drop_guard();
    let handle = Socket { out: send, gone: gone.clone() };
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            frame = incoming.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    let arrived = Arrived { text: text.to_string(), socket: Some(handle.clone()), ..opening.clone() };
                    let (answering, handle) = (Arc::clone(answering), handle.clone());
                    answers.spawn(async move {
                        match answering(arrived).await {
                            Some(answer) => handle.send(answer),
                            None => handle.gone.cancel(),
                        }
                    });
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            Some(text) = sending.recv() => {
                if out.send(Message::text(text)).await.is_err() {
                    return;
                }
            }
            () = gone.cancelled() => return,
        }
    }
}
