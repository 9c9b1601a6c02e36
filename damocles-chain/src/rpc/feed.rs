//! `ChainNotify` over go-jsonrpc's channels.

use super::{
    Endpoint, RpcError,
    envelope::{result_of, start_of},
    socket::{self, Refusal, Socket},
};
use crate::lotus_json::HeadChange;
use damocles_core::chain::{ChainError, ChainErrorKind};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// After so many silences in a row without any frame, each answered by a ping, the other side is not there.
const SILENT_PINGS: u32 = 3;

/// Why there is no feed, or no more.
#[derive(Debug)]
pub(crate) enum FeedError {
    /// The node is there and does not offer channels at this endpoint.
    Unsupported(ChainError),
    /// The connection could not be made or was lost.
    Lost(ChainError),
}

/// An open subscription to head changes.
#[derive(Debug)]
pub(crate) struct Feed {
    endpoint: Endpoint,
    socket: Socket,
    channel: Option<Value>,
    silent: u32,
}

impl Feed {
    pub(super) async fn open(
        endpoint: &Endpoint,
        tls: Arc<rustls::ClientConfig>,
        max_message: usize,
    ) -> Result<Self, FeedError> {
        let lost = || ChainError::new(ChainErrorKind::Unavailable, "subscribe").with("endpoint", endpoint);
        let mut socket = match socket::connect(endpoint, tls, max_message).await {
            Ok(socket) => socket,
            Err(Refusal::Token(status)) => {
                return Err(FeedError::Lost(lost().with("status", status).hint_with(socket::TOKEN_HINT)));
            }
            // An answer that is no upgrade comes from a server, or something before it, that speaks HTTP only.
            Err(Refusal::NoUpgrade(status)) => return Err(FeedError::Unsupported(lost().with("status", status))),
            Err(Refusal::Failed(e)) => return Err(FeedError::Lost(lost().because(e))),
        };
        let subscribe = r#"{"jsonrpc":"2.0","id":1,"method":"Filecoin.ChainNotify","params":[]}"#;
        socket.send(Message::text(subscribe)).await.map_err(|e| FeedError::Lost(lost().because(e)))?;
        Ok(Self { endpoint: endpoint.clone(), socket, channel: None, silent: 0 })
    }

    /// The next notification; none after so long without one, whatever else the other side says: a subscription can
    /// end in silence on a connection that lives.
    pub(crate) async fn next(&mut self, silence: Duration) -> Result<Option<Vec<HeadChange>>, FeedError> {
        let until = Instant::now() + silence;
        loop {
            let message = match tokio::time::timeout_at(until, self.socket.next()).await {
                Err(_) if self.silent >= SILENT_PINGS => return Err(self.lost("no sign of life")),
                Err(_) => {
                    self.silent += 1;
                    let ping = self.socket.send(Message::Ping("damocles".into()));
                    let sent = tokio::time::timeout(silence, ping).await;
                    sent.map_err(|e| self.lost(e))?.map_err(|e| self.lost(e))?;
                    return Ok(None);
                }
                Ok(None) => return Err(self.lost("the connection was closed")),
                Ok(Some(Err(e))) => return Err(self.lost(e)),
                Ok(Some(Ok(message))) => message,
            };
            self.silent = 0;
            let body = match &message {
                Message::Text(text) => text.as_bytes(),
                Message::Binary(bytes) => bytes.as_ref(),
                Message::Close(_) => return Err(self.lost("the connection was closed")),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if let Some(changes) = read(&mut self.channel, body).map_err(|e| self.refused(e))? {
                return Ok(Some(changes));
            }
        }
    }

    fn error(&self, kind: ChainErrorKind) -> ChainError {
        ChainError::new(kind, "follow heads").with("endpoint", &self.endpoint)
    }

    fn lost(&self, source: impl Into<damocles_core::BoxError>) -> FeedError {
        FeedError::Lost(self.error(ChainErrorKind::Unavailable).because(source))
    }

    fn refused(&self, rejection: Rejection) -> FeedError {
        match rejection {
            Rejection::Node(e) if e.is_unknown_method() => {
                FeedError::Unsupported(self.error(ChainErrorKind::Rejected).because(e))
            }
            Rejection::Node(e) => FeedError::Lost(e.into_chain_error("follow heads").with("endpoint", &self.endpoint)),
            Rejection::Malformed(start) => {
                FeedError::Lost(self.error(ChainErrorKind::Malformed).with("notification", start))
            }
            Rejection::Closed => self.lost("the node closed the channel"),
        }
    }
}

#[derive(Debug)]
enum Rejection {
    Node(RpcError),
    Malformed(String),
    Closed,
}

/// Reads one message: the answer to the subscription, or a notification on its channel.
fn read(channel: &mut Option<Value>, body: &[u8]) -> Result<Option<Vec<HeadChange>>, Rejection> {
    let malformed = || Rejection::Malformed(start_of(body));
    let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(body) else {
        return Err(malformed());
    };
    let Some(Value::String(method)) = object.remove("method") else {
        *channel = Some(result_of(object).ok_or_else(malformed)?.map_err(Rejection::Node)?);
        return Ok(None);
    };
    let params = match object.remove("params") {
        Some(Value::Array(params)) => params,
        _ => return Err(malformed()),
    };
    let mut params = params.into_iter();
    let ours = match (&*channel, params.next()) {
        // Some servers notify before they answer; this connection has one channel.
        (None, Some(_)) => true,
        (Some(ours), Some(theirs)) => *ours == theirs,
        (_, None) => return Err(malformed()),
    };
    match (method.as_str(), params.next()) {
        _ if !ours => Ok(None),
        ("xrpc.ch.close", _) => Err(Rejection::Closed),
        ("xrpc.ch.val", Some(changes)) => serde_json::from_value(changes).map(Some).map_err(|_| malformed()),
        ("xrpc.ch.val", None) => Err(malformed()),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let mut channel = None;
        assert!(matches!(read(&mut channel, br#"{"jsonrpc":"2.0","result":5,"id":1}"#), Ok(None)));
        let cid = "bafy2bzaceaa43et73tgxsoh2xizd4mxhbrcfig4kqp25zfa5scdgkzppllyuu";
        let head = serde_json::json!({"Type": "current", "Val": {"Cids": [{"/": cid}], "Blocks": [], "Height": 3}});
        let val = serde_json::json!({"method": "xrpc.ch.val", "params": [5, [head]]}).to_string();
        assert_eq!(read(&mut channel, val.as_bytes()).unwrap().unwrap()[0].val.height, 3);
        let other = br#"{"method":"xrpc.ch.val","params":[6,[]]}"#;
        assert!(matches!(read(&mut channel, other), Ok(None)));
        assert!(matches!(read(&mut channel, br#"{"method":"xrpc.ch.close","params":[5]}"#), Err(Rejection::Closed)));
        assert!(matches!(read(&mut None, br#"{"error":{"code":1,"message":"no"},"id":1}"#), Err(Rejection::Node(_))));
        for rubbish in
            ["<html>", "[]", "{}", r#"{"method":"xrpc.ch.val","params":[5,7]}"#, r#"{"method":"xrpc.ch.val"}"#]
        {
            assert!(matches!(read(&mut channel, rubbish.as_bytes()), Err(Rejection::Malformed(_))), "{rubbish}");
        }
    }
}
