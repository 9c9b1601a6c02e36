//! A client of one node, or of several that serve the same chain.

use super::{
    Endpoint, EndpointHealth, Feed, FeedError, HealthState, RpcError, RpcMetrics, RpcOptions,
    cache::Cache,
    check::check,
    envelope::start_of,
    identity::Known,
    method::{self, Route},
    metrics::TimedOut,
    node::{Node, is_away, is_worth_elsewhere},
    tls,
    transport::Answer,
};
use crate::lotus_json::{Lotus, LotusJson};
use damocles_core::chain::{ChainError, ChainErrorKind};
use futures::future::{join, join_all};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{fmt, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

/// After so long, those who were to have a message too are not waited for any more.
const OTHERS_PUSHED: Duration = Duration::from_secs(5);
/// How soon everybody is asked again while nobody can be relied on.
const ANXIOUS: Duration = Duration::from_secs(1);

/// A node's JSON-RPC, or that of several nodes that stand in for each other. Each call has a timeout and a limit on its
/// answer.
///
/// Of several endpoints, only those are asked that are there, serve the same network as most of them, and agree on the
/// chain: see [`HealthState`]. They are compared before the first call, and from then on in the background. A read goes
/// to the preferred one, and to the next where that does not answer or lacks a part of the chain; what a node refuses
/// is not asked again elsewhere. A signed message goes to all.
pub struct RpcClient {
    shared: Arc<Shared>,
}

struct Shared {
    nodes: Vec<Node>,
    tls: Arc<rustls::ClientConfig>,
    options: RpcOptions,
    preferred: watch::Sender<usize>,
    network: Mutex<Known>,
    checked: Mutex<Option<Instant>>,
    /// Held by whoever compares the endpoints.
    checking: tokio::sync::Mutex<()>,
    cache: Mutex<Cache>,
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shared.nodes.iter().map(|node| &node.endpoint)).finish()
    }
}

impl RpcClient {
    /// A client of a node. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The token cannot be a header, or TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, ChainError> {
        Self::with_endpoints(vec![endpoint], RpcOptions::default())
    }

    /// A client of nodes that stand in for each other, the first of the list preferred. Nothing is sent.
    ///
    /// # Errors
    ///
    /// There is no endpoint, a token cannot be a header, or TLS cannot be set up.
    pub fn with_endpoints(endpoints: Vec<Endpoint>, options: RpcOptions) -> Result<Self, ChainError> {
        let rejected = || ChainError::new(ChainErrorKind::Rejected, "set up client");
        if endpoints.is_empty() {
            return Err(rejected().with("endpoints", "none").hint_with("name a node of the chain"));
        }
        let tls = tls::config().map_err(|e| rejected().because(e))?;
        let nodes: Vec<Node> =
            endpoints.into_iter().map(|e| Node::new(e, &tls, &options)).collect::<Result<_, ChainError>>()?;
        let shared = Shared {
            nodes,
            tls,
            preferred: watch::Sender::new(0),
            network: Mutex::default(),
            checked: Mutex::new(None),
            checking: tokio::sync::Mutex::new(()),
            cache: Mutex::new(Cache::new(options.cached)),
            options,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The preferred node.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.node(self.shared.preferred()).endpoint
    }

    /// How each endpoint is, in the order in which they were given.
    pub fn endpoints(&self) -> Vec<EndpointHealth> {
        let preferred = self.shared.preferred();
        self.shared.nodes.iter().enumerate().map(|(i, node)| node.health(i == preferred)).collect()
    }

    /// Compares the endpoints now, rather than when it is due.
    pub async fn check_endpoints(&self) {
        let _turn = self.shared.checking.lock().await;
        self.shared.check().await;
    }

    /// What was asked so far.
    pub fn metrics(&self) -> RpcMetrics {
        let endpoints = self.shared.nodes.iter().map(Node::metrics).collect();
        RpcMetrics { endpoints, cached: self.shared.cache.lock().hits() }
    }

    /// Calls `Filecoin.<method>` and reads the answer.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, answers an error ([`RpcError::of`]), or answers what is not of type `T`.
    pub async fn call<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T, ChainError> {
        self.call_from(method, params).await.map(|(value, _)| value)
    }

    /// [`RpcClient::call`], with the place of the endpoint that answered.
    pub(crate) async fn call_from<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<(T, usize), ChainError> {
        let full = format!("Filecoin.{method}");
        let (answer, from) = self.shared.ask(&full, &params).await.map_err(|e| e.with("method", method))?;
        match T::deserialize(&answer.result) {
            Ok(value) => {
                self.shared.keep(&full, &params, &answer);
                Ok((value, from))
            }
            Err(e) => {
                // What is no answer is asked for again, whoever kept it.
                self.shared.cache.lock().forget(&full, &params);
                Err(ChainError::new(ChainErrorKind::Malformed, "read answer")
                    .with("endpoint", &self.shared.node(from).endpoint)
                    .with("method", method)
                    .with("answer", start_of(answer.result.to_string().as_bytes()))
                    .because(e))
            }
        }
    }

    /// Forgets the answer to a call if it was kept: it contradicts something else.
    pub(crate) fn forget(&self, method: &str, params: &Value) {
        self.shared.cache.lock().forget(&format!("Filecoin.{method}"), params);
    }

    /// [`RpcClient::call`] for a type with a form of its own.
    ///
    /// # Errors
    ///
    /// As [`RpcClient::call`].
    pub async fn call_form<T: LotusJson>(&self, method: &'static str, params: Value) -> Result<T, ChainError> {
        self.call::<Lotus<T>>(method, params).await.map(|value| value.0)
    }

    /// Calls a method by its full name and gives its result as it is.
    ///
    /// # Errors
    ///
    /// The node cannot be reached, answers an error or no JSON-RPC.
    pub async fn raw(&self, method: &str, params: Value) -> Result<Value, ChainError> {
        let (answer, _) = self.shared.ask(method, &params).await?;
        self.shared.keep(method, &params, &answer);
        Ok(answer.result)
    }

    /// Opens `ChainNotify` at the preferred endpoint. The feed ends when another one is preferred.
    pub(crate) async fn head_feed(&self) -> Result<HeadFeed, FeedError> {
        let shared = &self.shared;
        let from = *shared.order().await.map_err(FeedError::Lost)?.first().unwrap_or(&0);
        let endpoint = &shared.node(from).endpoint;
        let opening = Feed::open(endpoint, Arc::clone(&shared.tls), shared.options.max_answer);
        let late = |e| ChainError::new(ChainErrorKind::Unavailable, "subscribe").with("endpoint", endpoint).because(e);
        let opened = tokio::time::timeout(shared.options.timeouts.connect, opening).await;
        let opened = opened.unwrap_or_else(|e| Err(FeedError::Lost(late(e))));
        if matches!(&opened, Err(FeedError::Lost(_))) {
            shared.look_soon();
        }
        let feed = opened?;
        Ok(HeadFeed { feed, from, shared: Arc::clone(shared), preferred: shared.preferred.subscribe() })
    }
}

/// Head changes of one endpoint, as long as it is the preferred one.
#[derive(Debug)]
pub(crate) struct HeadFeed {
    feed: Feed,
    from: usize,
    shared: Arc<Shared>,
    preferred: watch::Receiver<usize>,
}

impl HeadFeed {
    /// [`Feed::next`], until another endpoint is preferred.
    pub(crate) async fn changes(
        &mut self,
        silence: Duration,
    ) -> Result<Option<Vec<crate::lotus_json::HeadChange>>, FeedError> {
        self.shared.check_if_due();
        let (from, shared) = (self.from, Arc::clone(&self.shared));
        let moved = self.preferred.wait_for(|now| *now != from);
        let next = tokio::select! {
            next = self.feed.next(silence) => next,
            _ = moved => return Err(FeedError::Lost(
                ChainError::new(ChainErrorKind::Unavailable, "follow heads")
                    .with("endpoint", &shared.node(from).endpoint)
                    .with("what", "another endpoint is preferred"),
            )),
        };
        if matches!(&next, Err(FeedError::Lost(_))) {
            shared.look_soon();
        }
        next
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| &node.endpoint)).finish()
    }
}

impl Shared {
    fn node(&self, place: usize) -> &Node {
        self.nodes.get(place).or(self.nodes.first()).expect("a client has an endpoint")
    }

    fn preferred(&self) -> usize {
        *self.preferred.borrow()
    }

    fn is_one(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Asks whoever is to be asked; with the place of the endpoint that answered.
    async fn ask(self: &Arc<Self>, method: &str, params: &Value) -> Result<(Answer, usize), ChainError> {
        if method::bound_to(method, params).is_some()
            && let Some(result) = self.cache.lock().get(method, params)
        {
            return Ok((Answer { result, bytes: 0 }, self.preferred()));
        }
        let order = self.order().await?;
        match method::route_of(method) {
            Route::All if order.len() > 1 => self.ask_all(&order, method, params).await,
            Route::One => self.ask_in_order(order.get(..1).unwrap_or_default(), method, params).await,
            Route::All | Route::Any => self.ask_in_order(&order, method, params).await,
        }
    }

    /// Takes note of what an answer that was understood tells for good. What came from the cache stays as it is.
    fn keep(&self, method: &str, params: &Value, answer: &Answer) {
        if answer.bytes == 0 {
            return;
        }
        let mut cache = self.cache.lock();
        if let Some((key, epoch)) = method::tipset_in(method, &answer.result) {
            cache.learn(key, epoch);
            if method == "Filecoin.ChainHead" {
                cache.head_is(epoch);
            }
        }
        if let Some(key) = method::bound_to(method, params) {
            cache.put(method, params, &key, &answer.result, answer.bytes);
        }
    }

    async fn ask_one(&self, place: usize, method: &str, params: &Value) -> Result<Answer, ChainError> {
        let node = self.node(place);
        let answer = node.call(method, params, self.options.timeouts.of(method)).await;
        match &answer {
            Ok(_) if self.is_one() => node.becomes(HealthState::Ok, None),
            Err(error) => self.failed(place, error),
            Ok(_) => {}
        }
        answer
    }

    async fn ask_in_order(&self, order: &[usize], method: &str, params: &Value) -> Result<(Answer, usize), ChainError> {
        let mut first: Option<ChainError> = None;
        for place in order {
            match self.ask_one(*place, method, params).await {
                Ok(answer) => return Ok((answer, *place)),
                Err(error) => {
                    let is_last = !is_worth_elsewhere(&error);
                    // A refusal is worth more than that others said nothing. That one lacks what it was asked for is not:
                    // the one before it may have it, and be in time when it is asked again.
                    if is_last || first.is_none() {
                        first = Some(error);
                    }
                    if is_last {
                        break;
                    }
                }
            }
        }
        Err(first.unwrap_or_else(|| ChainError::new(ChainErrorKind::Unavailable, "ask node").with("endpoints", "none")))
    }

    /// Gives the same to all. The answer is that of the first in order that answers at all: the pool and the nonces
    /// that are asked for afterwards are those of the same endpoint.
    async fn ask_all(&self, order: &[usize], method: &str, params: &Value) -> Result<(Answer, usize), ChainError> {
        let Some((first, others)) = order.split_first() else {
            return self.ask_in_order(order, method, params).await;
        };
        let others = async {
            let each = others.iter().map(|place| async move { (*place, self.ask_one(*place, method, params).await) });
            join_all(each).await
        };
        // The others are given their time and not more: they hear of the message from the network as well.
        let others = tokio::time::timeout(OTHERS_PUSHED, others);
        let (answer, others) = join(self.ask_one(*first, method, params), others).await;
        let error = match answer {
            Ok(answer) => return Ok((answer, *first)),
            Err(error) if !is_worth_elsewhere(&error) => return Err(error),
            Err(error) => error,
        };
        let mut refusal = None;
        for (place, other) in others.unwrap_or_default() {
            match other {
                Ok(answer) => return Ok((answer, place)),
                Err(other) if refusal.is_none() && RpcError::of(&other).is_some() => refusal = Some(other),
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or(error))
    }

    /// The endpoints that can be relied on, the preferred one first.
    async fn order(self: &Arc<Self>) -> Result<Vec<usize>, ChainError> {
        if self.is_one() {
            return Ok(vec![0]);
        }
        if self.checked.lock().is_none() {
            self.check_unless_within(Duration::MAX).await;
        }
        self.check_if_due();
        let mut order = self.relied_on();
        if order.is_empty() {
            self.check_unless_within(ANXIOUS).await;
            order = self.relied_on();
        }
        if !order.is_empty() {
            return Ok(order);
        }
        let mut error = ChainError::new(ChainErrorKind::Unavailable, "choose endpoint");
        for node in &self.nodes {
            let health = node.health(false);
            let reason = health.reason.unwrap_or_default();
            error = error.with("endpoint", format_args!("{} is {} ({reason})", health.endpoint, health.state));
        }
        Err(error.hint_with("no endpoint can be relied on: look at the nodes, or name others"))
    }

    fn relied_on(&self) -> Vec<usize> {
        let preferred = self.preferred();
        let ok = |place: &usize| self.node(*place).state() == HealthState::Ok;
        let others = (0..self.nodes.len()).filter(|place| *place != preferred);
        std::iter::once(preferred).chain(others).filter(ok).collect()
    }

    /// Compares the endpoints in the background when it is time.
    fn check_if_due(self: &Arc<Self>) {
        let due = |then: Instant| then.elapsed() >= self.options.check_every;
        if self.is_one() || !self.checked.lock().is_some_and(due) || self.checking.try_lock().is_err() {
            return;
        }
        let (shared, every) = (Arc::clone(self), self.options.check_every);
        tokio::spawn(async move { shared.check_unless_within(every).await });
    }

    /// Compares the endpoints in the background although it is not time yet, unless that was done just now: something
    /// went wrong that says little of the endpoint itself, as the end of a subscription does.
    fn look_soon(self: &Arc<Self>) {
        if !self.is_one() {
            let shared = Arc::clone(self);
            tokio::spawn(async move { shared.check_unless_within(ANXIOUS).await });
        }
    }

    /// Compares the endpoints, unless that was done within so long; waits for whoever is at it already.
    async fn check_unless_within(&self, recent: Duration) {
        let _turn = self.checking.lock().await;
        let is_recent = self.checked.lock().is_some_and(|then| then.elapsed() < recent);
        if !is_recent {
            self.check().await;
        }
    }

    async fn check(&self) {
        let agreed = check(&self.nodes, &self.network, &self.options).await;
        if !self.is_one()
            && let Some(head) = agreed
        {
            // What one endpoint says of its head between two comparisons makes nothing final.
            self.cache.lock().head_at_most(head.saturating_add(self.options.agreement.max_lag));
        }
        *self.checked.lock() = Some(Instant::now());
        self.choose();
    }

    /// Notes that an endpoint failed. One that is away is not asked again before it was looked at.
    fn failed(&self, place: usize, error: &ChainError) {
        if is_away(error) && (self.is_one() || self.node(place).state() == HealthState::Ok) {
            self.node(place).becomes(HealthState::Away, Some(error.chain()));
            self.choose();
        }
    }

    /// Keeps the preferred endpoint as long as it can be relied on; then the first of the list that can be.
    fn choose(&self) {
        if self.is_one() {
            return;
        }
        let Some(best) = self.relied_on().first().copied() else {
            warn!("no endpoint can be relied on");
            return;
        };
        let moved = self.preferred.send_if_modified(|now| {
            let moved = *now != best;
            *now = best;
            moved
        });
        if moved {
            info!(endpoint = %self.node(best).endpoint, "another endpoint is preferred");
        }
    }
}

/// Whether an error says that the node lacks a part of the chain: a block of the state, or the tipset that was asked
/// about. Nothing follows from it for what is on chain.
pub(crate) fn is_missing_block(error: &ChainError) -> bool {
    RpcError::of(error).is_some_and(|said| said.is_missing_block() || said.is_missing_tipset())
}

/// Whether an error says that no answer came in time, from a node or a service that may well be there.
pub(crate) fn is_timeout(error: &ChainError) -> bool {
    TimedOut::is_source_of(error)
}

/// Whether an error says that the node does not know the method.
pub(crate) fn is_unknown_method(error: &ChainError) -> bool {
    RpcError::of(error).is_some_and(RpcError::is_unknown_method)
}
