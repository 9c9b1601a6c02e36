//! A wallet on another machine, or in another process.

use super::{
    LockState,
    rpc::{StateAnswer, kind_of},
};
use crate::{
    lotus_json::{Lotus, from_core, to_core},
    rpc::{Endpoint, RpcClient, RpcError},
    signer::{SignRequest, Signer, SignerError, SignerErrorKind, verify},
};
use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use damocles_core::{Address, BoxError, Recovery, chain::ChainErrorKind};
use fvm_shared::{address::Address as ChainAddress, crypto::signature::Signature};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const CONNECT: Duration = Duration::from_secs(10);
/// Unlocking takes as long as the password costs.
const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 4 << 20;

/// A client of `wallet run`, of Lotus' remote wallet and of venus-wallet.
///
/// Messages go there whole, and each signature that comes back is checked. Every call ends within a minute.
#[derive(Clone)]
pub struct RemoteWallet {
    way: Way,
}

#[derive(Clone)]
enum Way {
    Network(Arc<RpcClient>),
    Socket { path: PathBuf, http: reqwest::Client },
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(rpc) => write!(f, "{}", rpc.endpoint()),
            Self::Socket { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for RemoteWallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteWallet").field(&self.way.to_string()).finish()
    }
}

impl RemoteWallet {
    /// A wallet behind an address, with the token in it. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// The token cannot be a header, or TLS cannot be set up.
    pub fn new(endpoint: Endpoint) -> Result<Self, SignerError> {
        let failed = |e| SignerError::new(SignerErrorKind::Unreachable, "set up wallet client").because(e);
        Ok(Self { way: Way::Network(Arc::new(RpcClient::new(endpoint).map_err(failed)?)) })
    }

    /// A wallet behind a Unix socket, whose owner may also lock and unlock it. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// The HTTP library cannot be set up.
    pub fn at_socket(path: &Path) -> Result<Self, SignerError> {
        let failed = |e: BoxError| {
            SignerError::new(SignerErrorKind::Unreachable, "set up wallet client")
                .with("path", path.display())
                .because(e)
        };
        // No certificate is ever looked at on a socket of this machine, and yet the library wants a provider.
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| failed(e.into()))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .unix_socket(path)
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT)
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| failed(e.into()))?;
        Ok(Self { way: Way::Socket { path: path.to_owned(), http } })
    }

    /// Wipes the keys from the memory of the wallet. Only by its socket.
    ///
    /// # Errors
    ///
    /// The wallet cannot be reached or refuses.
    pub async fn lock(&self) -> Result<(), SignerError> {
        self.call("lock wallet", "Lock", json!([])).await
    }

    /// Reads the keys into the memory of the wallet. Only by its socket.
    ///
    /// # Errors
    ///
    /// The password is wrong, came too soon after a wrong one, or the wallet cannot be reached or refuses.
    pub async fn unlock(&self, password: &super::Password) -> Result<(), SignerError> {
        let password = String::from_utf8_lossy(password.expose());
        self.call("unlock wallet", "Unlock", json!([password])).await
    }

    /// Whether the keys can be used. Only by its socket.
    ///
    /// # Errors
    ///
    /// The wallet cannot be reached or refuses.
    pub async fn state(&self) -> Result<LockState, SignerError> {
        let state: StateAnswer = self.call("ask wallet", "LockState", json!([])).await?;
        Ok(if state.locked { LockState::Locked } else { LockState::Unlocked { until: state.until } })
    }

    async fn call<T: DeserializeOwned>(
        &self,
        op: &'static str,
        method: &'static str,
        params: Value,
    ) -> Result<T, SignerError> {
        let work = async {
            match &self.way {
                Way::Network(rpc) => self.by_network(rpc, op, method, params).await,
                Way::Socket { http, .. } => self.by_socket(http, op, method, params).await,
            }
        };
        let late = |e| self.error(SignerErrorKind::Unreachable, op).because(e);
        let result = tokio::time::timeout(TIMEOUT, work).await.map_err(late)??;
        serde_json::from_value(result)
            .map_err(|e| self.error(SignerErrorKind::Answer, op).with("method", method).because(e))
    }

    async fn by_network(
        &self,
        rpc: &RpcClient,
        op: &'static str,
        method: &'static str,
        params: Value,
    ) -> Result<Value, SignerError> {
        rpc.raw(&format!("Filecoin.{method}"), params).await.map_err(|e| {
            if let Some(answer) = RpcError::of(&e) {
                return self.refused(op, method, answer.code, &answer.message, &Value::Null);
            }
            let kind = match e.kind() {
                ChainErrorKind::Malformed => SignerErrorKind::Answer,
                _ => SignerErrorKind::Unreachable,
            };
            let hint = e
                .hint()
                .map_or_else(|| "is `wallet run` at work there, and is the address right?".to_owned(), str::to_owned);
            self.error(kind, op).hint_with(hint).because(e)
        })
    }

    async fn by_socket(
        &self,
        http: &reqwest::Client,
        op: &'static str,
        method: &'static str,
        params: Value,
    ) -> Result<Value, SignerError> {
        let unreachable = |e: reqwest::Error| {
            self.error(SignerErrorKind::Unreachable, op)
                .hint_with("is `wallet run` at work with this socket?")
                .because(e.without_url())
        };
        let request =
            json!({"jsonrpc": "2.0", "id": 1, "method": format!("Filecoin.{method}"), "params": params}).to_string();
        let sent = http.post("http://localhost/rpc/v0").header("content-type", "application/json").body(request).send();
        let mut response = sent.await.map_err(unreachable)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len().saturating_add(chunk.len()) > MAX_ANSWER {
                return Err(self.error(SignerErrorKind::Answer, op).with("answer", "more than 4 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        let odd = || self.error(SignerErrorKind::Answer, op).with("status", response.status().as_u16());
        let Ok(Value::Object(mut envelope)) = serde_json::from_slice(&body) else { return Err(odd()) };
        if let Some(error) = envelope.remove("error").filter(|e| !e.is_null()) {
            let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
            let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
            return Err(self.refused(op, method, code, message, error.get("data").unwrap_or(&Value::Null)));
        }
        match envelope.remove("result") {
            Some(result) => Ok(result),
            None if envelope.contains_key("id") => Ok(Value::Null),
            None => Err(odd()),
        }
    }

    /// What the wallet said instead of an answer, as the kind of error that it was there.
    fn refused(&self, op: &'static str, method: &'static str, code: i64, message: &str, data: &Value) -> SignerError {
        let said: String = message.chars().filter(|c| !c.is_control()).take(1_000).collect();
        let (kind, retry) = kind_of(code, message);
        let after = data.get("after_ms").and_then(Value::as_u64).map(Duration::from_millis);
        let recovery = if retry { Recovery::Retry { after } } else { Recovery::Park };
        let error = self.error(kind, op).with("method", method).recover_by(recovery).because(said);
        match data.get("hint").and_then(Value::as_str) {
            Some(hint) => error.hint_with(hint.chars().take(500).collect::<String>()),
            None => error,
        }
    }

    fn error(&self, kind: SignerErrorKind, op: &'static str) -> SignerError {
        SignerError::new(kind, op).with("wallet", &self.way)
    }
}

#[async_trait]
impl Signer for RemoteWallet {
    async fn addresses(&self) -> Result<Vec<Address>, SignerError> {
        let held: Vec<Lotus<ChainAddress>> = self.call("list keys", "WalletList", json!([])).await?;
        Ok(held.iter().map(|address| to_core(&address.0)).collect())
    }

    async fn has(&self, address: &Address) -> Result<bool, SignerError> {
        self.call("look for key", "WalletHas", json!([address])).await
    }

    async fn sign(&self, address: &Address, request: &SignRequest) -> Result<Signature, SignerError> {
        let (to_sign, meta) = request.to_lotus();
        let params = json!([address, STANDARD.encode(&to_sign), meta]);
        let Lotus(signature): Lotus<Signature> = self.call("sign", "WalletSign", params).await?;
        if from_core(address).is_ok_and(|key| verify(&key, &signature, &to_sign)) {
            return Ok(signature);
        }
        Err(self
            .error(SignerErrorKind::Answer, "sign")
            .with("address", address)
            .with("what", "the signature is not the key's"))
    }

    fn suits(&self, _: &str) -> Result<(), SignerError> {
        Ok(())
    }
}
