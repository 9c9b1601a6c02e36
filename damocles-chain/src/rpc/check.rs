//! Asking several nodes what they serve and where their chains are.

use super::{
    HealthState,
    agreement::{self, Identity, Verdict, View},
    node::Node,
    options::RpcOptions,
};
use crate::lotus_json::{Lotus, TipSet};
use damocles_core::chain::{ChainError, TipsetRef};
use futures::future::join_all;
use fvm_shared::bigint::BigInt;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tracing::debug;

/// A node that does not answer these within so long is no help now. The others do not wait for it any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks all nodes and sets their health. `network` is what the first of them served that ever answered.
pub(super) async fn check(nodes: &[Node], network: &parking_lot::Mutex<Option<Identity>>, options: &RpcOptions) {
    let limit = options.timeouts.quick.min(PATIENCE);
    let seen = join_all(nodes.iter().map(|node| look(node, limit))).await;
    let mut heads: Vec<Option<TipsetRef>> = Vec::with_capacity(nodes.len());
    for (node, seen) in nodes.iter().zip(seen) {
        heads.push(match seen {
            Ok((identity, head)) => {
                node.head_is(head.clone());
                let conflict = identity.conflict(network.lock().get_or_insert_with(|| identity.clone()));
                match conflict {
                    Some(reason) => {
                        node.becomes(HealthState::Refused, Some(reason));
                        None
                    }
                    None => Some(head),
                }
            }
            Err(error) => {
                node.becomes(HealthState::Away, Some(error.chain()));
                None
            }
        });
    }
    let asked = agreement::anchors(&heads, &options.agreement);
    let looking = nodes.iter().zip(&heads).zip(asked).map(|((node, head), epochs)| async move {
        let Some(head) = head else { return Ok(None) };
        let mut anchors = BTreeMap::new();
        for epoch in epochs {
            let params = json!([epoch, key_of(head)]);
            let tipset: TipSet = node.ask("Filecoin.ChainGetTipSetByHeight", &params, limit).await?;
            anchors.insert(epoch, tipset.to_ref().key);
        }
        Ok::<_, ChainError>(Some(View { head: head.clone(), anchors }))
    });
    let looked = join_all(looking).await;
    let mut views: Vec<Option<View>> = Vec::with_capacity(nodes.len());
    for (node, view) in nodes.iter().zip(looked) {
        views.push(view.unwrap_or_else(|error| {
            node.becomes(HealthState::Away, Some(error.chain()));
            None
        }));
    }
    let contested = !agreement::has_majority(&agreement::groups(&views, &options.agreement));
    let weights = if contested { weigh(nodes, &views, limit).await } else { Vec::new() };
    let verdicts = agreement::judge(&views, &weights, &options.agreement);
    for (node, verdict) in nodes.iter().zip(verdicts) {
        if let Some(Verdict { state, reason }) = verdict {
            node.becomes(state, reason);
        }
    }
}

fn key_of(head: &TipsetRef) -> Value {
    json!(Lotus(head.key.0.clone()))
}

/// What a node serves, and its head.
async fn look(node: &Node, limit: Duration) -> Result<(Identity, TipsetRef), ChainError> {
    let known = node.identity.lock().clone();
    let identity = match known {
        Some(identity) => identity,
        None => {
            let network: String = node.ask("Filecoin.StateNetworkName", &json!([]), limit).await?;
            // Not every node has its genesis at hand, and the name tells public networks apart.
            let genesis = match node.ask::<TipSet>("Filecoin.ChainGetGenesis", &json!([]), limit).await {
                Ok(tipset) => Some(tipset.to_ref().key),
                Err(error) => {
                    debug!(error = error.chain(), "a node does not tell its genesis");
                    None
                }
            };
            let identity = Identity { network, genesis };
            *node.identity.lock() = Some(identity.clone());
            identity
        }
    };
    let head: TipSet = node.ask("Filecoin.ChainHead", &json!([]), limit).await?;
    Ok((identity, head.to_ref()))
}

/// The weights of the heads, as each node has its own.
async fn weigh(nodes: &[Node], views: &[Option<View>], limit: Duration) -> Vec<Option<Lotus<BigInt>>> {
    let weighing = nodes.iter().zip(views).map(|(node, view)| async move {
        let params = json!([key_of(&view.as_ref()?.head)]);
        match node.ask("Filecoin.ChainTipSetWeight", &params, limit).await {
            Ok(weight) => Some(weight),
            Err(error) => {
                debug!(error = error.chain(), "a node does not weigh its head");
                None
            }
        }
    });
    join_all(weighing).await
}
