//! Misbehaviour on command, and the envelope around whatever is answered.

use super::server::Arrived;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, future::Future, time::Duration};

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The connection is closed before anything is done.
    DropRequest,
    /// It is done, and the connection is closed instead of an answer.
    DropAnswer,
    /// It is done so much later.
    Delay(Duration),
    /// It is not done, and this text is answered as it is.
    Say(String),
    /// It is not done, and an error is answered.
    Refuse(String),
    /// It is done, and this is answered as its result.
    Lie(Value),
}

/// The faults that wait for their calls, and the calls that came.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Mutex<BTreeMap<String, Vec<Fault>>>,
    called: Mutex<Vec<(String, Value)>>,
}

pub(super) type Answer = Result<Value, String>;

impl Faults {
    pub(super) fn strike(&self, method: &str, fault: &Fault, times: usize) {
        let faults = std::iter::repeat_n(fault.clone(), times);
        self.waiting.lock().entry(method.to_owned()).or_default().extend(faults);
    }

    pub(super) fn forgive(&self) {
        self.waiting.lock().clear();
    }

    pub(super) fn called(&self, method: &str) -> Vec<Value> {
        self.called.lock().iter().filter(|(name, _)| name == method).map(|(_, params)| params.clone()).collect()
    }

    fn take(&self, method: &str, params: &Value) -> Option<Fault> {
        self.called.lock().push((method.to_owned(), params.clone()));
        let mut waiting = self.waiting.lock();
        let faults = waiting.get_mut(method).filter(|faults| !faults.is_empty())?;
        Some(faults.remove(0))
    }

    /// Answers a request for a method with this prefix; none where the connection is to be closed.
    pub(super) async fn answer<F: Future<Output = Answer>>(
        &self,
        arrived: &Arrived,
        prefix: &str,
        work: impl FnOnce(String, Vec<Value>) -> F,
    ) -> Option<String> {
        let request: Value = serde_json::from_str(&arrived.text).ok()?;
        let id = request.get("id").cloned().unwrap_or_default();
        let error = |code: i64, message: &str| {
            Some(json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string())
        };
        let name = request.get("method").and_then(Value::as_str).unwrap_or_default();
        let Some(method) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else {
            return error(-32601, &format!("method '{name}' not found"));
        };
        let params = request.get("params").cloned().unwrap_or_default();
        let fault = self.take(method, &params);
        match &fault {
            Some(Fault::DropRequest) => return None,
            Some(Fault::Delay(delay)) => tokio::time::sleep(*delay).await,
            Some(Fault::Say(text)) => return Some(text.clone()),
            Some(Fault::Refuse(message)) => return error(1, message),
            _ => {}
        }
        let Value::Array(params) = params else { return error(-32602, "params are a list") };
        let done = work(method.to_owned(), params).await;
        let done = match fault {
            Some(Fault::DropAnswer) => return None,
            Some(Fault::Lie(result)) => Ok(result),
            _ => done,
        };
        match done {
            Ok(result) => Some(json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()),
            Err(message) => error(1, &message),
        }
    }
}

/// A parameter as what it should be.
pub(super) fn part<T: serde::de::DeserializeOwned>(params: &[Value], index: usize) -> Result<T, String> {
    let value = params.get(index).cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|e| format!("unmarshaling params[{index}]: {e}"))
}

/// A random UUID as text.
pub(super) fn uuid() -> String {
    let hex = format!("{:032x}", rand::random::<u128>());
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
