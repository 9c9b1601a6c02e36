//! Asking several nodes what they serve and where their chains are.

use super::{
    HealthState,
    agreement::{self, Contest, Identity, Verdict, View},
    identity::Known,
    node::Node,
    options::RpcOptions,
};
use crate::lotus_json::{Lotus, TipSet};
use damocles_core::chain::{ChainError, TipsetRef};
use futures::future::join_all;
use fvm_shared::bigint::BigInt;
use serde_json::{Value, json};
use std::time::Duration;
use tracing::debug;

/// A node that does not answer these within so long is no help now. The others do not wait for it any longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks all nodes and sets their health. `network` is what they served so far. The best head of those that can be relied
/// on.
pub(super) async fn check(nodes: &[Node], network: &parking_lot::Mutex<Known>, options: &RpcOptions) -> Option<i64> {
    let limit = options.timeouts.quick.min(PATIENCE);
    let seen = join_all(nodes.iter().map(|node| look(node, limit))).await;
    let known = {
        let told: Vec<Option<&Identity>> = seen.iter().map(|seen| Some(&seen.as_ref().ok()?.0)).collect();
        network.lock().decide(&told).cloned()
    };
    let mut heads: Vec<Option<TipsetRef>> = Vec::with_capacity(nodes.len());
    for (node, seen) in nodes.iter().zip(seen) {
        heads.push(match seen {
            Ok((identity, head)) => {
                node.head_is(head.clone());
                match known.as_ref().and_then(|known| identity.conflict(known)) {
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
    let looking = nodes.iter().zip(heads).zip(asked).map(|((node, head), epochs)| async move {
        let head = head?;
        let anchors = join_all(epochs.into_iter().map(|epoch| anchor(node, &head, epoch, limit))).await;
        Some(View { anchors: anchors.into_iter().flatten().collect(), head })
    });
    let views: Vec<Option<View>> = join_all(looking).await;
    let contest = Contest::new(&views, &options.agreement);
    let weights = if contest.is_open() { weigh(nodes, &views, limit).await } else { Vec::new() };
    let mut best = None;
    for ((node, view), verdict) in nodes.iter().zip(&views).zip(contest.decide(&views, &weights, &options.agreement)) {
        let Some(Verdict { state, reason }) = verdict else { continue };
        if state == HealthState::Ok {
            best = best.max(view.as_ref().map(|view| view.head.epoch.0));
        }
        node.becomes(state, reason);
    }
    best
}

fn key_of(head: &TipsetRef) -> Value {
    json!(Lotus(head.key.0.clone()))
}

/// The tipset of a node at an epoch; none if it does not tell.
async fn anchor(node: &Node, head: &TipsetRef, epoch: i64, limit: Duration) -> Option<(i64, TipsetRef)> {
    let params = json!([epoch, key_of(head)]);
    match node.ask::<TipSet>("Filecoin.ChainGetTipSetByHeight", &params, limit).await {
        Ok(tipset) => Some((epoch, tipset.to_ref())),
        Err(error) => {
            debug!(error = error.chain(), epoch, "a node does not tell its chain");
            None
        }
    }
}

/// What a node serves, and its head. All of it is asked for each time: behind an address, one node takes the place of
/// another without having been away.
async fn look(node: &Node, limit: Duration) -> Result<(Identity, TipsetRef), ChainError> {
    let none = json!([]);
    let (network, genesis, head) = tokio::join!(
        node.ask::<String>("Filecoin.StateNetworkName", &none, limit),
        node.ask::<TipSet>("Filecoin.ChainGetGenesis", &none, limit),
        node.ask::<TipSet>("Filecoin.ChainHead", &none, limit),
    );
    // Not every node has its genesis at hand, and the name tells public networks apart.
    let genesis = match genesis {
        Ok(tipset) => Some(tipset.to_ref().key),
        Err(error) => {
            debug!(error = error.chain(), "a node does not tell its genesis");
            None
        }
    };
    Ok((Identity { network: network?, genesis }, head?.to_ref()))
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
