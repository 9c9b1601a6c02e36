//! go-jsonrpc over a WebSocket: requests as over HTTP, and channels for subscriptions.

use super::{args::RpcFault, server::DevnetRpc, view::tipset_json};
use crate::{
    devnet::block::Tipset,
    lotus_json::{HeadChange, HeadChangeKind},
};
use futures::{Sink, SinkExt, Stream, StreamExt, stream::FuturesUnordered};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Requests of one connection that are answered at the same time. More have to wait.
const MAX_IN_FLIGHT: usize = 64;

/// A subscription to the head.
struct Channel {
    number: u64,
    /// The height of the last tipset that was told.
    last: i64,
}

/// The subscriptions of one connection, by the ID of the request that made each.
#[derive(Default)]
struct Channels {
    next: u64,
    open: BTreeMap<String, Channel>,
}

impl DevnetRpc {
    /// Serves one connection until it ends: the texts that come in, and a sink for those that go out.
    ///
    /// # Errors
    ///
    /// If nothing can be sent any more.
    pub async fn serve_ws<I, O>(&self, incoming: I, outgoing: O) -> Result<(), O::Error>
    where
        I: Stream<Item = String>,
        O: Sink<String>,
    {
        futures::pin_mut!(incoming, outgoing);
        let mut heads = self.devnet.heads.subscribe();
        let mut channels = Channels::default();
        let mut answers = FuturesUnordered::new();
        loop {
            tokio::select! {
                text = incoming.next(), if answers.len() < MAX_IN_FLIGHT => {
                    let Some(text) = text else { break };
                    match self.control(&text, &mut channels) {
                        Some(replies) => {
                            for reply in replies {
                                outgoing.send(reply).await?;
                            }
                        }
                        None => answers.push(async move { self.handle(&text).await }),
                    }
                }
                Some(answer) = answers.next(), if !answers.is_empty() => {
                    if let Some(answer) = answer {
                        outgoing.send(answer).await?;
                    }
                }
                more = wait_for_head(&mut heads) => {
                    if !more {
                        break;
                    }
                    for text in self.news(&mut channels) {
                        outgoing.send(text).await?;
                    }
                }
            }
        }
        for channel in channels.open.into_values() {
            outgoing.send(note("xrpc.ch.close", json!([channel.number]))).await?;
        }
        Ok(())
    }

    /// Subscribing and cancelling. None if the text is an ordinary request.
    fn control(&self, text: &str, channels: &mut Channels) -> Option<Vec<String>> {
        let request: Value = serde_json::from_str(text).ok()?;
        match request.get("method")?.as_str()? {
            "Filecoin.ChainNotify" => {
                let id = request.get("id").cloned().unwrap_or(Value::Null);
                Some(match self.subscribe(&id, channels) {
                    Ok(texts) => texts,
                    Err(e) => {
                        let error = json!({"code": e.code, "message": e.message});
                        vec![json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()]
                    }
                })
            }
            "xrpc.cancel" => {
                let id = request.get("params").and_then(|p| p.get(0)).map(Value::to_string).unwrap_or_default();
                let closed = channels.open.remove(&id);
                Some(closed.map(|c| note("xrpc.ch.close", json!([c.number]))).into_iter().collect())
            }
            _ => None,
        }
    }

    fn subscribe(&self, id: &Value, channels: &mut Channels) -> Result<Vec<String>, RpcFault> {
        let head = self.devnet.chain.read().head();
        channels.next += 1;
        let number = channels.next;
        let current = self.change(HeadChangeKind::Current, &head)?;
        channels.open.insert(id.to_string(), Channel { number, last: head.height });
        Ok(vec![
            json!({"jsonrpc": "2.0", "id": id, "result": number}).to_string(),
            note("xrpc.ch.val", json!([number, [current]])),
        ])
    }

    /// What each subscriber has not been told. Read from the chain, so that one that lags misses nothing.
    fn news(&self, channels: &mut Channels) -> Vec<String> {
        let mut out = Vec::new();
        for channel in channels.open.values_mut() {
            loop {
                let next = self.devnet.chain.read().child(channel.last);
                let Some(next) = next else { break };
                channel.last = next.height;
                match self.change(HeadChangeKind::Apply, &next) {
                    Ok(change) => out.push(note("xrpc.ch.val", json!([channel.number, [change]]))),
                    Err(e) => tracing::error!(error = %e, height = next.height, "a head change could not be told"),
                }
            }
        }
        out
    }

    fn change(&self, kind: HeadChangeKind, tipset: &Arc<Tipset>) -> Result<Value, RpcFault> {
        super::args::plain(&HeadChange { kind, val: tipset_json(&self.devnet, tipset)? })
    }
}

/// Whether there is a new head; false when there will be none any more.
async fn wait_for_head(heads: &mut Receiver<Arc<Tipset>>) -> bool {
    !matches!(heads.recv().await, Err(RecvError::Closed))
}

fn note(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}
