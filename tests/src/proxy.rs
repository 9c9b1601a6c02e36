//! A proxy between two programs that counts what passes, so that a kill can hit the n-th call and not a wall-clock
//! moment. It can also be the peer that is away, or one that talks rubbish.

use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// When, around a call, the trap springs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before the call is passed on: the other side never sees it.
    Before,
    /// When its reply comes, which is lost: the other side did what it was asked to.
    After,
}

/// The n-th call whose bytes contain a text.
#[derive(Clone, Debug)]
pub struct Trap {
    /// What to count, e.g. `Filecoin.MpoolPush` or `"method"`.
    pub needle: String,
    /// Which one, from 1.
    pub nth: u64,
    /// When, around that call.
    pub side: Side,
}

/// What the proxy is to those who connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The way to its target.
    Forward,
    /// A peer that hangs up at once.
    Refuse,
    /// A peer that answers every request so.
    Answer(Rubbish),
}

/// What a broken peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rubbish {
    /// A JSON-RPC error.
    Error,
    /// A JSON-RPC result that is null.
    Null,
    /// A JSON-RPC result of a form that nothing asked for.
    Number,
    /// A page of a gateway, with a status that says so.
    Html,
    /// No HTTP at all.
    Noise,
}

/// A running proxy. It forwards until it is dropped; its target may come and go and change its port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Shared,
    sprung: mpsc::UnboundedReceiver<()>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `target`.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (spring, sprung) = mpsc::unbounded_channel();
        let shared = Shared {
            target: watch::Sender::new(target),
            mode: watch::Sender::new(Mode::Forward),
            subscriptions: watch::Sender::new(0),
            rubbish: watch::Sender::new(0),
            trap: Arc::default(),
            count: Arc::default(),
            spring,
            cancel: CancellationToken::new(),
        };
        let proxy = Self { address, shared: shared.clone(), sprung };
        tokio::spawn(accept(listener, shared));
        Ok(proxy)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards to another address from the next connection on.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.target.send_replace(target);
    }

    /// Is something else from now on; all connections are cut.
    pub fn become_peer(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Sets a trap and starts counting from zero.
    pub fn set_trap(&mut self, trap: Trap) {
        while self.sprung.try_recv().is_ok() {}
        self.shared.count.store(0, Ordering::SeqCst);
        *self.shared.trap.lock() = Some(trap);
    }

    /// How many calls that the trap counts have passed.
    pub fn counted(&self) -> u64 {
        self.shared.count.load(Ordering::SeqCst)
    }

    /// Resolves when the trap springs. The call that sprang it is held back until its connection breaks.
    pub async fn sprung(&mut self) {
        self.sprung.recv().await;
    }

    /// How many calls were answered by rubbish so far, as a value to wait on.
    pub fn rubbish(&self) -> watch::Receiver<u64> {
        self.shared.rubbish.subscribe()
    }

    /// How many WebSockets were opened so far, as a value to wait on.
    pub fn subscriptions(&self) -> watch::Receiver<u64> {
        self.shared.subscriptions.subscribe()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

#[derive(Clone, Debug)]
struct Shared {
    target: watch::Sender<SocketAddr>,
    mode: watch::Sender<Mode>,
    subscriptions: watch::Sender<u64>,
    rubbish: watch::Sender<u64>,
    trap: Arc<parking_lot::Mutex<Option<Trap>>>,
    count: Arc<AtomicU64>,
    spring: mpsc::UnboundedSender<()>,
    cancel: CancellationToken,
}

impl Shared {
    /// Counts one chunk of a request; says whether the trap springs at it, and on which side.
    fn springs(&self, seen: &[u8]) -> Option<Side> {
        let mut guard = self.trap.lock();
        let trap = guard.as_ref()?;
        let hits = count_hits(seen, trap.needle.as_bytes());
        let before = self.count.fetch_add(hits, Ordering::SeqCst);
        let side = trap.side;
        let springs = before < trap.nth && before + hits >= trap.nth;
        if springs {
            *guard = None;
        }
        springs.then_some(side)
    }
}

fn count_hits(haystack: &[u8], needle: &[u8]) -> u64 {
    let hits = haystack.windows(needle.len()).filter(|w| *w == needle).count();
    u64::try_from(hits).unwrap_or(u64::MAX)
}

async fn accept(listener: TcpListener, shared: Shared) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.cancel.cancelled() => return,
            Some(_) = running.join_next() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let shared = shared.clone();
                running.spawn(async move {
                    let mut changed = shared.mode.subscribe();
                    let mode = *changed.borrow_and_update();
                    let served = async {
                        match mode {
                            Mode::Forward => forward(client, shared.clone()).await,
                            Mode::Refuse => Ok(()),
                            Mode::Answer(rubbish) => talk_rubbish(client, rubbish, &shared.rubbish).await,
                        }
                    };
                    // A broken connection is what this proxy is for.
                    tokio::select! {
                        _ = served => {}
                        _ = changed.changed() => {}
                    }
                });
            }
        }
    }
}

async fn forward(client: TcpStream, shared: Shared) -> std::io::Result<()> {
    let target = *shared.target.borrow();
    let server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    // Set when the trap sprang: nothing passes back any more.
    let lost = CancellationToken::new();
    let requests = async {
        let mut buffer = vec![0; 64 << 10];
        // The end of the last chunk, so that a needle across two chunks is seen; its own hits are counted already.
        let mut tail: Vec<u8> = Vec::new();
        loop {
            let n = from_client.read(&mut buffer).await?;
            let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else {
                return to_server.shutdown().await;
            };
            if count_hits(&chunk.to_ascii_lowercase(), b"sec-websocket-key") > 0 {
                shared.subscriptions.send_modify(|n| *n += 1);
            }
            let keep = shared.trap.lock().as_ref().map_or(0, |t| t.needle.len() - 1);
            let mut seen = tail.split_off(tail.len().saturating_sub(keep));
            seen.extend_from_slice(chunk);
            let springs = shared.springs(&seen);
            tail = seen;
            if springs == Some(Side::Before) {
                let _ = shared.spring.send(());
                std::future::pending::<()>().await;
            }
            if springs == Some(Side::After) {
                lost.cancel();
            }
            to_server.write_all(chunk).await?;
        }
    };
    let replies = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = from_server.read(&mut buffer).await?;
            let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else { return Ok(()) };
            if lost.is_cancelled() {
                let _ = shared.spring.send(());
            } else {
                to_client.write_all(chunk).await?;
            }
        }
    };
    // Either direction ends the connection: a held request must not keep a dead peer's socket open.
    tokio::select! {
        done = requests => done,
        done = replies => done,
    }
}

async fn talk_rubbish(mut client: TcpStream, rubbish: Rubbish, count: &watch::Sender<u64>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let body = loop {
        let n = client.read(&mut buffer).await?;
        let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else { return Ok(()) };
        request.extend_from_slice(chunk);
        if let Some(body) = body_of(&request) {
            break body;
        }
    };
    if count_hits(&request.to_ascii_lowercase(), b"sec-websocket-key") > 0 {
        // A node that answers a subscription in plain HTTP has none to offer, which is another story.
        return Ok(());
    }
    let id = serde_json::from_slice::<Value>(&body).ok().and_then(|r| r.get("id").cloned()).unwrap_or(Value::Null);
    let ok = |body: Value| http("200 OK", "application/json", &body.to_string());
    let answer = match rubbish {
        Rubbish::Error => ok(json!({"jsonrpc": "2.0", "id": id, "error": {"code": 1, "message": "the node is ill"}})),
        Rubbish::Null => ok(json!({"jsonrpc": "2.0", "id": id, "result": null})),
        Rubbish::Number => ok(json!({"jsonrpc": "2.0", "id": id, "result": -7})),
        Rubbish::Html => http("502 Bad Gateway", "text/html", "<html><h1>502 Bad Gateway</h1></html>"),
        Rubbish::Noise => b"\x00\xff\r\n\r\nnoise".to_vec(),
    };
    client.write_all(&answer).await?;
    count.send_modify(|n| *n += 1);
    client.shutdown().await
}

fn http(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

/// The body of a whole request; none before all of it is there.
fn body_of(request: &[u8]) -> Option<Vec<u8>> {
    let end = request.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(request.get(..end)?).to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
    request.get(end..end + length).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_trap_springs_at_the_nth_call_and_holds_it() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
        proxy.set_trap(Trap { needle: "push".to_owned(), nth: 2, side: Side::Before });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut peer, _) = server.accept().await.unwrap();
        let mut buffer = [0; 64];
        // The needle comes in two chunks.
        client.write_all(b"a pu").await.unwrap();
        let n = peer.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"a pu");
        client.write_all(b"sh").await.unwrap();
        let n = peer.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"sh");
        client.write_all(b"another push").await.unwrap();
        proxy.sprung().await;
        assert_eq!(proxy.counted(), 2);
        // The held call keeps its connection until somebody lets go of it.
        drop(proxy);
        drop(client);
        assert_eq!(peer.read(&mut buffer).await.unwrap(), 0, "the held call never arrives");
    }

    #[tokio::test]
    async fn the_reply_to_a_trapped_call_is_lost() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
        proxy.set_trap(Trap { needle: "push".to_owned(), nth: 1, side: Side::After });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut peer, _) = server.accept().await.unwrap();
        let mut buffer = [0; 64];
        client.write_all(b"push").await.unwrap();
        assert_eq!(peer.read(&mut buffer).await.unwrap(), 4, "the call arrives");
        peer.write_all(b"done").await.unwrap();
        proxy.sprung().await;
        drop(proxy);
        drop(peer);
        let read = client.read(&mut buffer).await.unwrap_or(0);
        assert_eq!(read, 0, "its reply does not");
    }

    #[tokio::test]
    async fn a_broken_peer_answers_with_the_request_id() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap()).await.unwrap();
        proxy.become_peer(Mode::Answer(Rubbish::Null));
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 8\r\n\r\n{\"id\":7}").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(r#"{"id":7,"jsonrpc":"2.0","result":null}"#), "{answer}");
    }
}
