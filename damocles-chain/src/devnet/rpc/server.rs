//! The dispatch of a server.

use super::{METHODS, args::Args, args::RpcFault, message::lookup};
use crate::devnet::node::Devnet;
use cid::Cid;
use futures::FutureExt;
use jsonrpc_core::{BoxFuture, ErrorCode, IoHandler, Params};
use serde_json::Value;
use std::{fmt, sync::Arc};
use tokio::sync::broadcast::error::RecvError;

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
    /// Serves a devnet.
    #[must_use]
    pub fn new(devnet: Arc<Devnet>) -> Self {
        let mut io = IoHandler::new();
        for (name, handler) in METHODS {
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

    /// Answers one request, or a batch. None for notifications.
    pub async fn handle(&self, request: &str) -> Option<String> {
        self.io.handle_request(request).await
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
        let found = lookup(devnet, &cid, allow_replaced.unwrap_or(true))?;
        let height = devnet.chain.read().head().height;
        if let Some(found) = found.filter(|f| height - f.height >= confidence) {
            return super::args::plain(&found);
        }
        match heads.recv().await {
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Err(RpcFault::new("the node is shutting down")),
        }
    }
}
