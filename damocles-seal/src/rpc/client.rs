//! Calling a manager.

use super::{
    Caller, Method, code,
    damocles::Hello as HelloMethod,
    envelope::{self, RemoteError, Reply},
    transport::{HttpTransport, Outgoing, Transport},
};
use crate::service::{Hello, KeyTable, ServiceError, ServiceErrorKind};
use damocles_core::{
    BoxError, Error, Recovery,
    allocator::{AllocError, AllocErrorKind},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex;

/// A connection to a manager, ours or the incumbent's. Clones share it.
#[derive(Clone, Debug)]
pub struct RpcClient {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    transport: Box<dyn Transport>,
    timeout: Duration,
    next_id: AtomicU64,
    observer: Option<Arc<dyn CallObserver>>,
    /// What the manager said of itself; forgotten when it cannot be reached, as another may answer next.
    hello: Mutex<Option<Arc<Hello>>>,
}

/// How to reach a manager.
#[derive(Clone)]
pub struct RpcOptions {
    /// The address, e.g. `http://127.0.0.1:1789/rpc/v0`.
    pub url: String,
    /// Sent as `Authorization: Bearer`; never shown.
    pub token: Option<String>,
    /// How long a call may take, unless its method is known to take longer.
    pub timeout: Duration,
    /// The longest answer that is read, in bytes.
    pub response_limit: usize,
    /// Who is told of every call.
    pub observer: Option<Arc<dyn CallObserver>>,
}

/// Is told of every call to a manager.
pub trait CallObserver: fmt::Debug + Send + Sync + 'static {
    /// A call ended after so long.
    fn called(&self, method: &str, took: Duration, result: CallResult<'_>);
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult<'a> {
    /// With a result.
    Answered,
    /// With an error of the manager's, in its words.
    Refused(&'a str),
    /// Without an answer that could be read, and why.
    Unanswered(&'a str),
}

impl RpcOptions {
    /// The manager at this address, without a token.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            token: None,
            timeout: Duration::from_secs(30),
            response_limit: 64 << 20,
            observer: None,
        }
    }
}

impl fmt::Debug for RpcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcOptions")
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("timeout", &self.timeout)
            .field("response_limit", &self.response_limit)
            .finish_non_exhaustive()
    }
}

/// Why a call has no result.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The manager answered an error.
    Remote(Box<RemoteError>, String),
    /// It did not answer.
    Unreachable(BoxError, String),
    /// It answered something else.
    Malformed(BoxError, String),
}

impl RpcClient {
    /// A client of the manager at an address. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// The address is no HTTP URL, or the token cannot be sent.
    pub fn http(options: &RpcOptions) -> Result<Self, ServiceError> {
        let transport = HttpTransport::new(&options.url, options.token.as_deref(), options.response_limit)?;
        Ok(Self::over(Box::new(transport), options.timeout, options.observer.clone()))
    }

    /// A client of a dispatch in the same process.
    #[cfg(feature = "testing")]
    pub fn in_process(handler: Arc<jsonrpc_core::MetaIoHandler<Caller>>) -> Self {
        Self::over(Box::new(super::transport::InProcess(handler)), Duration::from_secs(30), None)
    }

    fn over(transport: Box<dyn Transport>, timeout: Duration, observer: Option<Arc<dyn CallObserver>>) -> Self {
        let inner = Inner { transport, timeout, next_id: AtomicU64::new(1), observer, hello: Mutex::new(None) };
        Self { inner: Arc::new(inner) }
    }

    /// The manager's address, without secrets.
    pub fn endpoint(&self) -> &str {
        self.inner.transport.endpoint()
    }

    /// Calls a method as an operator does, without a lease.
    ///
    /// # Errors
    ///
    /// The manager did not answer, or answered an error.
    pub async fn ask<M: Method>(&self, params: &M::Params) -> Result<M::Output, ServiceError> {
        self.call::<M>(Caller::default(), params).await.map_err(|e| e.service(M::NAME))
    }

    /// Who the manager is; asked once a connection. An incumbent does not know the question: it has no capabilities.
    ///
    /// # Errors
    ///
    /// The manager did not answer, or answered rubbish.
    pub async fn hello(&self) -> Result<Arc<Hello>, ServiceError> {
        self.greet().await.map_err(|e| e.service("greet manager"))
    }

    pub(crate) async fn greet(&self) -> Result<Arc<Hello>, CallError> {
        if let Some(known) = self.inner.hello.lock().await.clone() {
            return Ok(known);
        }
        let hello = match self.call::<HelloMethod>(Caller::default(), &[]).await {
            Ok(hello) => hello,
            Err(CallError::Remote(error, _)) if error.code == code::METHOD_NOT_FOUND => Hello {
                version: "damocles 0.13".to_owned(),
                capabilities: Vec::new(),
                network: None,
                keys: KeyTable::new(),
            },
            Err(e) => return Err(e),
        };
        let hello = Arc::new(hello);
        *self.inner.hello.lock().await = Some(hello.clone());
        Ok(hello)
    }

    /// Whether the manager is one of ours, with leases.
    pub(crate) async fn leases(&self) -> Result<bool, CallError> {
        Ok(self.greet().await?.capabilities.iter().any(|c| c == "leases"))
    }

    pub(crate) async fn call<M: Method>(&self, caller: Caller, params: &M::Params) -> Result<M::Output, CallError> {
        let begun = tokio::time::Instant::now();
        let answer = self.exchange::<M>(caller, params).await;
        if let Some(observer) = &self.inner.observer {
            let took = begun.elapsed();
            match &answer {
                Ok(_) => observer.called(M::NAME, took, CallResult::Answered),
                Err(CallError::Remote(error, _)) => {
                    observer.called(M::NAME, took, CallResult::Refused(&error.to_string()));
                }
                Err(CallError::Unreachable(cause, _) | CallError::Malformed(cause, _)) => {
                    observer.called(M::NAME, took, CallResult::Unanswered(&cause.to_string()));
                }
            }
        }
        answer
    }

    async fn exchange<M: Method>(&self, caller: Caller, params: &M::Params) -> Result<M::Output, CallError> {
        let endpoint = || self.endpoint().to_owned();
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let params = serde_json::to_value(params).map_err(|e| CallError::Malformed(e.into(), endpoint()))?;
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": M::NAME, "params": params }).to_string();
        let timeout = self.inner.timeout.saturating_add(M::EXTRA_TIME);
        let exchange = self.inner.transport.exchange(Outgoing { body, caller, timeout });
        let answer = match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => return Err(self.unreachable(e).await),
            Err(e) => return Err(self.unreachable(e).await),
        };
        match envelope::read(&answer).map_err(|e| CallError::Malformed(e.into(), endpoint()))? {
            Reply::Error(error) => Err(CallError::Remote(Box::new(error), endpoint())),
            Reply::Result(value) => output(value).map_err(|e| CallError::Malformed(e.into(), endpoint())),
        }
    }

    async fn unreachable(&self, cause: impl Into<BoxError>) -> CallError {
        *self.inner.hello.lock().await = None;
        CallError::Unreachable(cause.into(), self.endpoint().to_owned())
    }
}

fn output<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

impl CallError {
    /// One refusal out of an answer that holds several.
    pub(crate) fn refused(code: i64, message: String, endpoint: &str) -> Self {
        let error = RemoteError { code, message, data: code::ErrorData::default() };
        Self::Remote(Box::new(error), endpoint.to_owned())
    }

    pub(crate) fn service(self, op: &'static str) -> ServiceError {
        match self {
            Self::Remote(error, endpoint) => {
                let made = Error::new(code::service_kind(error.code), op).with("manager", endpoint);
                dressed(made, *error)
            }
            Self::Unreachable(cause, endpoint) => {
                Error::new(ServiceErrorKind::Unavailable, op).with("manager", endpoint).because(cause)
            }
            Self::Malformed(cause, endpoint) => {
                Error::new(ServiceErrorKind::Malformed, op).with("manager", endpoint).because(cause)
            }
        }
    }

    pub(crate) fn alloc(self, op: &'static str) -> AllocError {
        match self {
            Self::Remote(error, endpoint) => {
                let made = Error::new(code::alloc_kind(error.code), op).with("manager", endpoint);
                dressed(made, *error)
            }
            Self::Unreachable(cause, endpoint) | Self::Malformed(cause, endpoint) => {
                Error::new(AllocErrorKind::Unavailable, op).with("manager", endpoint).because(cause)
            }
        }
    }
}

/// Passes the other side's advice on.
fn dressed<K: damocles_core::Kind>(made: Error<K>, error: RemoteError) -> Error<K> {
    let made = match error.data.recovery {
        // What another machine says is no proof that our own state is inconsistent.
        Some(Recovery::Halt) => made.recover_by(Recovery::Park),
        Some(recovery) => made.recover_by(recovery),
        None => made,
    };
    match error.data.hint.clone() {
        Some(hint) => made.hint_with(hint).because(error),
        None => made.because(error),
    }
}
