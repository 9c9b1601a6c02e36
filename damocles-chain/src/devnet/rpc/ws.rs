//! go-jsonrpc over a WebSocket: requests as over HTTP, and channels for subscriptions.

use super::{args::RpcFault, faults::Kind, server::DevnetRpc, view::tipset_json};
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
    /// The last tipset that was told.
    last: Arc<Tipset>,
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
                        None => answers.push(async move { self.respond(&text).await }),
                    }
                }
                Some(answers) = answers.next(), if !answers.is_empty() => {
                    for answer in answers {
                        outgoing.send(answer).await?;
                    }
                }
                more = wait_for_head(&mut heads) => {
                    if !more {
                        break;
                    }
                    for text in self.news(&mut channels) {
                        for text in self.told(text).await {
                            outgoing.send(text).await?;
                        }
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
        channels.open.insert(id.to_string(), Channel { number, last: head });
        Ok(vec![
            json!({"jsonrpc": "2.0", "id": id, "result": number}).to_string(),
            note("xrpc.ch.val", json!([number, [current]])),
        ])
    }

    /// What each subscriber has not been told. Read from the chain, so that one that lags misses nothing: first what was
    /// reverted, from the top, together with what came instead, then one by one what grew.
    fn news(&self, channels: &mut Channels) -> Vec<String> {
        let mut out = Vec::new();
        for channel in channels.open.values_mut() {
            let (reverted, applied) = self.devnet.chain.read().way(&channel.last);
            if let Some(last) = applied.last().or(reverted.last()) {
                channel.last = Arc::clone(last);
            }
            let is_fork = !reverted.is_empty();
            let reverted = reverted.iter().map(|t| self.change(HeadChangeKind::Revert, t));
            let applied = applied.iter().map(|t| self.change(HeadChangeKind::Apply, t));
            match reverted.chain(applied).collect::<Result<Vec<Value>, RpcFault>>() {
                Ok(changes) if is_fork => out.push(note("xrpc.ch.val", json!([channel.number, changes]))),
                Ok(changes) => {
                    out.extend(changes.into_iter().map(|c| note("xrpc.ch.val", json!([channel.number, [c]]))));
                }
                Err(e) => tracing::error!(error = %e, "head changes could not be told"),
            }
        }
        out
    }

    /// What is really sent of a channel's text.
    async fn told(&self, text: String) -> Vec<String> {
        let struck = self.devnet.faults.strike("xrpc.ch.val");
        tokio::time::sleep(struck.before() + struck.after()).await;
        if struck.has(&Kind::DropRequest) || struck.has(&Kind::DropAnswer) {
            return Vec::new();
        }
        let text = struck.falsify(text);
        let doubled = struck.has(&Kind::DuplicateRequest) || struck.has(&Kind::DuplicateAnswer);
        let twice = doubled.then(|| text.clone());
        std::iter::once(text).chain(twice).collect()
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
