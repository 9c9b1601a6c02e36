//! The messager's JSON-RPC.

use super::{MessagerRecord, MessagerState, Replacement, SendSpec};
use crate::{
    lotus_json::{Lotus, from_core},
    rpc::{Endpoint, Service, ServiceName, Wire},
};
use cid::Cid;
use damocles_core::{
    Address, Context, Recovery,
    chain::{BoxStream, ChainError, ChainErrorKind, HeadChange},
};
use futures::StreamExt as _;
use fvm_shared::message::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

const MESSAGER: ServiceName = ServiceName {
    prefix: "Message",
    namespace: "messager.IMessager",
    path: "/rpc/v0",
    hint: "check that sophon-messager runs, that the endpoint is its own and that the token is one of sophon-auth",
};

/// Where the messager is.
#[derive(Clone, Debug)]
pub struct MessagerConfig {
    /// Its endpoint with the token; without a path it means `/rpc/v0`.
    pub endpoint: Endpoint,
    /// How calls travel.
    pub transport: Wire,
    /// How long a call may take.
    pub timeout: Duration,
    /// How long a call may take for which the messager signs or asks the node.
    pub slow_timeout: Duration,
}

impl MessagerConfig {
    /// The usual set-up: HTTP, 30 seconds a call, two minutes for those that make it sign.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            transport: Wire::Http,
            timeout: Duration::from_secs(30),
            slow_timeout: Duration::from_secs(120),
        }
    }
}

/// A client of sophon-messager. Each call has a timeout and a limit on its answer.
#[derive(Debug)]
pub struct MessagerClient {
    service: Service,
    timeout: Duration,
    slow_timeout: Duration,
}

fn address_param(address: &Address) -> Result<Value, ChainError> {
    let known = from_core(address)
        .map_err(|e| ChainError::new(ChainErrorKind::Rejected, "ask messager").with("address", address).because(e))?;
    Ok(json!(Lotus(known)))
}

impl MessagerClient {
    /// A client. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The token cannot be a header, or TLS cannot be set up.
    pub fn new(config: MessagerConfig) -> Result<Self, ChainError> {
        let MessagerConfig { endpoint, transport, timeout, slow_timeout } = config;
        Ok(Self { service: Service::new(endpoint, MESSAGER, transport)?, timeout, slow_timeout })
    }

    /// The messager.
    pub fn endpoint(&self) -> &Endpoint {
        self.service.endpoint()
    }

    async fn quick<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T, ChainError> {
        self.service.call(method, params, self.timeout).await
    }

    async fn slow<T: DeserializeOwned>(&self, method: &'static str, params: Value) -> Result<T, ChainError> {
        self.service.call(method, params, self.slow_timeout).await
    }

    /// Hands a message in under a name. The messager fills in nonce, gas and signature. A name that it has is an error
    /// there: ask [`Self::has`] whenever a push fails.
    ///
    /// # Errors
    ///
    /// The messager does not answer, does not take it, or answers with another name.
    pub async fn push(&self, id: &str, message: &Message, spec: &SendSpec) -> Result<(), ChainError> {
        let params = json!([id, Lotus(message.clone()), spec]);
        let taken: String = self.slow("PushMessageWithId", params).await?;
        if taken == id {
            return Ok(());
        }
        Err(ChainError::new(ChainErrorKind::Malformed, "push message")
            .with("endpoint", self.endpoint())
            .with("id", id)
            .with("answer", taken.chars().take(100).collect::<String>()))
    }

    /// Whether the messager has a message of this name.
    ///
    /// # Errors
    ///
    /// The messager does not answer.
    pub async fn has(&self, id: &str) -> Result<bool, ChainError> {
        self.quick("HasMessageByUid", json!([id])).await
    }

    /// A message by its name.
    ///
    /// # Errors
    ///
    /// The messager does not answer, has no such message, or answers another one.
    pub async fn get(&self, id: &str) -> Result<MessagerRecord, ChainError> {
        let record: MessagerRecord = self.quick("GetMessageByUid", json!([id])).await?;
        self.checked(id, record)
    }

    fn checked(&self, id: &str, record: MessagerRecord) -> Result<MessagerRecord, ChainError> {
        if record.status.id == id {
            return Ok(record);
        }
        Err(ChainError::new(ChainErrorKind::Malformed, "read message")
            .with("endpoint", self.endpoint())
            .with("id", id)
            .with("answered id", record.status.id.chars().take(100).collect::<String>()))
    }

    /// A message by the CID of the signed one.
    ///
    /// # Errors
    ///
    /// The messager does not answer or has no such message.
    pub async fn get_by_signed_cid(&self, cid: &Cid) -> Result<MessagerRecord, ChainError> {
        self.quick("GetMessageBySignedCid", json!([Lotus(*cid)])).await
    }

    /// A message by the CID of the unsigned one.
    ///
    /// # Errors
    ///
    /// The messager does not answer or has no such message.
    pub async fn get_by_unsigned_cid(&self, cid: &Cid) -> Result<MessagerRecord, ChainError> {
        self.quick("GetMessageByUnsignedCid", json!([Lotus(*cid)])).await
    }

    /// A message by sender and nonce.
    ///
    /// # Errors
    ///
    /// The messager does not answer or has no such message.
    pub async fn get_by_nonce(&self, from: &Address, nonce: u64) -> Result<MessagerRecord, ChainError> {
        self.quick("GetMessageByFromAndNonce", json!([address_param(from)?, nonce])).await
    }

    /// Has the messager wait until a message is on chain with more than `confidence` epochs on top, or failed, for so
    /// long at most. It looks once in an epoch: [`Self::wait_by_query`] asks it instead.
    ///
    /// # Errors
    ///
    /// [`ChainErrorKind::Cancelled`] when `cx` is cancelled; the messager does not answer in time, or has no such
    /// message.
    pub async fn wait(
        &self,
        id: &str,
        confidence: u64,
        most: Duration,
        cx: &Context,
    ) -> Result<MessagerRecord, ChainError> {
        let asking = self.service.call("WaitMessage", json!([id, confidence]), most);
        let record = cx.cancel.run_until_cancelled(asking).await.unwrap_or_else(|| Err(cancelled(id)))?;
        self.checked(id, record)
    }

    /// Asks at every head until a message is on chain with more than `confidence` epochs on top, or failed. A messager
    /// that does not answer is waited for.
    ///
    /// # Errors
    ///
    /// [`ChainErrorKind::Cancelled`] when `cx` is cancelled or there are no more heads; the messager has no such
    /// message.
    pub async fn wait_by_query(
        &self,
        id: &str,
        confidence: i64,
        mut heads: BoxStream<HeadChange>,
        cx: &Context,
    ) -> Result<MessagerRecord, ChainError> {
        while let Some(Some(_)) = cx.cancel.run_until_cancelled(heads.next()).await {
            let asked = cx.cancel.run_until_cancelled(self.get(id)).await.unwrap_or_else(|| Err(cancelled(id)));
            match asked {
                Ok(record) => match record.status.state {
                    MessagerState::Failed => return Ok(record),
                    MessagerState::OnChain | MessagerState::NonceConflict if record.status.confidence > confidence => {
                        return Ok(record);
                    }
                    _ => {}
                },
                Err(e) if matches!(e.kind(), ChainErrorKind::NotFound | ChainErrorKind::Cancelled) => return Err(e),
                Err(e) if matches!(e.recovery(), Recovery::Retry { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(cancelled(id))
    }

    /// Prices a message anew and sends it again. The CID of the new one.
    ///
    /// # Errors
    ///
    /// The messager does not answer or refuses: the message is on chain, or the price does not suit.
    pub async fn replace(&self, replacement: &Replacement) -> Result<Cid, ChainError> {
        let Lotus(cid) = self.slow("ReplaceMessage", json!([replacement])).await?;
        Ok(cid)
    }

    /// Has the messager send a signed message once more.
    ///
    /// # Errors
    ///
    /// The messager does not answer or refuses.
    pub async fn republish(&self, id: &str) -> Result<(), ChainError> {
        self.slow::<Value>("RepublishMessage", json!([id])).await.map(drop)
    }

    /// Has the messager give a message up. What was sent before may still land.
    ///
    /// # Errors
    ///
    /// The messager does not answer or refuses.
    pub async fn mark_bad(&self, id: &str) -> Result<(), ChainError> {
        self.quick::<Value>("MarkBadMessage", json!([id])).await.map(drop)
    }

    /// Has the messager take up again the signed messages of a sender that it had given up. Their names.
    ///
    /// # Errors
    ///
    /// The messager does not answer or refuses.
    pub async fn recover_failed(&self, from: &Address) -> Result<Vec<String>, ChainError> {
        let ids: Option<Vec<String>> = self.slow("RecoverFailedMsg", json!([address_param(from)?])).await?;
        Ok(ids.unwrap_or_default())
    }

    /// Whether a wallet that the messager can reach has a sender's key.
    ///
    /// # Errors
    ///
    /// The messager does not answer.
    pub async fn wallet_has(&self, address: &Address) -> Result<bool, ChainError> {
        self.quick("WalletHas", json!([address_param(address)?])).await
    }
}

fn cancelled(id: &str) -> ChainError {
    ChainError::new(ChainErrorKind::Cancelled, "wait for message").with("id", id)
}
