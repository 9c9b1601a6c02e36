//! The dispatch of a server.

use super::{
    ADMIN, METHODS,
    args::Args,
    args::RpcFault,
    faults::{Kind, Struck},
    message::lookup,
};
use crate::devnet::node::Devnet;
use cid::Cid;
use futures::FutureExt;
use jsonrpc_core::{BoxFuture, ErrorCode, IoHandler, Params};
use serde_json::Value;
use std::{fmt, sync::Arc};
use tokio::{sync::broadcast::error::RecvError, time::sleep};

/// How many epochs `StateWaitMsg` may be asked to wait after a message, as in Lotus.
const MAX_CONFIDENCE: i64 = 900;

/// A devnet's RPC: request texts in, response texts out.
#[derive(Clone)]
pub struct DevnetRpc {
    pub(super) devnet: Arc<Devnet>,
    io: Arc<IoHandler>,
}

impl fmt::Debug for DevnetRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevnetRpc").field("devnet", &self.devnet).finish_non_exhaustive()
    }
}

impl DevnetRpc {
    /// Serves a devnet, with the methods that make it misbehave: for those who can only be reached from this machine.
    #[must_use]
    pub fn new(devnet: Arc<Devnet>) -> Self {
        Self::with(devnet, true)
    }

    /// Serves a devnet to anybody: without the methods that make it misbehave.
    #[must_use]
    pub fn public(devnet: Arc<Devnet>) -> Self {
        Self::with(devnet, false)
    }

    fn with(devnet: Arc<Devnet>, admin: bool) -> Self {
        let mut io = IoHandler::new();
        for (name, handler) in METHODS.iter().chain(if admin { ADMIN } else { &[] }) {
            let devnet = Arc::clone(&devnet);
            io.add_method(name, move |params: Params| {
                let devnet = Arc::clone(&devnet);
                // Proofs are verified and files are read in here.
                let work = tokio::task::spawn_blocking(move || handler(&devnet, &Args::new(value_of(params))?));
                answer(async move { work.await.map_err(|e| RpcFault::new(e.to_string()))? }.boxed())
            });
        }
        let waiting = Arc::clone(&devnet);
        io.add_method("Filecoin.StateWaitMsg", move |params: Params| {
            let devnet = Arc::clone(&waiting);
            answer(async move { wait(&devnet, &Args::new(value_of(params))?).await }.boxed())
        });
        Self { devnet, io: Arc::new(io) }
    }

    /// Answers one request, or a batch. None for notifications, and for what a fault swallows.
    pub async fn handle(&self, request: &str) -> Option<String> {
        self.respond(request).await.into_iter().next()
    }

    /// All answers to a request: none where a fault swallows it, two where one doubles them.
    pub(super) async fn respond(&self, request: &str) -> Vec<String> {
        if !self.devnet.faults.any() {
            return self.io.handle_request(request).await.into_iter().collect();
        }
        let struck = self.strike(request);
        if struck.has(&Kind::DropRequest) {
            return Vec::new();
        }
        sleep(struck.before()).await;
        let request = match struck.stale() {
            Some(epochs) => self.backdate(request, epochs).unwrap_or_else(|| request.to_owned()),
            None => request.to_owned(),
        };
        let answer = self.io.handle_request(&request).await;
        if struck.has(&Kind::DuplicateRequest) {
            self.io.handle_request(&request).await;
        }
        sleep(struck.after()).await;
        let Some(answer) = answer.filter(|_| !struck.has(&Kind::DropAnswer)) else { return Vec::new() };
        let answer = struck.falsify(answer);
        let twice = struck.has(&Kind::DuplicateAnswer).then(|| answer.clone());
        std::iter::once(answer).chain(twice).collect()
    }

    /// What strikes a request; what strikes any of a batch strikes all of it.
    fn strike(&self, request: &str) -> Struck {
        let Ok(request) = serde_json::from_str::<Value>(request) else { return Struck::default() };
        let each = match &request {
            Value::Array(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        let methods = each.iter().filter_map(|r| r.get("method")?.as_str());
        Struck(methods.flat_map(|method| self.devnet.faults.strike(method).0).collect())
    }

    /// A request as it would be from epochs ago: whatever it asks at the head, it asks at the head of then.
    fn backdate(&self, request: &str, epochs: i64) -> Option<String> {
        let mut request: Value = serde_json::from_str(request).ok()?;
        let then = {
            let chain = self.devnet.chain.read();
            let head = chain.head();
            chain.at_or_before(head.height.saturating_sub(epochs)).unwrap_or(head)
        };
        let key = super::args::lotus(vec![then.cid]).ok()?;
        if request.get("method")? == "Filecoin.ChainHead" {
            *request.get_mut("method")? = Value::from("Filecoin.ChainGetTipSet");
            request.as_object_mut()?.insert("params".to_owned(), Value::Array(vec![key]));
            return Some(request.to_string());
        }
        for param in request.get_mut("params")?.as_array_mut()? {
            if param.as_array().is_some_and(Vec::is_empty) {
                *param = key.clone();
            }
        }
        Some(request.to_string())
    }

    /// The devnet behind it.
    pub fn devnet(&self) -> &Arc<Devnet> {
        &self.devnet
    }
}

fn value_of(params: Params) -> Value {
    match params {
        Params::None => Value::Null,
        Params::Array(values) => Value::Array(values),
        Params::Map(map) => Value::Object(map),
    }
}

fn answer(work: BoxFuture<Result<Value, RpcFault>>) -> BoxFuture<jsonrpc_core::Result<Value>> {
    work.map(|result| {
        result.map_err(|fault| jsonrpc_core::Error {
            code: ErrorCode::from(fault.code),
            message: fault.message,
            data: None,
        })
    })
    .boxed()
}

/// Waits until a message is on chain with some confidence.
async fn wait(devnet: &Devnet, args: &Args) -> Result<Value, RpcFault> {
    let cid: Cid = args.lotus(0)?;
    let confidence: i64 = args.get(1)?;
    let allow_replaced: Option<bool> = args.get(3)?;
    if confidence > MAX_CONFIDENCE {
        return Err(RpcFault::new(format!("confidence must be at most {MAX_CONFIDENCE}")));
    }
    let mut heads = devnet.heads.subscribe();
    loop {
        let head = devnet.chain.read().head();
        let found = lookup(devnet, &head, &cid, allow_replaced.unwrap_or(true))?;
        if let Some(found) = found.filter(|f| head.height - f.height >= confidence) {
            return super::args::plain(&found);
        }
        match heads.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err(RpcFault::new("the node is shutting down")),
        }
    }
}
