//! Requests over a WebSocket: one connection for all of them, answers in any order.
//!
//! The connection is made by the first request and made again by the first one after it was lost. A request that was
//! sent when it was lost is answered by an error: whether the node took it cannot be known here.

use super::{
    Endpoint,
    envelope::{result_of, start_of},
    http::refused,
    socket::{self, Refusal, Socket, TOKEN_HINT},
    transport::Answer,
};
use damocles_core::chain::{ChainError, ChainErrorKind};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Map, Value};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;

/// Requests that wait to be sent, and that are unanswered.
const WAITING: usize = 64;
const UNANSWERED: usize = 1024;
/// How often a connection on which answers are due is asked for a sign of life, and how often in vain.
const HEARTBEAT: Duration = Duration::from_secs(20);
const SILENT_BEATS: u32 = 3;

/// What ends a request without an answer of the node.
#[derive(Clone, Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Lost(String),
    #[error("not a JSON-RPC answer: `{0}`")]
    Rubbish(String),
    #[error("{UNANSWERED} requests are unanswered")]
    Busy,
}

type Reply = Result<(Map<String, Value>, usize), Broken>;

#[derive(Debug)]
struct Ask {
    id: u64,
    text: String,
    reply: oneshot::Sender<Reply>,
}

#[derive(Debug)]
pub(super) struct Ws {
    tls: Arc<rustls::ClientConfig>,
    connect: Duration,
    max_answer: usize,
    heartbeat: Duration,
    live: Mutex<Option<mpsc::Sender<Ask>>>,
}

impl Ws {
    pub(super) fn new(tls: Arc<rustls::ClientConfig>, connect: Duration, max_answer: usize) -> Self {
        Self { tls, connect, max_answer, heartbeat: HEARTBEAT, live: Mutex::new(None) }
    }

    pub(super) async fn call(&self, endpoint: &Endpoint, id: u64, request: &Value) -> Result<Answer, ChainError> {
        let error = |kind| ChainError::new(kind, "ask node").with("endpoint", endpoint);
        let (reply, answer) = oneshot::channel();
        let mut ask = Ask { id, text: request.to_string(), reply };
        loop {
            let connection = self.connection(endpoint).await?;
            match connection.send(ask).await {
                Ok(()) => break,
                // The connection ended before it took the request.
                Err(unsent) => ask = unsent.0,
            }
        }
        let gone = |_| Broken::Lost("the connection was closed".to_owned());
        let answered = answer.await.map_err(gone).and_then(|reply| reply);
        let (object, bytes) = answered.map_err(|broken| {
            let kind = match broken {
                Broken::Lost(_) | Broken::Busy => ChainErrorKind::Unavailable,
                Broken::Rubbish(_) => ChainErrorKind::Malformed,
            };
            error(kind).because(broken)
        })?;
        match result_of(object) {
            Some(Ok(result)) => Ok(Answer { result, bytes }),
            Some(Err(refusal)) => Err(refused(refusal).with("endpoint", endpoint)),
            None => Err(error(ChainErrorKind::Malformed).with("answer", "neither result nor error")),
        }
    }

    /// The open connection, or a new one. Others wait meanwhile, so that one is made and not one for each.
    async fn connection(&self, endpoint: &Endpoint) -> Result<mpsc::Sender<Ask>, ChainError> {
        let mut live = self.live.lock().await;
        if let Some(open) = live.as_ref().filter(|open| !open.is_closed()) {
            return Ok(open.clone());
        }
        let unavailable = || ChainError::new(ChainErrorKind::Unavailable, "connect").with("endpoint", endpoint);
        let connecting = socket::connect(endpoint, Arc::clone(&self.tls), self.max_answer);
        let opened = timeout(self.connect, connecting).await.map_err(|e| unavailable().because(e))?;
        let socket = opened.map_err(|refusal| match refusal {
            Refusal::Token(status) => unavailable().with("status", status).hint_with(TOKEN_HINT),
            Refusal::NoUpgrade(status) => unavailable()
                .with("status", status)
                .hint_with("the node offers no WebSocket there: name the endpoint with http or https"),
            Refusal::Failed(e) => unavailable().because(e),
        })?;
        let (send, receive) = mpsc::channel(WAITING);
        // It ends with the last sender.
        tokio::spawn(Connection::new(socket).drive(receive, self.heartbeat));
        *live = Some(send.clone());
        Ok(send)
    }
}

struct Connection {
    socket: Socket,
    unanswered: HashMap<u64, oneshot::Sender<Reply>>,
    silent: u32,
    /// Something was sent and nothing came since. It counts whether or not its caller still waits: a connection on
    /// which every caller gives up is dead, not idle.
    expecting: bool,
}

impl Connection {
    fn new(socket: Socket) -> Self {
        Self { socket, unanswered: HashMap::new(), silent: 0, expecting: false }
    }

    async fn drive(mut self, mut asks: mpsc::Receiver<Ask>, heartbeat: Duration) {
        let mut beat = interval(heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let step = tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.send(ask).await,
                    None => Err(Broken::Lost("the client is gone".to_owned())),
                },
                message = self.socket.next() => match message {
                    Some(Ok(message)) => self.take(&message),
                    Some(Err(e)) => Err(Broken::Lost(e.to_string())),
                    None => Err(Broken::Lost("the connection was closed".to_owned())),
                },
                _ = beat.tick() => self.beat().await,
            };
            if let Err(end) = step {
                break end;
            }
        };
        for reply in self.unanswered.into_values() {
            let _ = reply.send(Err(end.clone()));
        }
        // What still waits to be sent is told so by the closed channel.
        asks.close();
        while let Some(ask) = asks.recv().await {
            let _ = ask.reply.send(Err(end.clone()));
        }
    }

    async fn send(&mut self, ask: Ask) -> Result<(), Broken> {
        // Those who gave up do not wait any more.
        self.unanswered.retain(|_, reply| !reply.is_closed());
        if self.unanswered.len() >= UNANSWERED {
            let _ = ask.reply.send(Err(Broken::Busy));
            return Ok(());
        }
        self.unanswered.insert(ask.id, ask.reply);
        self.expecting = true;
        self.put(Message::text(ask.text)).await
    }

    async fn put(&mut self, message: Message) -> Result<(), Broken> {
        match timeout(HEARTBEAT, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Broken::Lost(e.to_string())),
            Err(_) => Err(Broken::Lost("the other side takes nothing any more".to_owned())),
        }
    }

    async fn beat(&mut self) -> Result<(), Broken> {
        self.unanswered.retain(|_, reply| !reply.is_closed());
        if self.unanswered.is_empty() && !self.expecting {
            self.silent = 0;
            return Ok(());
        }
        if self.silent >= SILENT_BEATS {
            return Err(Broken::Lost("no sign of life".to_owned()));
        }
        self.silent = self.silent.saturating_add(1);
        self.put(Message::Ping("damocles".into())).await
    }

    fn take(&mut self, message: &Message) -> Result<(), Broken> {
        self.silent = 0;
        self.expecting = false;
        let body = match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes.as_ref(),
            Message::Close(_) => return Err(Broken::Lost("the connection was closed".to_owned())),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        };
        // What is no answer to anybody leaves everybody without one.
        let Ok(Value::Object(object)) = serde_json::from_slice(body) else {
            return Err(Broken::Rubbish(start_of(body)));
        };
        if object.contains_key("method") {
            return Ok(());
        }
        let id = match object.get("id") {
            Some(Value::Number(id)) => id.as_u64(),
            Some(Value::String(id)) => id.parse().ok(),
            // A node that could not read a request cannot say which it was.
            None | Some(Value::Null) if self.unanswered.len() == 1 && is_error(&object) => {
                self.unanswered.keys().next().copied()
            }
            _ => None,
        };
        // An answer that comes twice, or too late, is nobody's.
        if let Some(reply) = id.and_then(|id| self.unanswered.remove(&id)) {
            let _ = reply.send(Ok((object, body.len())));
        }
        Ok(())
    }
}

fn is_error(object: &Map<String, Value>) -> bool {
    object.get("error").is_some_and(|error| !error.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_dead_connection_is_noticed_though_every_caller_gave_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint: Endpoint = format!("ws://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut ws = Ws::new(super::super::tls::config().unwrap(), Duration::from_secs(10), 1 << 20);
        ws.heartbeat = Duration::from_millis(20);
        let accept = async { tokio_tungstenite::accept_async(listener.accept().await.unwrap().0).await.unwrap() };
        let (connection, _never_reads) = tokio::join!(ws.connection(&endpoint), accept);
        let connection = connection.unwrap();
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "Filecoin.ChainHead", "params": []});
        let call = ws.call(&endpoint, 1, &request);
        assert!(timeout(Duration::from_millis(1), call).await.is_err(), "the caller gives up first");
        // Nobody asks any more, and the connection ends all the same.
        connection.closed().await;
    }
}
