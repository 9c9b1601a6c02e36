//! The daemon's outbox for commands of the same user, on a socket in the home directory. It moves money, so that it is
//! not served where workers come.

use super::{Here, busy};
use crate::{
    config::manager::Home,
    exit::Failure,
    server::{RequestHeaders, RpcHandler, UnixClient},
};
use async_trait::async_trait;
use damocles_chain::Replacement;
use damocles_core::chain::{Call, MessageId, MessageState};
use futures::StreamExt as _;
use jsonrpc_core::{Error as RpcFault, ErrorCode, IoHandler, Params};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// The longest that one question waits for a message; the client's own limit is above it.
const WAIT: Duration = Duration::from_secs(15);
const FAILED: i64 = 1;

/// The socket of the daemon of a home.
pub(in crate::manager) fn socket(home: &Home) -> PathBuf {
    home.path().join("manager.sock")
}

/// Serves an outbox.
pub(in crate::manager) struct OperatorRpc(IoHandler);

impl fmt::Debug for OperatorRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorRpc").finish_non_exhaustive()
    }
}

impl OperatorRpc {
    /// The methods by which commands use the daemon's outbox.
    pub(in crate::manager) fn new(outbox: Here) -> Self {
        let (mut io, outbox) = (IoHandler::new(), Arc::new(outbox));
        on(&mut io, &outbox, "Senders", |outbox, _: [(); 0]| async move { Ok(outbox.senders().clone()) });
        on(&mut io, &outbox, "MessageSender", |outbox, (stem, call): (String, Call)| async move {
            outbox.sender(&stem, &call).await
        });
        on(&mut io, &outbox, "BeginMessage", |outbox, (stem, call): (String, Call)| async move {
            outbox.begin(&stem, &call).await
        });
        on(&mut io, &outbox, "MessageTold", |outbox, (id,): (MessageId,)| async move { outbox.told(&id).await });
        on(&mut io, &outbox, "WaitMessage", |outbox, (id, confidence): (MessageId, i64)| async move {
            wait(&outbox, &id, confidence).await
        });
        on(&mut io, &outbox, "ListMessages", |outbox, _: [(); 0]| async move { outbox.chain().entries().await });
        on(
            &mut io,
            &outbox,
            "ShowMessage",
            |outbox, (id,): (MessageId,)| async move { outbox.chain().entry(&id).await },
        );
        on(&mut io, &outbox, "ReplaceMessage", |outbox, (id, by): (MessageId, Replacement)| async move {
            outbox.chain().replace(&id, by).await
        });
        on(
            &mut io,
            &outbox,
            "CancelMessage",
            |outbox, (id,): (MessageId,)| async move { outbox.chain().cancel(&id).await },
        );
        on(&mut io, &outbox, "ChainMetrics", |outbox, _: [(); 0]| async move { outbox.chain().metrics() });
        Self(io)
    }
}

fn on<P, T, F, R>(io: &mut IoHandler, outbox: &Arc<Here>, name: &str, act: F)
where
    P: DeserializeOwned + Send + 'static,
    T: Serialize,
    F: Fn(Arc<Here>, P) -> R + Send + Sync + Copy + 'static,
    R: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let outbox = Arc::clone(outbox);
    io.add_method(&format!("Damocles.{name}"), move |params: Params| {
        let outbox = Arc::clone(&outbox);
        async move {
            let params: P = params.parse()?;
            let answer = act(outbox, params).await.map_err(fault)?;
            serde_json::to_value(answer).map_err(|_| RpcFault::internal_error())
        }
    });
}

/// A failure as it goes over the wire, with what the command will say and how it will end.
fn fault(failure: Failure) -> RpcFault {
    let data = json!({"hint": failure.hint, "exit": failure.exit as u8});
    RpcFault { code: ErrorCode::ServerError(FAILED), message: format!("{:#}", failure.error), data: Some(data) }
}

/// Where a message stands, as soon as it is over or after a while.
async fn wait(outbox: &Here, id: &MessageId, confidence: i64) -> Result<MessageState, Failure> {
    let client = outbox.chain().client();
    let over = async {
        let mut heads = client.head_changes();
        loop {
            match client.message(id, confidence).await {
                Ok(MessageState::Pending { .. }) => {}
                other => return other,
            }
            heads.next().await;
        }
    };
    match tokio::time::timeout(WAIT, over).await {
        Ok(state) => Ok(state?),
        Err(_) => Ok(client.message(id, confidence).await?),
    }
}

#[async_trait]
impl RpcHandler for OperatorRpc {
    async fn handle(&self, _: &RequestHeaders, body: String) -> Option<String> {
        self.0.handle_request(&body).await
    }
}

/// The daemon that has the outbox.
#[derive(Debug)]
pub(super) struct Daemon(UnixClient);

impl Daemon {
    /// The daemon of a home. Nothing is asked yet.
    pub(super) fn of(home: &Home) -> Result<Self, Failure> {
        Ok(Self(UnixClient::new(&socket(home))?))
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        name: &str,
        params: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        let params = serde_json::to_value(params).map_err(anyhow::Error::from)?;
        self.0.call(&format!("Damocles.{name}"), params).await.map_err(busy)
    }

    /// Waits until a message is over.
    pub(super) async fn ended(&self, id: &MessageId, confidence: i64) -> Result<MessageState, Failure> {
        loop {
            match self.call("WaitMessage", &(id, confidence)).await {
                Ok(MessageState::Pending { .. }) => {}
                other => return other,
            }
        }
    }
}
