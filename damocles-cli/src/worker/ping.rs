//! What the worker tells its manager at intervals: who it is, where it takes orders, and what its threads do.

use super::{
    board::Board,
    control::{ThreadState, WorkerControl as _},
};
use crate::config::{HumanDuration, WorkerConfig};
use damocles_seal::rpc::{
    RpcClient,
    venus::{WorkerInfo, WorkerPing, WorkerSummary},
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::UdpSocket;

/// How often the manager is told, if the file does not say.
const EVERY: HumanDuration = HumanDuration::secs(30);

/// A manager keeps no more than a page of each worker.
const LONGEST_ERROR: usize = 500;

/// Tells the manager at intervals that the worker is there.
#[derive(Debug)]
pub(super) struct Pinger {
    client: RpcClient,
    board: Arc<Board>,
    every: Duration,
    listen: Option<SocketAddr>,
    socket: PathBuf,
    manager: String,
}

impl Pinger {
    pub(super) fn new(client: RpcClient, board: &Arc<Board>, config: &WorkerConfig, socket: &Path) -> Self {
        Self {
            client,
            board: Arc::clone(board),
            every: config.worker.ping_interval.unwrap_or(EVERY).0,
            listen: config.worker.control_listen,
            socket: socket.to_owned(),
            manager: config.sector_manager.rpc_client.addr.url_or("/"),
        }
    }

    /// The first word at once, then one after each interval. A manager that does not hear is told of in the log once.
    pub(super) async fn run(&self) -> Infallible {
        let mut heard = true;
        loop {
            let hears = self.tell().await;
            match &hears {
                Ok(()) if !heard => tracing::info!("the manager hears from this worker again"),
                Err(error) if heard => {
                    tracing::warn!(error = %error.chain(), "the manager does not hear from this worker");
                }
                _ => {}
            }
            heard = hears.is_ok();
            tokio::time::sleep(self.every).await;
        }
    }

    async fn tell(&self) -> Result<(), damocles_seal::service::ServiceError> {
        let info = info(&self.board, self.dest().await);
        self.client.ask::<WorkerPing>(&(info,)).await
    }

    /// Where orders are taken, as the manager may reach it.
    async fn dest(&self) -> String {
        match self.listen {
            None => format!("unix:{}", self.socket.display()),
            Some(address) if !address.ip().is_unspecified() => address.to_string(),
            Some(address) => match self.own_ip(address).await {
                Some(own) => SocketAddr::new(own, address.port()).to_string(),
                None => address.to_string(),
            },
        }
    }

    /// The address of this machine on the way to the manager. Nothing is sent for that.
    async fn own_ip(&self, listen: SocketAddr) -> Option<std::net::IpAddr> {
        let url = reqwest::Url::parse(&self.manager).ok()?;
        let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
        let mut found = tokio::net::lookup_host((host, url.port_or_known_default()?)).await.ok()?;
        let manager = found.find(|found| found.is_ipv4() == listen.is_ipv4())?;
        let socket = UdpSocket::bind(SocketAddr::new(listen.ip(), 0)).await.ok()?;
        socket.connect(manager).await.ok()?;
        socket.local_addr().ok().map(|own| own.ip())
    }
}

/// The worker in the incumbent's words: what waits for an operator is paused, and what has an error counts as that too.
fn info(board: &Board, dest: String) -> WorkerInfo {
    let status = board.status();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let count =
        |states: &[ThreadState]| number(status.threads.iter().filter(|thread| states.contains(&thread.state)).count());
    let errors: Vec<&str> = status.threads.iter().filter_map(|thread| thread.last_error.as_deref()).collect();
    WorkerInfo {
        name: status.worker.clone(),
        dest,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        summary: WorkerSummary {
            threads: count(&ThreadState::ALL),
            empty: count(&[ThreadState::Starting, ThreadState::Idle]),
            paused: count(&[ThreadState::Paused, ThreadState::Parked]),
            running: count(&[ThreadState::Running, ThreadState::Draining]),
            waiting: count(&[ThreadState::Waiting]),
            errors: number(errors.len()),
        },
        last_error: errors.first().map(|error| error.chars().take(LONGEST_ERROR).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::SystemClock,
        config::Source,
        server::{RequestHeaders, RpcHandler, Server},
        signals::Shutdown,
        worker::{hot::Hot, info::Facts, jobs::Jobs, metrics::Calls},
    };
    use async_trait::async_trait;
    use damocles_core::{CancellationToken, Clock as _};
    use damocles_seal::rpc::RpcOptions;
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    /// A manager that refuses every word.
    #[derive(Debug)]
    struct Deaf(mpsc::UnboundedSender<Value>);

    #[async_trait]
    impl RpcHandler for Deaf {
        async fn handle(&self, _: &RequestHeaders, body: String) -> Option<String> {
            self.0.send(serde_json::from_str(&body).unwrap()).unwrap();
            Some(json!({"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "not now"}}).to_string())
        }
    }

    fn pinger(manager: SocketAddr, worker: &str) -> Pinger {
        let text = format!(
            "[worker]\nname = \"w\"\nping_interval = \"10ms\"\n{worker}\n[sector_manager]\nrpc_client.addr = \"http://{manager}\"\n\
             [[sealing_thread]]\nlocation = \"/mnt/a\"\n[[sealing_thread]]\nlocation = \"/mnt/b\"\n"
        );
        let source = Source::of("w.toml", text);
        let config = WorkerConfig::parse(&source).unwrap();
        let calls = Arc::new(Calls::new(Arc::new(SystemClock)));
        let facts = Facts::new(&config, SystemClock.now(), calls);
        let jobs = Arc::new(Jobs::new(Arc::default()));
        let hot = Hot::new(source, config.clone(), Arc::new(SystemClock));
        let board = Arc::new(Board::new(&config, &Shutdown::new(), jobs, facts, hot));
        let client = RpcClient::http(&RpcOptions::new(format!("http://{manager}/rpc/v0"))).unwrap();
        Pinger::new(client, &board, &config, Path::new("/run/w.sock"))
    }

    #[tokio::test]
    async fn a_manager_is_told_at_once_and_again_whatever_it_says() {
        let (told, mut heard) = mpsc::unbounded_channel();
        let server = Server::bind_anywhere("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        let served = CancellationToken::new();
        let serving = tokio::spawn(server.route_rpc("/rpc/v0", Arc::new(Deaf(told))).serve(served.clone()));
        let pinger = pinger(address, "");
        let pinging = tokio::spawn(async move { pinger.run().await });
        for _ in 0..2 {
            let said = heard.recv().await.unwrap();
            let summary = json!({"Threads": 2, "Empty": 2, "Paused": 0, "Running": 0, "Waiting": 0, "Errors": 0});
            let version = env!("CARGO_PKG_VERSION");
            let info = json!({"Name": "w", "Dest": "unix:/run/w.sock", "Version": version, "Summary": summary});
            assert_eq!((&said["method"], &said["params"]), (&json!("Venus.WorkerPing"), &json!([info])));
        }
        pinging.abort();
        served.cancel();
        serving.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_address_is_one_that_the_manager_can_reach() {
        let manager = "127.0.0.1:1789".parse().unwrap();
        let listen = |at: &str| format!("control_listen = \"{at}\"\ncontrol_token_file = \"/t\"");
        assert_eq!(pinger(manager, &listen("10.1.2.3:17890")).dest().await, "10.1.2.3:17890");
        assert_eq!(pinger(manager, &listen("0.0.0.0:17890")).dest().await, "127.0.0.1:17890");
        assert_eq!(pinger(manager, &listen("[::]:17890")).dest().await, "[::]:17890", "not reached that way");
    }
}
