//! Parameters and errors.

use crate::{
    devnet::error::DevnetError,
    lotus_json::{Lotus, LotusJson},
};
use cid::Cid;
use fil_actors_shared::v18::ActorError;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An error as Lotus answers it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcFault {
    /// 1, or a more precise code.
    pub code: i64,
    /// What is wrong.
    pub message: String,
}

impl RpcFault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }

    pub(super) fn no_method(method: &str) -> Self {
        Self { code: -32601, message: format!("method '{method}' not found") }
    }

    pub(super) fn params(message: impl Into<String>) -> Self {
        Self { code: -32602, message: message.into() }
    }

    pub(super) fn no_actor(what: &str) -> Self {
        Self { code: 11, message: format!("{what}: actor not found") }
    }
}

impl From<ActorError> for RpcFault {
    fn from(e: ActorError) -> Self {
        Self::new(e.msg())
    }
}

impl From<anyhow::Error> for RpcFault {
    fn from(e: anyhow::Error) -> Self {
        Self::new(e.to_string())
    }
}

impl From<DevnetError> for RpcFault {
    fn from(e: DevnetError) -> Self {
        Self::new(e.chain())
    }
}

/// Positional parameters. One that is missing is null.
#[derive(Debug)]
pub(super) struct Args(Vec<Value>);

impl Args {
    pub(super) fn new(params: Value) -> Result<Self, RpcFault> {
        match params {
            Value::Null => Ok(Self(Vec::new())),
            Value::Array(values) => Ok(Self(values)),
            _ => Err(RpcFault::params("params must be a list")),
        }
    }

    fn value(&self, index: usize) -> Value {
        self.0.get(index).cloned().unwrap_or(Value::Null)
    }

    /// A plain value.
    pub(super) fn get<T: DeserializeOwned>(&self, index: usize) -> Result<T, RpcFault> {
        serde_json::from_value(self.value(index))
            .map_err(|e| RpcFault::params(format!("unmarshaling params for parameter {index}: {e}")))
    }

    /// A value in Lotus' form.
    pub(super) fn lotus<T: LotusJson>(&self, index: usize) -> Result<T, RpcFault> {
        Ok(self.get::<Lotus<T>>(index)?.0)
    }

    /// A tipset key; none for the head.
    pub(super) fn key(&self, index: usize) -> Result<Option<Cid>, RpcFault> {
        let key: Option<Vec<Cid>> = self.lotus(index)?;
        match key.unwrap_or_default().as_slice() {
            [] => Ok(None),
            [cid] => Ok(Some(*cid)),
            more => Err(RpcFault::new(format!("loading tipset of {} blocks: tipset not found", more.len()))),
        }
    }
}

/// A result in Lotus' form.
pub(super) fn lotus<T: LotusJson>(value: T) -> Result<Value, RpcFault> {
    plain(&Lotus(value))
}

/// A plain result.
pub(super) fn plain<T: serde::Serialize>(value: &T) -> Result<Value, RpcFault> {
    serde_json::to_value(value).map_err(|e| RpcFault::new(format!("marshaling the result: {e}")))
}
