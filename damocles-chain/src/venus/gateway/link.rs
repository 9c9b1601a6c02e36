//! A channel from the gateway, kept open.

use super::{
    GatewayConfig, WalletLink, WinningProver,
    event::{ConnectedCompleted, INIT_CONNECT, RequestEvent, ResponseEvent},
    proof::ProofWork,
};
use crate::{
    rpc::{Duplex, Service, ServiceName, Wire},
    signer::Signer,
};
use async_trait::async_trait;
use damocles_core::{
    ActorId, CancellationToken,
    chain::{ChainError, ChainErrorKind},
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

const GATEWAY: ServiceName = ServiceName {
    prefix: "Gateway",
    namespace: "gateway.IGateway",
    path: "/rpc/v2",
    hint: "check that sophon-gateway runs, that the endpoint is its own and that the token's account is in sophon-auth",
};
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(250);
pub(super) const LAST_DELAY: Duration = Duration::from_secs(30);
/// Requests that are worked on at the same time. More are refused, so that the gateway can ask somebody else.
const AT_ONCE: usize = 32;
/// Requests that are worked on or refused at the same time. Refusals are answers as well, and a gateway that takes none
/// would fill the memory with them.
const MOST: usize = 2 * AT_ONCE;

/// What is done with the requests of one kind of channel.
#[async_trait]
pub(super) trait Work: Send + Sync + 'static {
    /// The call that subscribes.
    const LISTEN: &'static str;
    /// The call that answers.
    const RESPOND: &'static str;

    /// What is said when subscribing.
    fn policy(&self) -> Value;

    /// A channel is ready, or is gone.
    fn connected(&self, channel: Option<Channel>);

    /// Answers a request with JSON, or with what went wrong.
    async fn answer(&self, method: &str, payload: &[u8], cancel: &CancellationToken) -> Result<Value, String>;
}

/// A channel that is ready.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    pub(super) id: String,
    pub(super) open: Arc<Duplex>,
}

/// A gateway. What is served through it is served as long as its future runs, whatever happens to connections.
#[derive(Debug)]
pub struct GatewayLink {
    pub(super) service: Service,
    pub(super) config: GatewayConfig,
}

impl GatewayLink {
    /// A link. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The token cannot be a header, or TLS cannot be set up.
    pub fn new(config: GatewayConfig) -> Result<Arc<Self>, ChainError> {
        let service = Service::new(config.endpoint.clone(), GATEWAY, Wire::WebSocket)?;
        Ok(Arc::new(Self { service, config }))
    }

    /// Makes a miner's winning proofs for the cluster until cancelled. One channel serves one miner.
    pub async fn serve_proofs(
        self: &Arc<Self>,
        miner: ActorId,
        prover: Arc<dyn WinningProver>,
        cancel: CancellationToken,
    ) {
        let work = ProofWork { miner, prover, prove_within: self.config.prove_within };
        self.serve(Arc::new(work), cancel).await;
    }

    /// Offers the keys of a signer to these accounts of the cluster. Nothing is sent before [`WalletLink::run`].
    pub fn wallet(self: &Arc<Self>, signer: Arc<dyn Signer>, accounts: Vec<String>) -> WalletLink {
        WalletLink::new(Arc::clone(self), signer, accounts)
    }

    /// Serves one channel until cancelled, opening it again whenever it is lost.
    pub(super) async fn serve<W: Work>(self: &Arc<Self>, work: Arc<W>, cancel: CancellationToken) {
        let mut delay = FIRST_DELAY;
        loop {
            let ended = cancel.run_until_cancelled(self.session(&work)).await;
            work.connected(None);
            let Some((ready, error)) = ended else { return };
            warn!(error = error.chain(), "the gateway's channel is lost, opening it again");
            if ready {
                delay = FIRST_DELAY;
            }
            if cancel.run_until_cancelled(sleep(delay)).await.is_none() {
                return;
            }
            delay = LAST_DELAY.min(delay * 2);
        }
    }

    /// Serves one connection to its end: whether it was ever ready, and why it ended. What is still worked on then is
    /// cancelled, for the gateway has forgotten its requests with the connection.
    async fn session<W: Work>(self: &Arc<Self>, work: &Arc<W>) -> (bool, ChainError) {
        let (open, events) = match self.service.listen(W::LISTEN, json!([work.policy()]), self.config.timeout).await {
            Ok((open, events)) => (Arc::new(open), events),
            Err(e) => return (false, e),
        };
        let ended = CancellationToken::new();
        let _ends = ended.clone().drop_guard();
        let mut ready = false;
        let error = self.listen(work, &open, events, &ended, &mut ready).await;
        (ready, error)
    }

    async fn listen<W: Work>(
        self: &Arc<Self>,
        work: &Arc<W>,
        open: &Arc<Duplex>,
        mut events: mpsc::Receiver<Value>,
        ended: &CancellationToken,
        ready: &mut bool,
    ) -> ChainError {
        let lost = |what: &'static str| {
            ChainError::new(ChainErrorKind::Unavailable, "serve gateway")
                .with("endpoint", self.service.endpoint())
                .with("what", what)
        };
        let until = Instant::now() + self.config.ready_within;
        let mut tasks = JoinSet::new();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                () = sleep_until(until), if !*ready => return lost("it did not say in time that the channel is ready"),
            };
            let Some(event) = event else { return lost("the connection was closed") };
            let request = match RequestEvent::deserialize(&event) {
                Ok(request) => request,
                Err(e) => {
                    warn!(error = %e, "the gateway sent an event that is none");
                    continue;
                }
            };
            if request.method == INIT_CONNECT {
                let Ok(connected) = serde_json::from_slice::<ConnectedCompleted>(&request.payload) else {
                    return lost("the channel has no number");
                };
                info!(channel = connected.channel_id, "the gateway's channel is ready");
                *ready = true;
                work.connected(Some(Channel { id: connected.channel_id, open: Arc::clone(open) }));
                continue;
            }
            if tasks.len() >= MOST {
                return lost("it asks without end and takes no answers");
            }
            let busy = tasks.len() >= AT_ONCE;
            let (link, work, open, ended) = (Arc::clone(self), Arc::clone(work), Arc::clone(open), ended.clone());
            tasks.spawn(async move {
                let answer = if busy {
                    Err("too many requests are worked on".to_owned())
                } else {
                    work.answer(&request.method, &request.payload, &ended).await
                };
                link.respond::<W>(&open, request.id, answer).await;
            });
        }
    }

    async fn respond<W: Work>(&self, open: &Duplex, id: String, answer: Result<Value, String>) {
        let (payload, error) = match answer {
            Ok(value) => (value.to_string().into_bytes(), String::new()),
            Err(error) => (Vec::new(), error),
        };
        let response = ResponseEvent { id, payload, error };
        if let Err(e) = self.service.call_on(open, W::RESPOND, &json!([response]), self.config.timeout).await {
            warn!(id = response.id, error = e.chain(), "the gateway did not take an answer");
        }
    }
}
