//! One go-jsonrpc connection over WebSocket: calls in one direction, and the channel of one subscription in the other.

use super::{
    RpcError,
    envelope::{result_of, start_of},
    metrics::TimedOut,
};
use damocles_core::{
    BoxError, CancellationToken,
    chain::{ChainError, ChainErrorKind},
};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::Url;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest as _,
        http::{HeaderMap, StatusCode},
        protocol::WebSocketConfig,
    },
};
use tokio_util::sync::DropGuard;

const MAX_MESSAGE: usize = 8 << 20;
const CONNECT: Duration = Duration::from_secs(10);
const SEND: Duration = Duration::from_secs(20);
/// After so long without any frame the other side is pinged, and after so many pings in a row it is not there.
const SILENCE: Duration = Duration::from_secs(20);
const SILENT_PINGS: u32 = 3;
/// Notifications that wait to be worked on. Who sends more without waiting for answers means no good.
const EVENTS: usize = 256;
const COMMANDS: usize = 64;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Answer = Result<Value, Lost>;

/// Why a connection or a call on it gave no answer.
#[derive(Clone, Debug)]
pub(super) enum Lost {
    /// The other side answered an error.
    Refused(RpcError),
    /// No answer came in time.
    Late(Duration),
    /// The connection is gone.
    Gone(String),
    /// What came is no JSON-RPC.
    Malformed(String),
}

impl Lost {
    pub(super) fn into_error(self, op: &'static str) -> ChainError {
        match self {
            Self::Refused(error) => error.into_chain_error(op),
            Self::Late(limit) => ChainError::new(ChainErrorKind::Unavailable, op).because(TimedOut(limit)),
            Self::Gone(why) => ChainError::new(ChainErrorKind::Unavailable, op).with("what", why),
            Self::Malformed(start) => ChainError::new(ChainErrorKind::Malformed, op).with("answer", start),
        }
    }
}

enum Command {
    Call { id: u64, text: String, answer: oneshot::Sender<Answer> },
    Cancel(u64),
}

/// An open connection. It is closed when this is dropped.
pub(crate) struct Duplex {
    commands: mpsc::Sender<Command>,
    next_id: AtomicU64,
    closed: CancellationToken,
    _alive: DropGuard,
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").field("closed", &self.closed.is_cancelled()).finish_non_exhaustive()
    }
}

/// What a connection says when it is not made.
pub(super) fn refused_upgrade(error: tungstenite::Error) -> ChainError {
    let unavailable = |hint: &'static str| ChainError::new(ChainErrorKind::Unavailable, "connect").hint_with(hint);
    match &error {
        tungstenite::Error::Http(answer)
            if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) =>
        {
            unavailable("check the token of the endpoint: the service refuses it or wants one").because(error)
        }
        tungstenite::Error::Http(answer) => {
            let status = answer.status().as_u16();
            unavailable("check host, port and path: what answers there does not speak WebSocket").with("status", status)
        }
        _ => unavailable("check that the service runs and can be reached from here").because(error),
    }
}

impl Duplex {
    /// Connects. What the subscription that is made later tells comes out of the receiver, which ends with the
    /// connection.
    pub(super) async fn open(
        url: &Url,
        headers: &HeaderMap,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<(Self, mpsc::Receiver<Value>), ChainError> {
        let mut request = url.as_str().into_client_request().map_err(refused_upgrade)?;
        request.headers_mut().extend(headers.clone());
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let connecting = connect_async_tls_with_config(request, Some(config), true, Some(Connector::Rustls(tls)));
        let (socket, _) = timeout(CONNECT, connecting)
            .await
            .map_err(|e| ChainError::new(ChainErrorKind::Unavailable, "connect").because(e))?
            .map_err(refused_upgrade)?;
        let (commands, orders) = mpsc::channel(COMMANDS);
        let (events, received) = mpsc::channel(EVENTS);
        let (alive, closed) = (CancellationToken::new(), CancellationToken::new());
        let driver = Driver { socket, orders, events, pending: HashMap::new(), channel: None, subscription: None };
        let (ends, gone) = (alive.clone(), closed.clone());
        tokio::spawn(async move {
            let _gone = gone.drop_guard();
            ends.run_until_cancelled(driver.run()).await;
        });
        Ok((Self { commands, next_id: AtomicU64::new(1), closed, _alive: alive.drop_guard() }, received))
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Calls a method by its full name. A call that is dropped or takes too long is cancelled at the other side.
    pub(super) async fn call(&self, method: &str, params: &Value, most: Duration) -> Answer {
        let gone = || Lost::Gone("the connection was closed".to_owned());
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        let (answer, answered) = oneshot::channel();
        let mut guard = Unanswered { commands: &self.commands, id: Some(id) };
        let asking = async {
            self.commands.send(Command::Call { id, text, answer }).await.map_err(|_| gone())?;
            answered.await.unwrap_or_else(|_| Err(gone()))
        };
        let result = timeout(most, asking).await;
        if result.is_ok() {
            guard.id = None;
        }
        result.unwrap_or(Err(Lost::Late(most)))
    }
}

/// Cancels a call that nobody waits for.
struct Unanswered<'a> {
    commands: &'a mpsc::Sender<Command>,
    id: Option<u64>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // A connection that is that busy is dropped with its calls soon enough.
            let _ = self.commands.try_send(Command::Cancel(id));
        }
    }
}

struct Driver {
    socket: Socket,
    orders: mpsc::Receiver<Command>,
    events: mpsc::Sender<Value>,
    pending: HashMap<u64, oneshot::Sender<Answer>>,
    /// The number of the subscription's channel, once it is known.
    channel: Option<Value>,
    /// The call that made the subscription.
    subscription: Option<u64>,
}

impl Driver {
    async fn run(mut self) {
        let lost = self.work().await;
        for (_, answer) in self.pending.drain() {
            // Who does not wait any more needs no answer.
            let _ = answer.send(Err(lost.clone()));
        }
    }

    async fn work(&mut self) -> Lost {
        let gone = |why: &dyn fmt::Display| Lost::Gone(why.to_string());
        let mut silent = 0;
        let mut until = Instant::now() + SILENCE;
        loop {
            tokio::select! {
                order = self.orders.recv() => {
                    let Some(order) = order else { return gone(&"the connection was closed") };
                    if let Err(lost) = self.obey(order).await {
                        return lost;
                    }
                }
                frame = self.socket.next() => {
                    (silent, until) = (0, Instant::now() + SILENCE);
                    let taken = match frame {
                        None | Some(Ok(Message::Close(_))) => Err(gone(&"the connection was closed")),
                        Some(Err(e)) => Err(gone(&e)),
                        Some(Ok(Message::Text(text))) => self.take(text.as_bytes()),
                        Some(Ok(Message::Binary(bytes))) => self.take(&bytes),
                        Some(Ok(_)) => Ok(()),
                    };
                    if let Err(lost) = taken {
                        return lost;
                    }
                }
                () = tokio::time::sleep_until(until) => {
                    if silent >= SILENT_PINGS {
                        return gone(&"no sign of life");
                    }
                    silent += 1;
                    until = Instant::now() + SILENCE;
                    if let Err(lost) = self.send(Message::Ping("damocles".into())).await {
                        return lost;
                    }
                }
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Lost> {
        let sent: Result<(), BoxError> = match timeout(SEND, self.socket.send(message)).await {
            Ok(sent) => sent.map_err(Into::into),
            Err(e) => Err(e.into()),
        };
        sent.map_err(|e| Lost::Gone(e.to_string()))
    }

    async fn obey(&mut self, order: Command) -> Result<(), Lost> {
        match order {
            Command::Call { id, text, answer } => {
                // The first call of a connection that subscribes is the subscription.
                self.subscription.get_or_insert(id);
                self.pending.insert(id, answer);
                self.send(Message::text(text)).await
            }
            Command::Cancel(id) => {
                if self.pending.remove(&id).is_none() {
                    return Ok(());
                }
                let text = json!({"jsonrpc": "2.0", "method": "xrpc.cancel", "params": [id]}).to_string();
                self.send(Message::text(text)).await
            }
        }
    }

    /// Takes one message: an answer, or a notification on the channel.
    fn take(&mut self, body: &[u8]) -> Result<(), Lost> {
        let malformed = || Lost::Malformed(start_of(body));
        let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(body) else { return Err(malformed()) };
        match object.remove("method") {
            Some(Value::String(method)) => self.notified(&method, object.remove("params"), malformed)?,
            Some(_) => return Err(malformed()),
            None => {
                let id = object.get("id").and_then(Value::as_u64);
                let result = result_of(object).ok_or_else(malformed)?;
                let Some((id, answer)) = id.and_then(|id| Some((id, self.pending.remove(&id)?))) else { return Ok(()) };
                if let (Ok(channel), true) = (&result, self.subscription == Some(id)) {
                    self.channel = Some(channel.clone());
                }
                // Who does not wait any more needs no answer.
                let _ = answer.send(result.map_err(Lost::Refused));
            }
        }
        Ok(())
    }

    fn notified(&self, method: &str, params: Option<Value>, malformed: impl Fn() -> Lost) -> Result<(), Lost> {
        let Some(Value::Array(params)) = params else { return Err(malformed()) };
        let mut params = params.into_iter();
        let channel = params.next().ok_or_else(&malformed)?;
        // Some servers notify before they answer; a connection has one channel.
        if self.channel.as_ref().is_some_and(|ours| *ours != channel) {
            return Ok(());
        }
        match (method, params.next()) {
            ("xrpc.ch.close", _) => Err(Lost::Gone("the service closed the channel".to_owned())),
            ("xrpc.ch.val", Some(event)) => {
                let flooded = |_| Lost::Gone("the service sends faster than can be answered".to_owned());
                self.events.try_send(event).map_err(flooded)
            }
            ("xrpc.ch.val", None) => Err(malformed()),
            _ => Ok(()),
        }
    }
}
