//! Answers, read leniently: managers and the proxies before them deviate from the letter.

use super::code::ErrorData;
use serde_json::Value;

/// What an answer says. Unknown members are ignored, a missing result is null, and `error: null` is no error.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Result(Value),
    Error(RemoteError),
}

/// An error that the other side answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub(crate) struct RemoteError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: ErrorData,
}

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no JSON-RPC: {what}")]
pub(super) struct NoReply {
    what: String,
}

const SHOWN: usize = 120;

pub(super) fn read(body: &[u8]) -> Result<Reply, NoReply> {
    let excerpt = || String::from_utf8_lossy(body.get(..SHOWN).unwrap_or(body)).escape_debug().to_string();
    let no_reply = |why: &str| NoReply { what: format!("{why}, it begins with `{}`", excerpt()) };
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return Err(no_reply("not JSON"));
    };
    let Value::Object(mut members) = value else {
        return Err(no_reply("no object"));
    };
    match members.remove("error") {
        None | Some(Value::Null) => {}
        Some(Value::Object(error)) => {
            let code = error.get("code").and_then(Value::as_i64).ok_or_else(|| no_reply("an error without code"))?;
            let message = error.get("message").and_then(Value::as_str).unwrap_or("no message").to_owned();
            let data = error.get("data").and_then(|d| serde_json::from_value(d.clone()).ok()).unwrap_or_default();
            return Ok(Reply::Error(RemoteError { code, message, data }));
        }
        Some(_) => return Err(no_reply("an error that is no object")),
    }
    match members.remove("result") {
        Some(result) => Ok(Reply::Result(result)),
        None if members.contains_key("jsonrpc") && members.contains_key("id") => Ok(Reply::Result(Value::Null)),
        None => Err(no_reply("neither result nor error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn odd_answers_are_understood() {
        let good = [
            (r#"{"jsonrpc":"2.0","id":1,"result":7,"meta":{"x":1}}"#, json!(7)),
            (r#"{"jsonrpc":"2.0","result":7,"error":null}"#, json!(7)),
            (r#"{"jsonrpc":"2.0","id":1}"#, Value::Null),
            (r#"{"id":"one","jsonrpc":"2.0","error":null}"#, Value::Null),
            (r#"{"result":null}"#, Value::Null),
        ];
        for (body, result) in good {
            assert_eq!(read(body.as_bytes()), Ok(Reply::Result(result)), "{body}");
        }
    }

    #[test]
    fn errors_keep_code_message_and_our_data() {
        let body = r#"{"jsonrpc":"2.0","id":1,"error":{"code":11001,"message":"sector state not found","meta":null}}"#;
        let Ok(Reply::Error(error)) = read(body.as_bytes()) else { panic!("an error") };
        assert_eq!((error.code, error.message.as_str()), (11001, "sector state not found"));
        let body = r#"{"jsonrpc":"2.0","id":1,"error":{"code":11101,"message":"no","data":{"hint":"wait","more":1}}}"#;
        let Ok(Reply::Error(error)) = read(body.as_bytes()) else { panic!("an error") };
        assert_eq!(error.data.hint.as_deref(), Some("wait"));
    }

    #[test]
    fn rubbish_is_named() {
        let rubbish: [&[u8]; 9] = [
            b"",
            b"<html>502 Bad Gateway</html>",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"res",
            b"[]",
            b"null",
            b"{\"message\":\"bad gateway\"}",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":\"no\"}",
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"message\":\"no code\"}}",
            b"\xff\xfe\x00",
        ];
        for body in rubbish {
            let error = read(body).unwrap_err();
            assert!(error.to_string().starts_with("the answer is no JSON-RPC"), "{error}");
        }
        assert!(read(&[b'x'; 100_000]).unwrap_err().to_string().len() < 400, "only the beginning is shown");
    }
}
