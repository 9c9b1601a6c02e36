//! The daemon's outbox for commands of the same user, on a socket in the home directory. It moves money, so that it is
//! not served where workers come.

use super::{Asked, Here, Standing, busy};
use crate::{
    config::manager::Home,
    exit::{Exit, Failure},
    manager::rpc::{is_of_operators, of_operators},
    server::{RequestHeaders, RpcHandler, ServerError, UnixClient},
};
use anyhow::anyhow;
use async_trait::async_trait;
use damocles_chain::Replacement;
use damocles_core::{
    Address, Recovery,
    chain::{MessageId, MessageState},
};
use futures::StreamExt as _;
use jsonrpc_core::{Error as RpcFault, ErrorCode, IoHandler, Params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// The longest that one question waits for a message; the client's own limit is above it.
const WAIT: Duration = Duration::from_secs(15);
const FAILED: i64 = 1;

/// The socket of the daemon of a home.
pub(in crate::manager) fn socket(home: &Home) -> PathBuf {
    home.path().join("manager.sock")
}

/// Serves an outbox, once there is one: until then every answer is that the daemon is starting.
#[derive(Clone)]
pub(in crate::manager) struct OperatorRpc {
    io: Arc<IoHandler>,
    outbox: Opening,
    sectors: Arc<OnceLock<Arc<dyn RpcHandler>>>,
}

type Opening = Arc<OnceLock<Arc<Here>>>;

impl fmt::Debug for OperatorRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorRpc").finish_non_exhaustive()
    }
}

impl OperatorRpc {
    /// The methods by which commands use the daemon's outbox.
    pub(in crate::manager) fn new() -> Self {
        let (mut io, outbox) = (IoHandler::new(), Opening::default());
        on(&mut io, &outbox, "Standing", |outbox, _: [(); 0]| async move { Ok(outbox.standing().clone()) });
        on(&mut io, &outbox, "MessageSender", |outbox, (asked,): (Asked,)| async move { outbox.sender(&asked).await });
        on(&mut io, &outbox, "BeginMessage", |outbox, (asked, from): (Asked, Address)| async move {
            outbox.begin(&asked, &from).await
        });
        on(&mut io, &outbox, "MessageTold", |outbox, (id,): (MessageId,)| async move { outbox.told(&id).await });
        on(&mut io, &outbox, "WaitMessage", |outbox, (id, confidence): (MessageId, i64)| async move {
            wait(&outbox, &id, confidence).await
        });
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
        for name in of_operators() {
            io.add_method(name, |_: Params| async { Err::<serde_json::Value, _>(fault(starting())) });
        }
        Self { io: Arc::new(io), outbox, sectors: Arc::default() }
    }

    /// Serves this outbox, and what operators may ask of sectors, from now on.
    pub(in crate::manager) fn open(&self, outbox: Here, sectors: Arc<dyn RpcHandler>) {
        // A daemon has one of each for as long as it runs.
        let _ = self.sectors.set(sectors);
        let _ = self.outbox.set(Arc::new(outbox));
    }
}

fn starting() -> Failure {
    Failure::new(Exit::Retryable, anyhow!("the daemon of this home is starting"))
        .hint("try again when it is ready; its log tells what it waits for")
}

fn on<P, T, F, R>(io: &mut IoHandler, outbox: &Opening, name: &str, act: F)
where
    P: DeserializeOwned + Send + 'static,
    T: Serialize,
    F: Fn(Arc<Here>, P) -> R + Send + Sync + Copy + 'static,
    R: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let outbox = Arc::clone(outbox);
    io.add_method(&format!("Damocles.{name}"), move |params: Params| {
        let outbox = outbox.get().cloned();
        async move {
            let params: P = params.parse()?;
            let outbox = outbox.ok_or_else(|| fault(starting()))?;
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

/// Where a message stands, as soon as it is over or after a while. A node that is away for a moment is waited for.
async fn wait(outbox: &Here, id: &MessageId, confidence: i64) -> Result<MessageState, Failure> {
    let client = outbox.chain().client();
    let over = async {
        let mut heads = client.head_changes();
        loop {
            match client.message(id, confidence).await {
                Ok(MessageState::Pending { .. }) => {}
                Err(e) if matches!(e.recovery(), Recovery::Retry { .. }) => {}
                other => return other,
            }
            heads.next().await;
        }
    };
    match tokio::time::timeout(WAIT, over).await {
        Ok(state) => Ok(state?),
        Err(_) => Ok(MessageState::Pending { trouble: None }),
    }
}

#[derive(Deserialize)]
struct Asking {
    method: String,
}

#[async_trait]
impl RpcHandler for OperatorRpc {
    async fn handle(&self, headers: &RequestHeaders, body: String) -> Option<String> {
        let asks = serde_json::from_str::<Asking>(&body).is_ok_and(|asking| is_of_operators(&asking.method));
        match self.sectors.get() {
            Some(sectors) if asks => sectors.handle(headers, body).await,
            _ => self.io.handle_request(&body).await,
        }
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

    /// What the daemon goes by; none where no daemon answers.
    pub(super) async fn standing(&self) -> Result<Option<Standing>, Failure> {
        match self.0.call("Damocles.Standing", json!([])).await {
            Ok(standing) => Ok(Some(standing)),
            Err(ServerError::Unreachable { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a message is over.
    pub(super) async fn ended(&self, id: &MessageId, confidence: i64) -> Result<MessageState, Failure> {
        loop {
            match self.0.call("Damocles.WaitMessage", json!([id, confidence])).await {
                // A daemon that is too busy to answer in time still works on it.
                Ok(MessageState::Pending { .. }) | Err(ServerError::Silent { .. }) => {}
                other => return other.map_err(busy),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_daemon_that_starts_says_so() {
        let rpc = OperatorRpc::new();
        for method in of_operators().into_iter().chain(["Damocles.Standing"]) {
            let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": []}).to_string();
            let answer = rpc.handle(&RequestHeaders::default(), body).await.unwrap();
            let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer.pointer("/error/data/exit"), Some(&json!(Exit::Retryable as u8)), "{method}: {answer}");
            assert!(answer.to_string().contains("is starting"), "{method}: {answer}");
        }
    }
}
