//! A proxy between two programs that counts what passes, so that a kill can hit the n-th call and not a wall-clock moment.

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
    /// After it was passed on: the reply is lost.
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

/// A running proxy. It forwards until it is dropped; its target may come and go and change its port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    trap: Arc<parking_lot::Mutex<Option<Trap>>>,
    count: Arc<AtomicU64>,
    sprung: mpsc::UnboundedReceiver<()>,
    cancel: CancellationToken,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `target`.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (spring, sprung) = mpsc::unbounded_channel();
        let shared = Shared {
            target: watch::Sender::new(target),
            trap: Arc::default(),
            count: Arc::default(),
            spring,
            cancel: CancellationToken::new(),
        };
        let proxy = Self {
            address,
            target: shared.target.clone(),
            trap: Arc::clone(&shared.trap),
            count: Arc::clone(&shared.count),
            sprung,
            cancel: shared.cancel.clone(),
        };
        tokio::spawn(accept(listener, shared));
        Ok(proxy)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forwards to another address from the next connection on.
    pub fn retarget(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Sets a trap and starts counting from zero.
    pub fn set_trap(&self, trap: Trap) {
        self.count.store(0, Ordering::SeqCst);
        *self.trap.lock() = Some(trap);
    }

    /// How many calls that the trap counts have passed.
    pub fn counted(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Resolves when the trap springs. The call that sprang it is held back until its connection breaks.
    pub async fn sprung(&mut self) {
        self.sprung.recv().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[derive(Clone, Debug)]
struct Shared {
    target: watch::Sender<SocketAddr>,
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
                    // A broken connection is what this proxy is for.
                    let _ = forward(client, shared).await;
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
    let requests = async {
        let mut buffer = vec![0; 64 << 10];
        // The end of the last chunk, so that a needle across two chunks is seen; its own hits are counted already.
        let mut tail: Vec<u8> = Vec::new();
        loop {
            let n = from_client.read(&mut buffer).await?;
            let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else {
                return to_server.shutdown().await;
            };
            let keep = shared.trap.lock().as_ref().map_or(0, |t| t.needle.len() - 1);
            let mut seen = tail.split_off(tail.len().saturating_sub(keep));
            seen.extend_from_slice(chunk);
            let springs = shared.springs(&seen);
            tail = seen;
            if springs == Some(Side::Before) {
                let _ = shared.spring.send(());
                std::future::pending::<()>().await;
            }
            to_server.write_all(chunk).await?;
            if springs == Some(Side::After) {
                to_server.flush().await?;
                let _ = shared.spring.send(());
                std::future::pending::<()>().await;
            }
        }
    };
    let replies = tokio::io::copy(&mut from_server, &mut to_client);
    // Either direction ends the connection: a held request must not keep a dead peer's socket open.
    tokio::select! {
        done = requests => done,
        done = replies => done.map(drop),
    }
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
        drop(client);
        assert_eq!(peer.read(&mut buffer).await.unwrap(), 0, "the held call never arrives");
    }
}
