//! The JSON-RPC envelope, read as leniently as nodes write it.

use super::RpcError;
use serde_json::{Map, Value};

/// What came instead of an envelope: its first characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON-RPC answer: `{0}`")]
pub(super) struct NotAnAnswer(pub(super) String);

/// The first characters of a body, for messages.
pub(super) fn start_of(body: &[u8]) -> String {
    const SHOWN: usize = 120;
    let text = String::from_utf8_lossy(body.get(..body.len().min(4 * SHOWN)).unwrap_or_default());
    text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The result in a body, or the node's error. A result that is missing is null; an error that is null is none.
pub(super) fn read(body: &[u8]) -> Result<Result<Value, RpcError>, NotAnAnswer> {
    let bad = || NotAnAnswer(start_of(body));
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(object)) => result_of(object).ok_or_else(bad),
        _ => Err(bad()),
    }
}

/// The result in an envelope; none if the object is no envelope.
pub(super) fn result_of(mut object: Map<String, Value>) -> Option<Result<Value, RpcError>> {
    match object.remove("error") {
        None | Some(Value::Null) => {}
        Some(error) => return Some(Err(RpcError::from_value(&error))),
    }
    match object.remove("result") {
        Some(result) => Some(Ok(result)),
        None if object.contains_key("jsonrpc") && object.contains_key("id") => Some(Ok(Value::Null)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lenient_but_no_rubbish() {
        let read_text = |text: &str| read(text.as_bytes());
        assert_eq!(read_text(r#"{"jsonrpc":"2.0","id":1,"result":5,"x":1}"#), Ok(Ok(json!(5))));
        assert_eq!(read_text(r#"{"result":5,"error":null}"#), Ok(Ok(json!(5))));
        assert_eq!(read_text(r#"{"jsonrpc":"2.0","id":1}"#), Ok(Ok(Value::Null)));
        let error = read_text(r#"{"error":{"code":11,"message":"actor not found"},"id":null}"#).unwrap().unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (11, "actor not found"));
        let error = read_text(r#"{"error":"boom"}"#).unwrap().unwrap_err();
        assert_eq!(error.message, "boom");
        for rubbish in ["", "<html>", "{}", "[1]", "5", r#"{"jsonrpc":"2.0","id":1,"#, "\u{0}\u{1}"] {
            assert!(read_text(rubbish).is_err(), "{rubbish}");
        }
        assert_eq!(start_of("ab\ncd".as_bytes()), "ab cd");
    }
}
